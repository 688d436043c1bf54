"""Learning-rate schedules as pure functions of the epoch. They have no state to save or restore.

    rate = base rate * factor(t)        t = epoch + batch / batches per epoch, before the step

With T the length of training, w = ``warmup_epochs`` and p = (t - w) / (T - w), the part of training after warm-up that
is done, the factors are:

    Constant            1
    Step                gamma^floor(t / every)
    MultiStep           gamma^(number of milestones <= t)
    Exponential         final^p
    Inverse             (1 + gamma t)^-power
    Polynomial          final + (1 - final) (1 - p)^power       linear to zero by default
    Sigmoid             1 / (1 + exp(steepness (p - middle)))
    Cosine              (1 + cos(pi p)) / 2
    CosineCycles        the same in each cycle
    OneCycle            half a cosine up, half a cosine down
    WarmupStableDecay   1, then down to 0 in the last part

The first seven are the policies of Caffe (Jia et al. 2014, arXiv:1408.5093; sgd_solver.cpp): fixed, step, multistep,
exp, inv, poly and sigmoid. Caffe counts steps: its ``stepsize`` is ``every`` times the steps of an epoch, and its
``gamma`` of inv is ``gamma`` divided by them. Its gamma of exp is final^(1/steps). Its sigmoid can only rise, because
its gamma must not be negative; a negative ``steepness`` rises here.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal

from distill_lightning.errors import InputError
from distill_lightning.ranges import Count, Finite, Fraction, NonNegative, OpenFraction, Positive, Range
from distill_lightning.recorded import Recorded

Factor = Annotated[float, Range(above=0, at_most=1)]
AtLeastOne = Annotated[float, Range(at_least=1)]


class Schedule(Recorded, ABC):
    """A factor for the learning rate, computed before each step.

    Args:
        warmup_epochs: the number of epochs over which the learning rate rises linearly from 0. The first
            step already has one step's share of the rise.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, warmup_epochs: NonNegative = 0.0) -> None:
        self.warmup_epochs = warmup_epochs

    def factor(self, epoch: float, epochs: float, step: float) -> float:
        """The factor for the next step.

        Args:
            epoch: the position in training, in epochs with fractions, in [0, epochs).
            epochs: the length of training, in epochs.
            step: the length of a step, in epochs.
        """
        warmup = min(1.0, (epoch + step) / self.warmup_epochs) if self.warmup_epochs else 1.0
        return warmup * self.after_warmup(epoch, epochs)

    @abstractmethod
    def after_warmup(self, epoch: float, epochs: float) -> float:
        """The factor without warm-up; arguments as in ``factor``."""

    def done(self, epoch: float, epochs: float) -> float:
        """The part p of training after warm-up that is done, in [0, 1]; arguments as in ``factor``."""
        return min(max(0.0, epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9), 1.0)


class Constant(Schedule):
    """The same learning rate during all of training."""

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """1."""
        return 1.0


class Cosine(Schedule):
    """Falls from 1 to 0 along half a cosine after warm-up (Loshchilov & Hutter 2017, without restarts)."""

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """In [0, 1]; it starts to fall at the end of warm-up."""
        return (1 + math.cos(math.pi * self.done(epoch, epochs))) / 2


class Step(Schedule):
    """The learning rate is multiplied by ``gamma`` after every so many epochs.

    Args:
        every: the number of epochs between two drops.
        gamma: the factor at each drop.
        warmup_epochs: see Schedule.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, every: Positive, gamma: Factor = 0.1, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.every, self.gamma = every, gamma

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """``gamma`` to the power of the number of drops so far."""
        return self.gamma ** math.floor(epoch / self.every + 1e-9)


class MultiStep(Schedule):
    """The learning rate is multiplied by ``gamma`` at each milestone.

    Args:
        milestones: epochs in ascending order.
        gamma: the factor at each milestone.
        warmup_epochs: see Schedule.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(
        self,
        milestones: list[NonNegative],
        gamma: Factor = 0.1,
        warmup_epochs: NonNegative = 0.0,
    ) -> None:
        super().__init__(warmup_epochs)
        if sorted(milestones) != list(milestones):
            raise InputError(f"MultiStep.milestones are {milestones}: they must be in ascending order")
        self.milestones, self.gamma = milestones, gamma

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """``gamma`` to the power of the number of milestones that are reached."""
        return self.gamma ** sum(epoch + 1e-9 >= milestone for milestone in self.milestones)


class CosineCycles(Schedule):
    """Falls from 1 to 0 along half a cosine in each of several cycles (Loshchilov & Hutter 2017, with restarts).

    Args:
        cycles: the number of cycles; all have the same length.
        warmup_epochs: see Schedule. Warm-up is a part of the first cycle.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, cycles: Count, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.cycles = cycles

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """In [0, 1]."""
        within = (epoch * self.cycles / epochs + 1e-9) % 1
        return (1 + math.cos(math.pi * within)) / 2


class Exponential(Schedule):
    """Falls from 1 to ``final`` by the same factor in each step.

    Args:
        final: the factor at the end of training.
        warmup_epochs: see Schedule.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, final: Factor = 1e-3, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.final = final

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """In [final, 1]."""
        return math.pow(self.final, self.done(epoch, epochs))


class Inverse(Schedule):
    """Falls as (1 + gamma * epoch)^-power: fast at first, then ever more slowly. It does not depend on the length of
    training.

    Args:
        gamma: how fast it falls, for each epoch. Caffe's gamma is for each step: this one divided by the steps of an
            epoch.
        power: the exponent.
        warmup_epochs: see Schedule.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, gamma: NonNegative = 0.1, power: NonNegative = 0.75, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.gamma, self.power = gamma, power

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """In (0, 1]."""
        return math.pow(1 + self.gamma * epoch, -self.power)


class Polynomial(Schedule):
    """Falls from 1 to ``final`` along a power of the rest of training; by default linearly to zero.

    Args:
        power: the exponent; 1 is a line.
        final: the factor at the end of training.
        warmup_epochs: see Schedule.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, power: Positive = 1.0, final: Fraction = 0.0, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.power, self.final = power, final

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """In [final, 1]."""
        return self.final + (1 - self.final) * math.pow(1 - self.done(epoch, epochs), self.power)


class Sigmoid(Schedule):
    """Falls from 1 to 0 along a sigmoid.

    Args:
        steepness: how fast it falls in the middle. With a negative number it rises, as in Caffe.
        middle: the part of training after warm-up at which the factor is 1/2.
        warmup_epochs: see Schedule.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, steepness: Finite = 20.0, middle: OpenFraction = 0.5, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_epochs)
        self.steepness, self.middle = steepness, middle

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """In [0, 1]."""
        x = self.steepness * (self.done(epoch, epochs) - self.middle)
        small = math.exp(-abs(x))  # exp(x) of a large x overflows
        return small / (1 + small) if x > 0 else 1 / (1 + small)


class OneCycle(Schedule):
    """Rises along half a cosine to the base rate, then falls along half a cosine to almost 0 (Smith & Topin 2018,
    arXiv:1708.07120). The rates are those of torch's OneCycleLR, stepped for each batch; the momentum stays as it is.

    Args:
        rise: the part of training in which it rises.
        div: the first factor is 1 / div.
        final_div: the last factor is 1 / (div * final_div).

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, rise: OpenFraction = 0.3, div: AtLeastOne = 25.0, final_div: AtLeastOne = 1e4) -> None:
        super().__init__()
        self.rise, self.div, self.final_div = rise, div, final_div

    def factor(self, epoch: float, epochs: float, step: float) -> float:
        """In (0, 1]. The last step has exactly the last factor, so that the length of a step matters."""
        top, end = max(self.rise * epochs - step, step), max(epochs - step, step)
        if epoch <= top:
            return _half_cosine(1 / self.div, 1.0, epoch / top)
        return _half_cosine(1.0, 1 / (self.div * self.final_div), min((epoch - top) / max(end - top, step), 1.0))

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """The factor for a step of length 0."""
        return self.factor(epoch, epochs, 0.0)


class WarmupStableDecay(Schedule):
    """1 until the last part of training, then down to 0 (Zhai et al. 2022, arXiv:2106.04560; Hägele et al. 2024,
    arXiv:2405.18392). What is trained before the decay does not depend on the length of training.

    Args:
        decay: the part of training, at its end, in which it falls.
        shape: how it falls: "linear", or "sqrt", which is 1 - sqrt(the part of the decay that is done).
        warmup_epochs: see Schedule.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(
        self,
        decay: Factor = 0.2,
        shape: Literal["linear", "sqrt"] = "linear",
        warmup_epochs: NonNegative = 0.0,
    ) -> None:
        super().__init__(warmup_epochs)
        self.decay, self.shape = decay, shape

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """In [0, 1]."""
        done = min(max(0.0, (epoch / epochs - (1 - self.decay)) / self.decay), 1.0)
        return 1 - (math.sqrt(done) if self.shape == "sqrt" else done)


def _half_cosine(first: float, last: float, done: float) -> float:
    """From ``first`` to ``last`` along half a cosine; ``done`` is in [0, 1]."""
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2

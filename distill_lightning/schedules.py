"""Learning-rate schedules as pure functions of the epoch: nothing to save, nothing to restore."""

import math
from abc import ABC, abstractmethod

from distill_lightning.errors import InputError


class Schedule(ABC):
    """The factor on the learning rate. It is asked before each step.

    Args:
        warmup_epochs: the learning rate rises in a straight line over so many epochs, from one step's worth on.
    """

    def __init__(self, warmup_epochs: float = 0.0) -> None:
        if warmup_epochs < 0:
            raise InputError(f"warmup_epochs is {warmup_epochs}: it must be 0 or more")
        self.warmup_epochs = warmup_epochs

    def factor(self, epoch: float, epochs: float, step: float) -> float:
        """The factor for the next step.

        Args:
            epoch: how far training has come, with fractions, in [0, epochs).
            epochs: how long training is.
            step: how much of an epoch a step is.
        """
        warmup = min(1.0, (epoch + step) / self.warmup_epochs) if self.warmup_epochs else 1.0
        return warmup * self.after_warmup(epoch, epochs)

    @abstractmethod
    def after_warmup(self, epoch: float, epochs: float) -> float:
        """The factor, warm-up aside."""


class Constant(Schedule):
    """The same learning rate throughout."""

    def after_warmup(self, epoch: float, epochs: float) -> float:
        return 1.0


class Cosine(Schedule):
    """From 1 to 0 along half a cosine (Loshchilov & Hutter 2017, without restarts), after warm-up."""

    def after_warmup(self, epoch: float, epochs: float) -> float:
        done = max(0.0, epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9)
        return (1 + math.cos(math.pi * min(done, 1.0))) / 2


class MultiStep(Schedule):
    """Multiplied by ``gamma`` at each milestone.

    Args:
        milestones: epochs, rising.
        gamma: in (0, 1].
        warmup_epochs: see Schedule.
    """

    def __init__(self, milestones: list[float], gamma: float = 0.1, warmup_epochs: float = 0.0) -> None:
        super().__init__(warmup_epochs)
        if not 0 < gamma <= 1:
            raise InputError(f"gamma is {gamma}: it must lie in (0, 1]")
        if sorted(milestones) != list(milestones):
            raise InputError(f"milestones are {milestones}: they must rise")
        self.milestones, self.gamma = milestones, gamma

    def after_warmup(self, epoch: float, epochs: float) -> float:
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class CosineCycles(Schedule):
    """From 1 to 0 along half a cosine, several times over (Loshchilov & Hutter 2017, with restarts).

    Args:
        cycles: how many, of equal length.
        warmup_epochs: see Schedule.
    """

    def __init__(self, cycles: int, warmup_epochs: float = 0.0) -> None:
        super().__init__(warmup_epochs)
        if cycles < 1:
            raise InputError(f"cycles is {cycles}: it must be 1 or more")
        self.cycles = cycles

    def after_warmup(self, epoch: float, epochs: float) -> float:
        within = (epoch * self.cycles / epochs + 1e-9) % 1
        return (1 + math.cos(math.pi * within)) / 2

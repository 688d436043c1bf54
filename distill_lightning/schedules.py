"""Learning-rate schedules as pure functions of the epoch. They have no state to save or restore."""

import math
from abc import ABC, abstractmethod
from typing import Annotated

from distill_lightning.errors import InputError
from distill_lightning.ranges import Count, NonNegative, Range
from distill_lightning.recorded import Recorded


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


class Constant(Schedule):
    """The same learning rate during all of training."""

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """1."""
        return 1.0


class Cosine(Schedule):
    """Falls from 1 to 0 along half a cosine after warm-up (Loshchilov & Hutter 2017, without restarts)."""

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """In [0, 1]; it starts to fall at the end of warm-up."""
        done = max(0.0, epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9)
        return (1 + math.cos(math.pi * min(done, 1.0))) / 2


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
        gamma: Annotated[float, Range(above=0, at_most=1)] = 0.1,
        warmup_epochs: NonNegative = 0.0,
    ) -> None:
        super().__init__(warmup_epochs)
        if sorted(milestones) != list(milestones):
            raise InputError(f"MultiStep.milestones are {milestones}: they must be in ascending order")
        self.milestones, self.gamma = milestones, gamma

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """``gamma`` to the power of the number of milestones that are reached."""
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


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

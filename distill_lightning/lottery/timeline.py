"""The position of training within rounds of pruning."""

import re
from dataclasses import dataclass

from distill_lightning.errors import InputError
from distill_lightning.values import Position


@dataclass(frozen=True, slots=True)
class PruningTimeline:
    """The rounds of a fit: round 0, then the later rounds. All lengths are numbers of batches.

    Args:
        batches_per_epoch: the batches of an epoch.
        first: the batches that round 0 trains on.
        start: the batches that round 0 skips at its beginning: those before the step of the ticket that it starts from.
        skipped: the batches that each later round skips at its beginning: those before the rewind point k.
        later: the batches that each later round trains on.
        rounds: the number of later rounds.
        has_new_orders: whether each round has its own order of samples.
        stays_at_end: whether the schedule stays at its last value in later rounds.
        batches_per_step: the batches whose gradients are accumulated for one optimizer step.
    """

    batches_per_epoch: int
    first: int
    start: int
    skipped: int
    later: int
    rounds: int
    has_new_orders: bool
    stays_at_end: bool
    batches_per_step: int = 1

    @property
    def total(self) -> int:
        """The number of batches of all rounds together."""
        return self.first + self.rounds * self.later

    @property
    def length(self) -> int:
        """The number of batches of a whole training, T."""
        return self.first + self.start

    @property
    def epochs_in_all(self) -> int:
        """The number of epochs that the trainer needs for all rounds. The last one may be incomplete."""
        return -(-self.total // self.batches_per_epoch)

    def round_of(self, batch: int) -> tuple[int, int]:
        """The round of a batch, and the number of the batch in that round.

        Args:
            batch: the number of the batch since the start of training, from 0.

        Returns:
            The round, and the number of the batch in it, from 0. The batches that the round skips count too.
        """
        if batch < self.first:
            return 0, batch + self.start
        number, within = divmod(batch - self.first, self.later)
        return number + 1, within + self.skipped

    def steps(self, batches: int) -> int:
        """The number of optimizer steps in ``batches`` batches from the start of an epoch. The end of an epoch
        completes a step.
        """
        epochs, rest = divmod(batches, self.batches_per_epoch)
        return epochs * -(-self.batches_per_epoch // self.batches_per_step) + -(-rest // self.batches_per_step)

    def position(self, epoch: int, batch: int) -> Position | None:
        """The position just before a batch of one of the trainer's epochs; None after the end of the last round."""
        at = epoch * self.batches_per_epoch + batch
        if at >= self.total:
            return None
        number, within = self.round_of(at)
        epoch, batch = divmod(within, self.batches_per_epoch)
        schedule_epoch = epoch + batch / self.batches_per_epoch
        if self.stays_at_end and number:
            schedule_epoch = (self.length - 1) / self.batches_per_epoch
        step = epoch * -(-self.batches_per_epoch // self.batches_per_step) + batch // self.batches_per_step
        order = number if self.has_new_orders else 0
        return Position(epoch, batch, step, order, schedule_epoch, self.length / self.batches_per_epoch)


def batches_of(words: str, name: str, batches_per_epoch: int, batches_per_step: int) -> int:
    """The number of batches in "500 steps" or "2 epochs".

    Args:
        words: a number and "steps" or "epochs". Epochs may be a fraction.
        name: the name of the option, for the error.
        batches_per_epoch: the batches of an epoch.
        batches_per_step: the batches of an optimizer step.

    Raises:
        InputError: ``words`` has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) (step|epoch)s?", words)
    if not match or (match[2] == "step" and "." in match[1]):
        raise InputError(f'Lottery.{name} is "{words}": give words like "500 steps" or "2 epochs"')
    if match[2] == "step":
        return batches_in_steps(int(match[1]), batches_per_epoch, batches_per_step)
    return round(float(match[1]) * batches_per_epoch)


def batches_in_steps(steps: int, batches_per_epoch: int, batches_per_step: int) -> int:
    """The number of batches after a number of optimizer steps from the start of an epoch; see
    ``PruningTimeline.steps``.
    """
    epochs, rest = divmod(steps, -(-batches_per_epoch // batches_per_step))
    return epochs * batches_per_epoch + rest * batches_per_step

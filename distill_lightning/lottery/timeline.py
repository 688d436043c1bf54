"""Where training stands in rounds of pruning."""

import re
from dataclasses import dataclass

from distill_lightning.errors import InputError
from distill_lightning.values import Position


@dataclass(frozen=True, slots=True)
class PruningTimeline:
    """Round 0 and later rounds, one after the other. Everything is counted in batches.

    Args:
        batches_per_epoch: that are trained on.
        first: in round 0.
        start: left out at the beginning of round 0: the batches before the step that a ticket's weights belong to.
        skipped: k, which later rounds leave out at their beginning.
        later: in a later round.
        rounds: later rounds.
        has_new_orders: whether each round has its own order of samples.
        stays_at_end: whether the schedule stays at its end in later rounds.
        batches_per_step: whose gradients are added up for an optimizer step.
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
        """Batches of all rounds."""
        return self.first + self.rounds * self.later

    @property
    def length(self) -> int:
        """Batches that a whole training has: T."""
        return self.first + self.start

    @property
    def epochs_in_all(self) -> int:
        """Epochs of the trainer that all rounds take; the last may be a part of one."""
        return -(-self.total // self.batches_per_epoch)

    def round_of(self, batch: int) -> tuple[int, int]:
        """The round that a batch, counted from the start of training, belongs to, and its number in that round, skipped
        ones counted."""
        if batch < self.first:
            return 0, batch + self.start
        number, within = divmod(batch - self.first, self.later)
        return number + 1, within + self.skipped

    def steps(self, batches: int) -> int:
        """Optimizer steps in so many batches from the start of an epoch; an epoch's end completes one."""
        epochs, rest = divmod(batches, self.batches_per_epoch)
        return epochs * -(-self.batches_per_epoch // self.batches_per_step) + -(-rest // self.batches_per_step)

    def position(self, epoch: int, batch: int) -> Position | None:
        """Before the trainer's batch; None past the end of the last round."""
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
    """Batches in "500 steps" or "2 epochs".

    Args:
        words: see above.
        name: of the option, for the error.
        batches_per_epoch, batches_per_step: of the run.

    Raises:
        InputError: these are no such words.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) (step|epoch)s?", words)
    if not match or (match[2] == "step" and "." in match[1]):
        raise InputError(f'Lottery.{name} is "{words}": give words like "500 steps" or "2 epochs"')
    return int(match[1]) * batches_per_step if match[2] == "step" else round(float(match[1]) * batches_per_epoch)

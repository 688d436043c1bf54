"""A range test of the learning rate: a short training whose rate rises from step to step (Smith 2017, arXiv:1506.01186,
section 3.3; here the rate rises geometrically).

    rate of step i of n     low * (high / low)^(i / (n - 1))
    loss                    cross-entropy with the labels of the new samples of a batch, over ln K: 1 knows nothing
    bound                   the smallest rate after which the loss, as a mean over 3 steps, is more than 1.12 times that
                            of the first batch, or of a network that knows nothing if that is larger; or is not finite

The cross-entropy is measured for every method, whatever its own loss is, so that the threshold means the same. A loss
belongs to the rate of the step before it, which it is the result of.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import nn

from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.distributed import sum_over_processes
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import completes_no_step, leave_signals_alone
from distill_lightning.schedules import Constant
from distill_lightning.training.fit import start_from, with_lineage
from distill_lightning.training.parts import Parts, attached_for_now

RISE = 1.12
"""A loss has risen if it is so many times that at the start. Hardly a healthy one is (docs/explanations/doctor.md)."""
SMOOTHED = 3
"""Steps of a mean."""
MARGIN, MARGIN_WITH_BATCH_NORM = 10.0, 30.0
"""The bound over the rate that is suggested (docs/explanations/learning_rates.md has the measurements)."""
ENOUGH = 4.0
"""The test ends when the loss is so many times its start: what follows shows nothing more."""


@dataclass(frozen=True)
class RangeTest:
    """The result of a range test.

    Args:
        start: the loss of the first batch, over ln K.
        rates: the rate of each step.
        losses: for each step the loss of the next batch, over ln K; not finite at most in the last place.
        batch_norm: whether the network has batch norm.
        high: the largest rate that was asked for.
    """

    start: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    batch_norm: bool
    high: float

    @property
    def smoothed(self) -> list[float]:
        """The means over the last three losses, or over as many as there are."""
        windows = [self.losses[max(0, n + 1 - SMOOTHED) : n + 1] for n in range(len(self.losses))]
        return [sum(window) / len(window) for window in windows]

    @property
    def bound(self) -> float | None:
        """The smallest rate at which the loss rises; None if it does not."""
        limit = RISE * max(self.start, 1.0)
        return next((r for r, loss in zip(self.rates, self.smoothed, strict=True) if not loss <= limit), None)

    @property
    def margin(self) -> float:
        """The bound over the suggested rate."""
        return MARGIN_WITH_BATCH_NORM if self.batch_norm else MARGIN

    @property
    def suggestion(self) -> float | None:
        """A rate to begin with, rounded to one digit; None if the loss rises nowhere, or from the first steps on."""
        if self.bound is None or self.bound <= self.rates[0]:
            return None
        return float(f"{self.bound / self.margin:.0e}")


def range_test(parts: Parts, low: float = 1e-5, high: float = 10.0, steps: int = 100) -> RangeTest:
    """Trains for some steps, with a rate that rises at each of them. Nothing is written.

    The run is that of ``parts``: its method, teacher, weights to start from, callbacks and precision; without its
    schedule, without validation and checkpoints, and, if Lottery prunes the network, before the first round ends.
    Layers with a rate of their own keep their factor.

    Args:
        parts: the parts of the run. They are used up.
        low: the rate of the first step, above 0.
        high: the rate of the last step, above ``low``.
        steps: the number of optimizer steps, 10 or more.

    Raises:
        InputError: an argument is out of its range; the method trains nothing; or the run cannot be started.
    """
    if not 0 < low < high < math.inf:
        raise InputError(
            f"the rates go from {low:g} to {high:g}: expected two finite numbers above 0, the smaller first"
        )
    if steps < 10:
        raise InputError(f"steps is {steps}: it must be 10 or more")
    method, trainer = parts.method, parts.trainer
    if not method.trains:
        raise InputError(f"{type(method).__name__} trains nothing, so it has no learning rate")
    config = with_lineage(parts.config)
    watch = _Rising([low * (high / low) ** (step / (steps - 1)) for step in range(steps)])
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, SoftTargets):
            callback.mode = "online"  # a table of all samples would cost more than the test
    trainer.callbacks = [one for one in callbacks if _belongs(one)] + [watch]  # type: ignore[attr-defined]
    method.optimization.schedule = Constant()
    trainer.limit_val_batches = 0
    trainer.log_every_n_steps = 0  # type: ignore[attr-defined]
    trainer.fit_loop.max_epochs = max(trainer.max_epochs or 0, steps + 1)  # an epoch has a step or more
    leave_signals_alone(trainer)
    parts.user_loggers = []  # the user's trackers would keep the test
    with attached_for_now(parts, config):
        start_from(parts, config)
        with suppress(_EndedError):
            trainer.fit(method, datamodule=parts.data)
    batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.model.modules())
    start, *losses = watch.losses
    return RangeTest(start, tuple(watch.rates[: len(losses)]), tuple(losses), batch_norm, high)


class _EndedError(Exception):
    """Ends the fit when the test is over."""


class _Rising(Callback):
    """Sets the rate of each step, and records the loss of each batch."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates
        self.losses: list[float] = []
        self.parts = torch.zeros(2, dtype=torch.float64)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        rate = self.rates[min(trainer.global_step, len(self.rates) - 1)]
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_mult", 1.0)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        logits = outputs["logits"].double()
        loss = F.cross_entropy(logits, _double(batch.targets[: len(logits)]), reduction="sum")
        self.parts = self.parts.to(logits.device) + torch.stack([loss, torch.tensor(len(logits)).to(loss)])
        if completes_no_step(trainer):
            return
        summed, count = sum_over_processes(self.parts).tolist()
        self.parts = torch.zeros_like(self.parts)
        self.losses.append(summed / count / math.log(logits.shape[1]))
        over = not self.losses[-1] <= ENOUGH * max(self.losses[0], 1.0)
        if over or len(self.losses) > len(self.rates):
            raise _EndedError


def _double(targets: torch.Tensor) -> torch.Tensor:
    return targets.double() if targets.is_floating_point() else targets


def _belongs(callback: Callback) -> bool:
    """Whether a callback is part of the test. Those that wait for a validation, and pruning, are not."""
    return not isinstance(callback, Checkpoint | EarlyStopping) and (
        not isinstance(callback, Lottery) or callback.ticket is not None
    )

"""The learning rates of a whole training, computed before it: to draw them, and to refuse those that never train."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from distill_lightning.errors import InputError
from distill_lightning.optimizers import make_optimizer
from distill_lightning.schedulers import TorchSchedule
from distill_lightning.schedules import Schedule


def planned_rates(
    schedule: Schedule | TorchSchedule,
    make: Callable[[Iterable[Any]], Optimizer],
    epochs: int,
    batches_per_epoch: int,
    batches_per_step: int = 1,
) -> Iterator[tuple[float, float]]:
    """The learning rate of each step, in order.

    Args:
        schedule: the schedule.
        make: makes the optimizer, whose base rate counts.
        epochs: the length of training, in epochs.
        batches_per_epoch: the number of training batches in an epoch.
        batches_per_step: the number of batches whose gradients are accumulated for one optimizer step.

    Yields:
        The position before the step, in epochs, and the rate.

    Raises:
        InputError: the optimizer or the scheduler cannot be made; or it is ReduceLROnPlateau, whose rates depend on the
            results of validation.
    """
    optimizer = make_optimizer(make, [{"params": [nn.Parameter(torch.zeros(1, 1))]}])
    group = optimizer.param_groups[0]
    if isinstance(schedule, Schedule):
        for at, factor in planned_factors(schedule, epochs, batches_per_epoch):
            yield at, group["initial_lr"] * factor
        return
    steps = math.ceil(batches_per_epoch / batches_per_step)
    running = schedule.start(optimizer, epochs, epochs * steps)
    if running.monitor is not None:
        raise InputError(
            f"ReduceLROnPlateau cannot be drawn before training: it follows {running.monitor}. distill show RUN draws "
            "a run's rates"
        )
    for step in range(epochs * steps):
        running.before_step(step // steps, step)
        yield step / steps, group["lr"]


def planned_factors(schedule: Schedule, epochs: int, batches_per_epoch: int) -> Iterator[tuple[float, float]]:
    """The position before each step, in epochs, and the factor of the schedule; arguments as in ``planned_rates``."""
    for epoch in range(epochs):
        for batch in range(batches_per_epoch):
            at = epoch + batch / batches_per_epoch
            yield at, schedule.factor(at, epochs, 1 / batches_per_epoch)


def refuse_zero(
    schedule: Schedule | TorchSchedule,
    optimizer: Optimizer,
    make: Callable[[Iterable[Any]], Optimizer],
    epochs: int,
    batches_per_epoch: int,
    batches_per_step: int = 1,
) -> None:
    """Refuses a schedule that never trains. A base rate of 0 is allowed: it shows a network without training it.

    Args:
        schedule: the schedule. One of torch has started, and is not ReduceLROnPlateau.
        optimizer: the optimizer of the run.
        make: see ``planned_rates``.
        epochs: see ``planned_rates``.
        batches_per_epoch: see ``planned_rates``.
        batches_per_step: see ``planned_rates``.

    Raises:
        InputError: the base rate is not 0, and the rate of every step is.
    """
    groups = optimizer.param_groups
    if not any(group["initial_lr"] for group in groups):
        return
    if isinstance(schedule, Schedule):
        rates = planned_factors(schedule, epochs, batches_per_epoch)
    elif any(group["lr"] for group in groups):  # the rate of the first step
        return
    else:
        rates = planned_rates(schedule, make, epochs, batches_per_epoch, batches_per_step)
    if not any(rate for _, rate in rates):
        raise InputError(
            "model.schedule: the learning rate is 0 at every step, so nothing would be trained: change its options, or "
            "leave it out"
        )

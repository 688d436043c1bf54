"""Lightning's trainer with what every run of this program has."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, ProgressBar, Timer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.model_helpers import is_overridden

from distill_lightning.callbacks.progress import progress
from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import AtomicCheckpointIO
from distill_lightning.distributed import number_alone
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import ShortSteps
from distill_lightning.methods.base import Method
from distill_lightning.methods.foreign_callbacks import refuse_foreign
from distill_lightning.methods.taught import Taught
from distill_lightning.ranges import Count, CountOrZero, NonNegative, Positive, Range, refuse_faults

QUIET = r"(lightning|jsonargparse|torchmetrics|torch)\b"
"""Modules whose warnings the user cannot act on."""
DEFAULTS: dict[str, Any] = {"num_sanity_val_steps": 0, "enable_model_summary": False}
"""Options of the trainer whose defaults are not those of Lightning."""


@contextmanager
def quieted() -> Iterator[None]:
    """Within this block, libraries are silent about what the user cannot act on."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=QUIET)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class NullProfiler(PassThroughProfiler):
    """A profiler that does nothing and costs nothing. Lightning enters about thirty profiling contexts in each step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class LeanTrainer(pl.Trainer):
    """Lightning's trainer with ``ShortSteps``.

    A run that ``max_time`` ends is not finished and can go on: the callback RunCheckpoint ends it, in the place of
    Lightning's Timer. ``max_time`` limits the training time of one start.

    Raises:
        InputError: a callback does not work here, see ``methods.foreign_callbacks``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.world_size == 1:  # Lightning believes the environment, as of a task of a SLURM job that trains alone
            number_alone()
        ShortSteps(self)
        callbacks: list[Callback] = self.callbacks  # type: ignore[has-type]
        limits = [timer.time_remaining() for timer in callbacks if isinstance(timer, Timer)]
        self.callbacks = [callback for callback in callbacks if not isinstance(callback, Timer)]
        refuse_foreign(map(type, self.callbacks))
        for callback in self.callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.max_time_s = min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True)
class Equipment:
    """What every run adds to the trainer.

    Args:
        options: options of the trainer, which replace those of the user.
        checkpoint_io: writes and reads checkpoints; a part of ``options``.
        loggers: the user's loggers. The run adds its own when its folder is known.
    """

    options: dict[str, Any]
    checkpoint_io: AtomicCheckpointIO
    loggers: list[Logger]


def equip(options: Mapping[str, Any], method: Method, shows_progress: bool = True) -> Equipment:
    """Adds to the user's options of the trainer what every run has.

    Args:
        options: the user's options.
        method: the method of the run. Its own teacher becomes the callback SoftTargets.
        shows_progress: whether there is a progress bar if the user does not say.

    Raises:
        InputError: the method has a teacher of its own, and there is a callback SoftTargets as well.
    """
    checkpoint_io = AtomicCheckpointIO()
    plugins: list[Any] = [checkpoint_io]
    # torchrun may start the processes of a SLURM job; then it numbers them
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # its handler saves in the middle of a step
    callbacks: list[Callback] = listed(options.get("callbacks"))
    if isinstance(method, Taught) and method.teachers:
        if any(isinstance(callback, SoftTargets) for callback in callbacks):
            raise InputError(f"{type(method).__name__} has a teacher, and SoftTargets another one: leave one out")
        callbacks.append(SoftTargets([*method.teachers]))
    if shows_progress and options.get("enable_progress_bar") is not False:
        callbacks.append(progress())
    accelerator = options.get("accelerator")
    if accelerator in (None, "auto") and torch.backends.mps.is_available():
        accelerator = "cpu"  # Apple's GPU has no float64, which the running sums use
    added = {
        "accelerator": accelerator or "auto",
        "callbacks": callbacks,
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
        # the program's own loggers need the run's folder, which is chosen later
        "logger": False,
        "plugins": plugins + listed(options.get("plugins")),
        "profiler": options.get("profiler") or NullProfiler(),
    }
    refuse_twins(callbacks)
    loggers = [logger for logger in listed(options.get("logger")) if not isinstance(logger, bool)]
    return Equipment(added, checkpoint_io, loggers)


RANGES = {
    "accumulate_grad_batches": Count,
    "check_val_every_n_epoch": Count,
    "gradient_clip_val": NonNegative,
    "limit_predict_batches": NonNegative,
    "limit_test_batches": NonNegative,
    "limit_train_batches": Positive,
    "limit_val_batches": NonNegative,
    "log_every_n_steps": CountOrZero,
    "num_sanity_val_steps": Annotated[int, Range(at_least=-1)],
    "val_check_interval": Positive,
}
"""The ranges of numbers that Lightning's trainer takes without a check, or refuses in the middle of a run."""


def refuse_odd_length(options: Mapping[str, Any], trains: bool) -> None:
    """Checks the length of a fit.

    Args:
        options: the options of the trainer.
        trains: whether the method trains a network.

    Raises:
        InputError: the length is not given in epochs, or is less than one.
    """
    if options.get("max_steps") not in (-1, None):
        raise InputError(f"trainer.max_steps is {options['max_steps']}: give trainer.max_epochs instead")
    if (options.get("max_epochs") or 0) < 1 and trains:
        raise InputError(f"trainer.max_epochs is {options.get('max_epochs')}: give the number of epochs, 1 or more")


def refuse_odd_numbers(options: Mapping[str, Any]) -> None:
    """Checks numbers among the options of the trainer.

    Raises:
        InputError: a number is out of its range.
    """
    for name, hint in RANGES.items():
        if isinstance(given := options.get(name), int | float):
            refuse_faults(hint, given, f"trainer.{name}")


def refuse_twins(callbacks: Sequence[Callback]) -> None:
    """Refuses two callbacks whose states would have the same name in a checkpoint.

    Raises:
        InputError: there are such callbacks.
    """
    seen: set[str] = set()
    for callback in callbacks:
        if is_overridden("state_dict", callback, Callback) and callback.state_key in seen:
            raise InputError(f"the callback {type(callback).__name__} is given twice: leave one out")
        seen.add(callback.state_key)


def refuse_overfit(options: Mapping[str, Any]) -> None:
    """Refuses the trainer's option overfit_batches.

    Raises:
        InputError: it is set.
    """
    if options.get("overfit_batches"):
        raise InputError("trainer.overfit_batches does not work here: give data.train_part instead, say 64")


def listed(given: Any) -> list[Any]:
    """An option of the trainer that takes one object or several, as a list; empty for None."""
    return [one for one in (given if isinstance(given, list | tuple) else [given]) if one is not None]

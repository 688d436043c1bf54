"""Checks the callbacks of a trainer before a fit: those of Lightning that do not work here, and metrics to monitor."""

from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

from lightning.pytorch import callbacks as of_lightning
from lightning.pytorch.callbacks import Callback

from distill_lightning.errors import InputError

INSTEAD: Mapping[type, str] = {
    of_lightning.BatchSizeFinder: "try sizes with `distill bench`, and give data.batch_size, which changes the result",
    of_lightning.LearningRateFinder: "the schedule sets the rates that it tries: find one with `distill lr`",
    of_lightning.BaseFinetuning: "the schedule does not know the groups that it adds: give model.fine_tuning",
    of_lightning.GradientAccumulationScheduler: "the length of training would change: give "
    "trainer.accumulate_grad_batches",
    of_lightning.ModelPruning: "it loses its masks on resume: give the callback Lottery",
    of_lightning.StochasticWeightAveraging: "it replaces the schedule: give the callback EMA",
    of_lightning.WeightAveraging: "it replaces weights in checkpoints, and resumes inexactly: give the callback EMA",
    of_lightning.OnExceptionCheckpoint: "a run cannot go on from the middle of a step: give checkpoint.every_n_steps",
    of_lightning.SpikeDetection: "it leaves out batches, whose order is fixed here: give trainer.gradient_clip_val",
    of_lightning.Timer: "give trainer.max_time, after which the run can go on",
}
"""The callbacks of Lightning that do not work with the methods here, each with the reason and what to use instead."""


SET_RATES = (of_lightning.LearningRateFinder, of_lightning.BaseFinetuning, of_lightning.StochasticWeightAveraging)
"""Those of them that no trainer can use with a method of this program, since the method sets the learning rate."""


def refuse_foreign(classes: Iterable[type], kinds: Iterable[type] = tuple(INSTEAD)) -> None:
    """Refuses callbacks of Lightning that do not work here.

    Args:
        classes: the classes of the callbacks.
        kinds: the kinds of callbacks that are refused.

    Raises:
        InputError: there is such a callback. The message says what to use instead.
    """
    for found in classes:
        for kind in kinds:
            if issubclass(found, kind):
                raise InputError(f"the callback {found.__name__} does not work here: {INSTEAD[kind]}")


def refuse_unknown_monitors(callbacks: Iterable[Callback], tags: Iterable[str], module: Any) -> None:
    """Refuses callbacks that monitor a metric that nothing logs.

    A method or callback of the user may log more with ``self.log``; its attribute ``logs`` can name the tags. If one
    calls ``log`` without naming tags, nothing is refused, because what it logs is not known before training.

    Args:
        callbacks: all callbacks of the trainer. Those of this program are not checked.
        tags: the tags that the method logs in validation.
        module: the method.

    Raises:
        InputError: there is such a callback. The message names the metrics that exist.
    """
    callbacks = list(callbacks)
    known = tags_of([module, *callbacks])
    if known is None:
        return
    known |= {*tags}
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        theirs = type(callback).__module__.partition(".")[0] != "distill_lightning"
        of_checkpoint = ("epoch", "step") if isinstance(callback, of_lightning.ModelCheckpoint) else ()
        if theirs and isinstance(monitor, str) and monitor not in (*known, *of_checkpoint):
            raise InputError(f"{type(callback).__name__} monitors {monitor}: {give_one_of(known)}")


def tags_of(loggers: Iterable[Any]) -> set[str] | None:
    """The tags that methods and callbacks name in ``logs``; None if one may log metrics that it does not name.

    Args:
        loggers: the objects; or, before they are made, their classes.
    """
    loggers = list(loggers)
    named = [getattr(one, "logs", ()) for one in loggers]
    if any(map(_may_log, loggers)) or not all(isinstance(tags, list | tuple | set) for tags in named):
        return None
    return {tag for tags in named for tag in tags}


def give_one_of(tags: Iterable[str]) -> str:
    """The end of an error message about an unknown metric: the tags that exist."""
    return f"give one of {', '.join(sorted(tags))}" if tags else "there is no validation, give data.val_size"


def _may_log(one: Any) -> bool:
    """Whether a class of the user, or an object of it, logs metrics without naming them in ``logs``."""
    if hasattr(one, "logs"):
        return False
    made = one if isinstance(one, type) else type(one)
    theirs = [c for c in made.__mro__ if c.__module__.partition(".")[0] not in ("distill_lightning", "lightning")]
    code = [f.__code__ for c in theirs for f in vars(c).values() if isinstance(f, FunctionType)]
    return any(name in one.co_names for one in code for name in ("log", "log_dict", "log_metrics"))

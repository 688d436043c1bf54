"""The trainer of this program."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.profilers import PassThroughProfiler

from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.lightning_internals import skip_signature_lookup
from distill_lightning.methods.foreign_callbacks import refuse_foreign


class NullProfiler(PassThroughProfiler):
    """A profiler that does nothing and costs nothing. Lightning enters about thirty profiling contexts in each step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class Trainer(pl.Trainer):
    """Lightning's trainer, but it does not look up the signature of ``training_step`` at every step.

    A run that ``max_time`` ends is not finished and can go on: the callback RunCheckpoint ends it, in the place of
    Lightning's Timer. ``max_time`` limits the training time of one start.

    Raises:
        InputError: a callback does not work here, see ``methods.foreign_callbacks``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        skip_signature_lookup(self)
        callbacks: list[Callback] = self.callbacks  # type: ignore[has-type]
        limits = [timer.time_remaining() for timer in callbacks if isinstance(timer, Timer)]
        self.callbacks = [callback for callback in callbacks if not isinstance(callback, Timer)]
        refuse_foreign(map(type, self.callbacks))
        for callback in self.callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.max_time_s = min((limit for limit in limits if limit is not None), default=None)

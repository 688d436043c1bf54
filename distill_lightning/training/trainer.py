"""The trainer of this program."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.profilers import PassThroughProfiler

from distill_lightning.lightning_internals import skip_signature_lookup


class NullProfiler(PassThroughProfiler):
    """A profiler that does nothing and costs nothing. Lightning enters about thirty profiling contexts in each step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class Trainer(pl.Trainer):
    """Lightning's trainer, but it does not look up the signature of ``training_step`` at every step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        skip_signature_lookup(self)

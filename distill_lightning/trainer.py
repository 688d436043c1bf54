"""The trainer with what every run has."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.profilers import PassThroughProfiler

from distill_lightning.lightning_internals import skip_signature_lookup


class NullProfiler(PassThroughProfiler):
    """No profile, and none of its cost: Lightning opens some thirty of these contexts in a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class Trainer(pl.Trainer):
    """Lightning's trainer, for methods of this program: it does not look up the signature of a step at every step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        skip_signature_lookup(self)

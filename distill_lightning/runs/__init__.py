"""Run folders, and the configuration of a run. Nothing here imports torch."""

from distill_lightning.runs.config import SHAPE, Declared, RunConfig, flatten, identity, named
from distill_lightning.runs.folder import Run, find, resume, start
from distill_lightning.runs.metrics import read_metrics

__all__ = [
    "SHAPE",
    "Declared",
    "Run",
    "RunConfig",
    "find",
    "flatten",
    "identity",
    "named",
    "read_metrics",
    "resume",
    "start",
]

"""The processes of a run: those that the first one starts, and those that somebody else did."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl

from distill_lightning.callbacks.run_checkpoint import CHILD, end_children
from distill_lightning.distributed import first_decides
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import cluster_environment
from distill_lightning.runs import Run


def decide_run(trainer: pl.Trainer, decide: Callable[[], Run]) -> Run:
    """The run that the first process decides on, for all of them; an error of the first is everyone's.

    Raises:
        InputError: what ``decide`` raises; or processes on several machines cannot meet before the run is known.
    """
    if CHILD in os.environ:  # the first one has decided, and started this one
        folder, _, resume_from = os.environ[CHILD].partition("\n")
        return Run(Path(folder), Path(resume_from) if resume_from else None)
    if trainer.world_size == 1:
        return decide()
    # one process on each of several machines: each was started by hand, as NODE_RANK says
    are_there = cluster_environment(trainer).creates_processes_externally or trainer.num_devices == 1
    if are_there:
        trainer.strategy.setup_environment()  # let them meet now
        return first_decides(decide)
    if trainer.num_nodes > 1:
        raise InputError(
            f"trainer.num_nodes is {trainer.num_nodes}, with {trainer.num_devices} processes on each: start them with "
            "torchrun or SLURM, so that all know of one run"
        )
    return decide()


@contextmanager
def children(trainer: pl.Trainer, run: Run | None = None) -> Iterator[None]:
    """Within this block, processes that the trainer starts learn which run it is; when this one fails, they end too."""
    if CHILD in os.environ:  # this is one of them
        yield
        return
    os.environ[CHILD] = f"{run.folder}\n{run.resume_from or ''}" if run else "\n"
    try:
        yield
    except BaseException:
        end_children(trainer)
        raise
    finally:
        os.environ.pop(CHILD, None)

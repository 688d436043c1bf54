"""Lets all processes of a run use one run folder, whether the first process or a launcher has started them."""

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
    """Chooses the run in the first process, and tells the other processes. They raise the errors of the first one too.

    Args:
        trainer: the trainer, which knows the processes.
        decide: chooses the run. It is called in the first process only.

    Raises:
        InputError: ``decide`` raised it; or there are several machines whose processes no launcher has started.
    """
    if CHILD in os.environ:  # the first process has chosen the run, and then started this process
        folder, _, resume_from = os.environ[CHILD].partition("\n")
        return Run(Path(folder), Path(resume_from) if resume_from else None)
    if trainer.world_size == 1:
        return decide()
    # with one process on each of several machines, the user has started each by hand, with NODE_RANK set
    are_there = cluster_environment(trainer).creates_processes_externally or trainer.num_devices == 1
    if are_there:
        trainer.strategy.setup_environment()  # connects the processes
        return first_decides(decide)
    if trainer.num_nodes > 1:
        raise InputError(
            f"trainer.num_nodes is {trainer.num_nodes}, with {trainer.num_devices} processes on each: start them with "
            "torchrun or SLURM, so that all of them use one run folder"
        )
    return decide()


@contextmanager
def children(trainer: pl.Trainer, run: Run | None = None) -> Iterator[None]:
    """Within this block, processes that the trainer starts use the same run. They are killed if this process fails."""
    # with one process there are no children, and other runs may be in it; or the first process has started this one
    if trainer.world_size == 1 or CHILD in os.environ:
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

"""Lets all processes of a run use one run folder, whether the first process or a launcher has started them."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl

from distill_lightning.callbacks.run_checkpoint import CHILD, end_children
from distill_lightning.distributed import first_decides, process_count
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import cluster_environment
from distill_lightning.runs import Run

_fits = itertools.count()
"""Numbers the fits that are begun in this process."""


def decide_run(trainer: pl.Trainer, decide: Callable[[], Run]) -> Run:
    """Chooses the run in the first process, and tells the other processes. They raise the errors of the first one too.

    Args:
        trainer: the trainer, which knows the processes.
        decide: chooses the run. It is called in the first process only.

    Raises:
        InputError: ``decide`` raised it; there are several machines whose processes no launcher has started; an
            earlier fit of this script had another number of processes; a launcher has started other processes than the
            options ask for; or the processes would be forked or spawned.
    """
    there, is_first_fit = process_count(), next(_fits) == 0
    chosen = os.environ.pop(CHILD, None)  # not for a later fit of the same script
    if chosen is not None:  # the first process has chosen the run, and then started this process
        folder, _, resume_from = chosen.partition("\n")
        return Run(Path(folder), Path(resume_from) if resume_from else None)
    if there > 1 and trainer.world_size != there:
        raise InputError(
            f"the {there} processes of an earlier fit all run this one, which is for {trainer.world_size}: give all "
            "fits as many devices, or use a script for each"
        )
    if trainer.world_size != (wanted := trainer.num_devices * trainer.num_nodes):
        raise InputError(
            f"the job has started {trainer.world_size} processes, and the run has {wanted} devices: start the job with "
            f"as many tasks (srun), or give --trainer.devices {max(1, trainer.world_size // trainer.num_nodes)}"
        )
    launcher = trainer.strategy.launcher
    if trainer.world_size > 1 and launcher is not None and launcher.is_interactive_compatible:
        raise InputError(
            "processes that are forked or spawned, as in a notebook, do not bring the trained network back: use one "
            "device, or a script with the strategy ddp"
        )
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
    if not is_first_fit and launcher is not None:
        raise InputError(
            "new processes run the script from its top, so they would repeat the fit before this one: give several "
            "devices to the first fit, too, or start the script with torchrun"
        )
    return decide()


@contextmanager
def children(trainer: pl.Trainer, run: Run | None = None) -> Iterator[None]:
    """Within this block, processes that the trainer starts use the same run. They are killed if this process fails."""
    if trainer.world_size == 1:  # there are no children, and other runs may be in this process
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

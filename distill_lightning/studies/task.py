"""What a dask worker does: it trains one run in a process of its own, unless the run is finished.

A task may be run twice without harm: the folder of a run is locked, and a finished run is found. So dask may start a
task again when it has lost a worker. The worker, the study and the run share a file system.
"""

import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_lightning.runs import Run
from distill_lightning.studies import process
from distill_lightning.studies.resources import Resources

if TYPE_CHECKING:
    from distributed import Worker

POLL_S = 0.1
"""Seconds between two looks at the process of a run."""
PATIENCE_S = 60
"""Seconds that runs have to save a checkpoint when they must end, and that a file system has to show here what was
written elsewhere.
"""
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_active: set[str] = set()
"""The keys of the tasks that this process is running."""
_signals: dict[str, int] = {}
"""Signals for the runs of a study, or for one run, by the mark of the study or the key of the task."""


@dataclass(frozen=True)
class Task:
    """A run to train. All paths are absolute."""

    key: str
    """The name of the task in dask."""
    study: str
    """The mark of the study, which other studies on the same scheduler do not have."""
    arguments: tuple[str, ...]
    """The arguments of the command ``distill`` that train the run."""
    run: Path
    """The folder of the run."""
    folder: Path
    """The folder that the study was started in: relative paths in the arguments start there."""
    log: Path
    """The file for the output of the run."""
    requested_gpus: int | None
    """See `distill_lightning.studies.plan.requested_gpus`."""
    resources: Resources
    gpus: tuple[str, ...] | None
    """Names of the GPUs to share, as CUDA_VISIBLE_DEVICES takes them; None for those that the worker has."""
    threads: dict[str, str]
    """The environment variables for threads that the user has set for the study."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    state: Literal["finished", "busy", "left", "ended"]
    """Another process trains a run that is ``busy``. The worker was closing when a run was ``left``. A run that has
    ``ended`` without being finished has failed, or was asked to end."""
    words: str = ""
    """The error message of a run that has ended."""
    duration_s: float = 0.0


def train(task: Task) -> Outcome:
    """Trains a run, unless it is finished or another process is training it."""
    from distributed import get_worker

    worker = get_worker()
    if not task.folder.is_dir():
        where = f"{socket.gethostname()} has no {task.folder}"
        return Outcome("ended", f"{where}: the workers and the study must share a file system")
    with _marked(task.key):
        if Run(task.run).summary.is_file():
            return Outcome("finished")
        if Run(task.run).busy():
            return Outcome("busy")
        if _signal_for(task, worker):
            return Outcome("left")
        worker.log_event(task.study, [task.key, "started"])
        try:
            with process.share_of_gpus(*_gpus(task)) as gpus:
                env = _threads(task, worker) | ({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus})
                return _watch(process.start(task.arguments, task.folder, task.log, env), task, worker)
        finally:
            worker.log_event(task.study, [task.key, "ended"])


def send(mark: str, number: int) -> list[str]:
    """Sends a signal to the runs of this worker. It reaches those that start later, too.

    Args:
        mark: the mark of a study, for all its runs; or the key of a task.
        number: the signal; 0 for none any more.

    Returns:
        The keys of the tasks that this worker is running.
    """
    if number:
        _signals[mark] = number
    else:
        for known in [known for known in _signals if known.startswith(mark)]:
            del _signals[known]
    return [*_active]


@contextlib.contextmanager
def _marked(key: str) -> Iterator[None]:
    """A context in which a task counts as one that is running."""
    _active.add(key)
    try:
        yield
    finally:
        _active.discard(key)


def _watch(started: process.StartedRun, task: Task, worker: "Worker") -> Outcome:
    """Waits for the end of a process, and sends it the signals that are meant for it."""
    begin, sent, minutes = time.monotonic(), 0, task.resources.minutes
    end_s, over_s = math.inf if minutes is None else begin + 60 * minutes, -math.inf
    while not started.has_ended():
        over_s = time.monotonic() - end_s
        # a run that hangs does not save a checkpoint, and would keep its cores and GPUs
        due = KILL if over_s > PATIENCE_S else signal.SIGTERM if over_s > 0 else 0
        wanted = _signal_for(task, worker) or due
        if wanted and (not sent or wanted == KILL != sent):  # a second SIGTERM would end a run without a checkpoint
            started.send(wanted)
            sent = wanted
        time.sleep(POLL_S)
    duration_s = time.monotonic() - begin
    if Run(task.run).summary.is_file():
        return Outcome("finished", duration_s=duration_s)
    if Run(task.run).busy():  # another process has locked its folder first
        return Outcome("busy")
    if _closes(worker):
        return Outcome("left")
    words = f"ended after the {minutes} minutes of its resources" if over_s > 0 else started.last_words()
    return Outcome("ended", words, duration_s)


def _signal_for(task: Task, worker: "Worker") -> int:
    """The signal that the study has sent; SIGTERM if nobody waits for the run any more, or the worker closes; 0 for
    none.
    """
    if number := _signals.get(task.study) or _signals.get(task.key):
        return number
    known = worker.state.tasks.get(task.key)
    # dask cancels the tasks of a study that was killed
    return signal.SIGTERM if _closes(worker) or known is None or known.state == "cancelled" else 0


def _closes(worker: "Worker") -> bool:
    """Whether a worker is going to end, for example since its scheduler is gone."""
    return worker.status.name in ("closing", "closing_gracefully", "closed")


def _gpus(task: Task) -> tuple[tuple[str, ...], int | None]:
    """The names of the GPUs to choose from, and how many the run gets; None if it chooses itself."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = task.gpus if task.gpus is not None else tuple(visible.split(",")) if visible else ()
    if task.requested_gpus is None:
        return names, None
    count = task.requested_gpus if task.resources.gpus is None else task.resources.gpus
    return names, count if names or task.resources.gpus == 0 else None


def _threads(task: Task, worker: "Worker") -> dict[str, str]:
    """The environment variables for the threads of a run."""
    cores = worker.state.total_resources.get("cores", process.available_cores())
    share = task.resources.cores or max(1, int(cores) // worker.state.nthreads)
    return {"OMP_NUM_THREADS": str(share), **task.threads}

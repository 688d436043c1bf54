"""The process of a run on the machine that trains it, and its share of the cores and GPUs."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from distill_lightning.environment import OF_STUDY

PROGRAM = (sys.executable, "-m", "distill_lightning")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables for the number of threads. dask sets them to 1 in the processes of its workers."""
OF_LAUNCHERS = (
    "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "RANK", "LOCAL_RANK", "WORLD_SIZE",
)  # fmt: skip
"""Environment variables that count the processes of a job, which are those of the study's workers, not of its runs."""
_users: Counter[str] = Counter()
"""How many runs of this process use each GPU."""
_lock = threading.Lock()


@dataclass(frozen=True)
class StartedRun:
    """The process of a run, and the file of its output."""

    process: "subprocess.Popen[bytes]"
    log: Path
    log_start: int
    """The size of the log in bytes before the process started: earlier starts wrote that part."""

    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def send(self, number: int) -> None:
        """Sends a signal. SIGKILL also reaches the processes that the run has started."""
        if number == getattr(signal, "SIGKILL", None):
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def last_words(self) -> str:
        """The error message of the process that has ended; its exit status if there is no message."""
        with open(self.log, errors="replace") as log:
            log.seek(self.log_start)
            lines = log.read().splitlines()
        status = self.process.returncode
        error = next((line for line in reversed(lines) if line.startswith("distill:")), None)
        return error or (f"killed by signal {-status}" if status < 0 else f"status {status}")


def start(arguments: tuple[str, ...], folder: Path, log: Path, env: Mapping[str, str]) -> StartedRun:
    """Starts a run.

    Args:
        arguments: the arguments of the command ``distill``.
        folder: the folder to run it in.
        log: the file that its output is added to.
        env: environment variables that differ from those of this process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
        log_start = file.tell()  # read before the process writes, because both share the position in the file
        # in its own session, so that Ctrl-C on the terminal reaches only the study, which passes it on once
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in (*THREADS, *OF_LAUNCHERS)}
            | {OF_STUDY: str(os.getpid()), **env},
        )
        return StartedRun(process, log, log_start)


@contextlib.contextmanager
def share_of_gpus(names: tuple[str, ...], requested: int | None) -> Iterator[str | None]:
    """A context in which a run uses GPUs. It gives their names, as a value of CUDA_VISIBLE_DEVICES; None if the run
    chooses itself.

    A run gets those that the fewest runs use. It gets as many as it requests, even if other runs use them too.

    Args:
        names: the names of all GPUs.
        requested: the number of GPUs that the run requests; -1 for all; None if it chooses itself.
    """
    if requested is None:
        yield None
        return
    with _lock:
        count = requested if requested >= 0 else len(names)
        chosen = sorted(sorted(names, key=lambda name: (_users[name], names.index(name)))[:count], key=names.index)
        _users.update(chosen)
    try:
        yield ",".join(chosen)
    finally:
        with _lock:
            _users.subtract(chosen)


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """The memory of this machine in bytes; 0 if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0

"""Starts the processes of runs on this machine, and sends them signals."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from distill_lightning.environment import OF_STUDY
from distill_lightning.studies.plan import PlannedRun


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

    def pass_on(self, number: int) -> None:
        """Sends a signal that the study has received. A run handles SIGINT and SIGTERM; any other signal is sent as
        SIGTERM.
        """
        handled = number in (signal.SIGINT, signal.SIGTERM)
        self.process.send_signal(number if handled else signal.SIGTERM)

    def kill(self) -> None:
        """Kills the process, and the processes that it has started."""
        if hasattr(os, "killpg"):
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    def ask_to_end(self) -> None:
        """Sends SIGTERM, so that the run saves a checkpoint and ends."""
        self.process.terminate()

    def wait_or_kill(self, timeout_s: float) -> None:
        """Waits until the process has ended, and kills it after ``timeout_s`` seconds."""
        try:
            self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def last_words(self) -> str:
        """The error message of the process that has ended; its exit status if there is no message."""
        with open(self.log, errors="replace") as log:
            log.seek(self.log_start)
            lines = log.read().splitlines()
        status = self.process.returncode
        error = next((line for line in reversed(lines) if line.startswith("distill:")), None)
        return error or (f"killed by signal {-status}" if status < 0 else f"status {status}")


@dataclass(frozen=True)
class LocalEngine:
    """Starts runs on this machine. Runs that are trained at once share its cores and GPUs."""

    folder: Path
    """The folder for the output of the runs, with a file <name>.log for each."""
    jobs: int
    """How many runs are trained at once."""
    gpus: tuple[str, ...] = ()
    """Names of the GPUs to share, as CUDA_VISIBLE_DEVICES takes them; empty for none."""

    def log(self, run: PlannedRun) -> Path:
        """The file for the output of a run."""
        return self.folder / f"{run.folder.name}.log"

    def start(self, run: PlannedRun, slot: int) -> StartedRun:
        """Starts a run.

        Args:
            run: the run to start.
            slot: a number from 0 to ``jobs`` - 1 that no other running run has. It decides which GPUs the run uses.
        """
        env = dict(os.environ) | {OF_STUDY: str(os.getpid())}
        env.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // self.jobs)))
        if self.gpus and run.requested_gpus is not None:
            env["CUDA_VISIBLE_DEVICES"] = share_of_gpus(self.gpus, run.requested_gpus, slot)
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log(run), "a") as log:
            log_start = log.tell()  # read before the process writes, because both share the position in the file
            command = [sys.executable, "-m", "distill_lightning", *run.arguments]
            # in its own session, so that Ctrl-C on the terminal reaches only the study, which passes it on once
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=env
            )
            return StartedRun(process, self.log(run), log_start)


def share_of_gpus(gpus: tuple[str, ...], requested: int, slot: int) -> str:
    """The GPUs of a run, as a value of CUDA_VISIBLE_DEVICES.

    A run gets as many GPUs as it requests, even if other runs use them too.

    Args:
        gpus: the names of all GPUs.
        requested: the number of GPUs that the run requests; -1 for all.
        slot: the slot of the run. Neighbouring slots get neighbouring GPUs.
    """
    count = requested if requested >= 0 else len(gpus)
    names = [gpus[(slot * count + number) % len(gpus)] for number in range(count)]
    return ",".join(dict.fromkeys(names))


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

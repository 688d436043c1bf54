"""Starts the processes of runs on this machine, and signals them."""

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
    """The process of a run, and where its output goes."""

    process: "subprocess.Popen[bytes]"
    log: Path
    log_start: int
    """The size of the log in bytes before the process started: earlier starts wrote that part."""

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def pass_on(self, number: int) -> None:
        """Sends a signal that the study received; a signal that a run does not handle is sent as SIGTERM."""
        handled = number in (signal.SIGINT, signal.SIGTERM)
        self.process.send_signal(number if handled else signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once, with the processes that it started."""
        if hasattr(os, "killpg"):
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    def ask_to_end(self) -> None:
        """Lets it save and leave."""
        self.process.terminate()

    def wait_or_kill(self, timeout_s: float) -> None:
        try:
            self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def last_words(self) -> str:
        """The error that the process ended with, or else its exit status."""
        with open(self.log, errors="replace") as log:
            log.seek(self.log_start)
            lines = log.read().splitlines()
        status = self.process.returncode
        error = next((line for line in reversed(lines) if line.startswith("distill:")), None)
        return error or (f"killed by signal {-status}" if status < 0 else f"status {status}")


@dataclass(frozen=True)
class LocalEngine:
    """Starts runs on this machine. Runs that go at once share its cores and GPUs."""

    folder: Path
    """For the runs' output: a file <name>.log each."""
    jobs: int
    """How many runs go at once."""
    gpus: tuple[str, ...] = ()
    """Names of the GPUs to share, as CUDA_VISIBLE_DEVICES takes them; empty for none."""

    def log(self, run: PlannedRun) -> Path:
        return self.folder / f"{run.folder.name}.log"

    def start(self, run: PlannedRun, slot: int) -> StartedRun:
        """Starts a run.

        Args:
            run: which one.
            slot: a number from 0 to ``jobs`` - 1 that no other running run has.
        """
        env = dict(os.environ) | {OF_STUDY: str(os.getpid())}
        env.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // self.jobs)))
        if self.gpus and run.requested_gpus is not None:
            env["CUDA_VISIBLE_DEVICES"] = share_of_gpus(self.gpus, run.requested_gpus, slot)
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log(run), "a") as log:
            log_start = log.tell()  # before the process, which shares the position, writes
            command = [sys.executable, "-m", "distill_lightning", *run.arguments]
            # in its own session: a Ctrl-C on the terminal reaches only this process, which passes it on once
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=env
            )
            return StartedRun(process, self.log(run), log_start)


def share_of_gpus(gpus: tuple[str, ...], requested: int, slot: int) -> str:
    """The GPUs of a run: as many as it requests, -1 for all, whatever other runs have.

    Args:
        gpus: all names.
        requested: how many.
        slot: of the run; neighbouring slots get neighbouring GPUs.
    """
    count = requested if requested >= 0 else len(gpus)
    names = [gpus[(slot * count + number) % len(gpus)] for number in range(count)]
    return ",".join(dict.fromkeys(names))


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The progress of a study: a live picture on a terminal, otherwise one line for each event."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from distill_lightning.studies.snapshot import Snapshot, State

COUNTED: tuple[State, ...] = ("running", "elsewhere", "failed", "blocked", "pruned")


def status_line(snapshot: Snapshot, now_s: float | None = None) -> str:
    """The number of runs in each state, and an estimate of the time that is left, in one line.

    Args:
        snapshot: the state of the study.
        now_s: the current time in seconds, as `time.monotonic` gives it; by default it is read.
    """
    words = f"{len(snapshot.in_state('done'))} of {len(snapshot.runs)} runs done"
    for state in COUNTED:
        if count := len(snapshot.in_state(state)):
            words += f", {count} {state}"
    left = snapshot.seconds_left(time.monotonic() if now_s is None else now_s)
    if left is None or not snapshot.in_state("waiting", "elsewhere", "running"):
        return words
    return words + (f", about {left / 60:.0f} min left" if left >= 60 else ", less than a minute left")


def picture(snapshot: Snapshot, now_s: float) -> str:
    """The status line, and one line for each run that this study or another process is training.

    Args:
        snapshot: the state of the study.
        now_s: the current time in seconds, as `time.monotonic` gives it.
    """
    running = [f"  {run.name}  {now_s - run.started_s:.0f} s" for run in snapshot.in_state("running")]
    elsewhere = [f"  {run.name}  trained by another process" for run in snapshot.in_state("elsewhere")]
    return "\n".join([status_line(snapshot, now_s), *running, *elsewhere])


class Display:
    """Shows a study on standard error. As a context manager it keeps a picture on the terminal, if there is one."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=2, get_renderable=self._picture)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Makes ``snapshot`` the one that the picture shows."""
        self._snapshot = snapshot

    def announce(self, line: str, snapshot: Snapshot) -> None:
        """Prints a line that stays. If there is no picture, the status is added to the line."""
        if self._console.is_terminal:
            self._console.print(line, highlight=False, soft_wrap=True)
        else:
            print(f"{line}  ({status_line(snapshot)})", file=sys.stderr, flush=True)

    def _picture(self) -> str:
        return "" if self._snapshot is None else picture(self._snapshot, time.monotonic())

"""Trains the runs of a plan, several at once. A run starts when all runs that it needs are done."""

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Protocol

from distill_lightning.runs import Run
from distill_lightning.studies.display import Display
from distill_lightning.studies.engine import StartedRun
from distill_lightning.studies.finished import training_time_s
from distill_lightning.studies.plan import PlannedRun
from distill_lightning.studies.snapshot import RunStatus, Snapshot, State

POLL_S = 0.1
"""Seconds between two looks at the runs."""
LOOK_ELSEWHERE_S = 1.0
"""Seconds between two looks at the runs that other processes train."""
PATIENCE_S = 60
"""Seconds that runs have to save a checkpoint when an error ends the study."""
SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])


class Engine(Protocol):
    """Starts the processes of runs."""

    def start(self, run: PlannedRun, slot: int) -> StartedRun:
        """Starts a run in a slot, a number that no other running run has."""
        ...


class Scheduler:
    """Trains the runs that are not done.

    Args:
        runs: the runs of a plan, each after the runs that it needs.
        jobs: how many runs are trained at once.
        engine: starts the runs.
        display: gets a snapshot after each change.
        when_done: is called with each run that is done, also with those that were done before.
        should_prune: is asked once a second about each run that is being trained; if it says so, the run is ended.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        jobs: int,
        engine: Engine,
        display: Display,
        when_done: Callable[[PlannedRun], object] = lambda _: None,
        should_prune: Callable[[PlannedRun], bool] = lambda _: False,
    ) -> None:
        self.runs, self.jobs, self.engine, self.display, self.when_done = runs, jobs, engine, display, when_done
        self.should_prune = should_prune
        self._pruned: set[PlannedRun] = set()
        self._statuses = {run: RunStatus(run.name, run.entry) for run in runs}
        self._started: dict[PlannedRun, StartedRun] = {}
        self._free_slots = list(range(jobs))
        self._slot_of: dict[PlannedRun, int] = {}
        self._durations_s: dict[str, list[float]] = {}
        self._last_look_s = 0.0
        self._signal = 0
        self._changed = True

    def run(self) -> int:
        """Trains until no run is left that can be trained. Returns the signal that ended the study, or 0."""
        # a signal that the caller ignores, such as SIGHUP under nohup, stays ignored
        handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        handlers = {number: signal.signal(number, self._on_signal) for number in handled}
        try:
            with self.display:
                try:
                    while self._turn():
                        time.sleep(POLL_S)
                finally:
                    self._end_all()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._signal

    def snapshot(self) -> Snapshot:
        """The state of all runs now."""
        durations = {entry: tuple(seconds) for entry, seconds in self._durations_s.items()}
        return Snapshot(tuple(self._statuses.values()), durations, self.jobs)

    def in_state(self, *states: State) -> list[PlannedRun]:
        """The runs that are in one of these states."""
        return [run for run in self.runs if self._statuses[run].state in states]

    def last_words(self, run: PlannedRun) -> str:
        """The error message of a run that this study has started and that has ended."""
        return self._started[run].last_words()

    def _put(self, run: PlannedRun, state: State) -> None:
        if state == "done":
            self.when_done(run)
        started_s = time.monotonic() if state == "running" else 0.0
        self._statuses[run] = dataclasses.replace(self._statuses[run], state=state, started_s=started_s)
        self._changed = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """On the first signal, each run saves a checkpoint after its current step and ends. The second signal kills the
        runs.
        """
        first, self._signal = not self._signal, number
        for run in self.in_state("running"):
            if first:
                self._started[run].pass_on(number)
            else:
                self._started[run].kill()

    def _end_all(self) -> None:
        """Ends the runs that are still running after an error in the study. They can save a checkpoint first."""
        running = [self._started[run] for run in self.in_state("running")]
        for started in running:
            started.ask_to_end()
        for started in running:
            started.wait_or_kill(PATIENCE_S)

    def _turn(self) -> bool:
        """Looks at every run once. Returns whether the study goes on."""
        looks_elsewhere = time.monotonic() - self._last_look_s > LOOK_ELSEWHERE_S
        for run in self.in_state("running"):
            if self._started[run].has_ended():
                self._end(run)
            elif looks_elsewhere and run not in self._pruned and self.should_prune(run):
                self._pruned.add(run)
                self._started[run].ask_to_end()
        states: tuple[State, ...] = ("waiting", "elsewhere") if looks_elsewhere else ("waiting",)
        for run in self.in_state(*states):
            if not self._signal:
                self._consider(run)
        if looks_elsewhere:
            self._last_look_s = time.monotonic()
        if self._changed:
            self._changed = False
            self.display.show(self.snapshot())
        return bool(self.in_state("running") or (not self._signal and self.in_state("waiting", "elsewhere")))

    def _consider(self, run: PlannedRun) -> None:
        """Finds out whether a run is done, cannot be trained, or can be started now."""
        needed: set[State] = {self._statuses[need].state for need in run.needs}
        if run.finished():
            self._put(run, "done")
            if run.same_as is None:
                self._durations_s.setdefault(run.entry, []).append(training_time_s(run.folder))
        elif needed & {"failed", "blocked"}:
            self._put(run, "blocked")
        elif self._free_slots and needed <= {"done"}:
            if Run(run.folder).busy():  # another study or another command trains it
                self._put(run, "elsewhere")
            else:
                self._start(run)

    def _start(self, run: PlannedRun) -> None:
        slot = self._free_slots.pop(0)
        self._started[run] = self.engine.start(run, slot)
        self._slot_of[run] = slot
        self._put(run, "running")
        if self._signal:  # the signal arrived while the process was being started
            self._started[run].pass_on(self._signal)

    def _end(self, run: PlannedRun) -> None:
        """Finds out whether a run that has ended is finished or has failed."""
        self._free_slots = sorted([*self._free_slots, self._slot_of.pop(run)])
        duration_s = time.monotonic() - self._statuses[run].started_s
        if run.finished():
            self._put(run, "done")
            self._durations_s.setdefault(run.entry, []).append(duration_s)
            self.display.announce(f"done    {run.folder}  {duration_s:.0f} s", self.snapshot())
        elif run in self._pruned:
            self._put(run, "pruned")
            self.display.announce(f"pruned  {run.folder}  {duration_s:.0f} s", self.snapshot())
        elif self._signal:
            self._put(run, "waiting")
        elif Run(run.folder).busy():  # another process has locked its folder first
            self._put(run, "elsewhere")
        else:
            self._put(run, "failed")
            self.display.announce(f"failed  {run.name}: {self.last_words(run)}", self.snapshot())

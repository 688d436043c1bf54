"""Trains the runs of a plan. A run is handed to dask when all runs that it needs are done; dask decides where it runs
and when.
"""

import dataclasses
import math
import os
import signal
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from distributed import Future

from distill_lightning.errors import InputError
from distill_lightning.runs import Run
from distill_lightning.studies.display import Display
from distill_lightning.studies.finished import training_time_s
from distill_lightning.studies.plan import PlannedRun
from distill_lightning.studies.process import THREADS
from distill_lightning.studies.snapshot import RunStatus, Snapshot, State
from distill_lightning.studies.task import KILL, PATIENCE_S, Outcome, Task
from distill_lightning.studies.workers import Workers

POLL_S = 0.1
"""Seconds between two looks at the runs."""
LOOK_ELSEWHERE_S = 1.0
"""Seconds between two looks at the runs that other processes train, and at the workers."""
ALONE_S = 10
"""Seconds without a worker after which the study says it: one that has died may be replaced."""
KILL_S = 10
"""Seconds that workers have to kill their runs."""
MOST_DEATHS = 3
"""A run has failed when so many workers died while they trained it."""
DIED = f"{MOST_DEATHS} workers died while they trained it"
SHARE = "the workers and the study must share a file system"
SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])


class Training:
    """Trains the runs that are not done.

    Args:
        runs: the runs of a plan, each after the runs that it needs.
        workers: the workers that train them.
        output: the folder for the output of the runs, with a file <name>.log for each.
        display: gets a snapshot after each change.
        when_done: is called with each run that is done, also with those that were done before.
        should_prune: is asked once a second about each run that is being trained; if it says so, the run is ended.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        workers: Workers,
        output: Path,
        display: Display,
        when_done: Callable[[PlannedRun], object] = lambda _: None,
        should_prune: Callable[[PlannedRun], bool] = lambda _: False,
    ) -> None:
        self.runs, self.workers, self.output, self.display, self.when_done = runs, workers, output, display, when_done
        self.should_prune = should_prune
        self.mark = f"distill-{uuid.uuid4().hex}"
        """The beginning of the keys of this study's tasks."""
        self._pruned: set[PlannedRun] = set()
        self._statuses = {run: RunStatus(run.name, run.entry) for run in runs}
        self._futures: dict[PlannedRun, Future[Outcome]] = {}
        self._submitted = 0
        self._events: deque[tuple[str, str]] = deque()
        self._open_starts: Counter[PlannedRun] = Counter()
        """How often a task has started the run and not ended: a worker died each time, but for the last."""
        self._ended_s: dict[PlannedRun, float] = {}
        self._words: dict[PlannedRun, str] = {}
        self._durations_s: dict[str, list[float]] = {}
        self._last_look_s = 0.0
        self._signals: list[int] = []
        self._passed_on = 0
        self._leave_s: float | None = None
        self._without_workers_s: float | None = None
        self._changed = True

    def run(self) -> int:
        """Trains until no run is left that can be trained. Returns the signal that ended the study, or 0.

        Raises:
            InputError: no worker can train one of the runs, or the scheduler is gone.
        """
        self.workers.check(self.runs)
        client = self.workers.client
        client.subscribe_topic(self.mark, lambda event: self._events.append(tuple(event[1])))
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
        return self._signals[-1] if self._signals else 0

    def snapshot(self) -> Snapshot:
        """The state of all runs now."""
        durations = {entry: tuple(seconds) for entry, seconds in self._durations_s.items()}
        return Snapshot(tuple(self._statuses.values()), durations, self.workers.slots)

    def in_state(self, *states: State) -> list[PlannedRun]:
        """The runs that are in one of these states."""
        return [run for run in self.runs if self._statuses[run].state in states]

    def last_words(self, run: PlannedRun) -> str:
        """The reason why a run has failed."""
        return self._words[run]

    def log(self, run: PlannedRun) -> Path:
        """The file for the output of a run."""
        return self.output / f"{run.folder.name}.log"

    def _put(self, run: PlannedRun, state: State) -> None:
        if state == "done":
            self.when_done(run)
        started_s = time.monotonic() if state == "running" else 0.0
        self._statuses[run] = dataclasses.replace(self._statuses[run], state=state, started_s=started_s)
        self._changed = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
        if len(self._signals) > 2:  # the scheduler does not answer
            raise KeyboardInterrupt

    def _turn(self) -> bool:
        """Looks at every run once. Returns whether the study goes on."""
        if self.workers.lost():
            raise InputError(
                f"the scheduler at {self.workers.place} is gone: its runs save a checkpoint and end; with a new one, "
                "the same command goes on from here"
            )
        self._pass_signals_on()
        self._note_starts()
        for run, future in [*self._futures.items()]:
            if future.done():
                self._end(run, future)
        looks_elsewhere = time.monotonic() - self._last_look_s > LOOK_ELSEWHERE_S
        if looks_elsewhere:
            self._last_look_s = time.monotonic()
            self._look_at_workers()
            for run in self.in_state("running"):
                if run not in self._pruned and self.should_prune(run):
                    self._pruned.add(run)
                    self.workers.send(str(self._futures[run].key), signal.SIGTERM)
        states: tuple[State, ...] = ("waiting", "elsewhere") if looks_elsewhere else ("waiting",)
        for run in self.in_state(*states):
            if not self._signals and run not in self._futures:
                self._consider(run)
        if self._changed:
            self._changed = False
            self.display.show(self.snapshot())
        if self._leave_s is not None and time.monotonic() > self._leave_s:
            return False
        return bool(self._futures or (not self._signals and self.in_state("waiting", "elsewhere")))

    def _pass_signals_on(self) -> None:
        """On the first signal, each run saves a checkpoint after its current step and ends, and no other starts. The
        second signal kills the runs.
        """
        if len(self._signals) == self._passed_on:
            return
        self._passed_on = len(self._signals)
        if self._passed_on == 1:  # a run handles SIGINT and SIGTERM
            self._send(signal.SIGINT if self._signals[0] == signal.SIGINT else signal.SIGTERM)
        else:
            self._leave_s = time.monotonic() + KILL_S
            self._send(KILL)

    def _send(self, number: int) -> None:
        """Sends a signal to all runs that are being trained, and takes those back that have not been started."""
        running = self.workers.send(self.mark, number)
        for run, future in [*self._futures.items()]:
            if future.key not in running and not future.done():
                self._drop(run)
                self._put(run, "waiting")

    def _end_all(self) -> None:
        """Ends the runs that are still running after an error in the study. They can save a checkpoint first."""
        if self.workers.lost():
            return
        for number, patience_s in ((signal.SIGTERM, PATIENCE_S), (KILL, KILL_S)):
            if self._futures and self._leave_s is None:
                self._send(number)
                until = time.monotonic() + patience_s
                while time.monotonic() < until and not all(future.done() for future in self._futures.values()):
                    time.sleep(POLL_S)
        for run in [*self._futures]:
            self._drop(run)
        self.workers.send(self.mark, 0)
        self.workers.client.unsubscribe_topic(self.mark)

    def _look_at_workers(self) -> None:
        """Lets lost workers be replaced, and says it when there is none."""
        self.workers.keep()
        if self.workers.count() or self.workers.lost():
            self._without_workers_s = None
            return
        before, now = self._without_workers_s, time.monotonic()
        self._without_workers_s = now if before is None else before
        if before is not None and before + ALONE_S < now:
            self._without_workers_s = math.inf  # it is said once
            self.display.announce(f"no worker: runs wait for one at {self.workers.place}", self.snapshot())

    def _note_starts(self) -> None:
        """Notes which runs have been started, and gives those up whose workers die."""
        of_key = {future.key: run for run, future in self._futures.items()}
        while self._events:
            key, what = self._events.popleft()
            if (run := of_key.get(key)) is None:
                continue
            self._open_starts[run] += 1 if what == "started" else -1
            if self._open_starts[run] > MOST_DEATHS:
                self._drop(run)
                self._fail(run, DIED)
            elif what == "started":
                self._put(run, "running")

    def _consider(self, run: PlannedRun) -> None:
        """Finds out whether a run is done, cannot be trained, or can be handed to dask now."""
        needed: set[State] = {self._statuses[need].state for need in run.needs}
        if run.finished():
            self._put(run, "done")
            if run.same_as is None:
                self._durations_s.setdefault(run.entry, []).append(training_time_s(run.folder))
        elif needed & {"failed", "blocked"}:
            self._put(run, "blocked")
        elif needed <= {"done"}:
            if Run(run.folder).busy():  # another study or another command trains it
                if self._statuses[run].state != "elsewhere":
                    self._put(run, "elsewhere")
            else:
                self._submit(run)

    def _submit(self, run: PlannedRun) -> None:
        self._submitted += 1
        task = Task(
            key=f"{self.mark}-{self._submitted}",
            study=self.mark,
            arguments=run.arguments,
            run=run.folder.absolute(),
            folder=Path.cwd(),
            log=self.log(run).absolute(),
            requested_gpus=run.requested_gpus,
            resources=run.resources,
            gpus=self.workers.gpus,
            threads={name: os.environ[name] for name in THREADS if name in os.environ},
        )
        self._futures[run] = self.workers.submit(task, -self.runs.index(run))
        self._put(run, "waiting")

    def _drop(self, run: PlannedRun) -> None:
        """Takes a run back from dask."""
        self._futures.pop(run).cancel()

    def _end(self, run: PlannedRun, future: "Future[Outcome]") -> None:
        """Finds out whether a run that has ended is finished or has failed."""
        outcome = self.workers.outcome(future)
        if outcome is None or (outcome.state == "finished" and not run.finished() and self._may_appear(run)):
            return  # it is looked at again in the next turn
        del self._futures[run]
        deaths = self._open_starts.pop(run, 0)
        if run.finished():
            self._put(run, "done")
            duration_s = outcome.duration_s or training_time_s(run.folder)
            self._durations_s.setdefault(run.entry, []).append(duration_s)
            if outcome.duration_s:
                self.display.announce(f"done    {run.folder}  {outcome.duration_s:.0f} s", self.snapshot())
        elif run in self._pruned:
            self._put(run, "pruned")
            self.display.announce(f"pruned  {run.folder}  {outcome.duration_s:.0f} s", self.snapshot())
        elif outcome.state == "left" and deaths >= MOST_DEATHS and not self._signals:
            self._fail(run, DIED)
        elif self._signals or outcome.state == "left":
            self._put(run, "waiting")
        elif outcome.state == "busy":
            self._put(run, "elsewhere")
        else:
            self._fail(run, outcome.words or f"a worker has finished it, but {run.folder} is not here: {SHARE}")

    def _may_appear(self, run: PlannedRun) -> bool:
        """Whether the files of a run that was finished elsewhere may still appear: network file systems are late."""
        return time.monotonic() - self._ended_s.setdefault(run, time.monotonic()) < PATIENCE_S

    def _fail(self, run: PlannedRun, words: str) -> None:
        self._words[run] = words
        self._put(run, "failed")
        self.display.announce(f"failed  {run.name}: {words}", self.snapshot())

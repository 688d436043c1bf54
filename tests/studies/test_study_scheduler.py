"""The order in which runs are trained, with an engine that trains nothing."""

import signal
from pathlib import Path

import pytest

from distill_lightning.studies import Display, PlannedRun, Scheduler, scheduler


class Process:
    """A process that ends when it is looked at for the second time."""

    def __init__(self, run: PlannedRun, succeeds: bool) -> None:
        self.run, self.succeeds, self.looks, self.signals = run, succeeds, 0, []

    def has_ended(self) -> bool:
        self.looks += 1
        if self.looks > 1 and self.succeeds:
            self.run.folder.mkdir(parents=True, exist_ok=True)
            (self.run.folder / "summary.json").write_text("{}")
        return self.looks > 1

    def pass_on(self, number: int) -> None:
        self.signals.append(number)

    def last_words(self) -> str:
        return "status 1"


class Engine:
    """Starts such processes, and remembers which."""

    def __init__(self, failing: tuple[str, ...] = (), signal_at: str | None = None) -> None:
        self.failing, self.signal_at, self.started, self.slots = failing, signal_at, [], []

    def start(self, run: PlannedRun, slot: int) -> Process:
        self.started.append(run.entry)
        self.slots.append(slot)
        if run.entry == self.signal_at:
            signal.raise_signal(signal.SIGINT)
        return Process(run, run.entry not in self.failing)


def planned(entry: str, *needs: PlannedRun) -> PlannedRun:
    return PlannedRun(entry, {}, ("fit",), entry, Path("logs/d/m") / entry, True, 1, needs)


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(scheduler, "POLL_S", 0.0)


def test_each_run_starts_after_what_it_needs():
    a = planned("a")
    b = planned("b", a)
    runs = [a, planned("d", a, b), b, planned("c")]
    engine = Engine()
    made = Scheduler(runs, 2, engine, Display())
    assert made.run() == 0
    assert engine.started == ["a", "c", "b", "d"]
    assert set(engine.slots) == {0, 1}
    assert made.in_state("done") == runs


def test_a_failure_blocks_what_needs_it(capsys):
    a = planned("a")
    b = planned("b", a)
    runs = [a, b, planned("c", b), planned("d")]
    engine = Engine(failing=("a",))
    made = Scheduler(runs, 1, engine, Display())
    assert made.run() == 0
    assert engine.started == ["a", "d"]
    assert [run.entry for run in made.in_state("failed")] == ["a"]
    assert [run.entry for run in made.in_state("blocked")] == ["b", "c"]
    assert "failed  a: status 1" in capsys.readouterr().err


def test_a_signal_at_a_start_reaches_the_run():
    runs = [planned("a"), planned("b")]
    engine = Engine(failing=("a",), signal_at="a")
    made = Scheduler(runs, 1, engine, Display())
    before = signal.getsignal(signal.SIGINT)
    assert made.run() == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before
    assert engine.started == ["a"] and made.in_state("waiting") == runs


def test_what_is_done_is_not_started():
    a = planned("a")
    a.folder.mkdir(parents=True)
    (a.folder / "summary.json").write_text('{"wall_time_s": 5.0}')
    engine = Engine()
    made = Scheduler([a], 1, engine, Display())
    assert made.run() == 0 and not engine.started
    assert made.snapshot().durations_s == {"a": (5.0,)}


def test_a_run_that_is_worse_is_ended(monkeypatch, capsys):
    class Patient(Process):
        def has_ended(self) -> bool:
            return bool(self.signals)

        def ask_to_end(self) -> None:
            self.signals.append("end")

    class Patiently(Engine):
        def start(self, run: PlannedRun, slot: int) -> Process:
            started = super().start(run, slot)
            return Patient(run, False) if run.entry == "bad" else started

    monkeypatch.setattr(scheduler, "LOOK_ELSEWHERE_S", -1.0)
    bad, good = planned("bad"), planned("good")
    made = Scheduler([bad, good], 2, Patiently(), Display(), should_prune=lambda run: run is bad)
    assert made.run() == 0
    assert made.in_state("pruned") == [bad] and made.in_state("done") == [good]
    assert "pruned  logs/d/m/bad" in capsys.readouterr().err

"""Which trials a search makes, without training them: a trial's value is a function of its options."""

import math
import sys
from pathlib import Path

import pytest
import yaml

from distill_lightning.errors import InputError
from distill_lightning.search import Outcome, Search, Trial, Trials, read_search

MIXES = ["Mixup", {"class_path": "CutMix", "init_args": {"alpha": 0.5}}]
SPACE = {"lr": {"from": 0.001, "to": 10.0, "log": True}, "width": {"from": 4, "to": 8}, "mix": MIXES}


def search(trials: int = 12, **more) -> Search:
    path = Path("search.yaml")
    path.write_text(yaml.safe_dump({"config": "digits/baseline", "space": SPACE, "trials": trials, **more}))
    return read_search(path)


def value(trial: Trial) -> float:
    return 1 - abs(math.log10(trial.values["lr"]) + 1) / 4


def made(given: Search, folder: str, seed: int = 0, stop_after: int | None = None) -> list[Trial]:
    """The trials of a search; with ``stop_after`` it is interrupted when it has asked for one more."""
    trials = Trials(given, Path(folder), seed)
    while asked := trials.ask(1):
        if stop_after is not None and len(trials.ended()) == stop_after:
            break
        trials.tell(asked[0], value(asked[0]))
    return trials.ended()


def test_an_interrupted_search_makes_the_same_trials():
    whole = made(search(), "whole")
    assert len(whole) == 12 and {one.state for one in whole} == {"done"}
    for stop_after in (0, 4, 4, 9):
        made(search(), "parts", stop_after=stop_after)
    parts = made(search(), "parts")
    assert [one.values for one in parts] == [one.values for one in whole]
    assert [one.value for one in parts] == [one.value for one in whole]
    assert made(search(), "parts") and len(made(search(14), "parts")) == 14  # more trials go on
    assert [one.values for one in made(search(), "other", seed=1)] != [one.values for one in whole]


def test_values_are_those_of_the_space_and_come_closer_to_the_best():
    trials = made(search(40), "s")
    assert all(0.001 <= one.values["lr"] <= 10 and one.values["mix"] in MIXES for one in trials)
    assert {type(one.values["width"]) for one in trials} == {int}
    first, last = ([value(one) for one in part] for part in (trials[:10], trials[-10:]))
    assert sum(last) > sum(first)
    assert next(iter(Trials(search(40), Path("s")).importance())) == "lr"


def test_what_failed_or_was_pruned_counts_and_is_last():
    trials = Trials(search(3), Path("s"))
    (one,) = trials.ask(1)
    trials.tell(one, None, "diverged")
    two, three = trials.ask(9)  # no more than are left
    trials.tell(two, 0.5)
    trials.report(three, 10, 0.9)
    trials.tell(three, None, "pruned")  # what it came to before is no result
    assert not trials.ask(1)
    outcome = Outcome(search(3), trials.ended(), trials.importance())
    assert [one.state for one in outcome.ranked] == ["done", "failed", "pruned"]
    assert outcome.best.values == two.values and outcome.plot() is None
    assert "3 of 3 trials, best val/accuracy 0.5000 with lr " in outcome.line()
    assert "1 trials and 1 pruned ones looked at the same validation pictures" in outcome.table().note
    assert outcome.table().rows[0][-1] == "0.5000" and outcome.table().rows[1][-1] == "failed"


def test_what_failed_by_its_values_is_not_made_again_and_what_failed_otherwise_is():
    trials = Trials(search(3), Path("s"))
    diverged, full, killed = trials.ask(3)
    trials.tell(diverged, None, "diverged")
    trials.tell(full, None, "no space left on the disk")
    assert [one.state for one in trials.ended()] == ["failed", "failed"]
    for _ in range(2):  # nor is it made twice after two starts
        trials = Trials(search(3), Path("s"))
        assert [one.values for one in trials.ended()] == [diverged.values]
    again = trials.ask(9)
    assert sorted(one.values["lr"] for one in again) == sorted(one.values["lr"] for one in (full, killed))
    for one in again:
        trials.tell(one, value(one))
    assert [one.state for one in Trials(search(3), Path("s")).ended()] == ["failed", "done", "done"]


def test_a_lock_that_a_kill_has_left_is_no_obstacle():
    made(search(2), "s")
    journal = Path("s/trials.journal").absolute()
    Path(f"{journal}.lock").symlink_to("s/trials.journal")  # leads nowhere, as one to a relative path does
    assert len(made(search(3), "s")) == 3


def test_a_trial_that_is_worse_than_half_of_the_others_is_pruned():
    trials = Trials(search(prune=True), Path("s"))
    for number in range(6):
        (one,) = trials.ask(1)
        for step in (10, 20, 30):
            assert not trials.report(one, step, 0.5 + number / 100)
        trials.tell(one, 0.6)
    good, bad = trials.ask(2)
    assert not trials.report(good, 20, 0.9) and trials.report(bad, 20, 0.1)
    (early,) = trials.ask(1)
    assert not trials.report(early, 9, 0.1)  # nobody is judged in the first third


def test_without_optuna_and_with_a_damaged_journal(monkeypatch):
    before = made(search(2), "s")
    journal = Path("s/trials.journal")
    whole = journal.read_text()
    journal.write_text(whole + '{"op_code": 4, "wor')  # as a kill leaves it
    assert [one.values for one in made(search(2), "s")] == [one.values for one in before]
    journal.write_text(whole.replace("op_code", "code"))
    with pytest.raises(InputError, match="trials.journal is damaged"):
        Trials(search(2), Path("s"))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'distill_lightning\[search\]'"):
        Trials(search(2), Path("t"))

"""The display of a study, from snapshots."""

import pytest

from distill_lightning.studies.display import Display, picture, status_line
from distill_lightning.studies.snapshot import RunStatus, Snapshot

RUNS = (
    RunStatus("a-seed0", "a", "done"),
    RunStatus("a-seed1", "a", "running", started_s=100.0),
    RunStatus("b", "b", "elsewhere"),
    RunStatus("c", "c", "failed"),
    RunStatus("d", "d", "blocked"),
    RunStatus("e", "e"),
)


def test_the_status_counts_states():
    words = "1 of 6 runs done, 1 running, 1 elsewhere, 1 failed, 1 blocked"
    assert status_line(Snapshot(RUNS, {}, 1), 130.0) == words  # nothing is known of the time
    # 90 s of the run that is running, 120 s for each that waits
    assert status_line(Snapshot(RUNS, {"a": (120.0,)}, 1), 130.0) == f"{words}, about 6 min left"
    assert status_line(Snapshot(RUNS, {"a": (120.0,)}, 6), 130.0) == f"{words}, less than a minute left"
    assert status_line(Snapshot(RUNS[:1], {"a": (120.0,)}, 1), 130.0) == "1 of 1 runs done"


def test_an_entry_that_is_known_counts_by_itself():
    runs = (RunStatus("a", "a"), RunStatus("b", "b"))
    known = {"a": (10.0, 20.0), "b": (100.0,)}
    assert Snapshot(runs, known, 1).seconds_left(0.0) == pytest.approx(115.0)
    assert Snapshot((RunStatus("c", "c"),), known, 1).seconds_left(0.0) == pytest.approx(130 / 3)


def test_the_picture_names_what_is_going_on():
    assert picture(Snapshot(RUNS, {}, 1), 130.0).splitlines()[1:] == [
        "  a-seed1  30 s",
        "  b  trained by another process",
    ]


def test_without_a_terminal_each_event_is_a_line(capsys):
    with Display() as display:
        display.show(Snapshot(RUNS, {}, 1))
        display.announce("done    a", Snapshot(RUNS[:1], {}, 1))
    assert capsys.readouterr().err == "done    a  (1 of 1 runs done)\n"

"""What a run was made from."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

from helpers import made_run

from distill_lightning.catalogue.info import read
from distill_lightning.catalogue.lineage import _named, origins


def taught_by(*teachers: str) -> list:
    given = list(teachers) if len(teachers) > 1 else teachers[0]
    return [{"class_path": "distill_lightning.callbacks.soft_targets.SoftTargets", "init_args": {"teacher": given}}]


def last(where: str | Path) -> str:
    return f"{where}/checkpoints/last.ckpt"


def test_teachers_members_and_tickets_over_generations():
    made_run("logs/digits/baseline/a")
    Path("weights.pth").write_text("")
    os.utime("weights.pth", (0, 0))
    made_run("logs/digits/kd/b", callbacks=taught_by(last("logs/digits/baseline/a"), "weights.pth"))
    made_run("logs/digits/ensemble/c", members=[last("logs/digits/kd/b"), last("logs/digits/kd/gone")])
    kept, gone = origins(read(Path("logs/digits/ensemble/c")))
    assert (kept.role, kept.state, kept.info.name) == ("member", "", "b")
    assert (gone.role, gone.state, gone.path, gone.info) == ("member", "missing", None, None)
    teacher, weights = kept.origins
    assert (teacher.role, teacher.info.method, teacher.state, teacher.origins) == ("teacher", "baseline", "", ())
    assert (weights.role, weights.given, weights.info, weights.state) == ("teacher", "weights.pth", None, "")
    ticket = {"class_path": "Lottery", "init_args": {"ticket": "logs/digits/kd/b/ticket.pt", "weights": "rewound"}}
    Path("logs/digits/kd/b/ticket.pt").write_text("")
    made_run("logs/digits/baseline/d", callbacks=[ticket])
    (found,) = origins(read(Path("logs/digits/baseline/d")))
    assert (found.role, found.info.name) == ("ticket", "b")


def test_starting_weights_are_named_once():
    made_run("logs/digits/baseline/a")
    start = {"path": "logs/digits/baseline/a", "weights": "d0bb", "run": "digits/542c0db9ee9fad00/last.ckpt"}
    options = {"start_from.path": start["path"], "start_from.run": start["run"]}
    info = replace(read(Path("logs/digits/baseline/a")), options=options)
    assert [(role, path) for role, path in _named(info)] == [("starting weights", start["path"])]


def test_what_has_changed_is_found():
    for name in "abc":
        made_run(f"logs/digits/baseline/{name}", seed=ord(name))
    student = made_run("logs/digits/kd/c", callbacks=taught_by(last("logs/digits/baseline/a"))).folder
    assert [one.state for one in origins(read(student))] == [""]
    os.utime(last("logs/digits/baseline/a"))  # trained on, after the student
    assert [one.state for one in origins(read(student))] == ["changed"]
    shutil.rmtree("logs/digits/baseline/a")
    shutil.move("logs/digits/baseline/b", "logs/digits/baseline/a")  # another run in its place, and no newer
    (replaced,) = origins(read(student))
    assert replaced.state == "changed" and os.path.getmtime(replaced.path) < time.time() - 60
    both = made_run("logs/digits/kd/d", callbacks=taught_by(last("logs/digits/baseline/a"), last(student))).folder
    shutil.rmtree("logs/digits/baseline/a")
    shutil.move("logs/digits/baseline/c", "logs/digits/baseline/a")
    assert [one.state for one in origins(read(both))] == ["perhaps changed"] * 2


def test_the_place_of_a_relative_path_and_circles(monkeypatch, tmp_path):
    circle = taught_by(last("logs/digits/kd/b"))
    made_run("logs/digits/kd/a", callbacks=circle)
    made_run("logs/digits/kd/b", callbacks=taught_by(last("logs/digits/kd/a"), "x\0.pt"))
    monkeypatch.chdir("/")
    (of_a,) = origins(read(tmp_path / "logs/digits/kd/a"))
    (back, odd) = of_a.origins
    assert of_a.info.name == "b" and back.info.name == "a" and back.origins == () and odd.state == "missing"


def test_a_run_that_was_used_often_is_followed_once():
    """Otherwise a few folders could describe more generations than can ever be read."""

    def count(found) -> int:
        return sum(1 + count(one.origins) for one in found)

    made_run("logs/digits/kd/0")
    for number in range(1, 8):
        below = f"logs/digits/kd/{number - 1}"
        Path(below, "ticket.pt").write_text("")
        made_run(f"logs/digits/kd/{number}", callbacks=taught_by(last(below), f"{below}/ticket.pt"))
    assert count(origins(read(Path("logs/digits/kd/7")))) == 14

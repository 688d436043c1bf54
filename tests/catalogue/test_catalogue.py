"""What is known of runs on the disk: their state, what differs between them, filters and order."""

import os
import time
from pathlib import Path

import pytest
from helpers import made_run

from distill_lightning.catalogue import list_runs
from distill_lightning.catalogue.choosing import chosen, in_order
from distill_lightning.catalogue.columns import differing, grid, short_names
from distill_lightning.catalogue.info import read
from distill_lightning.errors import InputError
from distill_lightning.runs import folder as run_folder


def names(infos) -> list[str]:
    return [info.name for info in infos]


def test_states_metrics_and_epochs():
    made_run("logs/digits/kd/done", accuracy=0.9, epochs=4)
    made_run("logs/digits/kd/cut", "interrupted", accuracy=0.8)
    made_run("logs/digits/kd/dead", "failed", epochs=0)
    live = made_run("logs/digits/kd/live", "running")
    found = {info.name: info for info in list_runs()}
    assert {name: info.state for name, info in found.items()} == {
        "done": "finished", "cut": "interrupted", "dead": "failed", "live": "running"
    }  # fmt: skip
    live.release()
    assert read(live.folder).state == "failed" and "another machine" in read(live.folder).note
    done, cut = found["done"], found["cut"]
    assert done.accuracy == ("test", 0.9) and (done.epochs, done.max_epochs, done.steps) == (4, 4, 80)
    assert cut.accuracy == ("val", pytest.approx(0.75)) and (cut.epochs, cut.max_epochs, cut.steps) == (2, 4, 40)
    assert (done.wall_time_s, done.elapsed_s) == (200.0, None) and cut.wall_time_s is None
    assert (done.data_set, done.method, done.method_class, done.network) == ("digits", "kd", "KD", "ConvNet")


def test_a_disk_without_locks(monkeypatch):
    """Then a run that writes is taken to be running."""

    class NoLocks:
        LOCK_SH = LOCK_NB = LOCK_EX = 0

        @staticmethod
        def flock(file, how):
            raise OSError("no locks available")

    run = made_run("logs/digits/kd/a", "interrupted")
    monkeypatch.setattr(run_folder, "fcntl", NoLocks)
    assert run.locked() is None and read(run.folder).state == "interrupted"
    os.utime(run.metrics)
    info = read(run.folder)
    assert info.state == "running" and "lock" in info.note


def test_looking_at_a_lock_needs_no_right_to_write_and_hinders_nobody():
    run = made_run("logs/digits/kd/a", "interrupted")
    os.chmod(run.folder / "config.yaml", 0o444)
    assert run.locked() is False
    run.hold()
    assert run.locked() is True
    run.release()


def test_what_is_a_run_and_what_is_damaged(tmp_path):
    run = made_run("logs/digits/kd/bad")
    (run.folder / "config.yaml").write_text("model: [")
    torn = made_run("logs/digits/kd/torn", "interrupted")
    torn.metrics.write_text("step,tag,value\n1,val/accuracy,0.1\nx,y,z\n1,a,1.0\n")
    made_run("logs/digits/kd/.hidden/good").release()
    Path("logs/others").mkdir()
    Path("logs/others/config.yaml").write_text("packages: 3")  # of another program
    made_run("logs/digits/kd/seed10")
    made_run("logs/digits/kd/seed2")
    os.symlink(tmp_path / "logs", "logs/digits/circle")
    pipe = made_run("logs/digits/kd/pipe").folder / "config.yaml"
    pipe.unlink()
    os.mkfifo(pipe)  # would be read for ever
    os.utime("logs/digits/kd/seed2/config.yaml", (1e15, 1e15))  # a year that datetime does not have
    found = list_runs()
    assert names(found) == ["bad", "pipe", "seed2", "seed10", "torn"]
    assert [info.state for info in found] == ["damaged", "damaged", "finished", "finished", "damaged"]
    assert "config.yaml" in found[0].note and "metrics.csv" in found[-1].note
    assert names(chosen(found, state="damaged")) == ["bad", "pipe", "torn"]
    with pytest.raises(InputError, match="there is no folder nothing"):
        list_runs("nothing")


def test_a_folder_that_was_moved_is_known_by_its_options():
    made_run("logs/digits/kd/a")
    os.rename("logs/digits/kd/a", "copy")
    (info,) = list_runs("copy")
    assert (info.data_set, info.method, info.name) == ("digits", "kd", "copy")


def test_short_names():
    among = ["model.optimizer.lr", "model.peer.lr", "model.width", "data.augment.0", "data.augment.0.padding"]
    assert short_names(among, among) == {
        "model.optimizer.lr": "optimizer.lr", "model.peer.lr": "peer.lr", "model.width": "width",
        "data.augment.0": "augment.0", "data.augment.0.padding": "padding",
    }  # fmt: skip


def test_columns_are_the_options_that_differ():
    made_run("logs/digits/kd/a", temperature=4.0, weight=1)
    made_run("logs/digits/kd/b", temperature=2.0, weight=1)
    made_run("logs/digits/dlb/c", alpha=0.5, weight=2)
    found = list_runs()
    assert differing(found) == ["model.temperature", "model.weight", "model.alpha"]  # within kd; in all; in one
    table = grid(found)
    assert table.header[5:] == ("temperature", "weight", "alpha")
    assert {row[0][-1]: row[5:] for row in table.rows} == {
        "a": ("4.0", "1", ""), "b": ("2.0", "1", ""), "c": ("", "2", "0.5")
    }  # fmt: skip


def test_filters():
    made_run("logs/digits/kd/a", optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}})
    made_run("logs/mnist/kd/b", optimizer={"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}, lr=7)
    made_run("logs/digits/dlb/c", "interrupted", nesterov=True)
    found = list_runs()
    assert names(chosen(found, data_set="digits")) == ["c", "a"]
    assert names(chosen(found, method="KD", state="finished")) == ["a", "b"]
    assert names(chosen(found, where=["optimizer.lr=1e-1"])) == ["a"]
    assert names(chosen(found, where=["model.init_args.optimizer.init_args.lr=0.001"])) == ["b"]
    assert names(chosen(found, where=["optimizer=adam", "network=ConvNet"])) == ["b"]
    assert names(chosen(found, where=["nesterov=true"])) == ["c"]
    assert names(chosen(found, where=["callbacks=null"])) == ["c", "a", "b"]
    for wrong, message in {
        "lr=0.1": "lr stands for model.lr, model.optimizer.lr: give more",
        "nestero=1": "did you mean nesterov?",
        "lr": "expected option=value",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            chosen(found, where=[wrong])
        assert len(str(error.value)) < 200


def test_order():
    made_run("logs/digits/kd/low", accuracy=0.5)
    made_run("logs/digits/kd/nan", accuracy=float("nan"))
    made_run("logs/digits/kd/new", "failed", epochs=0)
    made_run("logs/digits/kd/high", accuracy=0.7)
    made_run("logs/digits/kd/validated", "interrupted", accuracy=0.7)
    assert names(in_order(list_runs(), "accuracy"))[:3] == ["high", "validated", "low"]
    assert names(in_order(list_runs(), "nll"))[:3] == ["high", "low", "validated"]
    now = time.time() + 60
    os.utime("logs/digits/kd/low/config.yaml", (now, now))
    assert names(in_order(list_runs(), "started"))[0] == "low"
    with pytest.raises(InputError, match="did you mean accuracy"):
        in_order(list_runs(), "accurracy")


def test_runs_are_a_sequence_that_notebooks_show():
    made_run("logs/digits/kd/a", note="<script>")
    made_run("logs/digits/kd/b", note="\x1b[2J")
    found = list_runs("logs")
    assert names(found) == ["a", "b"] and found[1:] == list_runs("logs/digits/kd/b") and found[-1] == found[1]
    text = found._repr_html_()
    assert "&lt;script&gt;" in text and "<script>" not in text and "\x1b" not in text
    assert "logs/digits/kd/a" in repr(found) and "\x1b" not in repr(found)

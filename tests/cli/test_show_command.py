"""The command ``distill show``, and a real run under its eyes."""

import os
import shlex
import signal
import time
from pathlib import Path

import pytest
from helpers import CONFIGS, distill, fit, made_run, start

from distill_lightning.catalogue import list_runs
from distill_lightning.catalogue.info import read
from distill_lightning.cli.show import find, next_commands
from distill_lightning.errors import InputError


def carry_out(run: Path, what: str) -> int:
    """Runs the command that ``show`` gives for something."""
    (line,) = [line for line in next_commands(read(run)) if line.startswith(what)]
    words = shlex.split(line.removeprefix(what))
    assert words[0] == "distill"
    return distill(*words[1:])


def test_a_real_run_from_its_start_to_its_end():
    """Running while a live process has it; interrupted, once that has ended; finished by the command that is shown."""
    process = start("fit", "--config", CONFIGS / "digits" / "baseline.yaml", "--trainer.max_epochs", 10)
    until = time.monotonic() + 120
    folder = Path("logs/digits/baseline/convnet-seed0")
    while not (folder / "checkpoints" / "last.ckpt").is_file():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    assert [info.state for info in list_runs()] == ["running"]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    info = read(folder)
    assert info.state == "interrupted" and 0 < info.epochs < 10 and info.accuracy[0] == "val"
    assert carry_out(folder, "resume") == 0
    info = read(folder)
    assert info.state == "finished" and info.epochs == 10 and info.accuracy[0] == "test"


def test_the_next_commands_work(capsys):
    run = fit("digits/baseline.yaml", "--trainer.max_epochs", 1)
    assert distill("show", run) == 0
    assert "unlike digits/baseline: max_epochs 1 (there 20)\n" in capsys.readouterr().out
    assert carry_out(run, "test") == 0
    assert "accuracy" in capsys.readouterr().out
    assert carry_out(run, "page") == 0 and "<html" in Path("convnet-seed0.html").read_text()
    members = f"['{run}/checkpoints/last.ckpt']"
    teacher = ("--trainer.callbacks.teacher", f"{run}/checkpoints/last.ckpt")
    student = fit("digits/born_again.yaml", "--trainer.max_epochs", 1, *teacher)
    assert distill("show", student) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "unlike" in line]
    assert line == "  unlike digits/born_again: max_epochs 1 (there 20)"
    ensemble = fit("digits/ensemble.yaml", "--model.members", members)
    assert read(ensemble).state == "finished" and read(ensemble).epochs in (0, None)
    assert carry_out(ensemble, "test") == 0
    assert distill("show", ensemble) == 0
    out = capsys.readouterr().out
    assert f"member {run}/checkpoints/last.ckpt  Baseline, finished" in out
    for path in [*run.glob("checkpoints/*"), run / "summary.json"]:
        path.unlink()
    assert read(run).state == "failed"
    os.rename("logs", "moved")
    moved = Path("moved") / run.relative_to("logs")
    assert carry_out(moved, "start again") == 0 and read(moved).state == "finished"
    assert not Path("logs").exists()


def test_the_next_commands_trust_classes_of_ones_own():
    run = fit("digits/baseline.yaml", "--trainer.max_epochs", 1)
    assert not any("--trust" in line for line in next_commands(read(run)))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("distill_lightning.models.convnet.ConvNet", "my_net.MyNet"))
    trusting = [line.split()[0] for line in next_commands(read(run)) if line.endswith("--trust my_net.MyNet")]
    assert trusting == ["test", "predict"]


def test_what_is_shown(capsys, monkeypatch):
    made_run("logs/digits/baseline/teacher", accuracy=0.95)
    options = {"teacher": "logs/digits/baseline/teacher/checkpoints/last.ckpt"}
    callbacks = [{"class_path": "x.SoftTargets", "init_args": options}]
    made_run("logs/digits/kd/a", "interrupted", temperature=4.0, epochs=3, callbacks=callbacks)
    assert distill("show", "kd/a") == 0
    out = capsys.readouterr().out
    assert out.startswith("logs/digits/kd/a  interrupted\n") and "3/4 epochs" in out and "temperature 4.0" in out
    assert f"teacher {options['teacher']}  BASELINE, finished, 95.00 %" in out
    assert "distill fit --ckpt_path logs/digits/kd/a/checkpoints/last.ckpt" in out
    assert "val/nll" in out and "(epoch)" in out and any("\u2801" <= c <= "\u28ff" for c in out) and "\x1b" not in out
    Path(options["teacher"]).unlink()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert distill("show", "logs/digits/kd/a/checkpoints") == 0
    out = capsys.readouterr().out
    assert "MISSING" in out and "train/epoch_loss" in out and "\x1b[" in out


def test_the_place_where_a_run_was_started(capsys, monkeypatch, tmp_path):
    run = made_run("logs/digits/kd/a", "interrupted").folder.absolute()
    monkeypatch.chdir(run)
    assert distill("show", ".") == 0
    out = capsys.readouterr().out
    assert f"next, in {tmp_path}\n" in out and "--ckpt_path logs/digits/kd/a/checkpoints/last.ckpt" in out
    run.joinpath("checkpoints/last.ckpt").unlink()
    os.renames(run, tmp_path / "other/digits/kd/a")
    monkeypatch.chdir(tmp_path / "other/digits/kd")
    again = next_commands(read(Path("a")))[0]
    assert again.endswith(f"--config a/config.yaml --log_dir {tmp_path}/other --name a --ckpt_path last")
    os.rename("a", tmp_path / "moved")
    monkeypatch.chdir("/")
    again = next_commands(read(tmp_path / "moved"))[0]
    assert again == f"start again distill fit --config {tmp_path}/moved/config.yaml"


def test_a_page_is_opened(monkeypatch):
    made_run("logs/digits/kd/a")
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert distill("show", "a", "--open") == 0
    assert opened == [Path("a.html").resolve().as_uri()] and Path("a.html").is_file()


def test_damaged_and_hostile_runs(capsys):
    run = made_run("logs/digits/kd/a", "interrupted", temperature="\x1b[2J")
    run.metrics.write_text("step,tag,value\n1,val/nll,nan\n2,val/nll,1e999\n3,val/\x1b[2J,1.0\n4,val/nll,-1e308\n")
    os.rename("logs/digits/kd/a", "logs/digits/kd/a\n\x1b[2J")
    assert distill("show", "logs/digits/kd/a\n\x1b[2J") == 0
    assert "\x1b[2J" not in capsys.readouterr().out
    bad = made_run("logs/digits/kd/b")
    bad.summary.write_text("[")
    assert distill("show", bad.folder) == 0
    out = capsys.readouterr().out
    assert "damaged" in out and "summary.json" in out


def test_which_run_is_meant(tmp_path):
    for where in ("digits/kd/a", "mnist/kd/a", "mnist/kd/b"):
        made_run(f"logs/{where}")
    assert find("b") == Path("logs/mnist/kd/b") and find("digits/kd/a") == Path("logs/digits/kd/a")
    assert find(str(tmp_path / "logs/mnist/kd/b/checkpoints/last.ckpt")) == tmp_path / "logs/mnist/kd/b"
    for given, message in {
        "a": "a stands for 2 runs: give one of logs/digits/kd/a, logs/mnist/kd/a",
        "c": "there is no run c",
        "kd/bb": "there is no run kd/bb",
        "logs": "lies in none: `distill list logs` looks in it",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            find(given)
        assert len(str(error.value)) < 200

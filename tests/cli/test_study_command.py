"""The command ``distill study``: which runs it trains, which it does not train again, and which files it writes."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from helpers import CONFIGS, command, distill, load, rows

WITHOUT_ROOT = ("quick", "multi_view", "multi_view_quick", "gaussian_inputs", "gaussian_inputs_quick")
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))


@pytest.fixture(scope="module")
def of_one_seed(tmp_path_factory) -> Path:
    """The configurations, with one seed for each study: a plan takes a third of a second for each run."""
    folder = tmp_path_factory.mktemp("copy") / "configs"
    shutil.copytree(CONFIGS, folder)
    for path in (folder / "studies").glob("*.yaml"):
        fewer = re.sub(r"\bgroup: \d+", "group: 2", path.read_text())
        path.write_text(re.sub(r"\bseed: \d+", "seed: 1", fewer))
    return folder / "studies"


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_study_can_be_planned(path, capsys, mnist, cifar100, of_one_seed):
    path = of_one_seed / path.name
    root = {"three_mysteries_cifar100": ["--data.root", cifar100]}.get(path.stem, ["--data.root", mnist])
    root = [] if path.stem in WITHOUT_ROOT else root
    assert distill("study", path, "--dry_run", *root) == 0
    out = capsys.readouterr().out
    planned = int(out.split(" runs, 0 done")[0].rpartition(" ")[2])
    assert planned == out.count("\ndistill fit --config ") + out.count("\ndistill compute ")
    assert not Path("logs").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["study", "quick.yml"], "there is no study"),
        (["study"], "the following arguments are required: study"),
        (["study", CONFIGS / "studies" / "quick.yaml", "--jobs", 0], "--jobs is 0"),
        (
            ["study", CONFIGS / "studies" / "quick.yaml", "--data.rot", "x"],
            "the run teacher: there is no option --data.rot;",
        ),
        (["study", CONFIGS / "digits" / "kd.yaml"], "names no runs"),
    ],
)
def test_wrong_commands_are_one_line(given, message, capsys):
    assert distill(*given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def write_study(**runs: dict) -> Path:
    given = {"trainer.max_epochs": 4, "data.train_part": 320, "checkpoint.every_n_steps": 1}
    study = {
        "for": {"seed": 2},
        "options": given,
        "runs": runs,
        "tables": [{"title": "T", "rows": [{"run": name} for name in runs], "columns": ["test/accuracy", "test/nll"]}],
        "figures": [{"run": list(runs), "y": "val/accuracy"}],
    }
    for entry in runs.values():
        entry["config"] = str(CONFIGS / "digits" / entry["config"])
    path = Path("small.yaml")
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def members_and_student() -> Path:
    return write_study(
        member={"config": "baseline.yaml"},
        ensemble={"config": "ensemble.yaml", "for": {}, "options": {"model.members": "${member}"}},
        student={"config": "kd.yaml", "for": {"seed": 1}, "options": {"trainer.callbacks.teacher": "${member}"}},
    )


def start(path: Path, *given: str) -> subprocess.Popen:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        command("study", path, "--jobs", 2, *given), env=os.environ | {"OMP_NUM_THREADS": "1"}, **options
    )


def finished() -> dict[str, int]:
    return {str(path.parent): path.stat().st_mtime_ns for path in Path().glob("logs/*/*/*/summary.json")}


def epochs_printed() -> dict[str, int]:
    """How often each run came to the end of an epoch, over all its starts."""
    logs = Path("logs/studies/small/output").glob("*.log")
    return {log.stem: sum(line.startswith("epoch ") for line in log.read_text().splitlines()) for log in logs}


def test_killed_at_any_moment_and_two_at_once(capsys, monkeypatch):
    """SIGKILL to the study, with or without its runs; then two studies on the same logs."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a job alone would get both cores, and round otherwise
    path = members_and_student()
    rng, early = random.Random(0), {}
    for with_runs in (True, False):
        study = start(path)
        while not epochs_printed() or (not with_runs and len(epochs_printed()) < 3):  # something is going on
            assert study.poll() is None, study.communicate()[0]
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        children = subprocess.run(
            ["pgrep", "-P", str(study.pid)], check=False, capture_output=True, text=True
        ).stdout.split()
        study.kill()
        study.communicate()
        for child in children if with_runs else []:  # without, they notice, save and leave
            os.kill(int(child), signal.SIGKILL)
        early |= finished()
    assert len(early) < 4
    both = [start(path), start(path)]
    outputs = [study.communicate(timeout=300)[0] for study in both]
    assert [study.returncode for study in both] == [0, 0], outputs
    assert "4 of 4 runs done" in outputs[0] and "4 of 4 runs done" in outputs[1]
    assert len(finished()) == 4 and len(list(Path().glob("logs/*/*/*/config.yaml"))) == 4
    assert early.items() <= finished().items()  # nothing that was finished was run again
    for name, count in epochs_printed().items():  # a kill between an epoch and its checkpoint repeats the epoch
        assert count <= (0 if name.startswith("ensemble") else 4 + 1), name
    table = Path("logs/studies/small/tables.md").read_text()
    # an uninterrupted one comes to the same
    assert distill("study", path, "--log_dir", "other") == 0
    assert Path("other/studies/small/tables.md").read_text() == table
    ours, theirs = (sorted(Path(f).glob("digits/*/*/checkpoints/last.ckpt")) for f in ("logs", "other"))
    assert [f.parent.parent.name for f in ours] == [f.parent.parent.name for f in theirs]
    for a, b in zip(ours, theirs, strict=True):
        first, second = (load(f.parent.parent)["state_dict"] for f in (a, b))
        assert all((first[key] == second[key]).all() for key in first)
        assert rows(a.parent.parent) == rows(b.parent.parent)
    # and again nothing is run
    before = finished()
    capsys.readouterr()
    assert distill("study", path, "--dry_run") == 0
    assert "4 runs, 4 done" in capsys.readouterr().out
    assert distill("study", path) == 0
    assert finished() == before
    assert {f.name for f in Path("logs/studies/small").iterdir()} >= {
        "tables.md", "table_1.csv", "figure_1.svg", "report.html",
    }  # fmt: skip


def test_a_failure_stops_only_what_needs_it(capsys):
    path = write_study(
        good={"config": "baseline.yaml", "for": {}},
        bad={"config": "baseline.yaml", "for": {}, "options": {"model.optimizer.lr": 1e30}},
        student={"config": "kd.yaml", "for": {}, "options": {"trainer.callbacks.teacher": "${bad}"}},
    )
    assert distill("study", path, "--jobs", 2) == 1
    out = capsys.readouterr().out
    assert "1 of 3 runs done, 1 failed, 1 blocked" in out
    assert "failed: bad: distill: FloatingPointError: the loss is not finite" in out
    assert "not run, for what it needs has failed: student" in out
    assert "| good " in out


def test_what_nohup_ignores_is_ignored():
    path = write_study(one={"config": "baseline.yaml", "for": {}, "options": {"trainer.max_epochs": 3}})
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a child inherits
    try:
        study = start(path)
    finally:
        signal.signal(signal.SIGHUP, before)
    while not epochs_printed():
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(signal.SIGHUP)
    out, _ = study.communicate(timeout=100)
    assert study.returncode == 0 and "1 of 1 runs done" in out


def test_an_interrupt_saves_and_the_next_start_goes_on():
    path = write_study(one={"config": "dlb.yaml", "for": {}, "options": {"trainer.max_epochs": 40}})
    study = start(path)
    while not epochs_printed() or max(epochs_printed().values()) < 2:
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(signal.SIGINT)
    out, _ = study.communicate(timeout=60)
    assert study.returncode == 130, out
    assert "the same command goes on" in out
    assert not finished()
    assert distill("study", path) == 0
    assert len(finished()) == 1
    assert set(epochs_printed().values()) == {40}  # none of them twice

"""The command ``distill search``: it trains, is killed, goes on, and writes what it found."""

import subprocess
import time
from pathlib import Path

import pytest
import yaml
from helpers import CONFIGS, command, distill, load

from distill_lightning.cli import search
from distill_lightning.cli.app import resolve
from distill_lightning.errors import InputError
from distill_lightning.search import read_search
from distill_lightning.studies import PlannedRun, plan_study

SCHEDULES = ["Cosine", "Constant"]


def write(**changed) -> Path:
    said = {
        "config": "digits/baseline",
        "options": {"trainer.max_epochs": 3, "data.train_part": 320, "checkpoint.every_n_steps": 1},
        "space": {
            "model.optimizer.lr": {"from": 0.01, "to": 1.0, "log": True},
            "model.schedule": ["Cosine", "Constant"],
        },
        "trials": 2,
    }
    path = Path("small.yaml")
    path.write_text(yaml.safe_dump(said | changed))
    return path


def weights(log_dir: str) -> dict[str, dict]:
    runs = [path.parents[1] for path in Path(log_dir).rglob("last.ckpt")]
    return {run.name: load(run)["state_dict"] for run in runs}


def test_killed_and_gone_on(capsys, monkeypatch):
    """SIGKILL to the search and, as they notice, an end to its runs. The same trials come to the same weights."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = write()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen(command("search", path), **silent)
    while not list(Path("logs").rglob("last.ckpt")):
        assert killed.poll() is None
        time.sleep(0.05)
    assert distill("search", path) == 2  # one at a time
    assert "another process makes the trials of logs/searches/small" in capsys.readouterr().err
    killed.kill()
    killed.wait()
    assert distill("search", path) == 0
    shown = capsys.readouterr()
    assert "2 of 2 trials, best val/accuracy" in shown.err
    assert distill("search", path, "--log_dir", "other") == 0
    ours, others = weights("logs"), weights("other")
    assert ours.keys() == others.keys() and len(ours) == 2
    assert all(one.equal(others[run][name]) for run, state in ours.items() for name, one in state.items())
    folders = [Path(log) / "searches" / "small" for log in ("logs", "other")]
    assert (folders[0] / "trials.csv").read_text() == (folders[1] / "trials.csv").read_text()
    # what was found is a configuration like others
    config = resolve(["fit", "--config", str(folders[0] / "best.yaml")]).config
    assert "--seed_everything 1" in shown.out  # the first that the search has not seen
    best = (folders[0] / "trials.csv").read_text().splitlines()[1].split(",")
    assert f"{config.options['model']['init_args']['optimizer']['init_args']['lr']:.4g}" == best[1]
    # and again nothing is trained
    capsys.readouterr()
    assert distill("search", path) == 0
    assert "done" not in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((CONFIGS / "searches").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_search_can_be_planned(path):
    given = read_search(path)
    (run,) = plan_study(given.study({"trial": given.corner()}), "logs", resolve, []).runs
    assert run.name == "trial-seed0"


def test_a_search_is_no_configuration(capsys):
    assert distill("fit", "--config", write()) == 2
    assert "small.yaml is a search: run it with distill search FILE" in capsys.readouterr().err
    assert distill("configs", "searches/digits", "--copy", "mine") == 0
    assert Path("mine/digits/baseline.yaml").is_file()


def test_a_wrong_option_is_found_before_the_first_trial(capsys):
    path = write(space={"model.optimizr.lr": {"from": 0.01, "to": 1.0}})
    assert distill("search", path) == 2
    error = capsys.readouterr().err
    assert "model.optimizr" in error and error.count("\n") == 1
    assert not Path("logs").exists()


def test_an_unknown_metric_is_found_before_the_first_trial(capsys):
    assert distill("search", write(metric="val/f2")) == 2
    error = capsys.readouterr().err
    assert "small.yaml: metric is val/f2: give one of val/accuracy, val/accuracy_top5" in error
    assert error.count("\n") == 1 and not Path("logs").exists()
    assert distill("search", write(metric="val/accuracy_ema")) == 2, "no callback logs it"
    space = {"trainer.callbacks": [[{"class_path": "EMA"}], None]}
    assert distill("search", write(metric="val/accuracy_ema", space=space)) == 2, "not in every trial"
    capsys.readouterr()
    callbacks = {"trainer.callbacks": [{"class_path": "EMA"}]}
    options = {"trainer.max_epochs": 1, "data.train_part": 320, **callbacks}
    assert distill("search", write(metric="val/accuracy_ema", options=options, trials=1)) == 0


def test_a_metric_that_the_runs_lack():
    run = PlannedRun("trial", {}, (), "", Path("run"), True, 1, ())
    run.folder.mkdir()
    (run.folder / "summary.json").write_text('{"metrics": {"val/accuracy": 0.5, "val/nll": NaN}}')
    assert search.value_of(read_search(write()), (run, run)) == 0.5
    assert search.value_of(read_search(write(metric="val/nll")), (run,)) is None
    with pytest.raises(InputError, match="run has no val/f2: give another metric, or data.val_size above 0"):
        search.value_of(read_search(write(metric="val/f2")), (run,))


def test_a_wrong_value_is_found_before_the_first_trial(capsys):
    assert distill("search", write(space={"model.schedule": ["Cosine", "Constnt"]})) == 2
    error = capsys.readouterr().err
    assert "Constnt" in error and error.count("\n") == 1
    assert distill("search", write(), "--model.schedule", "Constant") == 2
    assert "--model.schedule would replace what small.yaml searches" in capsys.readouterr().err
    assert not Path("logs").exists()


def test_a_search_whose_trials_fail_ends_soon(capsys, monkeypatch):
    monkeypatch.setattr(search, "MOST_FAILURES", 1)
    path = write(space={"model.optimizer.lr": [1e30, 1e31]}, trials=9)
    assert distill("search", path) == 1
    shown = capsys.readouterr()
    assert "failed: logs/digits/baseline/trial-seed0" in shown.out and shown.out.count("failed:") == 1
    assert "1 of 9 trials, none has a result" in shown.err and "no trial has a result" in shown.err

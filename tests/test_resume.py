"""A run that is killed and resumed gives the same result as a run that never stopped.

Some tests interrupt a run in this process, at every step and hook, by an exception after which nothing is saved. Others
send SIGKILL, SIGTERM and Ctrl-C to `distill fit` at random moments.
"""

import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    CONFIGS,
    METHODS,
    TAUGHT,
    Kill,
    Killed,
    assert_same_run,
    command,
    distill,
    fit,
    kill_and_resume,
    load,
    rows,
    same,
    start,
)

SMALL = ["--trainer.max_epochs", 3, "--data.train_part", 300, "--data.batch_size", 50, "--model.network.dropout", 0.3]
SMALL += ["--trainer.log_every_n_steps", 2]
TEACHER = "teacher.ckpt"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A checkpoint to learn from."""
    folder = tmp_path_factory.mktemp("teacher")
    before = Path.cwd()
    os.chdir(folder)
    run = fit("digits/baseline.yaml", "--trainer.max_epochs", 1)
    shutil.copy(run / "checkpoints" / "last.ckpt", folder / TEACHER)
    os.chdir(before)
    return folder / TEACHER


def options(method: str, teacher: Path, mode: str = "online") -> list:
    given = f"[{teacher}, {teacher}]" if method == "ca_mkd" else teacher
    taught = ["--trainer.callbacks.teacher", given, "--trainer.callbacks.mode", mode, "--trainer.callbacks.views", 2]
    more = taught if method in TAUGHT else ["--model.every_n_steps", 3] if method == "mr_kd" else []
    return ["--config", CONFIGS / "digits" / f"{method}.yaml", *SMALL, *more]


REMEMBER = ("kd", "dlb", "ps_kd", "mr_kd", "snapshot", "dml", "crd", "seed", "okddip", "pcl")
"""Methods that keep something between steps, have several networks, or read a table."""
OTHER_CHECKPOINTS = [["--checkpoint.every_n_steps", 2], ["--trainer.val_check_interval", 3]]


@pytest.mark.parametrize(
    ("method", "every"),
    [(name, []) for name in METHODS]
    + [(name, every) for name in REMEMBER for every in OTHER_CHECKPOINTS]
    + [("at", ["--trainer.callbacks.mode", "table"])],
)
def test_killed_at_any_hook(method, every, teacher, monkeypatch):
    """The same run several times over: each kill comes after a resume."""
    given = [*options(method, teacher, "table" if method == "kd" else "online"), *every]
    assert distill("fit", *given, "--name", "whole") == 0
    kill_and_resume(given, random.Random(f"{method} {every}"), monkeypatch, times=7, reach=7)
    stem = Path("logs/digits") / method
    assert_same_run(stem / "whole", stem / "killed")


@pytest.mark.parametrize("step", [1, 5, 6, 7, 12, 17])
def test_killed_at_any_step_with_a_checkpoint_at_each(step, monkeypatch):
    given = [*options("dlb", Path()), "--checkpoint.every_n_steps", 1, "--trainer.val_check_interval", 2]
    assert distill("fit", *given, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Kill(patch, "on_before_backward", step)
        assert distill("fit", *given, "--name", "killed") == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 0
    assert_same_run(Path("logs/digits/dlb/whole"), Path("logs/digits/dlb/killed"))


def test_killed_while_writing_a_checkpoint(monkeypatch):
    """Between the temporary file and its name, and between best.ckpt and last.ckpt."""
    given = options("dlb", Path())
    assert distill("fit", *given, "--name", "whole") == 0
    resume: list = []
    for count in (3, 4, 2):  # the first rename is the folder's own configuration, or metrics.csv
        left = count

        def replace(source, target, original=os.replace):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            original(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            assert distill("fit", *given, "--name", "killed", *resume) == 1
        resume = ["--ckpt_path", "last"]
    assert distill("fit", *given, "--name", "killed", *resume) == 0
    assert_same_run(Path("logs/digits/dlb/whole"), Path("logs/digits/dlb/killed"))


def test_killed_while_generating_soft_targets(teacher, monkeypatch):
    from distill_lightning.soft_targets import SoftTargetTable

    given = options("kd", teacher, "table")
    assert distill("fit", *given, "--name", "whole") == 0
    shutil.rmtree("logs/soft_targets")
    filled = []
    original = SoftTargetTable.fill

    def fill_some(self, view, block, compute):
        if len(filled) in (1, 3):
            filled.append(None)
            raise Killed
        filled.append((view, block))
        original(self, view, block, compute)

    monkeypatch.setattr(SoftTargetTable, "fill", fill_some)
    assert distill("fit", *given, "--name", "killed") == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 0
    done = [block for block in filled if block is not None]
    assert len(done) == len(set(done)) == 4  # each block once, over three starts
    assert_same_run(Path("logs/digits/kd/whole"), Path("logs/digits/kd/killed"))


@pytest.mark.parametrize(
    ("method", "more"),
    [
        *[(name, []) for name in ("dlb", "ps_kd", "dml", "crd", "ofd", "byot")],
        ("baseline", ["--trainer.callbacks", "EMA", "--trainer.callbacks.decay", 0.9]),
        ("baseline", ["--config", CONFIGS / "callbacks" / "lottery.yaml", "--trainer.max_epochs", 2]),
    ],
)
def test_every_precision_keeps_its_digits(method, more, teacher, monkeypatch):
    """Weights of 64 bits are not rounded to 32 when a run is resumed."""
    given = [*options(method, teacher), *more, "--trainer.precision", "64-true", "--checkpoint.every_n_steps", 1]
    assert distill("fit", *given, "--name", "whole") == 0
    stem = Path("logs/digits") / method
    weights = load(stem / "whole")["state_dict"]
    assert any((w.double() != w.float().double()).any() for w in weights.values() if w.dtype == torch.float64)
    kill_and_resume(given, random.Random(method), monkeypatch, times=4, reach=5)
    assert_same_run(stem / "whole", stem / "killed")
    whole, killed = (without_times(load(stem / name)["callbacks"]) for name in ("whole", "killed"))
    assert same(whole, killed)


@pytest.mark.parametrize("method", ["crd", "dlb", "ps_kd", "seed"])
def test_memory_in_half_precision(method, teacher, monkeypatch):
    """The weights are in bfloat16, and so is what is kept of them."""
    given = [*options(method, teacher), "--trainer.precision", "bf16-true", "--checkpoint.every_n_steps", 1]
    assert distill("fit", *given, "--name", "whole") == 0
    kill_and_resume(given, random.Random(method), monkeypatch, times=3, reach=5)
    stem = Path("logs/digits") / method
    assert_same_run(stem / "whole", stem / "killed")


def test_validation_by_the_clock():
    run = fit("digits/baseline.yaml", *SMALL, "--trainer.val_check_interval", "00:00:00:01")
    assert load(run)["epoch"] == 2 and (run / "summary.json").is_file()


def without_times(state: Any) -> Any:
    """Plain data without what was measured in seconds."""
    if isinstance(state, dict):
        return {key: without_times(value) for key, value in state.items() if not str(key).endswith("_s")}
    return [without_times(value) for value in state] if isinstance(state, list) else state


def test_resume_from_the_best_repeats_what_came_after(monkeypatch):
    given = options("baseline", Path())
    run = fit("digits/baseline.yaml", *SMALL)
    whole, before = load(run), rows(run)
    (run / "summary.json").unlink()
    assert distill("fit", *given, "--ckpt_path", run / "checkpoints" / "best.ckpt") == 0
    assert_same_run(run, run)
    assert rows(run) == before
    assert all(load(run)["state_dict"][k].equal(v) for k, v in whole["state_dict"].items())


def test_a_finished_run_is_left_alone(capsys):
    run = fit("digits/baseline.yaml", *SMALL)
    stamp = (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert distill("fit", "--config", run / "config.yaml", "--ckpt_path", "last") == 0
    assert "finished already" in capsys.readouterr().out
    assert (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns == stamp


def test_a_checkpoint_alone_is_enough_to_go_on(monkeypatch):
    given = options("dlb", Path())
    assert distill("fit", *given, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Kill(patch, "on_validation_start", 2)
        assert distill("fit", *given, "--name", "killed") == 1
    killed = Path("logs/digits/dlb/killed")
    assert distill("fit", "--ckpt_path", killed / "checkpoints" / "last.ckpt") == 0
    assert_same_run(Path("logs/digits/dlb/whole"), killed)


@pytest.mark.parametrize(
    "callbacks",
    [["RichProgressBar", "Consistency"], ["Consistency"], ["DeviceStatsMonitor", "EMA", "RichModelSummary"]],
)
def test_a_folder_alone_is_enough_to_go_on_with_callbacks(callbacks, monkeypatch):
    if "DeviceStatsMonitor" in callbacks and not find_spec("psutil"):
        pytest.skip("needs psutil")
    given = options("baseline", Path())
    for number, name in enumerate(callbacks):
        given += ["--trainer.callbacks+" if number else "--trainer.callbacks", name]
    with monkeypatch.context() as patch:
        Kill(patch, "on_validation_start", 2)
        assert distill("fit", *given, "--name", "killed") == 1
    killed = Path("logs/digits/baseline/killed")
    assert distill("fit", "--ckpt_path", killed) == 0
    assert distill("fit", "--ckpt_path", killed) == 0, "a finished one is left alone"


def test_what_only_watches_may_come_and_go(monkeypatch, capsys):
    given, ema = options("baseline", Path()), ["EMA", "--trainer.callbacks.decay", 0.9]
    watched = ["--trainer.callbacks", "TQDMProgressBar", "--trainer.callbacks+", "LearningRateMonitor"]
    averaged = ["--trainer.callbacks+", *ema]
    assert distill("fit", *given, *watched, *averaged, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Kill(patch, "on_validation_start", 2)
        assert distill("fit", *given, *watched, *averaged, "--name", "killed") == 1
    again = ["--name", "killed", "--ckpt_path", "last"]
    capsys.readouterr()
    other = ["--trainer.callbacks", "RichModelSummary", "--trainer.callbacks+", "EMA", "--trainer.callbacks.decay", 0.8]
    assert distill("fit", *given, *other, *again) == 2
    assert "trainer.callbacks.0.init_args.decay is 0.8" in capsys.readouterr().err
    assert distill("fit", *given, "--trainer.callbacks", "RichModelSummary", *averaged, *again) == 0
    whole, killed = (load(Path("logs/digits/baseline") / name) for name in ("whole", "killed"))
    assert same(whole["state_dict"], killed["state_dict"])


def test_early_stopping_is_not_undone():
    """A run that had stopped early, and was cut before it was summed up, does not train on."""
    stop = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/nll"]
    stop += ["--trainer.callbacks.patience", 0, "--trainer.callbacks.min_delta", 100]
    run = fit("digits/baseline.yaml", *SMALL, *stop)
    epochs = load(run)["epoch"]
    assert epochs < 2
    before = rows(run)
    (run / "summary.json").unlink()
    assert distill("fit", "--config", run / "config.yaml", "--ckpt_path", "last") == 0
    assert load(run)["epoch"] == epochs
    assert rows(run) == before


def test_gradients_that_accumulate_are_never_cut_through(monkeypatch):
    given = [*options("baseline", Path()), "--trainer.accumulate_grad_batches", 4, "--checkpoint.every_n_steps", 1]
    assert distill("fit", *given, "--name", "whole") == 0
    for count in (3, 6):
        with monkeypatch.context() as patch:
            Kill(patch, "on_train_batch_start", count)
            resume = ["--ckpt_path", "last"] if count == 6 else []
            assert distill("fit", *given, "--name", "killed", *resume) == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 0
    assert_same_run(Path("logs/digits/baseline/whole"), Path("logs/digits/baseline/killed"))


# For real


LONGER = ["--trainer.max_epochs", 40, "--checkpoint.every_n_steps", 7, "--trainer.val_check_interval", 4]


def end(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err


def kill_at_random(given: list, kills: int, rng: random.Random, trains_s: float) -> None:
    """Starts a run under the name "killed", kills it so often, and lets it end."""
    folder_known = False
    for _ in range(kills):
        process = start("fit", *given, "--name", "killed", *(["--ckpt_path", "last"] if folder_known else []))
        line = process.stdout.readline()  # the folder, before training begins
        time.sleep(rng.uniform(0, trains_s))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        folder_known = folder_known or line.startswith("run: ")
    status, output = end(start("fit", *given, "--name", "killed", "--ckpt_path", "last"))
    assert status == 0, output


def timed(given: list) -> float:
    """Runs to the end under the name "whole"; the seconds from the first line on."""
    process = start("fit", *given, "--name", "whole")
    process.stdout.readline()
    begun = time.monotonic()
    status, output = end(process)
    assert status == 0, output
    return time.monotonic() - begun


@pytest.mark.parametrize("method", ["dlb", "kd"])
def test_sigkill(method, teacher):
    given = [*options(method, teacher, "table"), *LONGER]
    trains_s = timed(given)
    shutil.rmtree("logs/soft_targets", ignore_errors=True)
    kill_at_random(given, 3, random.Random(method), trains_s)
    stem = Path("logs/digits") / method
    assert_same_run(stem / "whole", stem / "killed")


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("method", "mode"),
    [(name, "") for name in METHODS if name not in TAUGHT] + [("kd", "table")] + [(name, "online") for name in TAUGHT],
)
def test_sigkill_many_times(method, mode, devices, teacher):
    given = [*options(method, teacher, mode or "online"), *LONGER, "--trainer.devices", devices]
    given += ["--trainer.accelerator", "cpu"]
    trains_s = timed(given)
    rng = random.Random(f"{method} {mode} {devices}")
    stem = Path("logs/digits") / method
    for _ in range(3):
        shutil.rmtree("logs/soft_targets", ignore_errors=True)
        shutil.rmtree(stem / "killed", ignore_errors=True)
        kill_at_random(given, 4, rng, trains_s)
        assert_same_run(stem / "whole", stem / "killed")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_after_the_step_and_leave(number, status):
    given = [*options("dlb", Path()), "--trainer.max_epochs", 300, "--trainer.check_val_every_n_epoch", 1000]
    given += ["--checkpoint.every_n_epochs", 1000]
    process = start("fit", *given, "--name", "stopped")
    run = Path(process.stdout.readline().split()[1])
    for _ in range(600):
        if list(run.glob("events*")):
            break
        time.sleep(0.05)
    time.sleep(1)
    os.kill(process.pid, number)
    code, output = end(process)
    assert code == status, output
    assert "Traceback" not in output
    assert (step := load(run)["global_step"]) > 0
    assert (
        f"stopped and saved after step {step}: the same command goes on with --name stopped --ckpt_path last" in output
    )
    assert not (run / "summary.json").exists()


def test_a_requeued_slurm_job_resumes_its_own_folder(tmp_path, capsys, monkeypatch):
    """SLURM as its environment variables show it; `scontrol` is a stand-in that writes down what it is asked."""
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    tool.chmod(0o755)
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    job |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"}
    job |= {"PATH": f"{tool.parent}:{os.environ['PATH']}"}
    given = [*options("baseline", Path()), "--trainer.max_epochs", 60]
    process = start("fit", *given, **job)
    run = Path(process.stdout.readline().split()[1])
    while not (run / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGUSR1)
    code, output = end(process)
    assert code == 128 + signal.SIGUSR1, output
    assert (tmp_path / "asked").read_text().split() == ["requeue", "4711"]
    code, output = end(start("fit", *given, **job, SLURM_RESTART_COUNT="1"))
    assert code == 0, output
    assert [f.name for f in run.parent.iterdir()] == [run.name]
    assert (run / "summary.json").exists()
    assert distill("fit", *given, "--name", "whole") == 0
    assert_same_run(run.parent / "whole", run)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    """A limit on the size of files stands for the disk."""
    given = [*options("baseline", Path()), "--name", "full", "--model.network.width", 64]
    limited = f"ulimit -f 600; exec {shlex.join(command('fit', *given))}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("distill: ")
    assert "could not write" in last
    folder = Path("logs/digits/baseline/full/checkpoints")
    assert not folder.exists() or [f.name for f in folder.iterdir()] == []

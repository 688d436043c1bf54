"""Runs that time, a signal or early stopping ends."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import CONFIGS, assert_same_run, distill, load, start

from distill_lightning import __main__ as program
from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.cli.command import DistillCommand
from distill_lightning.training import fit as fit_module

BASE = ["--config", CONFIGS / "digits" / "baseline.yaml", "--data.train_part", 300, "--data.batch_size", 50]
BASE += ["--trainer.max_epochs", 4, "--model.network.dropout", 0.3]
STEM = Path("logs/digits/baseline")


class Clock:
    """A clock of which every step of training takes a second."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        original = RunCheckpoint.on_train_batch_end

        def tick(checkpoint, *args):
            self.now += 1
            original(checkpoint, *args)

        monkeypatch.setattr(RunCheckpoint, "on_train_batch_end", tick)
        monkeypatch.setattr("distill_lightning.callbacks.run_checkpoint.time.monotonic", lambda: self.now)


# in an epoch, before a validation within it, at the end of an epoch, in the last epoch
@pytest.mark.parametrize(("seconds", "step"), [(4, 4), (3, 3), (6, 6), (20, 20)])
def test_a_run_that_is_out_of_time_goes_on_exactly(seconds, step, capsys, monkeypatch):
    given = [*BASE, "--trainer.val_check_interval", 3]
    assert distill("fit", *given, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Clock(patch)
        limit = ["--trainer.max_time", f"00:00:00:{seconds:02}"]
        assert distill("fit", *given, "--name", "cut", *limit) == 0
        assert f"stopped by trainer.max_time and saved after step {step}: " in (err := capsys.readouterr().err)
        assert "goes on with --name cut --ckpt_path last" in err
        assert load(STEM / "cut")["global_step"] == step
        assert not (STEM / "cut" / "summary.json").exists()
        if seconds < 10:  # the limit holds for one start, so the same command makes progress
            assert distill("fit", *given, "--name", "cut", *limit, "--ckpt_path", "last") == 0
            assert load(STEM / "cut")["global_step"] == 2 * step
    assert distill("fit", *given, "--name", "cut", "--ckpt_path", "last") == 0
    assert (STEM / "cut" / "summary.json").exists()
    assert_same_run(STEM / "whole", STEM / "cut")


def test_a_run_whose_time_ends_with_its_last_step_is_finished(monkeypatch):
    Clock(monkeypatch)
    assert distill("fit", *BASE, "--name", "run", "--trainer.max_time", "00:00:00:24") == 0
    assert (STEM / "run" / "summary.json").exists()


def test_a_run_that_early_stopping_ends_is_finished():
    stop = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/nll"]
    stop += ["--trainer.callbacks.patience", 0, "--trainer.callbacks.min_delta", 100]
    assert distill("fit", *BASE, "--name", "run", *stop) == 0
    assert load(STEM / "run")["epoch"] < 3
    assert (STEM / "run" / "summary.json").exists()


# Signals, to the real command


def end(process) -> tuple[int, str]:
    _, err = process.communicate(timeout=300)
    return process.returncode, err


@pytest.mark.parametrize("after_s", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_training_ends_with_one_line(after_s, number, status):
    process = start("fit", *BASE, "--trainer.max_epochs", 3000)
    time.sleep(after_s)
    os.kill(process.pid, number)
    code, err = end(process)
    assert code == status, err
    assert err.splitlines()[-1].startswith(("distill: stopped by SIG", "stopped "))
    assert "Traceback" not in err
    for folder in Path().glob("logs/*/*/*"):  # no folder, or one that can be resumed
        assert {"config.yaml", "identity.json"} <= {file.name for file in folder.iterdir()}


def test_a_library_that_turns_the_signal_into_another_error_changes_nothing():
    code = """
import os, signal, sys
from distill_lightning import __main__ as program
def answer(args):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except SystemExit:
        raise RecursionError("too deep")
program.verbs.answer = answer
sys.argv = ["distill", "fit"]
sys.exit(program.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "distill: stopped by SIGTERM\n")


def test_a_signal_while_the_interpreter_shuts_down_ends_it_at_once():
    """As SLURM's, after a run was saved and its job put back into the queue."""
    code = """
import atexit, os, signal, sys
from distill_lightning.__main__ import main
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
sys.argv = ["distill", "--version"]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM and "Traceback" not in done.stderr and done.stdout


@pytest.mark.parametrize("gap_s", [0.0, 0.05, 0.5])
def test_a_second_interrupt_ends_with_130_and_leaves_nothing_half_written(gap_s):
    process = start("fit", *BASE, "--trainer.max_epochs", 3000, "--name", "run", "--checkpoint.every_n_steps", 1)
    while not (STEM / "run" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(gap_s)
    code, err = end(process)
    assert code == 130, err
    assert "Traceback" not in err
    load(STEM / "run")
    assert distill("test", "--ckpt_path", STEM / "run" / "checkpoints" / "last.ckpt") == 0


def test_a_run_is_finished_though_nobody_reads_its_last_line(monkeypatch):
    """As in `distill fit ... | head -1`: the line of the doctor comes after the summary."""

    def gone(*args):
        raise BrokenPipeError

    monkeypatch.setattr(fit_module, "_ask_doctor", gone)
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", "--data.train_part", 200, "--trainer.max_epochs", 1]
    with pytest.raises(BrokenPipeError):
        DistillCommand(list(map(str, ["fit", *given, "--name", "piped"])))
    assert (Path("logs/digits/baseline/piped") / "summary.json").is_file()


def test_names_of_classes_are_printed_whatever_the_output_can_write(monkeypatch):
    """A pipe in latin-1 does not have them."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    monkeypatch.setattr(program, "_end_on_signals", lambda: None)
    monkeypatch.setattr(program, "_run", lambda args: print("\u732b", flush=True) or 0)
    monkeypatch.setattr(program, "received", [])
    assert program.main() == 0
    assert written.getvalue().strip() == b"\\u732b"

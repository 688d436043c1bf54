"""Schedulers of torch: stepped like torch's own loop steps them, and resumed exactly."""

import functools
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, assert_same_run, distill, fit, kill_and_resume, load, rows, start
from torch.optim import lr_scheduler as of_torch

from distill_lightning.errors import InputError
from distill_lightning.schedulers import TorchSchedule

SMALL = ["--trainer.max_epochs", 4, "--data.train_part", 300, "--data.batch_size", 50, "--trainer.log_every_n_steps", 1]
BASE = ["--config", CONFIGS / "digits" / "baseline.yaml", *SMALL]
TORCH = "torch.optim.lr_scheduler."
MADE = {
    "StepLR": lambda o: of_torch.StepLR(o, 2),
    "MultiStepLR": lambda o: of_torch.MultiStepLR(o, [1, 3]),
    "ConstantLR": of_torch.ConstantLR,
    "LinearLR": of_torch.LinearLR,
    "ExponentialLR": lambda o: of_torch.ExponentialLR(o, 0.9),
    "PolynomialLR": of_torch.PolynomialLR,
    "CosineAnnealingLR": lambda o: of_torch.CosineAnnealingLR(o, 3),
    "CosineAnnealingWarmRestarts": lambda o: of_torch.CosineAnnealingWarmRestarts(o, 2),
    "CyclicLR": lambda o: of_torch.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "OneCycleLR": lambda o: of_torch.OneCycleLR(o, 0.1, total_steps=8),
    "LambdaLR": lambda o: of_torch.LambdaLR(o, lambda n: 0.9**n),
    "MultiplicativeLR": lambda o: of_torch.MultiplicativeLR(o, lambda n: 0.9),
    "SequentialLR": lambda o: of_torch.SequentialLR(
        o, [of_torch.ConstantLR(o, 0.1), of_torch.ExponentialLR(o, 0.9)], milestones=[2]
    ),
    "ChainedScheduler": lambda o: of_torch.ChainedScheduler(
        [of_torch.ConstantLR(o, 0.1), of_torch.ExponentialLR(o, 0.9)], optimizer=o
    ),
}


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1, momentum=0.9)


@pytest.mark.parametrize("every", ["epoch", "step"])
@pytest.mark.parametrize("name", MADE)
def test_rates_are_those_of_torchs_own_loop_also_after_a_resume(name, every):
    """Epochs of two steps. The state and the optimizer go through a checkpoint after three of eight steps."""
    reference, mine = sgd(), sgd()
    stepped = MADE[name](reference)
    running = TorchSchedule(MADE[name], every).start(mine, 4, 8)
    for step in range(8):
        if step == 3:
            state, groups = running.state(), mine.state_dict()
            mine = sgd()
            running = TorchSchedule(MADE[name], every).start(mine, 4, 8)
            running.load(state)
            mine.load_state_dict(groups)
        running.before_step(step // 2, step)
        assert [g["lr"] for g in mine.param_groups] == [g["lr"] for g in reference.param_groups]
        assert [g["momentum"] for g in mine.param_groups] == [g["momentum"] for g in reference.param_groups]
        for optimizer in (reference, mine):
            optimizer.step()
        if every == "step" or step % 2 == 1:
            stepped.step()


def test_plateau_counts_validations():
    running = TorchSchedule(lambda o: of_torch.ReduceLROnPlateau(o, patience=1)).start(optimizer := sgd(), 4, 8)
    rates = []
    for value in (1.0, 1.0, 1.0, 0.5):
        running.before_step(9, 99)  # neither epochs nor steps count
        running.after_validation({"val/nll": value})
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_a_resumed_plateau_equals_torchs_on_200_random_sequences():
    draws = random.Random(0)
    for _ in range(200):
        options = {
            "mode": draws.choice(["min", "max"]), "factor": draws.choice([0.1, 0.5]), "patience": draws.randrange(4),
            "cooldown": draws.randrange(3), "threshold_mode": draws.choice(["rel", "abs"]), "min_lr": 1e-4,
        }  # fmt: skip
        values = [draws.choice([1.0, 0.5, draws.random()]) for _ in range(20)]
        theirs = of_torch.ReduceLROnPlateau(reference := sgd(), **options)
        monitor = "val/nll" if options["mode"] == "min" else "val/accuracy"
        schedule = TorchSchedule(functools.partial(of_torch.ReduceLROnPlateau, **options), monitor=monitor)
        running, cut = schedule.start(optimizer := sgd(), 20, 20), draws.randrange(20)
        for number, value in enumerate(values):
            if number == cut:
                state, weights = running.state(), optimizer.state_dict()
                running = schedule.start(optimizer := sgd(), 20, 20)
                optimizer.load_state_dict(weights)
                running.load(state)
            theirs.step(value)
            running.after_validation({monitor: value})
            assert optimizer.param_groups[0]["lr"] == reference.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (TorchSchedule(lambda o: of_torch.OneCycleLR(o, 0.1)), "this run has 4 epochs, 8 steps"),
        (TorchSchedule(lambda o: of_torch.OneCycleLR(o, 0.1, total_steps=7)), "give 8"),
        (TorchSchedule(MADE["StepLR"], monitor="val/nll"), "StepLR watches no metric"),
        (TorchSchedule(of_torch.ReduceLROnPlateau, every="step"), "counts validations"),
        (TorchSchedule(of_torch.ReduceLROnPlateau, monitor="val/accuracy"), "give max"),
        (TorchSchedule(lambda o: o), "expected a scheduler"),
    ],
)
def test_bad_schedulers(schedule, words):
    with pytest.raises(InputError, match=words):
        schedule.start(sgd(), 4, 8)


def test_the_state_of_another_scheduler_is_refused():
    state = TorchSchedule(MADE["StepLR"]).start(sgd(), 4, 8).state()
    with pytest.raises(InputError, match="started with the scheduler StepLR"):
        TorchSchedule(MADE["LinearLR"]).start(sgd(), 4, 8).load(state)


PLATEAU = ["TorchSchedule", "--model.schedule.scheduler", TORCH + "ReduceLROnPlateau"]
GIVEN = {
    "step": [TORCH + "StepLR", "--model.schedule.step_size", 1],
    "cycle": [TORCH + "OneCycleLR", "--model.schedule.max_lr", 0.1, "--model.schedule.total_steps", 24],
    "restarts": [TORCH + "CosineAnnealingWarmRestarts", "--model.schedule.T_0", 2],
    "restarts_each_step": [
        "TorchSchedule",
        *("--model.schedule.scheduler", TORCH + "CosineAnnealingWarmRestarts"),
        *("--model.schedule.scheduler.T_0", 5, "--model.schedule.every", "step"),
    ],
    "plateau": [*PLATEAU, "--model.schedule.scheduler.patience", 0, "--model.schedule.scheduler.threshold", 0.9],
}


@pytest.mark.parametrize("name", GIVEN)
def test_killed_at_any_hook(name, monkeypatch):
    given = [*BASE, "--model.schedule", *GIVEN[name], "--trainer.val_check_interval", 3]
    assert distill("fit", *given, "--checkpoint.every_n_steps", 2, "--name", "whole") == 0
    kill_and_resume([*given, "--checkpoint.every_n_steps", 2], random.Random(name), monkeypatch, times=5, reach=8)
    stem = Path("logs/digits/baseline")
    assert_same_run(stem / "whole", stem / "killed")
    assert load(stem / "whole")["method"]["schedule"] == load(stem / "killed")["method"]["schedule"]
    assert len({value for _, tag, value in rows(stem / "whole") if tag == "train/lr"}) > 1


def test_two_processes_resume_exactly():
    given = [*BASE, "--model.schedule", *GIVEN["plateau"], "--model.schedule.scheduler.threshold", 0.9]
    given += ["--trainer.max_epochs", 30, "--trainer.devices", 2, "--trainer.accelerator", "cpu"]
    whole = start("fit", *given, "--name", "whole")
    assert whole.wait(timeout=300) == 0, whole.communicate()
    process = start("fit", *given, "--name", "killed")
    while not Path("logs/digits/baseline/killed/checkpoints/last.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    resumed = start("fit", *given, "--name", "killed", "--ckpt_path", "last")
    assert resumed.wait(timeout=300) == 0, resumed.communicate()
    stem = Path("logs/digits/baseline")
    assert_same_run(stem / "whole", stem / "killed")
    assert load(stem / "whole")["method"]["schedule"] == load(stem / "killed")["method"]["schedule"]


def test_with_accumulated_gradients_a_step_is_an_optimizer_step():
    more = ["--trainer.accumulate_grad_batches", 2, "--model.schedule", TORCH + "OneCycleLR"]
    more += ["--model.schedule.max_lr", 0.1, "--model.schedule.total_steps", 12]
    run = fit("digits/baseline.yaml", *SMALL, *more)
    assert load(run)["method"]["schedule"]["done"] == 11


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([*PLATEAU, "--model.schedule.monitor", "val/los"], "ReduceLROnPlateau monitors val/los"),
        ([*PLATEAU, "--data.val_size", 0], "there is no validation"),
        ([TORCH + "OneCycleLR", "--model.schedule.max_lr", 0.1], "this run has 4 epochs, 24 steps"),
        ([*GIVEN["step"], "--trainer.callbacks", "Lottery"], "Lottery rewinds the learning rate"),
    ],
)
def test_wrong_schedules_are_refused_in_one_line_before_training(more, words, capsys):
    assert distill("fit", *BASE, "--model.schedule", *more) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith("distill: ") and err.count("\n") == 1 and len(err) < 250
    assert not list(Path().glob("logs/digits/baseline/*"))


def test_a_checkpoint_with_a_scheduler_is_tested_and_resumed_alone():
    run = fit("digits/baseline.yaml", *SMALL, "--model.schedule", *GIVEN["restarts_each_step"])
    assert distill("test", "--ckpt_path", run / "checkpoints" / "last.ckpt") == 0
    (run / "summary.json").unlink()
    assert distill("fit", "--ckpt_path", run / "checkpoints" / "last.ckpt") == 0

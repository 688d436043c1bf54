"""Learning rates by epoch: Caffe's and torch's numbers, what is drawn before training, and exact resume."""

from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, Kill, assert_same_run, distill, rows
from torch.optim import lr_scheduler as of_torch

from distill_lightning.errors import InputError
from distill_lightning.learning_rates import planned_rates, refuse_zero
from distill_lightning.optimizers import make_optimizer
from distill_lightning.schedulers import TorchSchedule
from distill_lightning.schedules import (
    Constant,
    Cosine,
    CosineCycles,
    Exponential,
    Inverse,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Sigmoid,
    Step,
    WarmupStableDecay,
)

SEEN = (0, 1, 999, 1000, 5000, 9999)
CAFFE = {  # base rate 0.01, 10,000 iterations, of which 1,000 are an epoch; Caffe's sgd_solver.cpp in float64
    "fixed": (Constant(), [0.01] * 6),
    "step": (Step(1), [0.01, 0.01, 0.01, 0.001, 1e-7, 1e-11]),
    "exp": (Exponential(0.999**10000), [0.01, 0.00999, 3.680635e-3, 3.676954e-3, 6.721112e-5, 4.521856e-7]),
    "inv": (Inverse(1e-4 * 1000), [0.01, 9.999250e-3, 9.310759e-3, 9.310124e-3, 7.377879e-3, 5.946259e-3]),
    "multistep": (MultiStep([5, 8]), [0.01, 0.01, 0.01, 0.01, 1e-3, 1e-4]),
    "poly": (Polynomial(0.5), [0.01, 9.9995e-3, 9.487360e-3, 9.486833e-3, 7.071068e-3, 1e-4]),
    "sigmoid_rises": (Sigmoid(-100), [1.93e-24, 1.95e-24, 4.206e-20, 4.248e-20, 0.005, 0.01]),
    "sigmoid_falls": (Sigmoid(100), [0.01, 0.01, 0.01, 0.01, 0.005, 1.95e-24]),
}


@pytest.mark.parametrize("name", CAFFE)
def test_the_policies_of_caffe(name):
    schedule, expected = CAFFE[name]
    found = [0.01 * schedule.factor(it / 1000, 10, 1e-3) for it in SEEN]
    assert found == pytest.approx(expected, rel=4e-3 if "sigmoid" in name else 1e-6, abs=0)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5, momentum=0.9)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (Step(2), lambda o: of_torch.StepLR(o, 20)),
        (MultiStep([3, 5]), lambda o: of_torch.MultiStepLR(o, [30, 50])),
        (Exponential(0.97**80), lambda o: of_torch.ExponentialLR(o, 0.97)),
        (Inverse(0.3, 0.5), lambda o: of_torch.LambdaLR(o, lambda n: (1 + 0.03 * n) ** -0.5)),
        (Polynomial(0.7), lambda o: of_torch.PolynomialLR(o, 80, 0.7)),
        (Polynomial(), lambda o: of_torch.LinearLR(o, 1, 0, 80)),
        (Cosine(), lambda o: of_torch.CosineAnnealingLR(o, 80)),
        (OneCycle(0.25, 20, 100), lambda o: of_torch.OneCycleLR(o, 0.5, 80, pct_start=0.25, div_factor=20,
                                                                final_div_factor=100)),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Schedule) else "",
)  # fmt: skip
def test_equal_to_torchs_stepped_at_each_step(mine, theirs):
    """8 epochs of 10 batches."""
    ours = [rate for _, rate in planned_rates(mine, sgd, 8, 10)]
    reference = [rate for _, rate in planned_rates(TorchSchedule(theirs, "step"), sgd, 8, 10)]
    assert len(ours) == len(reference) == 80
    assert ours == pytest.approx(reference, rel=1e-10, abs=1e-12)


def test_one_cycle():
    rates = [OneCycle().factor(it / 100, 1, 0.01) for it in (0, 15, 29, 30, 50, 98, 99)]
    assert rates == pytest.approx([0.04, 0.545987, 1, 0.999497, 0.793893, 0.000507, 4e-6], abs=5e-7)


def test_warmup_stable_decay():
    linear = WarmupStableDecay(0.2, warmup_epochs=0.05)
    assert [linear.factor(p, 1, 0) for p in (0.025, 0.05, 0.8, 0.9, 1)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    root = WarmupStableDecay(0.2, "sqrt")
    assert [root.factor(p, 1, 0) for p in (0.85, 0.9)] == pytest.approx([0.5, 0.292893], abs=1e-6)


def test_plateau_with_the_golden_fold():
    """Mode min, factor 0.1, patience 2: the third bad value drops the rate, and the count begins again."""
    optimizer = sgd([torch.zeros(1, requires_grad=True)])
    running = TorchSchedule(lambda o: of_torch.ReduceLROnPlateau(o, patience=2)).start(optimizer, 7, 7)
    rates = []
    for value in (1.0, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95):
        running.after_validation({"val/nll": value})
        rates.append(optimizer.param_groups[0]["lr"] / 0.5)
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1])


def test_cosine_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in range(10):
        assert Cosine().factor(epoch, 10, 1.0) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_multistep_drops_at_milestones():
    schedule = MultiStep([3, 5], gamma=0.1)
    factors = [schedule.factor(epoch, 8, 0.5) for epoch in (0, 2.5, 3, 4.5, 5, 7)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_milestone_inside_an_epoch_is_reached_at_its_batch():
    """34 of 25 batches an epoch are 1.36 epochs, but 1 + 9 / 25 is less in floating point."""
    schedule = MultiStep([1.36])
    assert [schedule.factor(1 + batch / 25, 8, 0.04) for batch in (8, 9)] == pytest.approx([1, 0.1])


def test_warmup_rises_to_one():
    schedule = Constant(warmup_epochs=2)
    factors = [schedule.factor(step / 4, 10, 1 / 4) for step in range(9)]
    assert factors == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1])


def test_cosine_starts_after_warmup_and_ends_at_zero():
    schedule = Cosine(warmup_epochs=2)
    assert schedule.factor(2, 10, 0.25) == pytest.approx(1)
    assert schedule.factor(10, 10, 0.25) == pytest.approx(0)


BAD = [lambda: Cosine(-1), lambda: MultiStep([5, 3]), lambda: MultiStep([3], gamma=0), lambda: Step(0)]
BAD += [lambda: Exponential(0), lambda: Polynomial(final=2), lambda: OneCycle(1), lambda: OneCycle(div=0.5)]
BAD += [lambda: Sigmoid(middle=1), lambda: Sigmoid(float("inf")), lambda: WarmupStableDecay(0)]


@pytest.mark.parametrize("make", BAD)
def test_bad_options(make):
    with pytest.raises(InputError):
        make()


class Zero(Schedule):
    def after_warmup(self, epoch, epochs):
        return 0.0


@pytest.mark.parametrize("schedule", [Zero(), TorchSchedule(lambda o: of_torch.LambdaLR(o, lambda n: 0.0))])
def test_a_schedule_that_is_zero_at_every_step_is_refused_but_not_a_base_rate_of_zero(schedule):
    def optimizer(schedule: Schedule | TorchSchedule, lr: float) -> torch.optim.Optimizer:
        made = make_optimizer(lambda p: torch.optim.SGD(p, lr=lr), [{"params": [torch.zeros(1, requires_grad=True)]}])
        if isinstance(schedule, TorchSchedule):
            schedule.start(made, 3, 15)
        return made

    with pytest.raises(InputError, match="0 at every step"):
        refuse_zero(schedule, optimizer(schedule, 0.1), sgd, 3, 5)
    refuse_zero(schedule, optimizer(schedule, 0.0), sgd, 3, 5)
    late = TorchSchedule(lambda o: of_torch.LambdaLR(o, lambda n: float(n == 14)), "step")
    refuse_zero(late, optimizer(late, 0.1), sgd, 3, 5)


@pytest.mark.parametrize("steepness", [1e6, -1e6])
def test_the_steepest_sigmoid_does_not_overflow(steepness):
    assert [Sigmoid(steepness).factor(at, 1, 0.1) for at in (0, 1)] == ([1, 0] if steepness > 0 else [0, 1])


# The command

DIGITS = CONFIGS / "digits" / "baseline.yaml"


def test_the_schedule_is_drawn_before_training_without_reading_pictures(capsys, monkeypatch):
    monkeypatch.setattr("distill_lightning.data.digits.Digits.read", None)
    given = ["--model.schedule", "Polynomial", "--model.schedule.warmup_epochs", 2, "--trainer.max_epochs", 4]
    assert distill("schedule", DIGITS, *given, "--plot", "rates.svg") == 0
    out = capsys.readouterr().out
    assert "first 0.0005, highest 0.1 at epoch 1.99, last 0.0005" in out and "epoch" in out
    assert "Learning rate: Polynomial" in Path("rates.svg").read_text()
    assert not Path("logs").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--model.schedule", "torch.optim.lr_scheduler.ReduceLROnPlateau"], "cannot be drawn before training"),
        (["--model.schedule", "torch.optim.lr_scheduler.OneCycleLR", "--model.schedule.max_lr", 0.1,
          "--model.schedule.total_steps", 9], "give --batches_per_epoch N"),
        (["--plot", "rates.jpg"], "ends in .svg"),
        ([], "trains nothing"),
        (["--batches_per_epoch", 0], "1 or more"),
        (["--model.schedule", "Step", "--model.schedule.every", 0], "model.schedule.every is 0.0: it must be above 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_answered_in_one_line(given, words, capsys):
    config = CONFIGS / "digits" / "ensemble.yaml" if words == "trains nothing" else DIGITS
    assert distill("schedule", config, *given) == 2
    err = capsys.readouterr().err
    assert words in err and err.startswith("distill: ") and err.count("\n") == 1 and len(err) < 200


def test_a_schedule_of_zero_is_refused_before_training(capsys):
    zero = ["--model.schedule", "torch.optim.lr_scheduler.ConstantLR", "--model.schedule.factor", 0]
    assert distill("fit", "--config", DIGITS, *zero, "--model.schedule.total_iters", 99) == 2
    assert "the learning rate is 0 at every step" in capsys.readouterr().err


# Resume

RESUMED: list[Schedule] = [Constant(0.5), Step(1), MultiStep([1]), Exponential(), Inverse(), Polynomial(), Sigmoid()]
RESUMED += [Cosine(), CosineCycles(2), OneCycle(), WarmupStableDecay(0.5)]


@pytest.mark.parametrize("schedule", RESUMED, ids=lambda one: type(one).__name__)
def test_resumed_from_the_middle(schedule, monkeypatch):
    name = type(schedule).__name__
    given = ["--config", DIGITS, "--trainer.max_epochs", 2, "--data.train_part", 200, "--data.batch_size", 50]
    given += ["--trainer.log_every_n_steps", 1, "--checkpoint.every_n_steps", 1, "--model.schedule", name]
    given += {"Step": ["--model.schedule.every", 1], "MultiStep": ["--model.schedule.milestones", "[1]"],
              "CosineCycles": ["--model.schedule.cycles", 2]}.get(name, [])  # fmt: skip
    assert distill("fit", *given, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_start", 6)  # the second batch of the second epoch
        assert distill("fit", *given, "--name", "killed") == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 0
    stem = Path("logs/digits/baseline")
    assert_same_run(stem / "whole", stem / "killed")
    rates = [value for _, tag, value in rows(stem / "whole") if tag == "train/lr"]
    assert len(rates) == 8 and (name == "Constant" or len(set(rates)) > 1)

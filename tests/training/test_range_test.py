"""``distill lr``: a training whose rate rises, and the rate that it suggests."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, distill, fit

from distill_lightning.cli import app
from distill_lightning.cli.lr import in_words
from distill_lightning.training.range_test import RangeTest

DIGITS = str(CONFIGS / "digits" / "baseline.yaml")
PLAIN = ["--model.network", "LeNet300100", "--data.train_part", "640"]


def result(losses: list[float], batch_norm: bool = False, start: float = 1.0) -> RangeTest:
    rates = tuple(1e-4 * 10.0**step for step in range(len(losses)))
    return RangeTest(start, rates, tuple(losses), batch_norm, rates[-1])


@pytest.mark.parametrize(
    ("losses", "batch_norm", "start", "bound", "suggestion"),
    [
        ([1.0, 0.9, 0.6, 2.5, 3.0], False, 1.0, 0.1, 0.01),  # means of 3: 0.83, 1.33
        ([1.0, 0.9, 0.6, 2.5, 3.0], True, 1.0, 0.1, 0.003),
        ([1.0, 0.9, 0.6, math.nan], False, 1.0, 0.1, 0.01),
        ([1.0, 0.9, 0.6, 0.5, 0.4], False, 1.0, None, None),
        ([1.2, 1.2, 1.2, 1.2, 1.2], False, 1.2, None, None),  # no higher than it began
        ([0.1, 0.1, 0.2, 1.0, 1.1], False, 0.1, None, None),  # from trained weights: not above a network without any
        ([5.0], False, 1.0, 1e-4, None),
    ],
)  # fmt: skip
def test_the_bound_and_the_suggestion(losses, batch_norm, start, bound, suggestion):
    found = result(losses, batch_norm, start)
    assert found.bound == (None if bound is None else pytest.approx(bound))
    assert found.suggestion == (None if suggestion is None else pytest.approx(suggestion))
    assert len(" ".join(in_words(found))) < 250


def test_the_rates_rise_geometrically_and_the_loss_is_that_of_a_plain_loop():
    """With tiny rates nothing is learned: each loss is that of the first weights. With a rising one, it ends early."""
    still = app.range_test([DIGITS, *PLAIN, "--data.augment", "[]"], 1e-12, 1e-11, 10)
    assert still.rates == pytest.approx([1e-12 * 10 ** (step / 9) for step in range(10)])
    assert len(still.losses) == 10 and all(abs(loss - 1) < 0.15 for loss in still.losses)
    assert still.bound is None and not still.batch_norm
    found = app.range_test([DIGITS, *PLAIN], 1e-4, 1e4, 60)
    assert len(found.rates) == len(found.losses) < 60
    assert min(found.losses) < 0.7 and not found.losses[-1] <= 4
    assert 0.01 < found.bound < 10 and found.bound in found.rates
    again = app.range_test([DIGITS, *PLAIN], 1e-4, 1e4, 60)
    assert again.losses == found.losses


def test_the_command_writes_the_figure_and_nothing_else(capsys):
    given = ["lr", DIGITS, *PLAIN, "--low", 1e-3, "--high", 1e3, "--steps", 40, "--model.schedule", "OneCycle"]
    assert distill(*given, "--plot", "rates.svg") == 0
    out = capsys.readouterr().out
    rate = float(re.search(r"suggestion: --model.optimizer.lr ([\d.e-]+) ", out)[1])
    assert 1e-3 <= rate < 1 and "log10 of the rate" in out and "plot: rates.svg" in out
    assert "suggestion" in Path("rates.svg").read_text()
    assert distill(*given, "--plot", "rates.png") == 0
    assert Path("rates.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in Path().iterdir()) == ["rates.png", "rates.svg"]


def test_a_run_a_teacher_weights_to_start_from_and_a_rate_of_a_layer():
    teacher = fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--data.train_part", 320, "--name", "teacher")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    of_run = app.range_test([str(teacher)], 1e-3, 1e-2, 10)
    assert of_run.batch_norm and len(of_run.losses) == 10
    checkpoint = str(teacher / "checkpoints" / "last.ckpt")
    tuned = [DIGITS, "--start_from", checkpoint, "--model.fine_tuning", "FineTuning", "--model.fine_tuning.frozen"]
    started = app.range_test([*tuned, '["0.*"]', "--trainer.callbacks", "EarlyStopping",
                              "--trainer.callbacks.monitor", "val/loss"], 1e-9, 1e-8, 10)  # fmt: skip
    assert started.start < of_run.start - 0.03  # the weights are trained
    kd = str(CONFIGS / "digits" / "kd.yaml")
    taught = app.range_test([kd, "--trainer.callbacks.teacher", checkpoint, "--trainer.callbacks.mode", "table",
                             "--trainer.accumulate_grad_batches", "2"], 1e-3, 1e-2, 10)  # fmt: skip
    assert len(taught.losses) == 10 and not Path("logs/soft_targets").exists()
    lottery = ["--trainer.callbacks", json.dumps([{"class_path": "Lottery", "init_args": {"length": "3 steps"}}])]
    assert len(app.range_test([DIGITS, *lottery], 1e-3, 1e-2, 10).losses) == 10
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


@pytest.mark.parametrize("method", ["dlb", "ps_kd", "dml", "byot", "snapshot", "cs_kd"])
def test_any_method(method):
    found = app.range_test([str(CONFIGS / "digits" / f"{method}.yaml")], 1e-4, 1e-3, 10)
    assert len(found.losses) == 10 and all(math.isfinite(loss) for loss in found.losses)


def test_the_optimizer_takes_the_rates(monkeypatch):
    seen, step = [], torch.optim.SGD.step

    def watch(self, closure=None):
        out = step(self, closure)
        seen.append([(group["lr"], group["lr_mult"]) for group in self.param_groups])
        return out

    monkeypatch.setattr(torch.optim.SGD, "step", watch)
    layers = ["--model.fine_tuning", "FineTuning", "--model.fine_tuning.layer_decay", "0.5"]
    found = app.range_test([DIGITS, *layers], 1e-3, 1e-2, 10)
    for rate, groups in zip(found.rates, seen, strict=False):
        assert {round(lr / (rate * factor), 9) for lr, factor in groups} == {1.0}
    assert len({factor for _, factor in seen[0]}) > 1

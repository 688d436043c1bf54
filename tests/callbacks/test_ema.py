"""The average of the weights: its value, its evaluation, its resume."""

import random
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, assert_same_run, distill, kill_and_resume, load, rows, same

from distill_lightning.callbacks.ema import EMA
from distill_lightning.errors import InputError
from distill_lightning.evaluation import METRICS

SMALL = ["--trainer.max_epochs", 3, "--data.train_part", 300, "--data.batch_size", 50]
BASE = ["--config", CONFIGS / "digits" / "baseline.yaml", *SMALL]
WITH = [*BASE, "--trainer.callbacks", "EMA", "--trainer.callbacks.decay", 0.8]
STEM = Path("logs/digits/baseline")


def last(run: Path, tag: str) -> float:
    return [value for _, name, value in rows(run) if name == tag][-1]


def test_it_does_not_change_training_and_is_resumed_exactly(monkeypatch):
    assert distill("fit", *BASE, "--name", "without") == 0
    more = ["--trainer.val_check_interval", 4, "--checkpoint.every_n_steps", 2]
    assert distill("fit", *WITH, "--name", "with") == 0
    assert same(load(STEM / "without")["state_dict"], load(STEM / "with")["state_dict"])
    assert distill("fit", *WITH, *more, "--name", "whole") == 0
    kill_and_resume([*WITH, *more], random.Random(1), monkeypatch, times=5, reach=7)
    assert_same_run(STEM / "whole", STEM / "killed")
    assert same(load(STEM / "whole")["callbacks"]["EMA"], load(STEM / "killed")["callbacks"]["EMA"])


def test_the_averaged_weights_have_the_accuracy_that_was_logged(capsys):
    """The weights in the checkpoint are put into the place of the network's, and tested."""
    assert distill("fit", *WITH, "--checkpoint.monitor", "val/accuracy_ema", "--name", "run") == 0
    state = load(STEM / "run")
    average = state["callbacks"]["EMA"]["weights"]
    state["state_dict"] = {f"model.{name}": value for name, value in average.items()}
    torch.save({key: value for key, value in state.items() if key != "digest"}, "average.ckpt")
    capsys.readouterr()
    assert distill("test", "--ckpt_path", "average.ckpt") == 0
    assert f"{last(STEM / 'run', 'test/accuracy_ema'):.4f}" in capsys.readouterr().out
    assert last(STEM / "run", "test/accuracy_ema") > 0.5
    assert last(STEM / "run", "test/nll_ema") != last(STEM / "run", "test/nll")


def test_it_is_evaluated_on_the_pictures_of_the_limits():
    """A decay of almost 0 makes the average equal to the weights."""
    limits = ["--trainer.limit_val_batches", 1, "--trainer.limit_test_batches", 0.5, "--data.eval_batch_size", 40]
    assert distill("fit", *WITH, "--trainer.callbacks.decay", 1e-30, *limits, "--name", "run") == 0
    for stage in ("val", "test"):
        assert last(STEM / "run", f"{stage}/nll_ema") == last(STEM / "run", f"{stage}/nll")


def test_callbacks_may_monitor_all_of_its_metrics():
    assert {f"val/{name}_ema" for name in METRICS} == set(EMA.logs)
    stopping = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor"]
    for monitor in ("val/macro_f1", "val/balanced_accuracy_ema"):
        assert distill("fit", *WITH, *stopping, monitor, "--trainer.callbacks.mode", "max") == 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_the_average_is_that_of_the_formula(precision, monkeypatch):
    """Also of the running statistics of batch norm; the count of batches is the network's. With weights in bfloat16 the
    average has float32 numbers: in bfloat16, small steps towards the weights would be rounded away."""
    seen = []
    original = EMA.on_train_batch_end

    def record(self, trainer, pl_module, *args):
        seen.append({name: value.double().clone() for name, value in pl_module.model.state_dict().items()})
        original(self, trainer, pl_module, *args)

    start = EMA.on_train_start

    def begin(self, trainer, pl_module):
        start(self, trainer, pl_module)
        seen.append({name: value.double() for name, value in self.weights.items()})

    monkeypatch.setattr(EMA, "on_train_batch_end", record)
    monkeypatch.setattr(EMA, "on_train_start", begin)
    assert distill("fit", *WITH, "--name", "run", "--trainer.precision", precision) == 0
    expected = {name: value.clone() for name, value in seen[0].items()}
    for n, weights in enumerate(seen[1:], start=1):
        decay = min(0.8, (1 + n) / (10 + n))
        for name, value in weights.items():
            expected[name] = value if "num_batches" in name else decay * expected[name] + (1 - decay) * value
    state = load(STEM / "run")
    average = state["callbacks"]["EMA"]
    assert average["steps"] == state["global_step"] == len(seen) - 1
    assert any("running_mean" in name for name in average["weights"])
    for name, value in average["weights"].items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 1.0, float("nan")])
def test_decay_has_a_range(decay):
    with pytest.raises(InputError, match=r"EMA\.decay"):
        EMA(decay)


def test_rounds_are_not_averaged(capsys):
    more = ["--trainer.callbacks+=Lottery", "--trainer.callbacks.rounds", 1]
    assert distill("fit", *WITH, *more) == 2
    assert "rounds of Lottery" in capsys.readouterr().err

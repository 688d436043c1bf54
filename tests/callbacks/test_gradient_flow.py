"""How gradients pass through the layers: what is measured, and that training does not change."""

import math
import re
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, Kill, assert_same_run, distill, load, rows, same, start
from torch import nn

from distill_lightning.callbacks.gradient_flow import activations, norm, share_of_zero_rows, weighted_layers
from distill_lightning.depth_figures import draw, factor_by_layer, in_words

SMALL = ["--config", CONFIGS / "digits" / "baseline.yaml", "--trainer.max_epochs", 2, "--data.train_part", 256]
SMALL += ["--trainer.log_every_n_steps", 1, "--model.schedule", "Constant"]
FLOW = ["--trainer.callbacks", "GradientFlow", "--trainer.callbacks.every_n_steps", 3]


def flow(run: Path) -> list[tuple[int, str, float]]:
    names = "gradient_norm|activation_rms|activation_std|update_ratio|dead_units|gradient_factor"
    return [row for row in rows(run) if re.match(f"train/({names})", row[1])]


def test_the_factor_of_a_layer():
    assert factor_by_layer([0.9**30, 1.0, 1.0]) == pytest.approx(0.9**15)
    assert math.isnan(factor_by_layer([1.0])) and math.isnan(factor_by_layer([0.0, 1.0]))
    assert "vanishes" in in_words([1e-9, 1e-4, 1.0]) and "explodes" in in_words([9.0, 1.0])
    assert "keeps its size" in in_words([1.0, 1.0])


def test_norms_of_gradients_that_float32_cannot_square():
    assert norm(torch.full((4,), 2e-23)) == pytest.approx(4e-23)


def test_dead_units_are_rows_without_a_gradient():
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    with torch.no_grad():
        layer.bias[:] = torch.tensor([-100.0, 100.0, -100.0, 100.0])
    layer(torch.randn(8, 3)).relu().sum().backward()
    assert share_of_zero_rows(layer.weight.grad) == 0.5


def test_activations_are_those_of_a_pass_that_changes_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 3)
    )
    before, images = {k: v.clone() for k, v in network.state_dict().items()}, torch.randn(5, 1, 8, 8)
    state = torch.get_rng_state()
    found = activations(network.train(), images)
    assert torch.equal(torch.get_rng_state(), state) and same(dict(network.state_dict()), before)
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert list(found) == ["0", "5"] == list(dict(weighted_layers(network)))
    rms, std = found["0"]
    assert rms == pytest.approx(images.double().square().mean().sqrt().item())
    assert std == pytest.approx(images.double().std(correction=0).item())
    constant = activations(network, torch.ones(5, 1, 8, 8))["0"]
    assert constant == (1.0, 0.0)  # large activations that say nothing about the picture


def test_it_logs_every_layer_and_training_stays_the_same_bit_for_bit():
    more = ["--model.network.dropout", 0.5, "--trainer.accumulate_grad_batches", 2]
    assert distill("fit", *SMALL, *more, "--name", "without") == 0
    assert distill("fit", *SMALL, *more, *FLOW, "--name", "with") == 0
    stem = Path("logs/digits/baseline")
    assert same(load(stem / "without")["state_dict"], load(stem / "with")["state_dict"])
    found = flow(stem / "with")
    assert [row for row in rows(stem / "with") if row not in found] == rows(stem / "without")
    assert sorted({step for step, _, _ in found}) == [1, 3]  # 2 steps of 2 batches in each of 2 epochs
    layers = [tag.rpartition("/")[2] for _, tag, _ in found if tag.startswith("train/gradient_norm/")]
    weights = [name for name, value in load(stem / "with")["state_dict"].items() if value.ndim > 1]
    assert [f"model.{layer}.weight" for layer in layers] == 2 * weights
    values = {tag: value for step, tag, value in found if step == 1}
    # SGD with Nesterov's momentum m moves a weight by lr (1 + m) (g + decay w) in its first step
    first = layers[0]
    assert 0.1 < values[f"train/update_ratio/{first}"] * 10 < 100
    assert values["train/gradient_factor"] == pytest.approx(
        factor_by_layer([values[f"train/gradient_norm/{layer}"] for layer in layers[: len(weights)]])
    )
    svg = (stem / "with" / "gradient_flow.svg").read_text()
    assert "step 1" in svg and "step 3" in svg and "for each layer" in svg


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="float32"),
        pytest.param(["--trainer.precision", "bf16-mixed"], id="bf16", marks=pytest.mark.long),
    ],
)
def test_it_logs_the_same_after_a_resume(more, monkeypatch):
    given = [*SMALL, *FLOW, *more, "--checkpoint.every_n_steps", 1]
    assert distill("fit", *given, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_start", 6)
        assert distill("fit", *given, "--name", "killed") == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 0
    stem = Path("logs/digits/baseline")
    assert_same_run(stem / "whole", stem / "killed")
    assert flow(stem / "whole")
    assert (stem / "whole" / "gradient_flow.svg").read_bytes() == (stem / "killed" / "gradient_flow.svg").read_bytes()
    assert distill("report", "logs", "--out", "report.html") == 0
    page = Path("report.html").read_text()
    assert "Gradients and activations by depth" in page and "train/gradient_norm/" not in page


def test_the_figure_is_drawn_without_what_has_no_logarithm():
    layers = {"gradient_norm": [0.0, math.nan, 1e-30, math.inf], "dead_units": [0.0, 1.0]}
    assert draw({1: layers}, "svg") == draw({1: layers}, "svg")
    assert draw({}, "png")[:4] == b"\x89PNG"


def test_two_processes_measure_the_gradient_of_the_global_batch():
    given = [*SMALL, *FLOW, "--model.network", "LeNet300100", "--trainer.max_epochs", 1, "--trainer.accelerator", "cpu"]
    assert distill("fit", *given, "--name", "one") == 0
    process = start("fit", *given, "--trainer.devices", 2, "--name", "two")
    assert process.wait(timeout=300) == 0, process.communicate()
    one, two = (flow(Path("logs/digits/baseline") / name) for name in ("one", "two"))
    assert [row[:2] for row in one] == [row[:2] for row in two] and one
    for (_, tag, value), (_, _, other) in zip(one, two, strict=True):
        if "activation" not in tag:  # those are the first process's
            assert other == pytest.approx(value, rel=1e-3, abs=2e-3), tag

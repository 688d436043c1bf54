"""L1 and L2 as loss, proximal L1, decoupled weight decay; accumulated gradients; stochastic depth; label smoothing."""

import math
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from helpers import CONFIGS, Kill, assert_same_run, bare_trainer, distill, rows
from torch import nn

import distill_lightning as dl
from distill_lightning import losses
from distill_lightning.callbacks.penalties import WeightPenalty, soft_threshold
from distill_lightning.callbacks.scaling import gradient_scale
from distill_lightning.errors import InputError
from distill_lightning.methods.checks import depends_on_process_count
from distill_lightning.models.resnet import CIFARResNet, ResNet20


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def trained(optimizer, *callbacks: WeightPenalty, steps: int = 6, per_step: int = 1, **options) -> list[torch.Tensor]:
    """The weights after some optimizer steps."""
    method = dl.Baseline(options.pop("network", None) or network(), optimizer=optimizer)
    batch = options.pop("batch_size", 64)
    trainer = bare_trainer(
        max_epochs=1, limit_train_batches=steps * per_step, limit_val_batches=0, callbacks=list(callbacks),
        accumulate_grad_batches=per_step, **options,
    )  # fmt: skip
    trainer.fit(method, datamodule=dl.Digits(batch_size=batch, val_size=0))
    return [p.detach() for p in method.model.parameters()]


def sgd(momentum: float = 0.0, decay: float = 0.0):
    return lambda p: torch.optim.SGD(p, lr=0.1, momentum=momentum, weight_decay=decay)


def test_the_golden_soft_threshold():
    weights = torch.tensor([0.5, -0.3, 0.05, -0.02, 0.0], dtype=torch.float64)
    assert soft_threshold(weights, 0.1 * 0.5).tolist() == pytest.approx([0.45, -0.25, 0, 0, 0])


def test_l2_as_loss_is_the_weight_decay_of_sgd():
    everything = dl.L2Penalty(0.01, params=["*"])
    for one, other in zip(trained(sgd(0.9), everything), trained(sgd(0.9, 0.01)), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_decoupled_decay_with_adam_is_adamw():
    decay = dl.DecoupledWeightDecay(0.1, params=["*"])
    mine = trained(lambda p: torch.optim.Adam(p, lr=0.01), decay)
    theirs = trained(lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1))
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))
    assert not torch.equal(mine[0], trained(lambda p: torch.optim.Adam(p, lr=0.01))[0])


def test_l1_as_loss_is_the_gradient_of_the_sum_of_absolute_weights():
    first = trained(sgd(), steps=1)
    penalised = trained(sgd(), dl.L1Penalty(0.01), steps=1)
    before = list(network().parameters())
    for number, (plain, mine) in enumerate(zip(first, penalised, strict=True)):
        expected = plain - 0.1 * 0.01 * before[number].sign() if plain.ndim > 1 else plain  # biases are left out
        assert torch.allclose(mine, expected.detach(), atol=1e-7)


def test_proximal_l1_gives_zeros_and_the_penalty_none():
    with_zeros = trained(sgd(0.9), dl.ProximalL1(0.003, params=["1.weight"]), steps=20)
    assert 0.1 < float((with_zeros[0] == 0).double().mean()) < 1 and bool((with_zeros[2] != 0).all())
    assert bool((trained(sgd(0.9), dl.L1Penalty(0.003, params=["1.weight"]), steps=20)[0] != 0).all())


def test_the_threshold_counts_the_momentum():
    """With a gradient of 0 the weights only shrink: by lr lambda / (1 - m) in a step."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.constant_(flat[1].weight, 1.0)
    frozen_out = nn.Sequential(*flat, nn.Linear(10, 10))
    nn.init.zeros_(frozen_out[2].weight)
    frozen_out[2].weight.requires_grad_(False)
    (weight, *_) = trained(sgd(0.9), dl.ProximalL1(0.01, params=["1.weight"]), steps=3, network=frozen_out)
    assert torch.allclose(weight, torch.full_like(weight, 1 - 3 * 0.1 * 0.01 / 0.1))


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4), 1386),
        (lambda p: torch.optim.SGD(p, lr=1.0, weight_decay=5e-4), 1386),
        (lambda p: torch.optim.AdamW(p, lr=1.0, weight_decay=5e-4), 1386),
    ],
)
def test_the_half_life_of_an_untouched_weight(make, steps):
    """ln 2 / (lr lambda) steps, times 1 - m with momentum."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = make([weight])
    for _ in range(steps):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert abs(float(weight.detach()) - 0.5) < 0.003


@pytest.mark.parametrize("callback", [dl.L1Penalty(0.01), dl.L2Penalty(0.1), dl.DecoupledWeightDecay(0.1)])
def test_accumulated_gradients_are_those_of_the_large_batch(callback):
    """In float64, to the last roundings; penalties act once in an optimizer step."""
    options = {"steps": 6, "precision": "64-true"}
    whole = trained(sgd(0.9, 5e-4), callback, batch_size=64, **options)
    parts = trained(sgd(0.9, 5e-4), callback, batch_size=16, per_step=4, **options)
    assert whole[0].dtype == torch.float64
    assert max(float((a - b).abs().max()) for a, b in zip(whole, parts, strict=True)) < 1e-14


def test_but_not_with_batch_norm():
    def normed() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

    whole = trained(sgd(), network=normed(), batch_size=64, precision="64-true")
    parts = trained(sgd(), network=normed(), batch_size=16, per_step=4, precision="64-true")
    assert float((whole[0] - parts[0]).abs().max()) > 1e-5


def test_weights_that_wait_are_not_decayed_in_any_round():
    """FineTuning counts the epochs of a round, and Lottery has several rounds."""
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, method, outputs, batch, number):
            seen.append((method.position(number).epoch, next(method.model.parameters()).detach().norm().item()))

    method = dl.Baseline(dl.models.ConvNet(10, in_channels=1), optimizer=sgd(), fine_tuning=dl.FineTuning(head_first=1))
    lottery = dl.Lottery(rounds=1, linear=0.0, conv=0.0, output=0.2)
    callbacks = [lottery, dl.DecoupledWeightDecay(0.5), Watch()]
    trainer = bare_trainer(max_epochs=2, limit_train_batches=3, limit_val_batches=1, callbacks=callbacks)
    trainer.fit(method, datamodule=dl.Digits(batch_size=32))
    waiting = {length for epoch, length in seen if epoch == 0}
    assert len([epoch for epoch, _ in seen if epoch == 0]) == 6 and len(waiting) == 1
    assert all(length not in waiting for epoch, length in seen if epoch == 1)


@pytest.mark.parametrize("name", ["L1Penalty", "ProximalL1", "DecoupledWeightDecay", "stochastic_depth"])
def test_from_a_yaml_with_a_resume(name, monkeypatch):
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", "--trainer.max_epochs", 2, "--data.train_part", 200]
    given += ["--data.batch_size", 50, "--trainer.log_every_n_steps", 1, "--checkpoint.every_n_steps", 1]
    if name == "stochastic_depth":
        given += ["--model.network", "CIFARResNet", "--model.network.depth", 8, "--model.network.stochastic_depth", 0.5]
        given += ["--model.network.widths", "[4, 4, 4, 4]"]
    else:
        given += ["--trainer.callbacks", name, "--trainer.callbacks.strength", 0.001]
    assert distill("fit", *given, "--name", "whole") == 0
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_start", 6)
        assert distill("fit", *given, "--name", "killed") == 1
    assert distill("fit", *given, "--name", "killed", "--ckpt_path", "last") == 0
    stem = Path("logs/digits/baseline")
    assert_same_run(stem / "whole", stem / "killed")
    if name == "stochastic_depth":
        return
    tag = {"L1Penalty": "l1_penalty", "ProximalL1": "zeros", "DecoupledWeightDecay": "weight_norm"}[name]
    assert len([row for row in rows(stem / "whole") if row[1] == f"train/{tag}"]) == 8


def test_bad_options(capsys):
    with pytest.raises(InputError, match=r"L1Penalty.strength is 0: it must be above 0"):
        dl.L1Penalty(0)
    with pytest.raises(InputError, match=r"ProximalL1.params: haed.\* matches no parameter"):
        trained(sgd(), dl.ProximalL1(0.1, params=["haed.*"]))


def test_a_fused_optimizer_leaves_gradients_scaled():
    class Plugin:
        class scaler:
            get_scale = staticmethod(lambda: 1024.0)

    class Trainer:
        precision_plugin = Plugin()

    weights = [torch.zeros(1, requires_grad=True)]
    assert gradient_scale(Trainer(), torch.optim.SGD(weights, lr=1.0)) == 1
    assert gradient_scale(Trainer(), torch.optim.SGD(weights, lr=1.0, fused=True)) == 1024


@pytest.mark.parametrize(
    ("classes", "eps", "floor"),
    [(10, 0.1, 0.500288), (100, 0.1, 0.7778), (10, 0.05, 0.282396), (10, 0.2, 0.866894), (100, 0.05, 0.424499),
     (100, 0.2, 1.407451)],
)  # fmt: skip
def test_label_smoothing_has_a_floor(classes, eps, floor):
    """The loss of a network that predicts the smoothed label exactly: its entropy."""
    probs = torch.full((1, classes), eps / classes, dtype=torch.float64)
    probs[0, 3] += 1 - eps
    assert losses.cross_entropy(probs.log(), torch.tensor([3]), eps).item() == pytest.approx(floor, abs=5e-5)


# Stochastic depth


def test_stochastic_depth_leaves_branches_out_for_single_samples():
    torch.manual_seed(0)
    plain = CIFARResNet(depth=20)
    torch.manual_seed(0)
    dropped = CIFARResNet(depth=20, stochastic_depth=0.6)
    assert plain.state_dict().keys() == dropped.state_dict().keys()
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(plain.eval()(images), dropped.eval()(images))
    drops = [block.drop.p for stage in dropped.stages for block in stage]
    assert drops == pytest.approx([0.6 * block / 9 for block in range(1, 10)])
    block = dropped.stages[2][2].train()
    x = torch.rand(2000, 64, 1, 1)
    kept = ~(block(x) == x).flatten(1).all(1)  # x is positive: without its branch, the block is the identity
    assert float(kept.double().mean()) == pytest.approx(1 - 0.6, abs=4 * math.sqrt(0.24 / 2000))


def test_stochastic_depth_depends_on_the_number_of_processes_and_is_for_basic_blocks():
    assert depends_on_process_count(ResNet20(stochastic_depth=0.1), synchronised=True) == "stochastic depth"
    assert depends_on_process_count(ResNet20(), synchronised=True) is None
    with pytest.raises(InputError, match="stochastic_depth is for basic blocks"):
        CIFARResNet(depth=11, bottleneck=1, stochastic_depth=0.1)

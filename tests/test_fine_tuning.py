"""Fine-tuning: frozen parts, later starts, rates by depth and pattern; exact on resume and on two processes."""

import copy
import functools
import json

import pytest
import torch
from helpers import CONFIGS, Kill, assert_same_run, bare_trainer, distill, fit, load, on_two_processes
from torch import nn

from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.methods.baseline import Baseline
from distill_lightning.models.convnet import ConvNet
from distill_lightning.optimizers import FineTuning, layers_of, make_optimizer, parameter_groups

CONVS = ["0.*", "1.*"]  # the first convolution and its norm


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.1)


def trained(fine_tuning: FineTuning, epochs: int = 1, network: nn.Module | None = None, **options) -> Baseline:
    torch.manual_seed(0)
    method = Baseline(network or ConvNet(), optimizer=sgd, fine_tuning=fine_tuning, **options)
    bare_trainer(max_epochs=epochs, num_sanity_val_steps=0).fit(method, datamodule=Digits(batch_size=128))
    return method


def test_frozen_parts_stay_bitwise_the_same_buffers_too():
    torch.manual_seed(0)
    network = nn.Sequential(*ConvNet(), nn.Identity())
    network[1].running_mean.fill_(0.25)
    before = copy.deepcopy(network.state_dict())
    trained(FineTuning(frozen=CONVS), network=network)
    after = network.state_dict()
    for name in before:
        assert after[name].equal(before[name]) == name.startswith(("0.", "1.")), name
    assert not network[0].training or not network[1].training


def test_frozen_parameters_are_in_no_group():
    network = ConvNet()
    method, tuning = Baseline(network), FineTuning(frozen=CONVS)
    tuning.freeze(network)
    groups = parameter_groups(method, True, tuning, network)
    held = {id(p) for group in groups for p in group["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in held}
    assert names == {name for name, _ in network.named_parameters() if not name.startswith(("0.", "1."))}


def test_the_head_comes_first_then_all():
    one = trained(FineTuning(head_first=1), epochs=1).model
    two = trained(FineTuning(head_first=1), epochs=2).model
    torch.manual_seed(0)  # the draw of ``trained``
    start = ConvNet()
    head = [*start.state_dict()][-2:]
    for name, value in start.state_dict().items():
        if value.is_floating_point():
            assert one.state_dict()[name].equal(value) == (name not in head), name
            assert not two.state_dict()[name].equal(value), name


def test_modules_of_parts_that_are_not_trained_yet_stay_in_eval_mode():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Dropout(0.5)))
    network.append(nn.Flatten())
    network.append(nn.Linear(144, 10))
    tuning = FineTuning(unfreeze={"0.*": 2})
    held = tuning.held(network, 1)
    assert [type(m).__name__ for m in held] == ["Sequential", "Conv2d", "BatchNorm2d", "Dropout"]
    assert tuning.held(network, 2) == []


def test_rates_by_depth_are_timms():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert [*layers_of(network, ["3.*"]).values()] == [0, 0, 1, 1, 2, 2, 3, 3]
    rates = {name: rate for name, (rate, _) in FineTuning(layer_decay=0.75).factors(network).items()}
    assert [rates[f"{k}.weight"] for k in range(4)] == [0.421875, 0.5625, 0.75, 1.0]
    deep = nn.Sequential(*(nn.Linear(2, 2) for _ in range(40)))
    assert max(layers_of(deep, ["39.*"]).values()) == 12


def test_rates_by_depth_of_a_network_of_timm():
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    network = timm.create_model("vit_tiny_patch16_224", depth=4, img_size=32)
    ours = {name: rate for name, (rate, _) in FineTuning(layer_decay=0.75).factors(network).items()}
    theirs = {
        id(p): group["lr_scale"]
        for group in param_groups_layer_decay(network, weight_decay=0.1, layer_decay=0.75)
        for p in group["params"]
    }
    assert all(ours[name] == pytest.approx(theirs[id(p)]) for name, p in network.named_parameters())


def test_every_parameter_is_in_one_group_with_its_rate_and_decay():
    network = ConvNet()
    method = Baseline(network)
    tuning = FineTuning(rates={"*.weight": 3.0}, decays={"0.*": 0.0}, unfreeze={"3.*": 2})
    optimizer = make_optimizer(sgd, parameter_groups(method, False, tuning, network))
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        group = found[id(parameter)]
        assert group["initial_lr"] == group["lr"] == pytest.approx(0.15 if name.endswith("weight") else 0.05)
        assert group["weight_decay"] == (0.0 if parameter.ndim <= 1 or name.startswith("0.") else 0.1)
        assert group["from_epoch"] == (2 if name.startswith("3.") else 0)


def test_without_fine_tuning_the_groups_are_as_before():
    network = ConvNet()
    method = Baseline(network)
    assert [g.keys() for g in parameter_groups(method, True)] == [{"params"}]
    assert [g.keys() for g in parameter_groups(method, False)] == [{"params"}, {"params", "weight_decay"}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frozen": ["layer1.*"]}, "layer1.* matches no parameter of ConvNet (0.weight"),
        ({"frozen": ["*"]}, "leaves nothing of ConvNet to train in the first epoch"),
        ({"unfreeze": {"*": 1}}, "leaves nothing of ConvNet to train in the first epoch"),
        ({"rates": {"x": 2.0}}, "x matches no parameter"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError) as refusal:
        FineTuning(**options).freeze(ConvNet())
    assert words in str(refusal.value) and len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "options", [{"head_first": -1}, {"layer_decay": 0.0}, {"layer_decay": 1.5}, {"rates": {"a": 0.0}},
                {"decays": {"a": float("nan")}}, {"rate_after_head": 0.0}, {"unfreeze": {"a": -1}}],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=f"^fine_tuning.{next(iter(options))}"):
        FineTuning(**options)


# Through the command

WORDS = {
    "frozen": ["1.bias"], "head_first": 1, "unfreeze": {"0.*": 2}, "layer_decay": 0.8, "rate_after_head": 0.5,
    "rates": {"*.bias": 2.0},
}  # fmt: skip
GIVEN = ["digits/baseline.yaml", "--trainer.max_epochs", 3, "--data.train_part", 300, "--model.fine_tuning"]
GIVEN += ["FineTuning", *(f"--model.fine_tuning.{name}={json.dumps(value)}" for name, value in WORDS.items())]


@pytest.mark.parametrize(("hook", "count"), [("on_train_batch_end", 3), ("on_train_batch_start", 7)])
def test_a_run_that_is_killed_and_resumed_is_bitwise_the_same(hook, count, monkeypatch, capsys):
    whole = fit(*GIVEN, "--name", "whole")
    said = capsys.readouterr().err
    assert "from epoch" in said and "frozen" in said
    with monkeypatch.context() as patch:
        Kill(patch, hook, count)
        assert distill("fit", "--config", *GIVEN, "--name", "killed", "--checkpoint.every_n_steps", 1) == 1
    assert distill("fit", "--config", *GIVEN, "--name", "killed", "--ckpt_path", "last") == 0
    assert_same_run(whole, whole.parent / "killed")
    assert load(whole)["optimizer_states"][0]["param_groups"][0]["lr_mult"] < 1
    assert distill("test", "--ckpt_path", whole / "checkpoints" / "last.ckpt") == 0


def test_two_processes_need_no_search_for_unused_parameters():
    code = """
import torch, sys
sys.path.insert(0, {folder!r})
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch import Trainer
from distill_lightning.data.digits import Digits
from distill_lightning.methods.baseline import Baseline
from distill_lightning.models.convnet import ConvNet
from distill_lightning.optimizers import FineTuning

torch.manual_seed(0)
network = ConvNet()
start = {{k: v.clone() for k, v in network.state_dict().items()}}
tuning = FineTuning(frozen=["0.*"], head_first=1, unfreeze={{"3.*": 2}}, layer_decay=0.5)
method = Baseline(network, fine_tuning=tuning)
quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
trainer = Trainer(accelerator="cpu", devices=2, max_epochs=3, strategy=DDPStrategy(process_group_backend="gloo",
    find_unused_parameters=False), use_distributed_sampler=False, **quiet)
trainer.fit(method, datamodule=Digits(batch_size=64, train_part=256))
same = sorted(k for k, v in network.state_dict().items() if v.equal(start[k]))
print(same, [round(float(v.double().sum()), 9) for v in network.parameters()])
"""
    first, second = on_two_processes(code.format(folder="."))
    assert first.splitlines()[-1] == second.splitlines()[-1]
    assert "'0.weight'" in first.splitlines()[-1] and "'3.weight'" not in first.splitlines()[-1]


@pytest.mark.parametrize(
    ("config", "tuning"),
    [
        ("digits/byot.yaml", {"head_first": 1}),
        ("digits/byot.yaml", {"frozen": ["stem.*", "stages.0.*"]}),
        ("digits/ddgsd.yaml", {"frozen": ["head.*"]}),
    ],
)
def test_methods_that_read_inside_the_network_read_held_parts_too(config, tuning):
    """A part that is not trained is in eval mode, and gives its features all the same."""
    options = ["--model.fine_tuning", "FineTuning"]
    for name, value in tuning.items():
        options += [f"--model.fine_tuning.{name}", json.dumps(value)]
    run = fit(config, "--model.network", "ResNet8", "--data.train_part", 200, "--trainer.max_epochs", 2, *options)
    assert json.loads((run / "summary.json").read_text())["metrics"]["test/accuracy"] > 0


def test_an_optimizer_without_weight_decay():
    method = Baseline(
        ConvNet(), optimizer=torch.optim.Rprop, fine_tuning=FineTuning(layer_decay=0.5), decay_norms_and_biases=False
    )
    bare_trainer(max_epochs=1, num_sanity_val_steps=0).fit(method, datamodule=Digits(batch_size=128, train_part=128))


def test_one_rate_for_all_layers_is_no_schedule_for_rates_by_layer(capsys):
    given = ["--model.fine_tuning", "FineTuning", "--model.fine_tuning.layer_decay", "0.5"]
    given += ["--model.schedule", "torch.optim.lr_scheduler.OneCycleLR", "--model.schedule.max_lr", "0.1"]
    given += ["--model.schedule.total_steps", "400"]
    assert distill("fit", "--config", CONFIGS / "digits" / "baseline.yaml", *given) == 2
    assert "rates of their own, and model.schedule sets one for all: give a schedule" in capsys.readouterr().err


def test_a_schedule_that_begins_at_zero_keeps_rates_by_layer():
    """All rates are equal at the first step: 0."""
    schedule = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=functools.partial(min, 1))
    method = Baseline(ConvNet(), optimizer=sgd, schedule=schedule, fine_tuning=FineTuning(layer_decay=0.5))
    bare_trainer(max_epochs=2, num_sanity_val_steps=0).fit(method, datamodule=Digits(batch_size=128, train_part=128))
    assert len({group["lr"] for group in method.optimizers().param_groups}) > 1

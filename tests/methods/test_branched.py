"""Branched networks: what is shared, what is deployed, what a branch learns, and what cannot be branched."""

import copy
import json
import re

import pytest
import torch
import torchvision
from features_of import last_channels
from helpers import CONFIGS, at, bare_trainer, batch_of, data_info, distill, fit, load, sgd
from torch import nn

import distill_lightning as dl
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.losses import kd, pcl, ramp, weighted_logits
from distill_lightning.methods.branches import Branches
from distill_lightning.methods.okddip import OKDDip
from distill_lightning.methods.one import ONE
from distill_lightning.methods.pcl import PCL
from distill_lightning.models import VGG16, BranchEnsemble, ConvNet, LeNet300100, ResNet8
from distill_lightning.models.branched import layers_after, new_branch, shared_channels
from distill_lightning.models.early_exit import trunk
from distill_lightning.optimizers import FineTuning

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
BATCH = batch_of(IMAGES, torch.arange(6))


def made(method, **options):
    torch.manual_seed(0)
    built = method(ConvNet(), optimizer=sgd, **options)
    built.build_once(data_info())
    return built


class Bypass(nn.Module):
    """What follows its first stage needs the pictures, too."""

    exits = ("first", "second")

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        return self.head((self.second(self.first(images)) + images).mean((2, 3)))


class InPlace(Bypass):
    """What follows its first stage changes the output of the stage."""

    def forward(self, images):
        return self.head(self.second(self.first(images).sub_(1.0)).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "layer", "size"),
    [
        (ConvNet(), "5", 8),
        (ResNet8(), "stages.1", 32),
        (VGG16(), "stages.3", 32),
        (torchvision.models.resnet18(num_classes=10), "layer3", 32),
        (torchvision.models.densenet121(num_classes=10), "features.denseblock3", 32),
    ],
)
def test_a_trunk_and_a_branch_are_the_network(network, layer, size):
    channels = next(network.parameters()).shape[1]
    images = torch.randn(2, channels, size, size)
    shared, rest = trunk(network, layer).eval(), layers_after(network, layer).eval()
    at_layer = shared(images)
    assert torch.allclose(rest(at_layer), network.eval()(images), atol=1e-5)
    assert shared_channels(network, layer, (channels, size, size)) == at_layer.shape[1]
    of_network = network.state_dict().keys()
    assert shared.state_dict().keys() | rest.state_dict().keys() == of_network
    assert not shared.state_dict().keys() & rest.state_dict().keys()
    fresh = dict(new_branch(network, layer).named_parameters())
    for name, parameter in rest.named_parameters():
        assert fresh[name].flatten().sort().values.equal(parameter.flatten().sort().values)
        assert parameter.ndim < 2 or not fresh[name].equal(parameter)


@pytest.mark.parametrize("method", [Branches, ONE, OKDDip, PCL])
def test_the_deployed_network_is_plain_and_branches_differ(method):
    built = made(method)
    keys = built.state_dict().keys()
    assert {k.removeprefix("model.") for k in keys if k.startswith("model.")} == ConvNet().state_dict().keys()
    number = 3 if method is OKDDip else 2
    assert {k.split(".")[1] for k in keys if k.startswith("branches.")} == {str(m) for m in range(number)}
    (own, *others), at_layer = built.logits_of_branches(IMAGES)
    assert at_layer.shape == (6, 32, 4, 4)
    assert len(others) == number
    if method is PCL:  # each branch has two rows of its own
        assert [len(z) for z in (own, *others)] == [2, 2, 2]
    else:
        assert own.equal(built.model(IMAGES))
    assert all(not a.allclose(b) for a in others for b in (own, *others) if a is not b)


def test_the_control_has_the_terms_of_labels_alone():
    control, one = made(Branches, branches=3), made(ONE)
    terms, more = (m.training_loss(BATCH, at(epoch=80)).terms for m in (control, one))
    assert terms.keys() == {"ce_0", "ce_1", "ce_2"} and more.keys() == terms.keys() | {"ce_group", "soft"}
    assert all(terms[name].item() == pytest.approx(more[name].item(), rel=1e-5) for name in terms)
    (own, *others), _ = control.logits_of_branches(IMAGES)
    expected = [nn.functional.cross_entropy(z, BATCH.labels).item() for z in (own, *others)]
    assert [term.item() for term in terms.values()] == pytest.approx(expected, rel=1e-5)


def test_one_is_its_equation():
    one = made(ONE, temperature=2, ramp_epochs=10)
    logits, at_layer = one.logits_of_branches(IMAGES)
    x = at_layer.mean((2, 3)) @ one.gate.linear.weight.T
    x = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    gate = x.relu().softmax(1)
    group = sum(gate[:, m : m + 1] * z for m, z in enumerate(logits))
    terms = one.training_loss(BATCH, at(epoch=5)).terms
    expected = ramp(5, 10) * sum(kd(z, group, temperature=2) for z in logits)
    assert terms["soft"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms["ce_group"].item() == pytest.approx(nn.functional.cross_entropy(group, BATCH.labels).item(), rel=1e-4)
    gradients = torch.autograd.grad(terms["soft"], one.gate.parameters(), allow_unused=True, retain_graph=True)
    assert gradients == (None,) * 3
    (gradient,) = torch.autograd.grad(terms["ce_group"], [one.gate.linear.weight])
    assert gradient.abs().max() > 0


def test_okddip_is_its_equation():
    method = made(OKDDip, temperature=2, ramp_epochs=0)
    for peer in method.branches:
        peer.get_submodule("12").weight.data.mul_(3)
    held = []
    for peer in method.branches:
        peer.get_submodule("12").register_forward_hook(lambda module, inputs, output: held.append(inputs[0]))
    (leader, *peers), _ = method.logits_of_branches(IMAGES)
    h = torch.stack(held, 1)
    assert method.query.weight.shape == (8, 64)
    attention = (method.query(h) @ method.key(h).transpose(1, 2)).softmax(2)
    targets = [sum(attention[:, i, j, None] * peers[j] for j in range(3)) for i in range(3)]
    expected = sum(kd(z, target, temperature=2) for z, target in zip(peers, targets, strict=True))
    expected = expected + kd(leader, sum(peers) / 3, temperature=2)
    terms = method.training_loss(BATCH, at()).terms
    assert terms["soft"].item() == pytest.approx(expected.item(), rel=1e-4)
    gradients = torch.autograd.grad(terms["soft"], [method.query.weight, method.key.weight])
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def views_of(images):
    """Three views of two samples."""
    return batch_of(images, torch.tensor([3, 5]).repeat(3), num_new=2)


def test_pcl_is_its_equation():
    """Each branch gets a view of its own; batch norm in the shared stages has the rows of all views."""
    method = made(PCL, temperature=2, ramp_epochs=10)
    assert method.needs.views == 3 and not method.needs.allows_mixing
    plain, labels = ConvNet(), torch.tensor([3, 5])
    plain.load_state_dict(method.model.state_dict())
    ends = [layers_after(plain, "5"), *copy.deepcopy(method.branches)]
    shared = trunk(plain, "5")(IMAGES)
    held = []
    for end in ends:
        end.get_submodule("12").register_forward_hook(lambda module, inputs, output: held.append(inputs[0]))
    logits = [end(view) for end, view in zip(ends, shared.split(2), strict=True)]
    assert all(not a.allclose(b) for a in logits for b in logits if a is not b)
    group = torch.cat(held, 1) @ method.group.weight.T + method.group.bias
    method.training_loss(views_of(IMAGES), at())  # the means are the first weights
    with torch.no_grad():
        for parameter in (*method.model.parameters(), *method.branches.parameters()):
            parameter.mul_(1.5)
    method.mean_steps = 9  # so that they do not move now
    terms = method.training_loss(views_of(IMAGES), at(epoch=5, step=9)).terms
    now, _ = method.logits_of_branches(IMAGES)
    assert not now[0].allclose(logits[0], atol=1e-2)
    expected = [nn.functional.cross_entropy(z, labels).item() for z in now]
    assert [terms[f"ce_{m}"].item() for m in range(3)] == pytest.approx(expected, rel=1e-5)
    joined = torch.cat([hook.take() for hook in (method.pooled, *method.of_others)], 1)
    new_group = joined @ method.group.weight.T + method.group.bias
    assert not new_group.allclose(group, atol=1e-3)
    assert terms["ce_group"].item() == pytest.approx(nn.functional.cross_entropy(new_group, labels).item(), rel=1e-5)
    soft = ramp(5, 10) * pcl(now, new_group, logits, temperature=2)
    assert terms["soft"].item() == pytest.approx(soft.item(), rel=1e-4)
    learners = method.group.parameters()
    assert torch.autograd.grad(terms["soft"], learners, allow_unused=True, retain_graph=True) == (None,) * 2
    assert torch.autograd.grad(terms["ce_group"], [method.group.weight])[0].abs().max() > 0
    assert not any("mean" in name for name in method.state_dict() if "running" not in name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_weights_of_pcl(dtype):
    """The mean over the steps at first, moved once a step; in float32, where bfloat16 would round small moves away."""
    method = made(PCL, decay=0.75).to(dtype)
    images, name = IMAGES.to(dtype), "1.12.weight"
    head, passed = method.branches[0].get_submodule("12"), []
    head.register_forward_hook(lambda module, inputs, output: passed.append(module.weight))
    weight = head.weight
    method.training_loss(views_of(images), at(step=0))
    assert method.mean_weights[name].equal(weight.float())
    seen, expected = [], 0
    for step in range(1, 7):
        weight.data.add_(torch.randn_like(weight))
        seen.append(weight.detach().float().clone())
        expected = sum(seen) / step if step <= 4 else 0.75 * expected + 0.25 * seen[-1]
        for _ in range(2):  # the second batch only accumulates gradients
            method.training_loss(views_of(images), at(step=step))
        assert method.mean_weights[name].dtype == torch.float32
        torch.testing.assert_close(method.mean_weights[name], expected)
        used, trained = passed[-2:]
        assert trained is weight
        assert used.equal(method.mean_weights[name].to(dtype)) and not used.requires_grad


@pytest.mark.parametrize("network", [ConvNet, ConvNet()])
def test_pcl_is_trained_again_and_in_another_precision(network):
    method = PCL(network)
    for precision in ("32-true", "64-true"):
        options = {"precision": precision, "limit_train_batches": 2, "accelerator": "cpu"}
        dl.Trainer(1, name=precision, **options).fit(method, Digits())
        assert method.mean_steps == 1
        dtype = torch.float32 if precision == "32-true" else torch.float64
        assert {value.dtype for value in method.mean_weights.values()} == {dtype}


def test_a_pass_that_is_not_pcl_s_has_all_rows():
    """As in the bench, and where LSUV draws the first weights."""
    method = made(PCL)
    assert method.model.train()(IMAGES).shape == (6, 10)
    assert copy.deepcopy(method.model).train()(IMAGES).shape == (6, 10)
    method.training_loss(views_of(IMAGES), at())
    assert method.model(IMAGES).shape == (6, 10)


def test_pcl_is_not_pruned_in_rounds():
    lottery = dl.Lottery(rounds=1)
    with pytest.raises(InputError, match="PCL would teach with means over the rounds of Lottery"):
        bare_trainer(max_epochs=1, callbacks=[lottery]).fit(PCL(ConvNet()), datamodule=Digits())


def test_what_is_deployed_is_what_was_measured(capsys):
    """ONE: the plain network in an exported file, and the whole group by the command and in Python."""
    run = fit("digits/one.yaml", "--trainer.max_epochs", 3)
    measured = json.loads((run / "summary.json").read_text())["metrics"]["test/accuracy"]
    data = Digits()
    data.setup("test")
    data.read_test_part()
    pixels, labels = data.test.source.images, data.test.labels
    assert type(dl.load(run).network) is ConvNet
    dl.export(run, "torch-export", "one.pt2", data=data, pictures=70)
    exported = torch.export.load("one.pt2").module()(pixels)[0]
    assert (exported.argmax(1) == labels).float().mean().item() == pytest.approx(measured)

    # the group: the branches of the checkpoint, put together by hand, and the network that the command makes of them
    weights, pictures = load(run)["state_dict"], data.normaliser(pixels)
    method = ONE(ConvNet())
    method.build_once(data_info())
    method.load_state_dict(weights)
    method.eval()
    with torch.no_grad():
        at_layer = trunk(method.model, "5")(pictures)
        logits = [method.model(pictures), *(branch(at_layer) for branch in method.branches)]
        by_hand = weighted_logits(logits, method.gate(at_layer))
        group = BranchEnsemble(ConvNet(), 3, "5", gate=True, in_channels=1, image_size=8)
        group.load_state_dict(group.weights_in(weights))
        assert torch.allclose(group.eval()(pictures), by_hand, atol=1e-5)
        mean = BranchEnsemble(ConvNet(), 3, "5", in_channels=1, image_size=8)
        mean.load_state_dict(mean.weights_in(weights))
        assert torch.allclose(mean.eval()(pictures), sum(logits) / 3, atol=1e-5)
        again = {f"model.{name}": value for name, value in group.state_dict().items()}  # trained by another method
        assert group.weights_in(again).keys() == group.state_dict().keys()
    asked = ["--model.network", "BranchEnsemble", "--model.network.network", "ConvNet", "--model.network.branches", 3]
    asked += [
        "--model.network.shared_layer",
        5,
        "--model.network.gate",
        "true",
        "--ckpt_path",
        run / "checkpoints/last.ckpt",
    ]
    capsys.readouterr()
    assert distill("test", "--config", CONFIGS / "digits" / "baseline.yaml", *asked) == 0
    accuracy = (by_hand.argmax(1) == labels).float().mean().item()
    shown = re.search(r"accuracy +│ ([\d.]+)", capsys.readouterr().out)
    assert float(shown[1]) == pytest.approx(accuracy, abs=6e-5)


def test_the_average_of_ema_is_that_of_the_deployed_network_alone(capsys):
    run = fit("digits/pcl.yaml", "--trainer.max_epochs", 1)
    assert type(dl.load(run, use_ema=True).network) is ConvNet
    group = ["BranchEnsemble", "--model.network.network", "ConvNet", "--model.network.branches", 3]
    asked = ["--model.network", *group, "--model.network.shared_layer", 5, "--use_ema"]
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", "--ckpt_path", run / "checkpoints/last.ckpt"]
    capsys.readouterr()
    assert distill("test", *given, *asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("and BranchEnsemble has other parts, too: leave use_ema out")


def test_what_is_built_beside_the_network_loads_from_python():
    run = fit("digits/okddip.yaml", "--trainer.max_epochs", 1, "--trainer.precision", "bf16-mixed")
    path = run / "checkpoints" / "last.ckpt"
    saved = load(run)["state_dict"]
    loaded = OKDDip.load_from_checkpoint(path, network=ConvNet()).state_dict()
    assert saved.keys() == loaded.keys() and all(value.equal(saved[name]) for name, value in loaded.items())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Branches(ConvNet(), branches=1), "Branches.branches is 1: one branch is the plain network"),
        (lambda: ONE(ConvNet(), branches=1), "ONE.branches is 1: one branch is the plain network"),
        (lambda: OKDDip(ConvNet(), branches=2), "OKDDip.branches is 2: two peers and a leader are 3"),
        (lambda: ONE(LeNet300100()), "LeNet300100 names no stages to share: give shared_layer"),
        (lambda: ONE(ConvNet(), temperature=0.0), "ONE.temperature is 0.0"),
        (lambda: ONE(ConvNet(), ramp_epochs=-1), "ONE.ramp_epochs is -1"),
        (lambda: ONE(ConvNet(), shared_layer="7x"), "ConvNet has no layer 7x: shared_layer is the path of a module"),
        (lambda: ONE(ConvNet(), shared_layer="12"), "the output of 12 of ConvNet is no feature map"),
        (lambda: ONE(Bypass()), "what follows first in Bypass needs more than the output of first"),
        (lambda: ONE(InPlace()), "what follows first in InPlace needs more than the output of first"),
        (lambda: OKDDip(nn.Sequential(nn.Conv2d(1, 10, 1), nn.Conv2d(10, 10, 8), nn.Flatten()), shared_layer="0"),
         "OKDDip needs the inputs of linear layers, and Sequential has none"),
        (lambda: ONE(last_channels(), shared_layer="2"), r"ONE's gate reads maps .C, H, W., and 2 of Sequential gives"),
        (lambda: PCL(nn.Sequential(nn.Conv2d(1, 10, 1), nn.Conv2d(10, 10, 8), nn.Flatten()), shared_layer="0"),
         "PCL needs the inputs of linear layers, and Sequential has none"),
        (lambda: PCL(ConvNet(), decay=1.0), "PCL.decay is 1.0"),
        (lambda: Branches(ConvNet(), fine_tuning=FineTuning(frozen=["0"])), "leave fine_tuning out"),
    ],
)  # fmt: skip
def test_what_cannot_be_branched_is_one_line_before_the_first_batch(make, words):
    with pytest.raises(InputError, match=words) as error:
        bare_trainer(max_epochs=1).fit(make(), datamodule=Digits(batch_size=100))
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_a_gate_needs_two_samples_whatever_the_network_is():
    with pytest.raises(InputError, match="ONE needs 2 samples per process in each batch"):
        bare_trainer(max_epochs=1).fit(ONE(ConvNet(norm=False)), datamodule=Digits(batch_size=1, train_part=10))

"""Methods with modules between the features of student and teacher: values, shapes, where the modules are kept, and the
traps of their papers' code."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from features_of import Says, fit, last_channels, made, student, teacher
from helpers import CONFIGS, at, batch_of, distill, load, sgd
from helpers import fit as run
from torch import nn
from torchvision import models

import distill_lightning as dl
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.mixing import Mixup
from distill_lightning.errors import InputError
from distill_lightning.features import Features, last_linear, layer_shapes, layers_of, norm_before_relu
from distill_lightning.losses import crd_similarity, hcl, ofd_margins
from distill_lightning.methods import crd as crd_module
from distill_lightning.methods.at import AT
from distill_lightning.methods.crd import CRD, Samples, draws
from distill_lightning.methods.fitnets import FitNets, regressor
from distill_lightning.methods.ofd import OFD, connector, margins_of
from distill_lightning.methods.reviewkd import Fusion, ReviewKD, review
from distill_lightning.methods.simkd import SimKD
from distill_lightning.methods.srrl import SRRL
from distill_lightning.methods.vid import VID, MapPrediction
from distill_lightning.models import VGG16, ConvNet, ResNet8, ResNet8x4, ResNet20, ResNet32x4, WideResNet
from distill_lightning.models.reused_classifier import ReusedClassifier, projector
from distill_lightning.optimizers import default_optimizer
from distill_lightning.teachers import FrozenNetwork, Teachers
from distill_lightning.values import TeacherOutput

RGB = (3, 32, 32)
Q, B = made(torch.sin, 0.7, 0.3, 3, 3, 4, 4), made(torch.cos, 0.37, 0, 3, 3, 4, 4)
LOGITS = torch.tensor([[2, -1, 0.5, 0], [0, 1.5, -0.5, 1], [-1, 0, 3, 0.5]])
ADAPTED = (FitNets, OFD, ReviewKD, CRD, VID, SRRL)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class Same(nn.Module):
    """Gives the student's features, as a fusion does, in the place of an adapter."""

    def forward(self, features, *rest):
        return (features, features) if rest else features


def loss_of(method, features, of_teacher, position=None, **batch) -> dict[str, float]:
    """The terms of features for given features of both networks."""
    method.features = Features(method.model, ["0"])
    given = batch_of(torch.zeros(3, 1, 8, 8), torch.arange(3), teacher=TeacherOutput(LOGITS, (of_teacher,)), **batch)
    terms = method.training_loss(given, position or at()).terms
    return {name: term.item() for name, term in terms.items() if name != "hard"}


def says(features) -> nn.Module:
    return nn.Sequential(Says(features), Says(LOGITS))


# Values


def test_golden_values_of_methods_with_adapters():
    for method, golden in [
        (FitNets(says(Q), layers=["0"]), 94.4939305),
        (OFD(says(Q), layers=["0"]), 0.041571198),
        (SimKD(says(Q), layers=["0"]), 0.944939305),
    ]:
        method.adapters = nn.ModuleList([Same()])
        if isinstance(method, OFD):
            method.margins = [ofd_margins(torch.tensor([1, 0.5, 2.0]), torch.tensor([0.1, -0.3, 0.8]))]
        (value,) = loss_of(method, Q, B).values()
        assert value == pytest.approx(golden, rel=2e-6)


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.05), (9, 0.5), (19, 1), (100, 1)])
def test_golden_value_of_reviewkd_in_its_warm_up(epoch, share):
    method = ReviewKD(says(Q), layers=["0"])
    method.adapters = nn.ModuleList([Same()])
    assert loss_of(method, Q, B, at(epoch)) == {"review_1": pytest.approx(share * 5 * 0.617891303, rel=2e-6)}


def test_golden_values_of_crd(monkeypatch):
    v_s, v_t = made(torch.sin, 0.5, 0.2, 3, 4), made(torch.cos, 0.9, 0, 3, 4)
    method = CRD(says(v_s), layers=["0"], negatives=2, contrast_weight=1.0)
    method.adapters = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    for layer in method.adapters:
        nn.init.eye_(layer.weight), nn.init.zeros_(layer.bias)
    method.samples = Samples.of(torch.tensor([10, 11, 12, 13, 14, 15]), torch.arange(16) % 2)
    banks = made(torch.sin, 1, 1, 6, 4), made(torch.cos, 1, 2, 6, 4)
    method.banks = torch.stack([F.normalize(bank) for bank in banks])
    monkeypatch.setattr(Samples, "others", lambda self, rows, drawn: torch.tensor([[0, 5], [2, 0], [5, 2]]))
    terms = loss_of(method, v_s, v_t, index=torch.tensor([11, 13, 14]))
    assert terms["contrast_s"] + terms["contrast_t"] == pytest.approx(31.104547242, rel=2e-6)
    assert method.normalisers.tolist() == pytest.approx([111.805284, 1695722.005504], rel=2e-6)
    assert method.banks[0, 1].tolist() == pytest.approx([-0.279491, 0.140062, 0.595011, 0.740425], abs=1e-6)
    assert method.banks[0, 0].equal(F.normalize(banks[0])[0])
    kept = method.normalisers.clone()
    loss_of(method, v_t, v_s, index=torch.tensor([11, 13, 14]))
    assert method.normalisers.equal(kept)  # those of the first batch


def test_the_distances_of_ofd_weigh_twice_as_much_from_layer_to_layer():
    method = OFD(says(Q), layers=["0"])
    method.adapters = nn.ModuleList([Same(), Same(), Same()])
    method.margins = 3 * [ofd_margins(torch.tensor([1, 0.5, 2.0]), torch.tensor([0.1, -0.3, 0.8]))]
    batch = batch_of(torch.zeros(len(Q), 1, 8, 8), torch.zeros(len(Q), dtype=torch.int64))
    terms = method.feature_terms(3 * [Q], 3 * [B], batch, at())
    expected = {
        f"distance_{j}": pytest.approx(0.041571198 * share, rel=2e-6) for j, share in enumerate((0.25, 0.5, 1), 1)
    }
    assert {name: term.item() for name, term in terms.items()} == expected


def test_the_fusion_of_reviewkd_is_that_of_the_paper():
    """Two levels, computed once more from the formulas: the deeper residue is enlarged to f, the result to g."""
    torch.manual_seed(0)
    fusions = [Fusion(3, 4, 5, True).double(), Fusion(6, 4, 7, False).double()]
    f, deeper = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 6, 2, 2).double()
    found = review(fusions, [f, deeper], [torch.Size((8, 8)), torch.Size((2, 2))])

    def normal(x):
        centred = x - x.mean((0, 2, 3), keepdim=True)
        return centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()

    def enter(fusion, x):
        return normal(torch.einsum("mc,bchw->bmhw", fusion.enter[0].weight[:, :, 0, 0], x))

    def leave(fusion, x):
        patches = F.unfold(x, 3, padding=1)
        weight = fusion.leave[0].weight.flatten(1)
        return normal((weight @ patches).unflatten(2, x.shape[2:]))

    def twice(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    residue = enter(fusions[1], deeper)
    x, y = enter(fusions[0], f), twice(residue)
    attention = fusions[0].attention
    scores = (
        torch.einsum("mc,bchw->bmhw", attention.weight[:, :, 0, 0], torch.cat([x, y], 1))
        + attention.bias[:, None, None]
    )
    a = 1 / (1 + (-scores).exp())
    fused = twice(x * a[:, 0, None] + y * a[:, 1, None])
    torch.testing.assert_close(found, [leave(fusions[0], fused), leave(fusions[1], residue)])


def test_published_sizes_of_adapters():
    assert count(regressor((128, 16, 16), (128, 16, 16))) == 16_768
    assert count(regressor((32, 16, 16), (32, 16, 16))) == 1_120
    assert count(projector(256, 256, 2)) == 214_016
    method = ReviewKD(ResNet8x4(100))
    own, theirs = (
        layer_shapes(network, layers_of(network, layers), RGB)
        for network, layers in ((method.model, method.student_layers), (ResNet32x4(100), method.layers_of_teacher))
    )
    assert own == theirs == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (256,)]
    method.adapt(own, theirs)
    assert round(count(method.adapters) / 1e6, 2) == 1.81


@pytest.mark.parametrize(
    ("shape", "of_teacher"),
    [
        ((4, 8, 8), (6, 4, 4)),
        ((4, 4, 4), (6, 8, 8)),
        ((4, 8, 8), (6, 8, 8)),
        ((4, 7, 9), (6, 5, 5)),
    ],
)
def test_a_regressor_gives_the_shape_of_the_teacher(shape, of_teacher):
    assert regressor(shape, of_teacher)(torch.randn(2, *shape)).shape == (2, *of_teacher)


def test_gradients_of_adapters_are_right():
    """In float64, through batch norm in training mode, to the student's features and to the adapters."""
    torch.manual_seed(0)
    fusions = [Fusion(3, 4, 5, True).double(), Fusion(4, 4, 6, False).double()]
    maps = [torch.randn(3, 3, 4, 4).double().requires_grad_(), torch.randn(3, 4, 2, 2).double().requires_grad_()]
    sizes = [torch.Size((5, 5)), torch.Size((2, 2))]
    targets = [torch.randn(3, 5, 5, 5).double(), torch.randn(3, 6, 2, 2).double()]

    def reviewed(*given):
        return sum(hcl(u, g) for u, g in zip(review(fusions, given, sizes), targets, strict=True))

    assert torch.autograd.gradcheck(reviewed, maps, atol=1e-5)
    adapter, g = regressor((3, 4, 4), (5, 4, 4)).double(), torch.randn(3, 5, 4, 4).double()
    assert torch.autograd.gradcheck(lambda f: dl.losses.fitnets(adapter(f), g), maps[0])
    margins = torch.full((5,), -0.4).double()
    adapter = connector(3, 5).double()
    assert torch.autograd.gradcheck(lambda f: dl.losses.ofd(adapter(f), g, margins), maps[0])
    assert all(p.grad is None or p.grad.isfinite().all() for p in adapter.parameters())


def test_vid_trains_its_variances_and_begins_with_five():
    """In a toolbox they lie in a Python list, and the term is a mean squared error."""
    method = VID(says(Q), layers=["0"])
    adapter = MapPrediction(3, 5)
    assert sum(p.numel() for p in MapPrediction(64, 256).mean.parameters()) == 64 * 256 + 2 * 256**2
    torch.testing.assert_close(F.softplus(adapter.raw_variance) + 1e-5, torch.full((5,), 5.0))
    adapter = adapter.double()
    f, g = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 5, 4, 4).double()
    assert torch.autograd.gradcheck(
        lambda a: dl.losses.vid(adapter(f), g, a), adapter.raw_variance.detach().requires_grad_()
    )
    method.adapters = nn.ModuleList([Same()])
    method.adapters[0].raw_variance = nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))
    (value,) = loss_of(method, Q, B).values()
    variance = (F.softplus(method.adapters[0].raw_variance) + 1e-5)[:, None, None]
    assert value == pytest.approx(((Q - B).square() / variance + variance.log()).mean().item() / 2, rel=1e-6)


def test_srrl_passes_its_gradient_through_a_classifier_that_is_not_trained():
    """The adapter acts on the map, before the mean: after a ReLU the order matters."""
    torch.manual_seed(0)
    method = student(SRRL)
    fit(method)
    adapter, classifier = method.adapters[0], method._classifier.module
    torch.testing.assert_close(classifier.weight, last_linear(teacher()).weight)
    assert not any(p.requires_grad for p in classifier.parameters())
    assert classifier not in method.modules()
    f, g = torch.randn(6, 64, 2, 2).requires_grad_(), torch.randn(6, 32, 2, 2)
    t = torch.randn(6, 10)
    batch = batch_of(torch.zeros(6, 1, 8, 8), torch.arange(6), teacher=TeacherOutput(t, (g,)))
    (term,) = method.feature_terms([f], method.reading([]).read([g]), batch, at()).values()
    h = adapter(f).mean((2, 3))
    expected = (h - g.mean((2, 3))).square().mean() + (classifier(h) - t).square().mean()
    torch.testing.assert_close(term, expected)
    after = adapter(f.mean((2, 3), keepdim=True)).flatten(1)
    assert (after - h).abs().max() > 1e-2
    assert torch.autograd.grad((classifier(h) - t).square().mean(), f)[0].abs().sum() > 0


def test_the_residue_of_a_deeper_level_reaches_the_first():
    fusions = [Fusion(3, 4, 5, True).eval(), Fusion(4, 4, 6, False).eval()]
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4).requires_grad_()]
    first, _ = review(fusions, maps, [torch.Size((8, 8)), torch.Size((4, 4))])
    assert torch.autograd.grad(first.sum(), maps[1])[0].abs().sum() > 0


@pytest.mark.parametrize("method", [FitNets, OFD, ReviewKD, VID])
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(method):
    """With the adapters in eval mode: two processes differ by batch norm alone."""
    torch.manual_seed(0)
    made = method(ConvNet())
    shapes = [layer_shapes(made.model, layers_of(made.model, made.student_layers), (1, 8, 8))] * 2
    made.adapt(*shapes)
    made.adapters.eval()
    made.margins = [torch.full(one[:1], -0.5) for one in shapes[0]]
    f, g = ([torch.randn(8, *one) for one in shapes[0]] for _ in range(2))
    batch = batch_of(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64))
    whole, *halves = (
        sum(made.feature_terms([x[rows] for x in f], [x[rows] for x in g], batch, at()).values())
        for rows in (slice(None), slice(4), slice(4, None))
    )
    assert torch.allclose(whole, sum(halves) / 2, rtol=1e-5)


# Before the ReLU


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (ResNet20, ["stage1", "stage3"]),
        (ResNet20, ["stages.1.1"]),
        (lambda: models.resnet50(num_classes=3), ["layer1", "layer4"]),
        (VGG16, ["stage1", "stage2"]),
        (lambda: WideResNet(depth=10, widen=1), ["features.1", "features.3"]),
    ],
)
def test_features_before_the_relu(make, layers):
    """In training mode, with in-place ReLUs that are called several times, and in networks of pre-activation blocks."""
    torch.manual_seed(0)
    network = make().train()
    after = Features(network, layers)
    before = Features(network, [f"{layer}.before_relu" for layer in layers], shape=RGB)
    network(torch.randn(2, *RGB))
    for layer, held, output in zip(layers, before.take(), after.take(), strict=True):
        assert held.min() < -0.1 and held.requires_grad
        if isinstance(network, WideResNet):  # the next block's batch norm comes between, or the network's last one
            norm = norm_before_relu(network, f"{layer}.before_relu", RGB)
            with torch.no_grad():
                assert torch.allclose(held, F.batch_norm(output, None, None, norm.weight, norm.bias, True), atol=1e-5)
        else:
            assert F.adaptive_max_pool2d(held.relu(), output.shape[2:]).equal(output)


def test_before_the_relu_under_compile():
    torch._dynamo.reset()
    network = ResNet8()
    features = Features(network, ["stage1.before_relu", "stage3.before_relu"], shape=RGB)
    pictures = torch.randn(4, *RGB)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    values = []
    for call in (network, compiled):
        network.zero_grad()
        call(pictures)
        held = features.take()
        sum(one.square().mean() for one in held).backward()
        values.append([*(one.detach() for one in held), network.stem[0].weight.grad])
    assert values[0][0].min() < 0
    assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(*values, strict=True))


def test_the_margins_are_of_the_branch_and_not_of_the_shortcut():
    network = ResNet8()
    assert norm_before_relu(network, "stage2.before_relu", RGB) is network.stages[1][0].bn2
    network = models.resnet50(num_classes=3)
    assert norm_before_relu(network, "layer1.before_relu", RGB) is network.layer1[2].bn3


@pytest.mark.parametrize(
    ("network", "layer", "words"),
    [
        (ResNet8(), "pooled.before_relu", "neither ends in a module ReLU nor does one follow"),
        (ResNet8(), "stages.0.0.conv1.before_relu", "uses the ReLU of stages.0.0.conv1.before_relu again later"),
        (ResNet8(), "stages.7.before_relu", "has no layer stages.7; did you mean stages"),
        (models.mobilenet_v2(num_classes=3), "features.3.before_relu", "neither ends in a module ReLU"),
    ],
)
def test_no_relu_to_be_before(network, layer, words):
    with pytest.raises(InputError, match=words) as error:
        layer_shapes(network, [layer], RGB)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_ofd_needs_a_batch_norm_before_the_relu():
    with pytest.raises(InputError, match=r"ConvNet has no batch norm before the ReLU of 1\.before_relu"):
        fit(student(OFD), PlainNetwork(teacher(norm=False)))
    with pytest.raises(InputError, match="OFD needs the teacher's features before the ReLU: give stage1.before_relu"):
        fit(student(OFD, layers=["stage1"], teacher_layers=["stage1"]))


# Where adapters are kept


@pytest.mark.parametrize("method", ADAPTED)
def test_adapters_are_trained_and_kept_beside_the_network(method):
    made, plain = student(method), student(AT, attention_weight=0.0)
    fit(made), fit(plain)
    fresh = student(method)
    fresh.adapt(*made._adapted)
    names = [name for name in made.state_dict() if not name.startswith("model.")]
    assert names and all(name.startswith("adapters.") for name in names)
    assert set(made.model.state_dict()) == set(ConvNet().state_dict())
    moved = [not p.equal(q) for p, q in zip(made.adapters.parameters(), fresh.adapters.parameters(), strict=True)]
    assert all(moved)
    held = {id(p) for group in made.configure_optimizers().param_groups for p in group["params"]}
    assert held == {id(p) for p in made.parameters()}


def test_adapters_are_drawn_from_the_seed_of_the_run_alone():
    """They neither depend on what was drawn before nor change the student's first weights."""
    draws = []
    for burnt in (0, 5):
        made = student(FitNets)
        torch.rand(burnt)
        state = torch.get_rng_state()
        made.adapt([(32, 4, 4)], [(16, 4, 4)])
        assert torch.get_rng_state().equal(state)
        draws.append(made.adapters[0][0].weight)
    assert draws[0].equal(draws[1])
    first = made.adapters[0]
    made.adapt([(32, 4, 4)], [(16, 4, 4)])
    assert made.adapters[0] is first
    made.adapt([(32, 4, 4)], [(20, 4, 4)])
    assert made.adapters[0][0].out_channels == 20


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A teacher, and a run of FitNets and of SimKD."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        short = ["--trainer.max_epochs", 1, "--data.train_part", 400]
        run("digits/teacher.yaml", *short)
        found = {name: (run(f"digits/{name}.yaml", *short)).resolve() for name in ("fitnets", "simkd")}
    assert Path.cwd() == before
    return found


def test_what_is_deployed_has_no_adapters(runs, tmp_path):
    checkpoint = load(runs["fitnets"])
    assert any(name.startswith("adapters.") for name in checkpoint["state_dict"])
    opened = dl.load(runs["fitnets"]).network
    assert isinstance(opened, ConvNet) and set(opened.state_dict()) == set(ConvNet().state_dict())
    report = dl.export(runs["fitnets"], "safetensors", out=tmp_path / "plain.safetensors", pictures=0)
    safetensors = pytest.importorskip("safetensors.torch")
    assert not [name for name in safetensors.load_file(report.file) if "adapters" in name]
    assert json.loads((runs["fitnets"] / "summary.json").read_text())["parameters"] == count(ConvNet())


def test_simkd_deploys_another_network(runs, tmp_path, capsys):
    """What is tested, opened, exported, counted and taught by is one network."""
    summary = json.loads((runs["simkd"] / "summary.json").read_text())
    opened = dl.load(runs["simkd"])
    network = opened.network
    assert isinstance(network, ReusedClassifier)
    body = count(ConvNet()) - 650
    assert summary["parameters"] == count(network) == body + count(projector(64, 128, 2)) + 1290
    of_teacher = torch.load(runs["simkd"].parents[1] / "baseline/teacher/checkpoints/last.ckpt", weights_only=True)
    assert network.classifier.weight.equal(of_teacher["state_dict"]["model.12.weight"])
    assert not [name for name in load(runs["simkd"])["state_dict"] if not name.startswith("model.")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(runs["simkd"].parents[3])
        capsys.readouterr()
        name = ["--name", runs["simkd"].name, "--ckpt_path", "last"]
        assert distill("test", "--config", CONFIGS / "digits/simkd.yaml", *name) == 0
        assert f"{summary['metrics']['test/accuracy']:.4f}" in capsys.readouterr().out
        taught = ["--trainer.callbacks.teacher", runs["simkd"] / "checkpoints/last.ckpt", "--trainer.max_epochs", 1]
        assert distill("fit", "--config", CONFIGS / "digits/kd.yaml", *taught, "--data.train_part", 200) == 0
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    report = dl.export(runs["simkd"], out=tmp_path / "simkd.onnx")
    assert report.parity.accuracy["file"] == pytest.approx(summary["metrics"]["test/accuracy"])


def test_simkd_needs_no_labels_and_counts_them_if_it_shall():
    assert SimKD(ConvNet()).needs.allows_unlabelled and SimKD(ConvNet()).needs.teacher_logits
    method = student(SimKD, hard_weight=0.5)
    (batch, *_) = fit(method)
    method.train()
    terms = method.training_loss(batch, at()).terms
    expected = 0.5 * F.cross_entropy(method(batch.images), batch.labels).item()
    assert terms["hard"].item() == pytest.approx(expected, rel=1e-5)


class Detour(ConvNet):
    """Its children are not called in their order."""

    def forward(self, images):
        return super().forward(-images)


class TwoHeads(ConvNet):
    """Its logits are not the linear layer on the mean of a map alone."""

    def forward(self, images):
        return super().forward(images) + 1


@pytest.mark.parametrize(
    ("network", "of_teacher", "options", "words"),
    [
        (Detour(), ConvNet(), {}, "SimKD cannot cut Detour after 8: its layers are not called one after another"),
        (ConvNet(), TwoHeads(), {}, "SimKD: the logits of TwoHeads are not its linear layer on the mean of last_stage"),
        (ConvNet(), ConvNet(), {"teacher_layers": ["stage1"]}, "SimKD needs a linear layer after stage1 of ConvNet"),
        (ConvNet(), ConvNet(7), {}, "7 classes, digits has 10"),
        (
            ConvNet(),
            ConvNet(),
            {"layers": ["stage1", "stage2"]},
            "SimKD cuts the student at one layer, and 2 are",
        ),
        (ConvNet(), ConvNet(), {"layers": ["stage7"]}, "ConvNet has no stage7: it has 3 stages"),
        (last_channels(), ConvNet(), {"layers": ["2"]}, r"SimKD needs a map .C, H, W., and 2 of the student gives"),
        (ConvNet(), ConvNet(), {"layers": ["pooled"]}, "pooled is not the output of a layer of ConvNet"),
    ],
)
def test_what_simkd_refuses(network, of_teacher, options, words):
    with pytest.raises(InputError, match=words) as error:
        fit(SimKD(network, optimizer=sgd, **options), PlainNetwork(of_teacher))
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "options", "given", "words"),
    [
        (FitNets, {"layers": ["stage3"], "teacher_layers": ["stage1"]}, {}, "FitNets cannot match maps of 2x2 with"),
        (FitNets, {"layers": ["stagee2"]}, {}, "ConvNet has no layer stagee2"),
        (FitNets, {"layers": ["pooled"]}, {}, "FitNets compares maps"),
        (ReviewKD, {"layers": ["all_stages"]}, {}, "the student has 3 layers and the teacher 4: give layers and"),
        (CRD, {"layers": ["all_stages"], "teacher_layers": ["all_stages"]}, {}, "CRD compares one layer, and 3 are"),
        (CRD, {}, {"mix": Mixup()}, "CRD needs pictures of one sample each, without mixing"),
        (SimKD, {}, {"callback": SoftTargets(PlainNetwork(teacher()), "table")}, "vectors, and SimKD reads whole"),
    ],
)
def test_what_cannot_be_matched_is_one_line_before_the_first_batch(method, options, given, words):
    with pytest.raises(InputError, match=words) as error:
        fit(student(method, **options), **given)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


# OFD's teacher


def test_the_teacher_of_ofd_uses_the_statistics_of_the_batch_and_keeps_its_own():
    live = teacher()
    kept = {name: value.clone() for name, value in live.state_dict().items()}
    batches = {mode: fit(student(OFD, teacher_batch_norm=mode), PlainNetwork(live)) for mode in ("batch", "running")}
    assert all(value.equal(kept[name]) for name, value in live.state_dict().items())
    for mode, seen in batches.items():
        with torch.no_grad():
            expected = live[1].train(mode == "batch")(live[0](seen[0].images))
        assert torch.allclose(seen[0].teacher.features[0], expected, atol=1e-4), mode
        live.load_state_dict(kept)


# CRD's banks


def test_negatives_are_of_other_classes_and_a_function_of_seed_epoch_and_sample():
    labels = torch.tensor([0, 2, 1, 0, 2, 2, 1, 0, 0, 1])
    samples = Samples.of(torch.tensor([1, 2, 3, 5, 6, 8, 9]), labels)
    index = torch.tensor([6, 1, 3])
    rows = samples.rows(index)
    assert rows.tolist() == [4, 0, 2]
    drawn = draws(0, 3, index, 3000)
    chosen = samples.index[samples.others(rows, drawn)]
    for own, others in zip(labels[index], chosen, strict=True):
        assert set(others.tolist()) == {n for n in samples.index.tolist() if labels[n] != own}
        assert others.unique(return_counts=True)[1].min() > 0.8 * 3000 / len(others.unique())
    assert draws(0, 3, index[[2]], 3000).equal(drawn[[2]])
    assert all(not draws(*other, index, 3000).equal(drawn) for other in ((1, 3), (0, 4)))


def test_the_banks_hold_the_training_samples_alone():
    method = student(CRD, negatives=50, embedding=16)
    batches = fit(method)
    assert method.banks.shape == (2, 300, 16)
    first, seen = crd_module.first_banks(300, 16), method.samples.rows(torch.cat([b.index for b in batches]))
    assert first.abs().max() <= (3 / 16) ** 0.5 and len(seen.unique()) == 300
    assert torch.allclose(method.banks.norm(dim=2), torch.ones(2, 300), atol=1e-5)
    assert not method.banks.isclose(first).all(2).any()
    assert not [name for name in method.state_dict() if "bank" in name]  # a buffer would be overwritten by rank 0


def test_similarities_are_the_same_by_rows_and_by_the_whole_bank(monkeypatch):
    torch.manual_seed(0)
    bank, v = F.normalize(torch.randn(40, 8).double()), F.normalize(torch.randn(5, 8).double()).requires_grad_()
    candidates = torch.randint(0, 40, (5, 12))
    found = []
    for whole in (16, 0):
        monkeypatch.setattr("distill_lightning.losses.relations.WHOLE", whole)
        near = crd_similarity(v, bank, candidates)
        found.append((near, torch.autograd.grad(near.sum(), v)[0]))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(*found, strict=True))


def test_crd_is_in_float32_under_autocast():
    """exp(1 / 0.07) is beyond float16."""
    v, bank = F.normalize(torch.ones(2, 8)), F.normalize(torch.ones(4, 8))
    with torch.autocast("cpu", dtype=torch.float16):
        near = crd_similarity(v, bank, torch.tensor([[0, 1], [2, 3]]))
        embedded = crd_module.embedded(nn.Linear(8, 4), torch.ones(2, 8, dtype=torch.float16))
    assert near.dtype == embedded.dtype == torch.float32
    assert near.max().item() == pytest.approx(1.6e6, rel=0.01)


# A teacher with a picture size of its own


def test_a_teacher_gets_the_pictures_in_its_own_size():
    sizes = []
    live = teacher()
    live.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[1:])))
    batches = fit(student(FitNets), PlainNetwork(live, image_size=16))
    assert set(sizes) == {(1, 16, 16)}
    assert batches[0].teacher.features[0].shape[1:] == (16, 8, 8)
    frozen = FrozenNetwork(live, image_size=16)
    resized = F.interpolate(batches[0].images, (16, 16), mode="bilinear", antialias=True)
    assert frozen(batches[0].images).equal(live(resized)) and frozen.digest.endswith("at 16x16")
    assert Teachers([frozen]).copied((1, 8, 8))[1] == (1, 16, 16)


def test_a_teacher_of_a_run_gets_the_size_that_it_was_trained_on(tmp_path, monkeypatch):
    from helpers import write_pictures

    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures", 2, 12, 32)
    given = ["--data.root", tmp_path / "pictures", "--data.val_size", 4, "--data.batch_size", 8]
    given += ["--trainer.max_epochs", 1, "--model.network", "ResNet8"]
    large = run("folder/baseline.yaml", *given, "--data.image_size", 24)
    data = dl.ImageFolder(root=str(tmp_path / "pictures"), val_size=4, image_size=16)
    data.setup("fit")
    opened = FrozenNetwork.open(str(large), data, "teacher")
    assert opened.image_size == 24 and FrozenNetwork.open(str(large), data, "member").image_size is None


def test_default_optimizer_takes_the_adapters():
    method = FitNets(ConvNet(), optimizer=default_optimizer)
    method.adapt([(32, 4, 4)], [(16, 4, 4)])
    assert sum(len(group["params"]) for group in method.configure_optimizers().param_groups) == 11 + 4


def test_reviewkd_refuses_a_batch_of_one_sample():
    """The batch norm of its fusion at pooled features cannot take it, though the student has none."""
    method = ReviewKD(ConvNet(width=4, norm=False), optimizer=sgd)
    with pytest.raises(InputError, match="ReviewKD"):
        fit(method, batch_size=32, train_part=97, keep_last=True)


def test_margins_of_a_batch_norm_without_weight_and_bias():
    """E[x | x < 0] of a standard normal distribution is -sqrt(2 / pi)."""
    assert margins_of(nn.BatchNorm2d(3, affine=False)).tolist() == pytest.approx([-math.sqrt(2 / math.pi)] * 3)


def test_unlabelled_pictures_are_not_among_the_new_ones():
    method = student(SimKD)
    seen, original = [], method.training_loss
    method.training_loss = lambda batch, position: (seen.append((batch, original(batch, position))), seen[-1][1])[1]
    fit(method, train_part="10 per class", unlabelled="rest", unlabelled_share=0.5)
    assert all(len(output.logits) == batch.num_new < len(batch.images) for batch, output in seen)

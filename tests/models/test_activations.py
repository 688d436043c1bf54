"""Another activation in place of a network's own: which modules are replaced, and runs with it."""

import functools
import json

import pytest
import torch
import yaml
from helpers import CONFIGS, Kill, assert_same_run, distill, fit, load
from torch import nn

import distill_lightning as dl
from distill_lightning.errors import InputError
from distill_lightning.initializers import GAINS
from distill_lightning.models.activations import other_activations, replace_activations

NAMES = sorted(
    set(dl.models.__all__)
    - {
        "AveragedTraining",
        "DenseLayer",
        "BranchEnsemble",
        "EarlyExit",
        "ExitHead",
        "Gate",
        "LotteryConv",
        "MultiViewNet",  # a polynomial
        "Narrowed",
        "ReusedClassifier",
        "SmallVGG",
        "WideBlock",
        "WithSpecialists",
    }
)
LARGE = {"DenseNet100", "ResNet110", "BottleneckResNet110", "WideResNet20x8", "WideResNet", "VGG16", "VGG19"}


def kinds(network: nn.Module) -> set[str]:
    return {type(module).__name__ for module in network.modules()}


@pytest.mark.parametrize(
    ("name", "values", "slopes"),
    [
        ("Sigmoid", (0.119203, 0.268941, 0.622459, 0.731059, 0.880797), (0.196612, 0.25, 0.196612)),
        ("Tanh", (-0.964028, -0.761594, 0.462117, 0.761594, 0.964028), (0.419974, 1, 0.419974)),
        ("ReLU", (0, 0, 0.5, 1, 2), (0, 0, 1)),
        ("LeakyReLU", (-0.02, -0.01, 0.5, 1, 2), (0.01, 0.01, 1)),
        ("PReLU", (-0.5, -0.25, 0.5, 1, 2), (0.25, 0.25, 1)),
        ("ELU", (-0.864665, -0.632121, 0.5, 1, 2), (0.367879, 1, 1)),
        ("SELU", (-1.520166, -1.111331, 0.525350, 1.050701, 2.101402), (0.646769, 1.758099, 1.050701)),
        ("GELU", (-0.0455, -0.158655, 0.345731, 0.841345, 1.9545), (-0.083315, 0.5, 1.083315)),
        ("SiLU", (-0.238406, -0.268941, 0.311230, 0.731059, 1.761594), (0.072329, 0.5, 0.927671)),
        ("Mish", (-0.252501, -0.303401, 0.375245, 0.865098, 1.943959), (0.059217, 0.6, 1.049036)),
    ],
)
def test_golden_values(name, values, slopes):
    made = getattr(nn, name)().double()
    at = torch.tensor([-2, -1, 0.5, 1, 2], dtype=torch.float64)
    assert (made(at) - torch.tensor(values, dtype=torch.float64)).abs().max() < 1e-6
    at = torch.tensor([-1.0, 0, 1], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(made(at).sum(), at)
    assert (slope - torch.tensor(slopes, dtype=torch.float64)).abs().max() < 1e-6


Z = torch.linspace(-12, 12, 480_001, dtype=torch.float64)
DENSITY = torch.exp(-(Z**2) / 2) / (2 * torch.pi) ** 0.5
MOMENTS = {  # E f, E f^2, E f'^2 for z ~ N(0, 1)
    "Sigmoid": (0.5, 0.293379, 0.044836), "Tanh": (0, 0.394294, 0.464403), "ReLU": (0.398942, 0.5, 0.5),
    "LeakyReLU": (0.394953, 0.50005, 0.50005), "ELU": (0.160521, 0.644945, 0.668102), "SELU": (0, 1, 1.071615),
    "GELU": (0.282095, 0.425221, 0.455851), "GELU, tanh": (0.282039, 0.425194, 0.455818),
    "SiLU": (0.206621, 0.355776, 0.379482), "Mish": (0.240404, 0.452342, 0.479084),
}  # fmt: skip


def made(name: str) -> nn.Module:
    return nn.GELU("tanh") if name == "GELU, tanh" else getattr(nn, name)()


@pytest.mark.parametrize("name", MOMENTS)
def test_golden_moments(name):
    """The share of the signal and of the gradient that a layer passes on at unit pre-activations."""
    z = Z.clone().requires_grad_()
    values = made(name)(z)
    (slopes,) = torch.autograd.grad(values.sum(), z)
    found = [torch.trapezoid(f * DENSITY, Z).item() for f in (values.detach(), values.detach() ** 2, slopes**2)]
    assert found == pytest.approx(MOMENTS[name], abs=3e-5)  # a corner at 0 lies on a point of the sum


@pytest.mark.parametrize(
    ("name", "slope"),
    [("SELU", 0.78), ("ELU", 0.89), ("ReLU", 1.0), ("Mish", 1.08), ("GELU", 1.14), ("SiLU", 1.17)],
)
def test_where_a_gain_that_keeps_the_variance_lets_it_run_away(name, slope):
    """The slope of q -> E f(sqrt(q) z)^2 / E f(z)^2 at 1: above 1, deep networks need a smaller gain."""

    def kept(q: float) -> float:
        return torch.trapezoid(made(name)(q**0.5 * Z) ** 2 * DENSITY, Z).item()

    assert (kept(1.001) - kept(0.999)) / 0.002 / kept(1.0) == pytest.approx(slope, abs=0.005)
    gain = GAINS[name.lower()]
    assert gain == pytest.approx(kept(1.0) ** -0.5 if slope <= 1 else 2**0.5, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LARGE])
def test_every_network_of_this_package_changes_all_and_keeps_its_names(name):
    network = getattr(dl.models, name)()
    names = list(network.state_dict())
    assert replace_activations(network, nn.GELU) > 0
    assert "ReLU" not in kinds(network) and list(network.state_dict()) == names


def test_nothing_is_called_as_a_function_in_networks_of_this_package():
    pictures = torch.randn(2, 3, 32, 32)
    for network in (dl.models.WideResNet(depth=10, widen=1), dl.models.SmallDenseNet(depth=7), dl.models.ResNet8()):
        replace_activations(network, nn.Tanh)
        assert other_activations(network.eval(), nn.Tanh, pictures) == {}


def test_torchvision_in_place_shared_and_gates():
    from torchvision.models import mobilenet_v3_small, resnet18

    network = resnet18()
    names = list(network.state_dict())
    assert replace_activations(network, nn.ELU) == 9  # the stem, and one for each block, which uses it twice
    assert "ReLU" not in kinds(network) and list(network.state_dict()) == names
    assert not any(module.inplace for module in network.modules() if isinstance(module, nn.ELU))
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    network = mobilenet_v3_small()
    gates = sum(isinstance(module, nn.Hardsigmoid) for module in network.modules())
    replace_activations(network, nn.SiLU)
    assert kinds(network) & {"ReLU", "Hardswish"} == set()
    assert sum(isinstance(module, nn.Hardsigmoid) for module in network.modules()) == gates > 0


def test_timm():
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t")
    assert replace_activations(network, functools.partial(nn.LeakyReLU, 0.1)) > 0
    assert "ReLU" not in kinds(network)
    network.eval()(torch.randn(1, 3, 64, 64))
    network = timm.create_model("convnext_atto")
    assert replace_activations(network, nn.ReLU) > 0 and not kinds(network) & {"GELU", "GELUTanh"}


def test_what_is_called_as_a_function_is_counted():
    from torchvision.models import densenet121

    network = densenet121()
    replace_activations(network, nn.GELU)
    assert other_activations(network.eval(), nn.GELU, torch.zeros(1, 3, 32, 32)) == {"relu": 1}


def test_one_module_at_two_places_stays_one():
    relu = nn.ReLU(inplace=True)
    network = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu)
    assert replace_activations(network, nn.PReLU) == 1
    assert network[1] is network[3] and isinstance(network[1], nn.PReLU)


def test_sigmoid_is_replaced_only_where_it_is_the_activation():
    network = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
    replace_activations(network, nn.ReLU)
    assert kinds(network) == {"Sequential", "Linear", "ReLU"}
    replace_activations(network.append(nn.Sigmoid()), nn.Mish)
    assert kinds(network) == {"Sequential", "Linear", "Mish", "Sigmoid"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nn.GELU, "activation: Linear has no module that is an activation: leave it out"),
        (dict, "activation makes a dict: give the class of a module, as torch.nn.GELU"),
        (functools.partial(nn.ELU, beta=1), "activation cannot be made: TypeError: .*"),
    ],
)
def test_errors_are_one_line(make, words):
    with pytest.raises(InputError, match=f"^{words}$"):
        replace_activations(nn.Linear(4, 4), make)


# Runs

GIVEN = ["digits/baseline.yaml", "--trainer.max_epochs", 2, "--data.train_part", 200, "--model.activation", "PReLU"]


def test_a_run_says_its_activation_and_is_opened_with_it(monkeypatch, tmp_path, capsys):
    whole = fit(*GIVEN, "--name", "whole")
    checkpoint = load(whole)
    assert checkpoint["hyper_parameters"]["activation"]["class_path"] == "torch.nn.PReLU"
    weights = {name: value for name, value in checkpoint["state_dict"].items() if value.shape == (1,)}
    assert len(weights) == 3 and any(value != 0.25 for value in weights.values())
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_end", 4)
        assert distill("fit", "--config", *GIVEN, "--name", "killed", "--checkpoint.every_n_steps", 1) == 1
    assert distill("fit", "--ckpt_path", whole.parent / "killed" / "checkpoints" / "last.ckpt") == 0
    assert_same_run(whole, whole.parent / "killed")

    last = whole / "checkpoints" / "last.ckpt"
    assert distill("test", "--ckpt_path", last) == 0
    assert (
        f"{json.loads((whole / 'summary.json').read_text())['metrics']['test/accuracy']:.4f}" in capsys.readouterr().out
    )
    opened = dl.load(whole)
    assert "PReLU" in kinds(opened.network) and "ReLU" not in kinds(opened.network)
    network = opened.network
    pictures = torch.randn(8, 1, 8, 8)
    with torch.no_grad():
        before = network(pictures)
        replace_activations(network, nn.ReLU)
        assert not torch.equal(network(pictures), before)
    student = fit("digits/kd.yaml", "--trainer.max_epochs", 1, "--trainer.callbacks.teacher", whole)
    assert (student / "summary.json").exists()
    report = dl.export(whole, "torch-export", tmp_path / "net.pt2")
    assert report.about["lineage"]["activation"]["class_path"] == "torch.nn.PReLU"
    assert report.parity.accuracy["file"] == report.parity.accuracy["run"]


def test_python_and_yaml(tmp_path):
    config = yaml.safe_load((CONFIGS / "digits/baseline.yaml").read_text())
    config["model"]["init_args"]["activation"] = {"class_path": "LeakyReLU", "init_args": {"negative_slope": 0.2}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    run = fit(str(tmp_path / "own.yaml"), "--trainer.max_epochs", 1, "--data.train_part", 200)
    written = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["activation"]
    with pytest.raises(InputError, match="activation cannot be imported by name"):
        dl.Trainer(max_epochs=1).fit(dl.Baseline(dl.models.ConvNet, activation=lambda: nn.ELU()), dl.Digits())
    method = dl.Baseline(dl.models.ConvNet, activation=functools.partial(nn.LeakyReLU, negative_slope=0.2))
    result = dl.Trainer(max_epochs=1, enable_progress_bar=False).fit(method, dl.Digits(train_part=200, batch_size=64))
    assert yaml.safe_load((result.folder / "config.yaml").read_text())["model"]["init_args"]["activation"] == written
    assert "LeakyReLU" in kinds(dl.load(result.folder).network)


def test_a_network_without_activation_is_one_line_of_the_command(capsys):
    assert distill("fit", "--config", CONFIGS / GIVEN[0], "--model.activation", "torch.nn.Linear") == 2
    assert len(capsys.readouterr().err.strip().splitlines()[-1]) < 300

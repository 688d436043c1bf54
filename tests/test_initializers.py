"""Initialisers: Caffe's definitions, rules for the names of parameters, and draws that do not depend on each other."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from helpers import CONFIGS, distill, fit, load, run_on
from torch import nn

import distill_lightning as dl
from distill_lightning.errors import InputError
from distill_lightning.initializers import (
    GAINS,
    LSUV,
    MSRA,
    Bilinear,
    Constant,
    Gaussian,
    Initializer,
    Kaiming,
    Orthogonal,
    PositiveUnitball,
    TruncNormal,
    Uniform,
    Xavier,
    ZeroLastGamma,
    fans,
    initialise,
)

CONV = nn.Conv2d(32, 64, 3)  # fan_in 288, fan_out 576


def drawn(rule: Initializer, layer: nn.Module = CONV, name: str = "weight", seed: int = 0) -> torch.Tensor:
    initialise({"": layer}, [rule], seed)
    return getattr(layer, name).detach().double()


# The definitions


@pytest.mark.parametrize(
    ("rule", "mean", "std", "bound"),
    [
        (Uniform("weight", -0.05, 0.15), 0.05, 0.2 / math.sqrt(12), 0.15),
        (Uniform("weight"), 0.5, 1 / math.sqrt(12), 1.0),
        (Gaussian("weight", std=0.01), 0.0, 0.01, None),
        (Gaussian("weight", mean=0.5), 0.5, 1.0, None),
        (Gaussian("weight", std=0.01, sparse=15), 0.0, 0.004841, None),
        (PositiveUnitball("weight"), 0.003472, 0.002005, None),
        (Xavier("weight"), 0.0, 0.058926, 0.102062),
        (Xavier("weight", "average"), 0.0, 0.048113, 0.083333),
        (Xavier("weight", "fan_out"), 0.0, 0.041667, 0.072169),
        (MSRA("weight"), 0.0, 0.083333, None),
        (MSRA("weight", "average"), 0.0, 0.068041, None),
        (MSRA("weight", "fan_out"), 0.0, 0.058926, None),
        (Kaiming("weight", "tanh"), 0.0, 1 / math.sqrt(288), None),
        (Kaiming("weight", "elu"), 0.0, 1.245199 / math.sqrt(288), None),
        (TruncNormal("weight"), 0.0, 0.02, None),
        (Orthogonal("weight", math.sqrt(2)), 0.0, 0.058926 * math.sqrt(2), None),
    ],
)
def test_moments_and_bounds(rule, mean, std, bound):
    weight = drawn(rule)
    n = weight.numel()
    assert abs(weight.mean() - mean) < 4 * std / math.sqrt(n)
    assert abs(weight.std() - std) < 4 * std / math.sqrt(n)  # more than four errors for all but heavy tails
    if bound is not None:
        assert weight.max() <= bound + 1e-6 and weight.max() > 0.99 * bound


def test_sparse_keeps_so_many_weights_of_each_input():
    kept = (drawn(Gaussian("weight", sparse=15)) != 0).double()
    assert abs(kept.mean() - 15 / 64) < 4 * math.sqrt(15 / 64 * 49 / 64 / kept.numel())


def test_each_output_of_the_unit_ball_adds_up_to_1():
    weight = drawn(PositiveUnitball("weight"))
    assert (weight >= 0).all() and (weight.flatten(1).sum(1) - 1).abs().max() < 1e-6


def test_rows_of_orthogonal_are_orthonormal():
    rows = drawn(Orthogonal("weight")).flatten(1)
    assert (rows @ rows.T - torch.eye(64)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (2, [0.5, 0.5]), (3, [0.5, 1, 0.5]), (4, [0.25, 0.75, 0.75, 0.25]), (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)  # fmt: skip
def test_bilinear_golden(size, line):
    weight = drawn(Bilinear("weight"), nn.ConvTranspose2d(2, 3, size))
    wanted = torch.tensor(line, dtype=torch.float64)
    assert (weight - torch.outer(wanted, wanted)).abs().max() < 1e-6


def test_bilinear_enlarges_as_interpolation_does():
    layer = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)
    drawn(Bilinear("weight"), layer)
    ramp = torch.arange(16.0).view(1, 1, 4, 4)
    wanted = nn.functional.interpolate(ramp, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(layer(ramp)[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1])


def test_fans_of_caffe_and_true_ones():
    grouped, transposed = nn.Conv2d(32, 64, 3, groups=4), nn.ConvTranspose2d(8, 16, 4, stride=2)
    assert fans(CONV.weight.shape, CONV, False) == fans(CONV.weight.shape, CONV, True) == (288, 576)
    assert fans(grouped.weight.shape, grouped, False) == (72, 576)
    assert fans(grouped.weight.shape, grouped, True) == (72, 144)
    assert fans(transposed.weight.shape, transposed, False) == (256, 128)
    assert fans(transposed.weight.shape, transposed, True) == (32, 256)
    assert fans(torch.Size([7]), CONV, False) == (1, 7)


def test_where_torchs_namesakes_differ():
    """xavier_uniform_ is Caffe's average; torch's own weights have a sixth of MSRA's variance; TruncNormal's cut is a
    number and no multiple of the deviation."""
    torch.manual_seed(0)
    theirs = torch.nn.init.xavier_uniform_(torch.empty(64, 32, 3, 3))
    assert abs(theirs.abs().max() - 0.083333) < 1e-3 and abs(drawn(Xavier("weight", "average")).std() - 0.048113) < 1e-3
    own = nn.Conv2d(32, 64, 3).weight
    assert abs(own.std() - 0.034021) < 5e-4 and own.abs().max() <= 0.058926
    assert abs(float(own.var() / drawn(MSRA("weight")).var()) - 1 / 6) < 0.01
    assert drawn(TruncNormal("weight", 0.02)).abs().max() > 0.06  # three deviations and more
    wide = drawn(TruncNormal("weight", 5.0)).abs().max()
    assert 1.99 < wide <= 2


def test_gains():
    z = torch.linspace(-12, 12, 480_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    for name in ("relu", "leaky_relu", "elu", "selu"):
        second = torch.trapezoid(getattr(nn.functional, name)(z) ** 2 * density, z)
        assert abs(GAINS[name] - float(second) ** -0.5) < 1e-6, name


# The rules


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))


def weights_after(*rules: Initializer, more: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    made = network()
    if more:
        made.add_module("later", nn.Linear(10, 10))
    initialise({"": made}, list(rules), seed)
    return {name: value.clone() for name, value in made.state_dict().items()}


def test_the_first_rule_that_matches_draws_and_norms_stay():
    before = network().state_dict()
    found = weights_after(Constant("3.weight", 2.0), MSRA(), Constant("*.bias"))
    assert (found["3.weight"] == 2).all() and (found["3.bias"] == 0).all()
    assert not found["0.weight"].equal(before["0.weight"])
    assert all(found[name].equal(before[name]) for name in before if name.startswith("1."))
    gamma = weights_after(Constant("1.weight", 0.5, only=["BatchNorm2d"]))["1.weight"]
    assert (gamma == 0.5).all()


def test_no_rule_and_no_layer_changes_the_draw_of_another_tensor():
    alone = weights_after(MSRA())
    assert not alone["0.weight"].flatten()[:5].equal(alone["3.weight"].flatten()[:5])
    for other in (weights_after(Uniform("*.bias"), MSRA()), weights_after(Constant("3.*"), MSRA())):
        assert other["0.weight"].equal(alone["0.weight"])
    longer = weights_after(MSRA(), more=True)
    assert all(longer[name].equal(alone[name]) for name in alone)
    assert not weights_after(MSRA(), seed=1)["0.weight"].equal(alone["0.weight"])


def test_the_generator_of_the_program_is_not_touched():
    made = network()
    before = torch.random.get_rng_state()
    initialise({"": made}, [Orthogonal(), TruncNormal("*.bias")], 0)
    assert torch.random.get_rng_state().equal(before)


def test_a_block_begins_as_the_identity():
    made = dl.models.ResNet8(num_classes=10, in_channels=1)
    initialise({"": made}, [ZeroLastGamma()], 0)
    zero = {name for name, value in made.named_parameters() if value.count_nonzero() == 0 and "weight" in name}
    assert zero == {f"stages.{stage}.0.bn2.weight" for stage in range(3)}


def test_lsuv_gives_each_layer_a_deviation_of_1_one_after_another():
    torch.manual_seed(0)
    pictures = 3 * torch.rand(64, 1, 6, 6) - 1
    made = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(),
        nn.Linear(32, 10),
    )  # fmt: skip
    buffers = {name: buffer.clone() for name, buffer in made.named_buffers()}
    before = torch.random.get_rng_state()
    asked = []

    def first(count: int) -> torch.Tensor:
        asked.append(count)
        return pictures[:count]

    initialise({"": made.eval()}, [Gaussian("6.weight"), LSUV(pictures=50), Constant("*.bias")], 0, first)
    assert asked == [50] and torch.random.get_rng_state().equal(before) and not made.training
    assert all(buffer.equal(buffers[name]) for name, buffer in made.named_buffers())
    out = pictures[:50]
    for number, layer in enumerate(made.train()[:4]):
        out = layer.eval()(out) if number == 2 else layer(out)
        if isinstance(layer, nn.Conv2d):
            assert abs(float(out.std(correction=0)) - 1) < 0.02
    for number in (0, 3):
        rows = made[number].weight.detach().flatten(1).double()
        size = float((rows**2).sum() / min(rows.shape))
        gram = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
        assert torch.allclose(gram / size, torch.eye(len(gram)).double(), atol=1e-5)
    assert abs(float(made[6].weight.std()) - 1) < 0.2  # an earlier rule's layer is not scaled
    initialise({"": (other := nn.Sequential(*[type(m)(1, 8, 3) for m in made[:1]]))}, [LSUV("0.weight")], 0, first)
    assert asked[-1] == 256 and other[0].weight.shape == (8, 1, 3, 3)


def test_lsuv_leaves_a_layer_alone_that_gives_0():
    made = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    initialise({"": made}, [LSUV()], 0, lambda count: torch.zeros(8, 1, 2, 2))
    assert torch.allclose(made[1].weight @ made[1].weight.T, torch.eye(4), atol=1e-6)


def test_lsuv_in_a_run_sees_the_preprocessed_training_pictures():
    given = ["--model.initializer", "[LSUV]", "--model.optimizer.lr", 0, "--data.preprocess", "PixelStandardise"]
    run = fit(*GIVEN[:-2], *given, "--name", "lsuv")
    data = dl.Digits(batch_size=64, train_part=200, preprocess=dl.preprocessing.PixelStandardise())
    data.setup("fit")
    source = data.training_split
    first = data.preprocessed(data.normaliser(source.source.images[source.taken[:256]]))
    network = dl.models.ConvNet(num_classes=10, in_channels=1)
    network.load_state_dict({k.removeprefix("model."): v for k, v in load(run)["state_dict"].items()}, strict=False)
    assert abs(float(network[0](first).std(correction=0)) - 1) < 0.02


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([MSRA("*.wieght")], r"initializer\[0\]: \*.wieght matches no parameter of Sequential \(0.weight, .*"),
        ([MSRA("1.weight")], r".*1.weight matches parameters of BatchNorm2d alone: give only=\['BatchNorm2d'\]"),
        ([MSRA(), Constant("0.weight")], r"initializer\[1\]: all that 0.weight matches is drawn by earlier rules.*"),
        ([Bilinear()], r"initializer Bilinear cannot draw 3.weight \(10x288\): Bilinear needs square kernels.*"),
        ([Orthogonal("*.bias")], r".*cannot draw 3.bias \(10\): Orthogonal needs two dimensions or more"),
        ([Gaussian(sparse=9)], r".*cannot draw 0.weight \(8x1x3x3\): sparse is 9: it must be at most .* 8"),
        ([ZeroLastGamma()], r"initializer\[0\]: \*.weight matches parameters of .* alone: give only=.*"),
        ([LSUV("*.bias", only=["Linear"])], r".*cannot draw 3.bias \(10\): LSUV needs two dimensions or more"),
        ([LSUV()], r"LSUV needs pictures: use a data module of distill_lightning"),
    ],
)
def test_errors_are_one_line(rules, words):
    with pytest.raises(InputError, match=f"^{words}$") as error:
        initialise({"": network()}, rules, 0)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_numbers_out_of_range():
    for make in (lambda: Uniform(min=1, max=0), lambda: Gaussian(std=-1), lambda: Constant(value=math.inf)):
        with pytest.raises(InputError):
            make()


# Runs

RULES = [
    {"class_path": "Gaussian", "init_args": {"params": "*.weight", "std": 0.05, "only": ["Linear"]}},
    {"class_path": "MSRA"},
]
GIVEN = ["digits/baseline.yaml", "--trainer.max_epochs", 1, "--data.train_part", 200]
GIVEN += ["--model.initializer", json.dumps(RULES)]


def test_the_command_and_python_draw_the_same_and_the_run_says_so():
    run = fit(*GIVEN, "--name", "command", "--model.optimizer.lr", 0)
    wanted = dl.models.ConvNet(num_classes=10, in_channels=1)
    initialise({"": wanted}, [Gaussian(std=0.05, only=["Linear"]), MSRA()], 0)
    weights = load(run)["state_dict"]
    for name, value in wanted.named_parameters():
        if name.endswith("weight") and value.ndim > 1:
            assert weights[f"model.{name}"].equal(value), name
    written = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["initializer"]
    assert [one["class_path"].rpartition(".")[2] for one in written] == ["Gaussian", "MSRA"]
    assert written[0]["init_args"]["std"] == 0.05
    assert distill("test", "--ckpt_path", run / "checkpoints" / "last.ckpt") == 0
    rules = [dl.initializers.Gaussian(std=0.05, only=["Linear"]), dl.initializers.MSRA()]
    method = dl.Baseline(dl.models.ConvNet, initializer=rules)
    data = dl.Digits(batch_size=64, train_part=200)
    result = dl.Trainer(max_epochs=1, name="python", enable_progress_bar=False).fit(method, data)
    of_python = yaml.safe_load((result.folder / "config.yaml").read_text())["model"]["init_args"]["initializer"]
    assert of_python == written
    assert dl.load(result.folder).network is not None


def test_weights_that_a_run_starts_from_replace_them():
    first = fit(*GIVEN[:-2], "--name", "first")
    last = first / "checkpoints" / "last.ckpt"
    second = fit(*GIVEN, "--name", "second", "--start_from", last, "--model.optimizer.lr", 0)
    a, b = (load(run)["state_dict"] for run in (first, second))
    assert all(a[name].equal(b[name]) for name, _ in dl.models.ConvNet().named_parameters(prefix="model"))


def test_two_processes_draw_as_one():
    states = []
    for devices in (1, 2):
        given = ["--config", CONFIGS / GIVEN[0], *GIVEN[1:], "--name", f"on-{devices}", "--model.optimizer.lr", 0]
        run_on(devices, "fit", *given)
        states.append(load(Path(f"logs/digits/baseline/on-{devices}"))["state_dict"])
    named = [f"model.{name}" for name, _ in dl.models.ConvNet().named_parameters()]
    assert all(states[0][name].equal(states[1][name]) for name in named)


def test_a_pattern_without_a_parameter_is_one_line_of_the_command(capsys):
    assert distill("fit", "--config", CONFIGS / GIVEN[0], "--model.initializer", '[{"class_path": "MSRA", '
                   '"init_args": {"params": "heads.*"}}]') == 2  # fmt: skip
    said = capsys.readouterr().err.strip().splitlines()
    assert "initializer[0]: heads.* matches no parameter of ConvNet" in said[-1]


def test_peers_get_weights_of_their_own():
    method = dl.DML(dl.models.ConvNet(), [dl.models.ConvNet()], initializer=[MSRA()])
    method.initialise()
    first, second = method.trained_networks().values()
    assert not first[0].weight.equal(second[0].weight)

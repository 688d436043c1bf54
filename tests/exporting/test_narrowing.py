"""Removed channels: the smaller network computes what is left, says its shape in its checkpoint, and every verb opens
it."""

import json
from pathlib import Path

import pytest
import torch
from helpers import distill, fit
from torch import nn

pytest.importorskip("torch_pruning")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from distill_lightning import checkpoints
from distill_lightning.cli.compress import teacher_config
from distill_lightning.errors import InputError
from distill_lightning.exported import ExportedClassifier
from distill_lightning.exporting import parity
from distill_lightning.exporting.opening import open_source
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.models.narrowed import Narrowed
from distill_lightning.models.resnet import ResNet8
from distill_lightning.narrowing import narrowed_spec, without_channels


def spec(network: nn.Module, **arguments) -> dict:
    kind = type(network)
    return {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": arguments}


@pytest.mark.parametrize(
    ("network", "shape", "arguments"),
    [
        (ResNet8(10, 3), (3, 16, 16), {"num_classes": 10, "in_channels": 3}),
        (ConvNet(10, 1), (1, 8, 8), {"num_classes": 10, "in_channels": 1}),
        (LeNet300100(10, 1, 8), (1, 8, 8), {"num_classes": 10, "in_channels": 1, "image_size": 8}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_smaller_network_is_built_from_its_specification(network, shape, arguments):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    widths, weights = without_channels(network, 0.5, shape)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    count = sum(value.numel() for value in weights.values())
    assert count < 0.4 * sum(value.numel() for value in before.values())
    made = checkpoints.build_network(narrowed_spec(spec(network, **arguments), widths), "a file", count)
    made.load_state_dict(weights)
    assert made.eval()(torch.zeros(2, *shape)).shape == (2, 10)
    made.train()(torch.randn(4, *shape)).sum().backward()  # and it can be trained
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_channels_of_zeros_are_removed_without_a_change():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    with torch.no_grad():
        network[1].weight[::2], network[1].bias[::2], network[3].weight[:, ::2] = 0, 0, 0
    widths, weights = without_channels(network, 0.5, (1, 8, 8))
    assert widths == {"1": [10, 64], "3": [10, 10]}
    pictures = torch.randn(3, 1, 8, 8)
    made = Narrowed(nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)), widths)
    made.load_state_dict(weights)
    torch.testing.assert_close(made(pictures), network(pictures))


class Fixed(ConvNet):
    """Its channels cannot be removed: a view names their number."""

    def forward(self, images):
        features = self[0](images)
        return self[1:](features.view(-1, 16, 2, *features.shape[2:]).flatten(1, 2))


@pytest.mark.parametrize("keep", [0, 1, -1, 1.5])
def test_a_share_out_of_range_is_refused(keep):
    with pytest.raises(InputError, match="between 0 and 1"):
        without_channels(ConvNet(), keep, (1, 8, 8))


def test_a_network_whose_channels_cannot_be_removed_is_refused():
    with pytest.raises(InputError, match="the channels of Fixed cannot be removed: "):
        without_channels(Fixed(10, 1, width=32), 0.5, (1, 8, 8))


@pytest.mark.parametrize("widths", [{"no": [1]}, {"0": [1]}, {"0": [0, 1, 1]}, {"2": [4]}], ids=str)
def test_widths_that_do_not_fit_are_refused(widths):
    with pytest.raises(InputError, match=r"Narrowed\.widths"):
        Narrowed(ConvNet(), widths)


def test_compress_goes_from_a_run_to_a_smaller_file(run, tmp_path, trained, capsys, monkeypatch):
    monkeypatch.setattr(parity, "TIMED_S", 0.0)
    quiet = ("--trainer.enable_progress_bar", "false")
    args = ("compress", run, "--keep", "0.5", "--epochs", 2, "--name", "small", "--pictures", 70, *quiet)
    assert distill(*args) == 0
    out = Path("compressed/small")
    assert {path.name for path in out.iterdir()} == {
        "student.yaml", "narrowed.yaml", "weights.pt", "student.onnx", "student.onnx.json", "narrowed.onnx",
        "narrowed.onnx.json", "narrowed-int8.onnx", "narrowed-int8.onnx.json", "compress.json",
    }  # fmt: skip
    rows = json.loads((out / "compress.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["teacher", "student", "narrowed", "narrowed, int8"]
    weights = [row["size_bytes"]["weights"] for row in rows]
    assert weights[0] == weights[1] > 2 * weights[2]
    assert all(row["parity"]["accuracy"]["file"] > 0.2 for row in rows)  # chance is 0.1
    last = Path("logs/digits/kd/small-narrowed/checkpoints/last.ckpt")
    network = checkpoints.open_network(last)
    assert isinstance(network, Narrowed)
    assert ExportedClassifier(out / "narrowed.onnx").info.lineage["network"] == "Narrowed"
    assert distill("test", "--ckpt_path", last) == 0
    capsys.readouterr()
    assert distill(*args) == 0  # again: the runs are finished, and are not trained again
    assert capsys.readouterr().out.count("(finished already)") == 2


def test_a_student_does_not_begin_where_its_teacher_began(run):
    teacher = fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--start_from", run, "--name", "tuned")
    options = teacher_config(open_source(teacher), str(teacher), same_network=True)
    assert options["data"] and not {"start_from", "start_optimizer"} & options.keys()


@pytest.mark.parametrize("same_network", [True, False])
def test_a_student_with_the_network_of_its_teacher_has_its_activation(same_network):
    teacher = fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--model.activation", "GELU")
    arguments = teacher_config(open_source(teacher), str(teacher), same_network)["model"]["init_args"]
    assert (arguments.get("activation") is not None) == same_network


def test_a_run_with_a_preprocessing_has_no_file_of_integers(capsys, monkeypatch):
    monkeypatch.setattr(parity, "TIMED_S", 0.0)
    quiet = ("--trainer.enable_progress_bar", "false")
    teacher = fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--data.preprocess", "ZCA", *quiet)
    assert distill("compress", teacher, "--keep", 0.5, "--epochs", 1, "--name", "white", "--pictures", 70, *quiet) == 0
    assert "there is no file of integers: onnx-int8 cannot hold the ZCA" in capsys.readouterr().out
    rows = json.loads(Path("compressed/white/compress.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["teacher", "student", "narrowed"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "nothing makes the network smaller"),
        (["--keep", "2"], "--keep is 2.0"),
        (["--network", "Nope"], "Nope"),
        (["--keep", "0.5", "--pictures", "0"], "--pictures is 0"),
        (["--keep", "0.5", "--name", "../x"], "--name is '../x'"),
        (["--keep", "0.5", "--trainer.devices", "2"], "compress trains on one device"),
        (["--keep", "0.5", "--epochs", "0"], "--epochs is 0: give 1 or more"),
        (["--keep", "0.5", "--tune_epochs", "0"], "--tune_epochs is 0: give 1 or more"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line_and_leaves_nothing(args, words, run, capsys, monkeypatch):
    monkeypatch.setattr(parity, "TIMED_S", 0.0)
    assert distill("compress", run, "--pictures", 70, *args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert words in lines[0]
    assert not Path("compressed").exists()
    assert not Path("logs/digits/kd").exists()


def test_a_teacher_with_a_scheduler_of_torch_and_the_default_optimizer_can_be_compressed(monkeypatch):
    monkeypatch.setattr(parity, "TIMED_S", 0.0)
    quiet = ("--trainer.enable_progress_bar", "false")
    given = ("--model", "Baseline", "--model.network", "ConvNet", "--data", "Digits", "--trainer.max_epochs", 1)
    schedule = ("--model.schedule", "torch.optim.lr_scheduler.StepLR", "--model.schedule.step_size", 1)
    assert distill("fit", *given, *schedule, "--data.train_part", 200, *quiet) == 0
    args = ("--keep", 0.5, "--epochs", 1, "--name", "stepped", "--pictures", 70, *quiet)
    assert distill("compress", "logs/digits/baseline/convnet-seed0", *args) == 0
    assert len(json.loads(Path("compressed/stepped/compress.json").read_text())["rows"]) == 4


def test_a_network_that_ends_in_a_convolution_keeps_its_classes():
    ends_in_convolution = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    widths, _ = without_channels(ends_in_convolution, 0.5, (1, 8, 8))
    assert widths == {"0": [8, 1, 1], "2": [10, 8, 1]}


@pytest.mark.parametrize("keep", [0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
def test_the_share_that_is_kept_is_not_rounded_down(keep):
    """1 - 0.2 is 0.8, but 10 (1 - 0.8) is 1.9999999999999996."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 10))
    widths, _ = without_channels(network, keep, (1, 8, 8))
    assert widths["1"] == [round(10 * keep), 64]


class AlsoAside(nn.Module):
    """Its head aside is there in training alone, so that no trace in eval mode sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.aside = nn.Linear(64, 20), nn.Linear(20, 10), nn.Linear(20, 10)

    def forward(self, images):
        features = self.body(images.flatten(1)).relu()
        return (self.head(features), self.aside(features)) if self.training else self.head(features)


def test_a_network_that_could_not_be_trained_afterwards_is_refused():
    with pytest.raises(InputError, match="the channels of AlsoAside cannot be removed: other things than widths"):
        without_channels(AlsoAside(), 0.5, (1, 8, 8))

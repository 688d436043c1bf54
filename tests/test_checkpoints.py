"""Opening checkpoints, without executing anything in them."""

import os

import pytest
import torch
from helpers import fit, load

from distill_lightning import checkpoints
from distill_lightning.errors import InputError
from distill_lightning.models.convnet import ConvNet


def test_gives_the_plain_network():
    run = fit("digits/dlb.yaml", "--trainer.max_epochs", 1, "--model.network.width", 5)
    network = checkpoints.open_network(run / "checkpoints" / "last.ckpt")
    assert isinstance(network, ConvNet)
    assert not network.training
    assert network[0].out_channels == 5
    weights = load(run)["state_dict"]
    assert all(weights[f"model.{k}"].equal(v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("cut", [0, 10, 1000, -10])
def test_torn_files_are_refused(cut, tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"x": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"a\.ckpt"):
        checkpoints.read(path)


def test_foreign_files_are_refused(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="not a checkpoint of this program"):
        checkpoints.read(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoints.read(tmp_path / "b.ckpt")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_pickled_code_is_not_run(tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": {}, "method": Evil()}, tmp_path / "a.ckpt")
    with pytest.raises(InputError):
        checkpoints.read(tmp_path / "a.ckpt")
    assert not os.path.exists("executed")


@pytest.mark.parametrize(
    "config",
    [
        {"class_path": "os.mkdir", "init_args": {"path": "executed"}},
        {"class_path": "subprocess.run", "init_args": {"args": "mkdir executed", "shell": True}},
        {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b", "model": "c"}},
        {"class_path": "torch.load", "init_args": {"f": "x"}},
        {"class_path": "torch.nn.Sequential", "init_args": {"args": [{"class_path": "os.mkdir"}]}},
        {"class_path": "no_such_package.Net"},
        {"class_path": "distill_lightning.models.convnet.NoSuchNet"},
    ],
)
def test_only_networks_may_be_named(config):
    with pytest.raises(InputError):
        checkpoints.build_network(config, "a file")
    assert not os.path.exists("executed")


def test_torchvision_functions_may_be_named():
    config = {"class_path": "torchvision.models.resnet18", "init_args": {"num_classes": 3}}
    assert checkpoints.build_network(config, "a file").fc.out_features == 3


def test_weights_of_another_network_are_refused():
    with pytest.raises(InputError, match="is in only one of them"):
        checkpoints.load_weights(ConvNet(), torch.nn.Conv2d(1, 2, 3).state_dict(), "a file")
    with pytest.raises(InputError, match="other classes"):
        checkpoints.load_weights(ConvNet(num_classes=7), ConvNet().state_dict(), "a file")


def test_plain_weights_are_read(tmp_path):
    torch.save(ConvNet().state_dict(), tmp_path / "w.pt")
    found = checkpoints.read_weights(tmp_path / "w.pt", ConvNet()).entries
    assert found[""].keys() == ConvNet().state_dict().keys()
    torch.save([1, 2], tmp_path / "x.pt")
    with pytest.raises(InputError, match="holds no weights"):
        checkpoints.read_weights(tmp_path / "x.pt", ConvNet())

"""Packed networks: written as a whole, and equal after reading."""

import pytest
import torch
from helpers import pruned_network

from distill_lightning.errors import InputError
from distill_lightning.lottery.packing import load_packed, packed, sizes, unpacked
from distill_lightning.models.convnet import ConvNet


def test_a_packed_network_is_the_network(tmp_path):
    network, found = pruned_network()
    torch.save(packed(network.state_dict(), found), tmp_path / "small.pt")
    other = load_packed(tmp_path / "small.pt", ConvNet(width=16))
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor) and other.state_dict()[name].dtype == tensor.dtype
    assert list(unpacked(packed(network.state_dict(), found))) == list(network.state_dict())
    half = unpacked(packed(network.state_dict(), found, torch.float16))
    assert half["0.weight"].dtype == torch.float32
    assert torch.allclose(half["0.weight"], network.state_dict()["0.weight"], atol=1e-3)
    with pytest.raises(
        InputError,
        match=r"does not fit this ConvNet: its 0.weight is \(16, 1, 3, 3\), expected \(8, 1, 3, 3\): it is of another",
    ):
        load_packed(tmp_path / "small.pt", ConvNet(width=8))
    with pytest.raises(InputError, match="no packed network"):
        load_packed(tmp_path / "nothing.pt", ConvNet())


def test_sizes():
    network, found = pruned_network()
    said = sizes(network.state_dict(), packed(network.state_dict(), found))
    assert said["packed_bytes"] < said["dense_bytes"] / 3
    assert said["gzip_bytes"] < said["dense_bytes"]

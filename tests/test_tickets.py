"""Tickets and packed networks: whole, and the same when read again."""

import pytest
import torch

from distill_lightning import masks
from distill_lightning.errors import InputError
from distill_lightning.models.convnet import ConvNet
from distill_lightning.tickets import Ticket, load_packed, packed, sizes, unpacked


def pruned(seed: int = 0, keep: float = 0.1) -> tuple[ConvNet, masks.Masks]:
    torch.manual_seed(seed)
    network = ConvNet(width=16)
    network(torch.randn(4, 1, 8, 8))  # moves the running statistics
    weights = {name: p.detach() for name, p in network.named_parameters() if p.ndim > 1}
    total = sum(weight.numel() for weight in weights.values())
    found = masks.smallest(weights, masks.ones(weights), round(keep * total))
    for name, mask in found.items():
        weights[name].masked_fill_(~mask, 0.0)
    return network, found


def test_a_packed_network_is_the_network(tmp_path):
    network, found = pruned()
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
        match=r"of another network than this ConvNet: 0.weight is \(16, 1, 3, 3\) in it, \(8, 1, 3, 3\) here",
    ):
        load_packed(tmp_path / "small.pt", ConvNet(width=8))
    with pytest.raises(InputError, match="no packed network"):
        load_packed(tmp_path / "nothing.pt", ConvNet())


def test_sizes():
    network, found = pruned()
    said = sizes(network.state_dict(), packed(network.state_dict(), found))
    assert said["packed_bytes"] < said["dense_bytes"] / 3
    assert said["gzip_bytes"] < said["dense_bytes"]


def test_a_ticket_is_read_as_it_was_written(tmp_path):
    network, found = pruned()
    ticket = Ticket(network.state_dict(), [masks.pack_all(m) for m in (masks.ones(found), found)], 7, {"a": 1})
    ticket.save(tmp_path / "ticket.pt")
    other = Ticket.open(tmp_path / "ticket.pt")
    assert (other.step, other.about) == (7, {"a": 1})
    assert all(torch.equal(a[k], b[k]) for a, b in zip(ticket.rounds, other.rounds, strict=True) for k in a)
    assert all(torch.equal(other.weights[k], v) for k, v in network.state_dict().items())
    torch.save({"x": 1}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="is no ticket"):
        Ticket.open(tmp_path / "other.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "ticket.pt").read_bytes()[:500])
    with pytest.raises(InputError, match="torn"):
        Ticket.open(tmp_path / "torn.pt")

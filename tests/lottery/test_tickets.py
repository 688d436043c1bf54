"""Ticket files: written as a whole, and equal after reading."""

import pytest
import torch
from helpers import pruned_network

from distill_lightning import masks
from distill_lightning.errors import InputError
from distill_lightning.lottery.tickets import Ticket


def test_a_ticket_is_read_as_it_was_written(tmp_path):
    network, found = pruned_network()
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

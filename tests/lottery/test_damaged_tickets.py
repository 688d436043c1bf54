"""Tickets and packed networks whose parts are of another kind are refused in one line."""

import pytest
import torch
from helpers import pruned_network

from distill_lightning.errors import InputError
from distill_lightning.lottery.packing import load_packed, packed
from distill_lightning.lottery.tickets import Ticket
from distill_lightning.masks import ones, pack_all
from distill_lightning.models.convnet import ConvNet
from distill_lightning.tensor_files import write_tensors


def ticket() -> dict:
    network, found = pruned_network()
    return {
        "kind": "ticket",
        "weights": network.state_dict(),
        "rounds": [pack_all(ones(found))],
        "step": 0,
        "about": {},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [1]},
        {"weights": {"a": 5}},
        {"rounds": []},
        {"rounds": {"a": torch.zeros(1)}},
        {"rounds": [{"no such": torch.zeros(1, dtype=torch.uint8)}]},
        {"rounds": [{"0.weight": torch.zeros(10**6, dtype=torch.uint8)}]},
        {"rounds": [{"0.weight": torch.zeros(18)}]},
        {"step": "a"},
        {"step": -1},
        {"about": 3},
    ],
    ids=str,
)
def test_a_ticket_of_other_parts_is_refused(change, tmp_path):
    write_tensors(tmp_path / "good.pt", ticket())
    assert Ticket.open(tmp_path / "good.pt").step == 0
    write_tensors(tmp_path / "ticket.pt", ticket() | change)
    with pytest.raises(InputError, match=r"ticket\.pt is damaged, or no ticket"):
        Ticket.open(tmp_path / "ticket.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"sparse": [1]},
        {"sparse": {"0.weight": 5}},
        {"sparse": {"0.weight": {"shape": [10**6, 10**6]}}},
        {"sparse": {"no such": {"shape": [10**6, 10**6], "mask": torch.zeros(1).byte(), "values": torch.zeros(1)}}},
        {"dense": {}},
        {"order": None},
        {"dtypes": {"0.weight": "torch.save"}},
    ],
    ids=str,
)
def test_a_packed_network_of_other_parts_is_refused(change, tmp_path):
    network, found = pruned_network()
    content = packed(network.state_dict(), found)
    write_tensors(tmp_path / "packed.pt", content | change)
    with pytest.raises(InputError, match=r"packed\.pt"):
        load_packed(tmp_path / "packed.pt", ConvNet(width=16))

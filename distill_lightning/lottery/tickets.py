"""Lottery tickets on disk: one file with the weights to rewind to, once, and the packed masks of every round."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.masks import Masks, random_like, unpack_all
from distill_lightning.seeds import PRUNE, run_seed, seed_for
from distill_lightning.tensor_files import is_old, read_tensors, write_tensors
from distill_lightning.weights import must_fit


@dataclass
class Ticket:
    """Where a pruned network starts from.

    Args:
        weights: state of the network at the step that is rewound to.
        rounds: the masks after each pruning, packed, in order; round 0 keeps everything.
        step: the optimizer step that the weights are of.
        about: how it was found, in plain containers.
    """

    weights: dict[str, Tensor]
    rounds: list[dict[str, Tensor]]
    step: int
    about: dict[str, Any] = field(default_factory=dict)

    def masks(self, number: int) -> Masks:
        """Those of a round."""
        return unpack_all(self.rounds[number], self.weights)

    def save(self, path: Path) -> None:
        write_tensors(path, {"kind": "ticket"} | vars(self))

    @classmethod
    def open(cls, path: str | Path) -> "Ticket":
        """
        Raises:
            InputError: no such file, or not a ticket.
        """
        content = read_kind(path, "ticket")
        weights, rounds, step, about = (content.get(name) for name in ("weights", "rounds", "step", "about"))
        masks_are_tensors = isinstance(rounds, list) and rounds and all(map(are_tensors, rounds))
        if (
            not are_tensors(weights)
            or not isinstance(rounds, list)
            or not masks_are_tensors
            or type(step) is not int
            or step < 0
            or not isinstance(about, dict)
        ):
            raise InputError(f"{path} is damaged, or no ticket: its weights, masks or step are of another kind")
        for masks in rounds:
            for name, packed in masks.items():
                count = weights[name].numel() if name in weights else -1
                if packed.dtype != torch.uint8 or packed.shape != (-(-count // 8),):
                    raise InputError(f"{path} is damaged, or no ticket: its mask of {name} does not fit its weights")
        return cls(weights, rounds, step, about)


def are_tensors(value: Any) -> TypeGuard[dict[str, Tensor]]:
    """Whether a value is a dict of tensors by name."""
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


class Opened(NamedTuple):
    """What is taken of a ticket: weights of step ``step``, and the masks to start with."""

    weights: dict[str, Tensor]
    masks: Masks
    step: int


def open_ticket(
    path: str, number: int | None, mask: Literal["found", "shuffled", "random"], network: nn.Module
) -> Opened:
    """A ticket for a network.

    Args:
        path: the file.
        number: the round whose masks to take; None for the last.
        mask: as found, shuffled within each layer, or as many weights drawn at random over all layers.
        network: that it is for.

    Raises:
        InputError: it is no ticket, of another network, or has no such round.
    """
    ticket = Ticket.open(path)
    must_fit(network, ticket.weights, f"the ticket {path}")
    last = len(ticket.rounds) - 1
    number = last if number is None else number
    if not 0 <= number <= last:
        raise InputError(f"Lottery.ticket_round is {number}: the ticket {path} has rounds 0 to {last}")
    found = ticket.masks(number)
    if mask != "found":
        generator = torch.Generator().manual_seed(seed_for(PRUNE, run_seed()))
        found = random_like(found, generator, pooled=mask == "random")
    return Opened(ticket.weights, found, ticket.step)


def read_kind(path: str | Path, kind: str) -> dict[str, Any]:
    """The content of a file of that kind.

    Raises:
        InputError: see ``read_tensors``; or the file is of another kind.
    """
    content = read_tensors(path, kind)
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise InputError(f"{path} is no {kind}: give one that the callback Lottery wrote")
    if is_old(content):
        print(f"{path} was written by version 0.1, without a digest: whether it is damaged cannot be told", file=sys.stderr)
    return content

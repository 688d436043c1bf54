"""Lottery tickets on disk. One file holds the weights of the rewind point and the packed masks of every round."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError
from distill_lightning.masks import Masks, random_like, unpack_all
from distill_lightning.seeds import PRUNE, run_seed, seed_for
from distill_lightning.tensor_files import is_old, read_tensors, write_tensors
from distill_lightning.weights import must_fit


@dataclass
class Ticket:
    """The initial weights and the masks of a pruned network.

    Args:
        weights: the network's state dict at the rewind point.
        rounds: the packed masks of each round, in order. Without a ticket to start from, those of round 0 keep
            everything, unless they were found before training.
        step: the optimizer step of the rewind point.
        about: how the ticket was found, as plain data.
    """

    weights: dict[str, Tensor]
    rounds: list[dict[str, Tensor]]
    step: int
    about: dict[str, Any] = field(default_factory=dict)

    def masks(self, number: int) -> Masks:
        """The masks of a round, by the name of the weights; True for a weight that is kept."""
        return unpack_all(self.rounds[number], self.weights)

    def save(self, path: Path) -> None:
        """Writes the ticket to a file."""
        write_tensors(path, {"kind": "ticket"} | vars(self))

    @classmethod
    def open(cls, path: str | Path) -> "Ticket":
        """Reads a ticket from a file.

        Raises:
            InputError: the file does not exist, is damaged, or is no ticket.
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
    """The parts of a ticket that a run starts from: the weights of the optimizer step ``step``, the masks of a round,
    and the digest of both.
    """

    weights: dict[str, Tensor]
    masks: Masks
    step: int
    digest: str

    def refuse_own_weights(self, network: nn.Module) -> None:
        """Checks that a control with new weights has others than the ticket.

        Raises:
            InputError: the seed of this run gives the ticket's own.
        """
        parameters = dict(network.named_parameters())
        if all(self.weights[name].equal(parameters[name].detach().cpu()) for name in self.masks):
            raise InputError(
                "Lottery.weights is reinitialised, but the seed of this run gives the ticket's own weights: give "
                "another --seed_everything"
            )


def open_ticket(
    path: str, number: int | None, mask: Literal["found", "shuffled", "random"], network: nn.Module
) -> Opened:
    """Opens a ticket for a network.

    Args:
        path: the ticket's file.
        number: the round whose masks are taken; None for the last one.
        mask: "found" takes the ticket's masks, "shuffled" shuffles them within each layer, "random" draws the same
            number of weights at random from all layers.
        network: the network that the ticket must fit.

    Raises:
        InputError: the file is no ticket, the ticket is of another network, or it has no such round.
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
    digest = tensors_digest(ticket.weights | {f"mask of {name}": mask for name, mask in found.items()})
    return Opened(ticket.weights, found, ticket.step, digest)


def read_kind(path: str | Path, kind: str) -> dict[str, Any]:
    """The content of a ticket or a packed network.

    Args:
        path: the file.
        kind: "ticket" or "packed network".

    Raises:
        InputError: see ``read_tensors``; or the file is of another kind.
    """
    content = read_tensors(path, kind)
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise InputError(f"{path} is no {kind}: give one that the callback Lottery wrote")
    if is_old(content):
        print(f"{path} was written by version 0.1, without a digest: it cannot be checked for damage", file=sys.stderr)
    return content

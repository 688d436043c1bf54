"""Puts weights into a network, all of them or none."""

from collections.abc import Mapping

from torch import Tensor, nn

from distill_lightning.errors import InputError


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Puts weights of exactly this network into it.

    Args:
        network: of any class.
        weights: its state.
        what: where they come from, for the error: "the ticket x.pt".

    Raises:
        InputError: see ``must_fit``.
    """
    must_fit(network, weights, what)
    network.load_state_dict(weights)


def must_fit(network: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """
    Raises:
        InputError: a tensor is missing, one too many, or of another shape.
    """
    mine, name_of = network.state_dict(), type(network).__name__
    for name, value in weights.items():
        if name in mine and mine[name].shape != value.shape:
            raise InputError(
                f"{what} does not fit this {name_of}: its {name} is {tuple(value.shape)}, expected "
                f"{tuple(mine[name].shape)}: it is of another network, or of other classes"
            )
    if odd := sorted(mine.keys() ^ weights.keys()):
        raise InputError(
            f"{what} does not fit this {name_of}: {odd[0]} is in only one of them ({len(odd)} such): it is of another "
            "network"
        )

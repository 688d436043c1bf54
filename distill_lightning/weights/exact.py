"""Loads weights into a network whose names and shapes must be the same: all of them, or none if one does not fit."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from distill_lightning.errors import InputError


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Loads weights into a network. Names and shapes must be exactly those of the network.

    Args:
        network: a network of any class.
        weights: a state dict of the network.
        what: the source of the weights, for the error message, for example "the ticket x.pt".

    Raises:
        InputError: see ``must_fit``.
    """
    must_fit(network, weights, what)
    put(network, weights)


def put(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts tensors into a network by their names. Some networks ask for the versions of their layers, which plain dicts
    do not have; the network's own are given.
    """
    state = network.state_dict()  # with the versions
    state.update(weights)
    network.load_state_dict(state)


def of_model(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a method's network, ``model``, by their names in the network, from the method's state dict."""
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def must_fit(network: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Checks that weights have exactly the names and shapes of a network's state; arguments as in ``load_weights``.

    Raises:
        InputError: a tensor is missing, is not in the network, or has another shape.
    """
    mine, name_of = network.state_dict(), type(network).__name__
    for name, value in weights.items():
        if name in mine and not is_lazy(mine[name]) and mine[name].shape != value.shape:
            raise InputError(
                f"{what} does not fit this {name_of}: its {name} is {tuple(value.shape)}, expected "
                f"{tuple(mine[name].shape)}: it is of another network, or of other classes"
            )
    if odd := sorted(mine.keys() ^ weights.keys()):
        raise InputError(
            f"{what} does not fit this {name_of}: {odd[0]} is in only one of them ({len(odd)} such): it is of another "
            "network"
        )

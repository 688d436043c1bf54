"""Networks as they were at earlier moments."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn


class FrozenCopies:
    """Makes networks out of remembered states, each once, and keeps them as long as they are asked for."""

    def __init__(self) -> None:
        self._made: list[tuple[dict[str, Tensor], nn.Module]] = []

    def networks(self, network: nn.Module, states: Sequence[dict[str, Tensor]]) -> list[nn.Module]:
        """The network with other weights, in eval mode and without gradient, for each of these states.

        Args:
            network: whose form they have, and on whose device they are.
            states: of the network. One that was given before, the same object, is not copied anew.
        """
        known = {id(state): made for state, made in self._made}
        self._made = [(s, known[id(s)] if id(s) in known else _frozen(network, s)) for s in states]
        return [made for _, made in self._made]

    def __deepcopy__(self, memo: object) -> "FrozenCopies":
        return FrozenCopies()


def _frozen(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    frozen.load_state_dict(state, assign=True)  # the memory's own tensors, where they are on the device
    return frozen.to(next(network.parameters()).device)

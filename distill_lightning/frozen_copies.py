"""Copies of a network with the weights that it had at earlier steps."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn


class FrozenCopies:
    """Makes a network from each stored state, once, and caches it until a call no longer contains that state."""

    def __init__(self) -> None:
        self._made: list[tuple[dict[str, Tensor], nn.Module]] = []

    def networks(self, network: nn.Module, states: Sequence[dict[str, Tensor]]) -> list[nn.Module]:
        """For each state, a copy of the network with these weights, in eval mode and without gradient.

        Args:
            network: the network to copy. The copies are on its device.
            states: state dicts of the network. The copy for a state that was also in the last call (the same object) is
                reused.
        """
        known = {id(state): made for state, made in self._made}
        self._made = [(s, known[id(s)] if id(s) in known else _frozen(network, s)) for s in states]
        return [made for _, made in self._made]

    def __deepcopy__(self, memo: object) -> "FrozenCopies":
        return FrozenCopies()


def _frozen(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    frozen.load_state_dict(state, assign=True)  # uses the stored tensors without a copy if they are on the device
    return frozen.to(next(network.parameters()).device)

"""The base class of the methods that train several whole networks together."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.methods.checks import refuse_misfit
from distill_lightning.models.outputs import in_full
from distill_lightning.networks import Network, maker, with_shape

ALIKE = "give classes alone, or networks alone"


class WithPeers(Method):
    """A method that trains a network and its peers.

    The first network is evaluated and deployed. The peers are trained with it, by the same optimizer, and are in the
    checkpoint under ``peers.``.

    Args:
        network: the network that is evaluated and deployed; see Method.
        peers: the other networks, 1 or more. Their architectures may differ.
        kwargs: see Method.

    Raises:
        InputError: ``peers`` is empty, or has a network twice.
    """

    take_makers = ("network", "peers")

    def __init__(self, network: Network, peers: list[Network], **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        if not peers:
            raise InputError(f"{type(self).__name__}.peers is an empty list: give one network or more")
        self.given_peers = peers
        name, networks = type(self).__name__, [peer for peer in peers if isinstance(peer, nn.Module)]
        if self.maker is None and len(networks) < len(peers):
            raise InputError(f"{name}.network is a network, but a peer is a class: {ALIKE}")
        if self.maker is not None and networks:
            raise InputError(f"{name}.network is a class, but a peer is a network: {ALIKE}")
        if networks:
            self._set_peers(networks)

    def _set_peers(self, peers: list[nn.Module]) -> None:
        name = type(self).__name__
        if len({id(network) for network in (self.model, *peers)}) <= len(peers):
            raise InputError(f"{name} has a network twice: give copies with weights of their own")
        self.peers = nn.ModuleList(self.with_activation(peer).to(memory_format=self.memory_format) for peer in peers)

    def make_networks(self, shape: Mapping[str, int], data: str) -> dict[str, functools.partial[nn.Module]]:
        """See Method; makes the peers as well."""
        if self.maker is None:
            return {}
        made = super().make_networks(shape, data)
        of_peers = [with_shape(maker(peer), shape, data) for peer in self.given_peers]
        self._set_peers([made_by() for made_by in of_peers])
        return made | {f"peers.{number}": made_by for number, made_by in enumerate(of_peers)}

    def check_networks(self, data: ImageData) -> None:
        """See Method; checks the peers as well."""
        for network in (self.model, *self.peers):
            refuse_misfit(network, data)

    def trained_networks(self) -> dict[str, nn.Module]:
        """See Method; the peers as well."""
        return super().trained_networks() | {f"peers.{number}.": peer for number, peer in enumerate(self.peers)}

    def logits_of_all(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The logits of each network for pictures of its own, (B, K) float32 each; the deployed network comes first.

        Args:
            views: normalised pictures, (B, C, H, W), for each network.
        """
        first, *others = views
        of_peers = [
            in_full(self.main_of(peer(images.contiguous(memory_format=self.memory_format)), peer))
            for peer, images in zip(self.peers, others, strict=True)
        ]
        return [self(first), *of_peers]

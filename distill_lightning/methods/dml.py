"""Deep Mutual Learning (Zhang et al., CVPR 2018, arXiv:1706.00384), DML.

    L = sum_i [ CE(y, s_i) + 1 / (M - 1) sum_{j != i} KL(p(s_j) || p(s_i)) ]        p(z) = softmax(z)

    s_i   logits of network i, (B, K); s_j has no gradient in KL(p(s_j) || p(s_i))
    M     number of networks, 2 or more; their architectures may differ
    y     labels, (B,)

The gradient of each network comes from its own term i alone. So one optimizer over all networks is equivalent to M
optimizers, except for gradient clipping, whose norm is over all networks. All logits are computed before the update, as
in the authors' code; in the paper's algorithm they are computed again after the update of each network.

The first network is evaluated and deployed. Its peers are trained with it and are in the checkpoint under ``peers.``.
With equal networks, a step costs M steps of the baseline.

State between steps: none.
"""

import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.losses import mutual
from distill_lightning.methods.base import Method
from distill_lightning.methods.checks import refuse_misfit
from distill_lightning.networks import Network, maker, with_shape
from distill_lightning.values import Batch, Position, StepOutput


class DML(Method):
    """Several networks are trained together and teach each other.

    Args:
        network: the network that is evaluated and deployed; see Method.
        peers: the other networks, 1 or more.
        kwargs: see Method.

    Raises:
        InputError: ``peers`` is empty, or has a network twice.
    """

    def __init__(self, network: Network, peers: list[Network], **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        if not peers:
            raise InputError("DML.peers is an empty list: give one network or more")
        self.given_peers = peers
        if self.maker is None:
            self._set_peers([peer for peer in peers if isinstance(peer, nn.Module)])

    def _set_peers(self, peers: list[nn.Module]) -> None:
        if len(peers) < len(self.given_peers):
            raise InputError("DML.network is a network, but a peer is a class: give classes alone, or networks alone")
        if len({id(network) for network in (self.model, *peers)}) <= len(peers):
            raise InputError("DML has a network twice: give copies with weights of their own")
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

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce_i`` and ``mutual_i`` for each network i; network 0 is the one that is evaluated."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        logits = [self(images), *(peer(images).float() for peer in self.peers)]
        terms = {}
        for number, (mine, of_others) in enumerate(zip(logits, mutual(logits), strict=True)):
            terms[f"ce_{number}"] = self.cross_entropy(mine, batch)
            terms[f"mutual_{number}"] = of_others
        return StepOutput(terms, logits[0])

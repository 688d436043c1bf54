"""Deep Mutual Learning (Zhang et al., CVPR 2018, arXiv:1706.00384), DML.

    L = sum_i [ CE(y, s_i) + 1 / (M - 1) sum_{j != i} KL(p(s_j) || p(s_i)) ]        p(z) = softmax(z)

    s_i   logits of network i, (B, K); the others' carry no gradient in its divergence
    M     networks, 2 or more, equal or not
    y     labels, (B,)

Each network's gradient is that of its own term alone, so one optimizer over all is M optimizers (but for clipping,
whose norm is over all). All predictions are made once, before the update, as in the authors' code; the paper's
algorithm makes them anew after each network's update.

The first network is the one that is evaluated and deployed. Its peers are trained beside it, and are in the checkpoint
under ``peers.``. A step costs M of the baseline, where the networks are equal.
"""

from typing import Any

import torch
from torch import nn

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.losses import kl_divergence
from distill_lightning.methods.base import Method
from distill_lightning.methods.checks import refuse_misfit
from distill_lightning.values import Batch, Position, StepOutput


class DML(Method):
    """Networks that teach each other.

    Args:
        network: the one that is kept; see Method.
        peers: the others.
        kwargs: see Method.
    """

    def __init__(self, network: nn.Module, peers: list[nn.Module], **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        if not peers:
            raise InputError("DML.peers is an empty list: give one network or more")
        self.peers = nn.ModuleList(peer.to(memory_format=self.memory_format) for peer in peers)

    def check_networks(self, data: ImageData) -> None:
        for network in (self.model, *self.peers):
            refuse_misfit(network, data)

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        images = batch.images.contiguous(memory_format=self.memory_format)
        logits = [self(images), *(peer(images).float() for peer in self.peers)]
        terms = {}
        for i, mine in enumerate(logits):
            others = [kl_divergence(theirs, mine) for j, theirs in enumerate(logits) if j != i]
            terms[f"ce_{i}"] = self.cross_entropy(mine, batch)
            terms[f"mutual_{i}"] = torch.stack(others).mean()
        return StepOutput(terms, logits[0])

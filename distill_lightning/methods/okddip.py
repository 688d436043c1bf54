"""Online Knowledge Distillation with Diverse Peers (Chen et al., AAAI 2020, arXiv:1912.00350), OKDDip.

    L = CE(y, z_l) + sum_i CE(y, z_i) + r(e) T^2 [ sum_i KL(p^T(sum_j A_ij z_j) || p^T(z_i))
                                                 + KL(p^T(mean_j z_j) || p^T(z_l)) ]        A_ij = softmax_j(q_i . k_j)

    z_i        logits of peer i = 1 .. M - 1, (B, K)
    z_l        logits of the leader, (B, K); all branches share the first stages of the network
    q_i, k_i   W_q h_i and W_k h_i, (B, D/8), of the input h_i of the linear layer of peer i, (B, D)
    r(e)       exp(-5 (1 - min(e / E, 1))^2), the weight of the group in epoch e, from 0
    y          labels, (B,)                                                                 p^T(z) = softmax(z / T)

Each peer learns from a mean of its own, in which the peers have other weights: so they stay more diverse than under one
teacher for all. The leader has no part in the targets of the peers. Nothing is detached, as in the authors' code: the
gradient of KL flows into the targets, too, and this is how W_q and W_k learn. So the leader's term also changes the
peers.

M = 4 (three peers and the leader), T = 3, and E = 80 of 300 epochs in the authors' code. It adds 1e-7 to the target's
probabilities, without a normalisation, which changes the loss by 1e-5. This is its version with branches; its version
with whole networks is not here.

The leader is evaluated and deployed: it is the plain network. The control is ``Branches`` with as many branches.

State between steps: none. Peers, W_q and W_k are in the checkpoint, under ``branches.``, ``query.`` and ``key.``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.losses import okddip, ramp
from distill_lightning.methods.branched import Branched
from distill_lightning.models.outputs import in_full, input_type
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, CountOrZero, Positive
from distill_lightning.values import Batch, DataInfo, Position, StepOutput


class OKDDip(Branched):
    """Peers that learn from means of their own, and a leader that learns from the peers.

    Args:
        network: the leader; see Branched for it and for further options.
        branches: M, the peers and the leader, 3 or more.
        temperature: T, by which logits are divided before the softmax.
        ramp_epochs: E, the number of epochs in which the weight of the group grows to 1.
        kwargs: see Branched.

    Raises:
        InputError: an option is out of range; there are fewer than two peers; see Branched.
    """

    def __init__(
        self,
        network: Network,
        branches: Count = 4,
        temperature: Positive = 3.0,
        ramp_epochs: CountOrZero = 80,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, branches=branches, **kwargs)
        if branches < 3:
            raise InputError(f"OKDDip.branches is {branches}: two peers and a leader are 3, give 3 or more")
        self.temperature, self.ramp_epochs = temperature, ramp_epochs
        self.query: nn.Module | None = None
        self.key: nn.Module | None = None
        self.pooled: list[FeatureHook] = []

    def build(self, info: DataInfo) -> None:
        """See Branched; makes the projections for the attention.

        Raises:
            InputError: the network ends in no linear layer.
        """
        super().build(info)
        self.pooled, width = self.watch_heads(self.branches)
        self.query, self.key = (
            nn.Linear(width, max(1, width // 8), bias=False).to(*input_type(self.model)) for _ in range(2)
        )

    def attention(self, features: list[Tensor]) -> Tensor:
        """A, (B, M - 1, M - 1), from the features (B, D) of each peer."""
        assert self.query is not None and self.key is not None
        stacked = torch.stack(features, 1)
        return in_full(self.query(stacked) @ self.key(stacked).mT).softmax(2)

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce_m`` for each branch, and ``soft``; branch 0 is the leader, which is evaluated."""
        (leader, *peers), _ = self.logits_of_branches(batch.images)
        attention = self.attention([hook.take() for hook in self.pooled])
        terms = {f"ce_{m}": self.cross_entropy(z, batch) for m, z in enumerate((leader, *peers))}
        weight = ramp(position.epoch, self.ramp_epochs)
        terms["soft"] = weight * okddip(peers, attention, leader, temperature=self.temperature)
        return StepOutput(terms, leader)

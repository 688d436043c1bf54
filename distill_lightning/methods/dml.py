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

from distill_lightning.losses import mutual
from distill_lightning.methods.peers import WithPeers
from distill_lightning.values import Batch, Position, StepOutput


class DML(WithPeers):
    """Several networks are trained together and teach each other.

    Args:
        network: the network that is evaluated and deployed; see Method.
        peers: the other networks, 1 or more.
        kwargs: see Method.

    Raises:
        InputError: ``peers`` is empty, or has a network twice.
    """

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce_i`` and ``mutual_i`` for each network i; network 0 is the one that is evaluated."""
        logits = self.logits_of_all([batch.images] * (1 + len(self.peers)))
        terms = {}
        for number, (mine, of_others) in enumerate(zip(logits, mutual(logits), strict=True)):
            terms[f"ce_{number}"] = self.cross_entropy(mine, batch)
            terms[f"mutual_{number}"] = of_others
        return StepOutput(terms, logits[0])

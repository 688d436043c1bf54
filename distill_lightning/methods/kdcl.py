"""Online Knowledge Distillation via Collaborative Learning (Guo et al., CVPR 2020), KDCL.

    L = sum_i [ CE(y, z_i) + lambda T^2 KL(p^T(z) || p^T(z_i)) ]                            p^T(z) = softmax(z / T)

    z_i   logits of network i, (n, K), for a view of its own of the same n samples
    z     logits of the group, (n, K), without a gradient:
          min_logit   z^c = min_i (z_i^c - z_i^y)
          naive       of each sample, the z_i with the smallest CE(y, z_i)
    y     labels, (n,)
    M     number of networks, 2 or more; their architectures may differ

MinLogit takes, for every wrong class, the smallest difference to the right one. So on every sample the cross-entropy of
the group is at most that of each member. Two other targets of the paper are not here: the convex combination of the
logits that minimises CE, and weights from the error on held-out pictures.

No code of the authors is known. The loss is compared with values that were computed independently, and the defaults
T = 2 and lambda = 1 could not be compared with the authors' own.

The first network is evaluated and deployed. Its peers are trained with it and are in the checkpoint under ``peers.``.
With equal networks, a step costs M steps of the baseline, and augments M views.

State between steps: none.
"""

from typing import Any

from distill_lightning import losses
from distill_lightning.losses.groups import KDCLTarget
from distill_lightning.methods.peers import WithPeers
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class KDCL(WithPeers):
    """Several networks learn from the best of their group.

    Each network gets a view of its own of the same samples.

    Args:
        network: the network that is evaluated and deployed; see Method.
        peers: the other networks, 1 or more.
        target: how the group's logits are made, "min_logit" or "naive".
        temperature: T.
        weight: lambda, the weight of the group's soft targets.
        kwargs: see Method.

    Raises:
        InputError: ``peers`` is empty, or has a network twice.
    """

    def __init__(
        self,
        network: Network,
        peers: list[Network],
        target: KDCLTarget = "min_logit",
        temperature: Positive = 2.0,
        weight: NonNegative = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, peers, **kwargs)
        self.needs = BatchNeeds(views=1 + len(peers), allows_mixing=False)
        self.target, self.temperature, self.weight = target, temperature, weight

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce_i`` (labels) for each network, and ``group`` (the group's soft targets, all networks)."""
        labels = batch.labels[: batch.num_new]
        logits = self.logits_of_all(batch.images.split(batch.num_new))
        terms = {f"ce_{number}": self.cross_entropy(z, batch) for number, z in enumerate(logits)}
        terms["group"] = self.weight * losses.kdcl(logits, labels, temperature=self.temperature, target=self.target)
        return StepOutput(terms, logits[0])

"""Learning Deep Representations with Probabilistic Knowledge Transfer (Passalis & Tefas, ECCV 2018, arXiv:1803.10837),
PKT.

    L = CE(y, s) + w mean_ij q_ij log((q_ij + e) / (p_ij + e))        p_ij = c_ij / sum_k c_ik

    s      logits of the student, (B, K)
    f, g   pooled features of student and teacher, (B, D) and (B, D'); g has no gradient
    c_ij   (cos(f_i, f_j) + 1) / 2: how alike two samples of the batch are for the student
    p, q   the same as distributions over the batch, (B, B); q is made of g as p is of f; e = 1e-7
    y      labels, (B,)

How alike a sample is to the others of its batch is learned, as a distribution: neither the widths of the features nor
their scale matter, so there is no adapter.

w = 30000 is of the comparison of Tian et al. (ICLR 2020), for a batch of 64. The mean is over all B^2 pairs, those of a
sample with itself included, and the sum of q over a row is 1, so the mean falls as 1 / B: another batch size needs
another w. With several processes the term is that of each process's own rows, so two processes do not give what one
gives.

State between steps: none. There is no adapter.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from distill_lightning.losses import pkt
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position


class PKT(FeatureTaught):
    """Learns how alike the samples of a batch are for a teacher, as probabilities.

    Args:
        network: the student; see Method.
        feature_weight: w, the weight of the term, for each layer.
        kwargs: see FeatureTaught.
    """

    usual_layers: ClassVar = ["pooled"]
    takes: ClassVar = "any"

    def __init__(self, network: Network, feature_weight: NonNegative = 30000.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.feature_weight = feature_weight

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The term ``features_j`` for each layer, from 1."""
        pairs = enumerate(zip(features, teacher_features, strict=True), 1)
        return {f"features_{j}": self.feature_weight * pkt(f.flatten(1), g.flatten(1)) for j, (f, g) in pairs}

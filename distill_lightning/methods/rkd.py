"""Relational Knowledge Distillation (Park et al., CVPR 2019, arXiv:1904.05068), RKD.

    L = CE(y, s) + w_d mean_ij huber(d_ij(f) - d_ij(g)) + w_a mean_ijk huber(cos_ijk(f) - cos_ijk(g))

    s      logits of the student, (B, K)
    f, g   pooled features of student and teacher, (B, D) and (B, D'); g has no gradient
    d_ij   distance of the samples i and j, divided by the mean of the distances above 0
    cos    cosine of the angle at sample j between i and k
    y      labels, (B,)

The weights 25 and 50 are of the comparison of Tian et al. (ICLR 2020), with means over all B^2 pairs and B^3 triples.
The loss depends on which samples are in the batch. With several processes it is that of each process's own rows, so two
processes do not give what one gives. The memory of the angles grows as B^3: 0.8 GB for B = 512 and D = 256.

State between steps: none. There is no adapter.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from distill_lightning.losses import rkd_angle, rkd_distance
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position


class RKD(FeatureTaught):
    """Learns the distances and angles between the samples of a batch.

    Args:
        network: the student; see Method.
        distance_weight: w_d, the weight of the distances.
        angle_weight: w_a, the weight of the angles.
        kwargs: see FeatureTaught.
    """

    usual_layers: ClassVar = ["pooled"]
    takes: ClassVar = "any"

    def __init__(
        self, network: Network, distance_weight: NonNegative = 25.0, angle_weight: NonNegative = 50.0, **kwargs: Any
    ) -> None:
        super().__init__(network, **kwargs)
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``distance_j`` and ``angle_j``, one each for each layer, from 1."""
        terms = {}
        for j, both in enumerate(zip(features, teacher_features, strict=True), 1):
            f, g = (one.flatten(1) for one in both)
            terms[f"distance_{j}"] = self.distance_weight * rkd_distance(f, g)
            terms[f"angle_{j}"] = self.angle_weight * rkd_angle(f, g)
        return terms

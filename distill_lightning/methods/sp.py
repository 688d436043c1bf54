"""Similarity-Preserving Knowledge Distillation (Tung & Mori, ICCV 2019, arXiv:1907.09682), SP.

    L = CE(y, s) + gamma || R(f) - R(g) ||_F^2 / B^2                       R(f): the rows of F F^T, each of length 1

    s      logits of the student, (B, K)
    f, g   last maps of student and teacher, (B, C, H, W); g has no gradient. F is f as (B, C H W). Shapes may differ
    y      labels, (B,)

Two samples that are alike for the teacher shall be alike for the student. gamma = 3000 belongs to B = 64. The loss
depends on which samples are in the batch. With several processes it is that of each process's own rows, so two
processes do not give what one gives.

State between steps: none. There is no adapter.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from distill_lightning.losses import sp
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position


class SP(FeatureTaught):
    """Learns which samples of a batch are alike.

    Args:
        network: the student; see Method.
        similarity_weight: gamma, the weight of the similarities.
        kwargs: see FeatureTaught.
    """

    usual_layers: ClassVar = ["last_stage"]
    takes: ClassVar = "any"

    def __init__(self, network: Network, similarity_weight: NonNegative = 3000.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.similarity_weight = similarity_weight

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``similarity_j``, one for each layer, from 1."""
        pairs = enumerate(zip(features, teacher_features, strict=True), 1)
        return {f"similarity_{j}": self.similarity_weight * sp(f, g) for j, (f, g) in pairs}

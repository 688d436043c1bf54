"""Paying More Attention to Attention (Zagoruyko & Komodakis, ICLR 2017, arXiv:1612.03928), attention transfer, AT.

    L = CE(y, s) + beta sum_j mean over B and HW of (A(f_j) - A(g_j))^2                    A(f) = N(mean_c f_c^2)

    s          logits of the student, (B, K)
    f_j, g_j   maps of student and teacher at the end of stage j, (B, C, H, W); g_j has no gradient. The channels may
               differ. If the sizes differ, the larger map is averaged to the smaller
    A(f)       where the map is large: (B, HW); N divides each row by its length
    y          labels, (B,)

This is the form of the authors' code, with its beta = 1000. The equation in the paper has the length of the difference,
not its square. By the mean over HW, a stage of 32x32 weighs a sixteenth of one of 8x8.

State between steps: none. There is no adapter.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from distill_lightning.losses import at, attention
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position, Reading


class AT(FeatureTaught):
    """Learns where a teacher's feature maps are large.

    Args:
        network: the student; see Method.
        attention_weight: beta, the weight of the attention maps.
        kwargs: see FeatureTaught.
    """

    def __init__(self, network: Network, attention_weight: NonNegative = 1000.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.attention_weight = attention_weight

    def reading(self, shapes: Sequence[tuple[int, ...]]) -> Reading:
        """The squares, averaged over the channels, at the size of the student's maps if those are smaller."""
        sizes = [(shape[1], shape[2]) for shape in shapes]
        return Reading(
            f"attention, sizes {sizes}",
            lambda features: [attention(g, size) for g, size in zip(features, sizes, strict=True)],
        )

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``attention_j``, one for each layer, from 1."""
        pairs = enumerate(zip(features, teacher_features, strict=True), 1)
        return {f"attention_{j}": self.attention_weight * at(f, g) for j, (f, g) in pairs}

"""Like What You Like: Knowledge Distill via Neuron Selectivity Transfer (Huang & Wang 2017, arXiv:1707.01219), NST.

    L = CE(y, s) + w sum_j mean_b [mean_cc' k(g_c, g_c') + mean_cc' k(f_c, f_c') - 2 mean_cc' k(f_c, g_c')]
    k(a, b) = (N(a) . N(b))^2

    s          logits of the student, (B, K)
    f_c, g_c   the maps of channel c of student and teacher at the end of stage j, (HW,) for each sample; g_c has no
               gradient. The channels may differ. If the sizes differ, the larger map is averaged to the smaller
    N(a)       a divided by its length
    y          labels, (B,)

The term is the squared maximum mean discrepancy between the two sets of channels, with a polynomial kernel of order 2:
the student should have channels for the same places. w = 50 as in RepDistiller.

Public code multiplies all pairs of channels elementwise, B C^2 HW numbers for each kernel. Here the kernels are
products of matrices.

State between steps: none. There is no adapter.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from distill_lightning.losses import nst
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position


class NST(FeatureTaught):
    """Learns the distribution of a teacher's channels over places.

    Args:
        network: the student; see Method.
        selectivity_weight: w, the weight of the terms of the features.
        kwargs: see FeatureTaught.
    """

    def __init__(self, network: Network, selectivity_weight: NonNegative = 50.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.selectivity_weight = selectivity_weight

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``selectivity_j``, one for each layer, from 1."""
        pairs = enumerate(zip(features, teacher_features, strict=True), 1)
        return {f"selectivity_{j}": self.selectivity_weight * nst(f, g) for j, (f, g) in pairs}

"""Knowledge Distillation from a Stronger Teacher (Huang et al., NeurIPS 2022, arXiv:2205.10536), DIST.

    L = w_hard CE(y, s) + T^2 [ w_inter mean_b (1 - r(P_t[b, :], P_s[b, :]))
                              + w_intra mean_k (1 - r(P_t[:, k], P_s[:, k])) ]

    s, t   logits of the student and raw logits of the teacher, (B, K); t has no gradient, from the callback SoftTargets
    P_z    softmax(z / T), (B, K)
    r      Pearson's correlation: of the classes of a sample (inter), and of the samples for a class (intra)
    y      labels, (B,)

Only the relative distances of the predictions must be the teacher's, not their values: a correlation does not change
if the student's probabilities are scaled or shifted.

The weights 2 and 2 at T = 4 are of the authors' configuration for CIFAR-100, where the factor T^2 is, too. For ImageNet
it has T = 1. The authors' rate falls at the epochs 150, 180 and 210 of 240.

The term "intra" relates the samples of a batch. With several processes it is that of each process's own rows, so two
processes do not give what one gives.

State between steps: none. The teacher is not part of the method.
"""

from typing import Any

from distill_lightning.errors import InputError
from distill_lightning.losses import dist
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, Position, StepOutput


class DIST(Taught):
    """Learns the relations of a teacher's predictions, within a sample and within a class.

    Args:
        network: the student; see Method.
        temperature: T, by which logits are divided before the softmax.
        inter_weight: w_inter, the weight of the relations between the classes of a sample.
        intra_weight: w_intra, the weight of the relations between the samples of a batch, for each class.
        hard_weight: w_hard, the weight of the labels.
        standardise: whether the logits of each sample are standardised first (Sun et al., CVPR 2024).
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range, or all weights are 0.
    """

    def __init__(
        self,
        network: Network,
        temperature: Positive = 4.0,
        inter_weight: NonNegative = 2.0,
        intra_weight: NonNegative = 2.0,
        hard_weight: NonNegative = 1.0,
        standardise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if not inter_weight and not intra_weight and not hard_weight:
            raise InputError("DIST.inter_weight, intra_weight and hard_weight are all 0: one of them must be above 0")
        self.temperature, self.hard_weight, self.standardise = temperature, hard_weight, standardise
        self.inter_weight, self.intra_weight = inter_weight, intra_weight

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels) and ``soft`` (teacher)."""
        logits = self(batch.images)
        soft = dist(
            logits, self.teacher_logits(batch), temperature=self.temperature, inter_weight=self.inter_weight,
            intra_weight=self.intra_weight, standardise=self.standardise,
        )  # fmt: skip
        hard = self.cross_entropy(logits, batch)
        return self.step_output({"hard": self.hard_weight * hard, "soft": soft}, logits, batch)

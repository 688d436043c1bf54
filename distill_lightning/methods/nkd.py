"""Normalised Knowledge Distillation (Yang et al., ICCV 2023, arXiv:2303.13005), NKD.

    L = w_hard CE(y, s) + w_soft mean_b [ -p_y(t) log p_y(s) + gamma T^2 H(p^T(t^), p^T(s^)) ]

    s       logits of the student, (B, K)
    t       raw logits of the teacher, (B, K), no gradient, from the callback SoftTargets
    s^, t^  the logits of the other classes, (B, K - 1): their softmax has the sum 1, so both sides are normalised alike
    H(q,p)  -sum_k q_k log p_k, the cross-entropy; its gradient is that of the divergence
    y       labels, (B,)                                                                p^T(z) = softmax(z / T), p = p^1

The part of the label always has the temperature 1. gamma = 1.5 and T = 1 are the authors' for ImageNet. In their code a
mixture of two samples counts as one of its likelier class; here mixtures are refused.

NKD and DKD both take the label apart from the other classes. In DKD the label's part is a divergence at temperature T,
here it is the labels' cross-entropy, weighted by the teacher's probability.

State between steps: none. The teacher is not part of the method.
"""

from typing import Any

from distill_lightning.losses import nkd
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class NKD(Taught):
    """Learns a teacher's probability of the label and, normalised, those of the other classes.

    Args:
        network: the student; see Method.
        temperature: T, by which the logits of the other classes are divided before the softmax.
        gamma: the weight of the other classes.
        soft_weight: w_soft, the weight of the teacher.
        hard_weight: w_hard, the weight of the labels.
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range, or both weights are 0.
    """

    needs = BatchNeeds(teacher_logits=True, allows_mixing=False)  # a mixture has no label among its classes

    def __init__(
        self,
        network: Network,
        temperature: Positive = 1.0,
        gamma: NonNegative = 1.5,
        soft_weight: NonNegative = 1.0,
        hard_weight: NonNegative = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.weigh(soft_weight, hard_weight)
        self.temperature, self.gamma = temperature, gamma

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels) and ``soft`` (teacher)."""
        logits = self(batch.images)
        soft = nkd(
            logits, self.teacher_logits(batch), batch.labels, temperature=self.temperature, gamma=self.gamma
        )  # fmt: skip
        hard = self.cross_entropy(logits, batch)
        terms = {"hard": self.hard_weight * hard, "soft": self.soft_weight * soft}
        return self.step_output(terms, logits, batch)

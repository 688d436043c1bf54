"""Distilling the Knowledge in a Neural Network (Hinton, Vinyals & Dean 2015, arXiv:1503.02531), section 2.

    L = w_hard CE(y, s) + w_soft T^2 KL(p^T(t) || p^T(s))        p^T(z) = softmax(z / T)

    s   the student's logits, (B, K)
    t   the teacher's, (B, K), raw, no gradient: from the callback SoftTargets
    T   temperature
    y   labels, (B,)

The paper gives the soft term no factor and asks for a small weight on the hard one; since the soft gradients shrink as
1 / T^2, it multiplies them by T^2 when both are used. The other form seen in use weighs the hard term by 1 / T^2 and
leaves the soft one alone: L' = L / T^2. The two have the same minimum, and under plain SGD the same path where L' has
T^2 times the learning rate (and 1 / T^2 of the weight decay).

KL and the paper's cross-entropy with soft targets differ by the teacher's entropy, which has no gradient. The default
weights (0.1 and 0.9 at T = 4) are those of the common CIFAR-100 comparisons, not the paper's, which names none.

Nothing is kept between steps; the teacher is not part of the method.
"""

from typing import Any

from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.losses import soft_target_loss
from distill_lightning.methods.base import Method
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class KD(Method):
    """Learns from labels and from a teacher's soft targets.

    Args:
        network: the student; see Method.
        temperature: T > 0.
        soft_weight: w_soft >= 0.
        hard_weight: w_hard >= 0.
        kwargs: see Method.
    """

    needs = BatchNeeds(teacher_logits=True)

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 4.0,
        soft_weight: float = 0.9,
        hard_weight: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}: it must be greater than 0")
        if soft_weight < 0 or hard_weight < 0:
            raise InputError(f"soft_weight is {soft_weight}, hard_weight {hard_weight}: neither may be below 0")
        self.temperature, self.soft_weight, self.hard_weight = temperature, soft_weight, hard_weight

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        logits = self(batch.images)
        soft = soft_target_loss(self.teacher_logits(batch), logits, self.temperature)
        hard = self.cross_entropy(logits, batch)
        return StepOutput({"hard": self.hard_weight * hard, "soft": self.soft_weight * soft}, logits)

"""Revisiting Knowledge Distillation via Label Smoothing Regularization (Yuan et al., CVPR 2020), Tf-KD self.

    L = (1 - alpha) CE(y, s) + alpha T^2 KL(p^T(t) || p^T(s))        p^T(z) = softmax(z / T)

    s   the student's logits, (B, K)
    t   those of the same network, trained before on the labels alone, (B, K): SoftTargets with its checkpoint
    y   labels, (B,)

The authors' code averages the divergence over the classes as well and multiplies it by a constant for each network:
for ResNet-18 on CIFAR-100 (alpha 0.95, T 6, factor 50) that is 0.05 CE + 0.475 T^2 KL. Here it is the paper's formula.

Nothing is kept between steps; the teacher is not part of the method.
"""

from typing import Any

from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.losses import soft_target_loss
from distill_lightning.methods.base import Method
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class TfKDSelf(Method):
    """Learns from labels and from a copy of itself that was trained before.

    Args:
        network: see Method.
        temperature: T > 0.
        alpha: in [0, 1].
        kwargs: see Method.
    """

    needs = BatchNeeds(teacher_logits=True)

    def __init__(self, network: nn.Module, temperature: float = 6.0, alpha: float = 0.95, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        if not temperature > 0 or not 0 <= alpha <= 1:
            raise InputError(f"temperature is {temperature}, alpha {alpha}: T must be above 0, alpha in [0, 1]")
        self.temperature, self.alpha = temperature, alpha

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        logits = self(batch.images)
        soft = soft_target_loss(self.teacher_logits(batch), logits, self.temperature)
        terms = {"ce": (1 - self.alpha) * self.cross_entropy(logits, batch), "self": self.alpha * soft}
        return StepOutput(terms, logits)

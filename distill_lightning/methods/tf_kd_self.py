"""Revisiting Knowledge Distillation via Label Smoothing Regularization (Yuan et al., CVPR 2020), Tf-KD self.

    L = (1 - alpha) CE(y, s) + alpha T^2 KL(p^T(t) || p^T(s))        p^T(z) = softmax(z / T)

    s   logits of the student, (B, K)
    t   logits of the teacher, (B, K), no gradient: a network of the same architecture that was trained on the labels
        alone. Give its checkpoint to the callback SoftTargets
    y   labels, (B,)

This is the formula of the paper. The authors' code also averages the divergence over the classes and multiplies it by a
constant that depends on the network: for ResNet-18 on CIFAR-100 (alpha 0.95, T 6, factor 50) it is 0.05 CE + 0.475 T^2
KL.

State between steps: none. The teacher is not part of the method.
"""

from typing import Any

from distill_lightning.losses import kd
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import Fraction, Positive
from distill_lightning.values import Batch, Position, StepOutput


class TfKDSelf(Taught):
    """Learns from labels and from a trained teacher of the same architecture.

    Args:
        network: see Method.
        temperature: T, by which logits are divided before the softmax.
        alpha: the weight of the soft targets.
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, network: Network, temperature: Positive = 6.0, alpha: Fraction = 0.95, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.temperature, self.alpha = temperature, alpha

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce`` (labels) and ``self`` (teacher)."""
        logits = self(batch.images)
        soft = kd(logits, self.teacher_logits(batch), temperature=self.temperature)
        terms = {"ce": (1 - self.alpha) * self.cross_entropy(logits, batch), "self": self.alpha * soft}
        return StepOutput(terms, logits)

"""Decoupled Knowledge Distillation (Zhao et al., CVPR 2022, arXiv:2203.08679), DKD.

    L = w_hard CE(y, s) + w(e) T^2 [ alpha KL(b_t || b_s) + beta KL(p^T(t^) || p^T(s^)) ]     w(e) = min((e + 1) / E, 1)

    s       logits of the student, (B, K)
    t       raw logits of the teacher, (B, K), no gradient, from the callback SoftTargets
    b       (p_y, 1 - p_y) at temperature T: is it the label or another class?
    s^, t^  the logits of the other classes, (B, K - 1)                                      p^T(z) = softmax(z / T)
    y       labels, (B,)
    e, E    the epoch, from 0, and the number of epochs in which the weight of the teacher grows

The soft term of KD is the same sum with alpha = 1 and, for each sample, beta = 1 - p_y(t): the surer the teacher is of
the label, the less the other classes count there. With alpha = 1 and beta = 8 the authors train a ResNet-8x4 by a
ResNet-32x4 on CIFAR-100 at T = 4; with beta = 2 a ResNet-20 by a ResNet-56. Their E is 20, of 240 epochs.

With ``standardise``, s and t are standardised for each sample (Sun et al., CVPR 2024, arXiv:2403.01427). Its authors
then take alpha = 9, beta = 72 and T = 2, the same factor 9 for both.

State between steps: none. The teacher is not part of the method.
"""

from typing import Any

from distill_lightning.errors import InputError
from distill_lightning.losses import dkd
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import CountOrZero, NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class DKD(Taught):
    """Learns from a teacher's certainty of the label and, separately, from its opinion of the other classes.

    Args:
        network: the student; see Method.
        temperature: T, by which logits are divided before the softmax.
        alpha: the weight of the certainty of the label.
        beta: the weight of the other classes.
        hard_weight: w_hard, the weight of the labels.
        warmup_epochs: E, the number of epochs in which the teacher's weight grows to its full value.
        standardise: whether the logits of each sample are standardised first.
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range, or all weights are 0.
    """

    needs = BatchNeeds(teacher_logits=True, allows_mixing=False)  # a mixture has no label among its classes

    def __init__(
        self,
        network: Network,
        temperature: Positive = 4.0,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
        hard_weight: NonNegative = 1.0,
        warmup_epochs: CountOrZero = 20,
        standardise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if not alpha and not beta and not hard_weight:
            raise InputError("DKD.alpha, DKD.beta and DKD.hard_weight are all 0: one of them must be above 0")
        self.temperature, self.alpha, self.beta, self.hard_weight = temperature, alpha, beta, hard_weight
        self.warmup_epochs, self.standardise = warmup_epochs, standardise

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels) and ``soft`` (teacher)."""
        logits = self(batch.images)
        soft = dkd(
            logits, self.teacher_logits(batch), batch.labels, temperature=self.temperature, alpha=self.alpha,
            beta=self.beta, standardise=self.standardise,
        )  # fmt: skip
        warmth = min((position.epoch + 1) / max(self.warmup_epochs, 1), 1.0)
        hard = self.cross_entropy(logits, batch)
        return self.step_output({"hard": self.hard_weight * hard, "soft": warmth * soft}, logits, batch)

"""Confidence-Aware Multi-Teacher Knowledge Distillation (Zhang et al., ICASSP 2022, arXiv:2201.00007), CA-MKD: its
terms of logits.

    L = w_hard CE(y, s) + w_soft T^2 mean_b sum_m w_bm KL(p^T(t_m) || p^T(s))
    w_bm = (1 - softmax_m CE(y_b, t_bm)) / (M - 1)

    s      logits of the student, (B, K)
    t_m    raw logits of teacher m = 1 .. M, (B, K), no gradient, from the callback SoftTargets; M is 2 or more
    w_bm   weights of the teachers for each sample, 0 or more, with the sum 1
    y      labels, (B,)                                                                    p^T(z) = softmax(z / T)

For each sample the teachers that give its label a small probability count less. KD with several teachers learns from
the mean of their logits instead, in which a teacher that is wrong with great certainty counts most.

Differences to the authors' code: it divides the soft term by M once more; here the weights have the sum 1. It also has
a term of features, weighted in the same way, with a part of each teacher after the student's adapter; this is not here.

A table holds the mean of the teachers' logits, so the teachers must be live: a step costs M forward passes of teachers.

State between steps: none. The teachers are not part of the method.
"""

from typing import Any

from distill_lightning.errors import InputError
from distill_lightning.losses import ca_mkd
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class CAMKD(Taught):
    """Learns from several teachers, each weighted for each sample by how sure it is of the label.

    Args:
        network: the student; see Method.
        temperature: T, by which logits are divided before the softmax.
        soft_weight: w_soft, the weight of the teachers' soft targets.
        hard_weight: w_hard, the weight of the labels.
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range, or both weights are 0.
    """

    needs = BatchNeeds(teacher_logits=True, teacher_members=True, allows_mixing=False)  # the weights need a label

    def __init__(
        self,
        network: Network,
        temperature: Positive = 4.0,
        soft_weight: NonNegative = 1.0,
        hard_weight: NonNegative = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.weigh(soft_weight, hard_weight)
        self.temperature = temperature

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels) and ``soft`` (teachers)."""
        logits = self(batch.images)
        if batch.teacher is None or batch.teacher.members is None:
            raise InputError("CAMKD needs the logits of each of two teachers or more: use the callback SoftTargets")
        soft = ca_mkd(logits, batch.teacher.members, batch.labels, temperature=self.temperature)
        hard = self.cross_entropy(logits, batch)
        terms = {"hard": self.hard_weight * hard, "soft": self.soft_weight * soft}
        return self.step_output(terms, logits, batch)

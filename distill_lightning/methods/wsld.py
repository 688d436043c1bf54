"""Rethinking Soft Labels: A Bias-Variance Tradeoff Perspective (Zhou et al., ICLR 2021, arXiv:2102.00650), WSLD.

    L = w_hard CE(y, s) + w_soft T^2 mean_b w_b H(p^T(t), p^T(s))        w_b = 1 - exp(-CE(y, s) / CE(y, t))

    s, t    logits of the student and raw logits of the teacher, (B, K); t has no gradient, from SoftTargets
    w_b     weight of sample b, in [0, 1), at temperature 1, without gradient
    H(q,p)  -sum_k q_k log p_k
    y       labels, (B,)                                                                         p^T(z) = softmax(z / T)

A soft target counts where the teacher is surer of the label than the student, and little where the student is already
better: there it would only bias the student. A teacher that is wrong about a sample hardly teaches it.

w_soft = 2.25 at T = 4 is of the authors' code for CIFAR-100, 2.5 at T = 2 for ImageNet. As there, 1e-7 is added to
CE(y, t). H is no divergence: the term does not go to 0 where student and teacher agree.

State between steps: none. The teacher is not part of the method.
"""

from typing import Any

from distill_lightning.losses import wsld
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class WSLD(Taught):
    """Learns from a teacher's soft targets, each weighted by how much better than the student the teacher is.

    Args:
        network: the student; see Method.
        temperature: T, by which logits are divided before the softmax.
        soft_weight: w_soft, the weight of the teacher's soft targets.
        hard_weight: w_hard, the weight of the labels.
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range, or both weights are 0.
    """

    needs = BatchNeeds(teacher_logits=True, allows_mixing=False)  # the weights need the label of each sample

    def __init__(
        self,
        network: Network,
        temperature: Positive = 4.0,
        soft_weight: NonNegative = 2.25,
        hard_weight: NonNegative = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.weigh(soft_weight, hard_weight)
        self.temperature = temperature

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels) and ``soft`` (teacher)."""
        logits = self(batch.images)
        soft = wsld(logits, self.teacher_logits(batch), batch.labels, temperature=self.temperature)
        hard = self.cross_entropy(logits, batch)
        terms = {"hard": self.hard_weight * hard, "soft": self.soft_weight * soft}
        return self.step_output(terms, logits, batch)

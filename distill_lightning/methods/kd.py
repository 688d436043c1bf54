"""Distilling the Knowledge in a Neural Network (Hinton, Vinyals & Dean 2015, arXiv:1503.02531), section 2.

    L = w_hard CE(y, s) + w_soft T^2 KL(p^T(t) || p^T(s))        p^T(z) = softmax(z / T)

    s   logits of the student, (B, K)
    t   raw logits of the teacher, (B, K), no gradient, from the callback SoftTargets
    T   temperature
    y   labels, (B,)

The paper recommends a small weight for the hard term. Since the gradients of the soft targets scale as 1 / T^2, it
multiplies them by T^2 if both terms are used. In another common form the hard term has the factor 1 / T^2 and the soft
term has none: L' = L / T^2. Both forms have the same minimum. With plain SGD they also have the same trajectory, if L'
is used with T^2 times the learning rate and 1 / T^2 times the weight decay.

With ``standardise``, s and t are replaced by (z - mean(z)) / std(z) of each sample: only the shape of the teacher's
logits is learned, not their size (Sun et al., CVPR 2024, arXiv:2403.01427). Its authors then take the weights 0.1 and
9 at T = 2.

The paper uses cross-entropy with soft targets. It differs from KL by the entropy of the teacher, which has no gradient.
The paper gives no weights; the defaults (0.1 and 0.9 at T = 4) are usual in comparisons on CIFAR-100.

With pictures without labels (``data.unlabelled``) the means have different denominators. Of B rows, the first B_l have
labels: the hard term is a mean over these B_l rows, the soft term a mean over all B rows.

    L = w_hard 1/B_l sum_{i < B_l} CE(y_i, s_i) + w_soft T^2 1/B sum_{i < B} KL(p^T(t_i) || p^T(s_i))

State between steps: none. The teacher is not part of the method.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from distill_lightning.losses import kd
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class KD(Taught):
    """Learns from labels and from a teacher's soft targets.

    Args:
        network: the student; see Method.
        temperature: T, by which logits are divided before the softmax.
        soft_weight: w_soft, the weight of the teacher's soft targets.
        hard_weight: w_hard, the weight of the labels.
        standardise: whether the logits of each sample are standardised first.
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range, or both weights are 0.
    """

    later_options: ClassVar[Mapping[str, Any]] = {"standardise": False}

    def __init__(
        self,
        network: Network,
        temperature: Positive = 4.0,
        soft_weight: NonNegative = 0.9,
        hard_weight: NonNegative = 0.1,
        standardise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.weigh(soft_weight, hard_weight)
        self.temperature = temperature
        self.standardise = standardise
        self.needs = BatchNeeds(teacher_logits=True, allows_unlabelled=soft_weight > 0)

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels) and ``soft`` (teacher)."""
        logits = self(batch.images)
        teacher_logits = self.teacher_logits(batch)
        soft = kd(logits, teacher_logits, temperature=self.temperature, standardise=self.standardise)
        hard = self.cross_entropy(logits, batch)
        terms = {"hard": self.hard_weight * hard, "soft": self.soft_weight * soft}
        return self.step_output(terms, logits, batch)

"""Revisiting Knowledge Distillation via Label Smoothing Regularization (Yuan et al., CVPR 2020), Tf-KD reg.

    L = (1 - alpha) CE(y, s) + alpha T^2 KL(d^T || p^T(s))        p^T(z) = softmax(z / T)

    s     logits, (B, K)
    y     labels, (B,)
    d     a virtual teacher: probability a for the correct class, (1 - a) / (K - 1) for each other class
    d^T   softmax(log d / T)

The factor T^2 is our choice; it keeps the size of the gradient independent of T. The paper has no such factor, and its
soft term is almost 0 at T = 20. The authors' code has another loss, which ``form: code`` selects. There the teacher is
softmax(d / T), a softmax of probabilities, which is almost uniform at T = 20; the student has no temperature, and there
is no factor T^2. This is close to label smoothing. The code also averages the divergence over the classes and
multiplies it by 1, 50 or 100, depending on the network. For ResNet-18 on CIFAR-100 these cancel out; here neither is
done.

State between steps: none. No teacher has to be trained.
"""

from typing import Any, Literal

from distill_lightning.losses import virtual_teacher
from distill_lightning.methods.base import Method
from distill_lightning.networks import Network
from distill_lightning.ranges import Fraction, OpenFraction, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class TfKDReg(Method):
    """Learns from labels and from a virtual teacher, a fixed distribution for each class.

    Args:
        network: see Method.
        temperature: T, by which logits are divided before the softmax.
        alpha: the weight of the soft targets.
        right: a, the teacher's probability of the correct class.
        form: "paper" for the loss of the paper with the factor T^2, "code" for the loss of the authors' code.
        kwargs: see Method.

    Raises:
        InputError: an option is out of range.
    """

    needs = BatchNeeds(allows_mixing=False)  # the virtual teacher needs a single correct class

    def __init__(
        self,
        network: Network,
        temperature: Positive = 20.0,
        alpha: Fraction = 0.1,
        right: OpenFraction = 0.99,
        form: Literal["paper", "code"] = "paper",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.temperature, self.alpha, self.right, self.form = temperature, alpha, right, form

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce`` (labels) and ``virtual`` (teacher)."""
        logits = self(batch.images)
        virtual = virtual_teacher(logits, batch.labels, temperature=self.temperature, right=self.right, form=self.form)
        terms = {"ce": (1 - self.alpha) * self.cross_entropy(logits, batch), "virtual": self.alpha * virtual}
        return StepOutput(terms, logits)

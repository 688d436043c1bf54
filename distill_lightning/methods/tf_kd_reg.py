"""Revisiting Knowledge Distillation via Label Smoothing Regularization (Yuan et al., CVPR 2020), Tf-KD reg.

    L = (1 - alpha) CE(y, s) + alpha T^2 KL(d^T || p^T(s))        p^T(z) = softmax(z / T)

    s     logits, (B, K)
    y     labels, (B,)
    d     a teacher by hand: probability a for the right class, (1 - a) / (K - 1) for each other
    d^T   its softmax(log d / T)

T^2 is this house's, and keeps the size of the gradient as in all of distillation: the paper writes the term without it,
which at T = 20 makes it next to nothing. The authors' code is another loss, ``form: code``: the teacher is
softmax(d / T), of probabilities, which at T = 20 is almost uniform, the student is not tempered, and there is no T^2:
label smoothing. The code averages over the classes and multiplies by a factor for each network, 1, 50 or 100; for
ResNet-18 on CIFAR-100 the two cancel out, as here.

Nothing is kept between steps, and nothing is trained before.
"""

from typing import Any, Literal

import torch
from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.losses import kl_divergence, soft_target_loss
from distill_lightning.methods.base import Method
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class TfKDReg(Method):
    """Learns from labels and from a teacher made by hand.

    Args:
        network: see Method.
        temperature: T > 0.
        alpha: in [0, 1].
        right: a, the teacher's probability of the right class, in (0, 1).
        form: the paper's, times T^2, or that of the authors' code.
        kwargs: see Method.
    """

    needs = BatchNeeds(allows_mixing=False)  # its teacher knows one right class

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 20.0,
        alpha: float = 0.1,
        right: float = 0.99,
        form: Literal["paper", "code"] = "paper",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if not temperature > 0 or not 0 <= alpha <= 1 or not 0 < right < 1:
            raise InputError(
                f"temperature is {temperature}, alpha {alpha}, right {right}: T must be above 0, alpha in [0, 1], "
                "right in (0, 1)"
            )
        self.temperature, self.alpha, self.right, self.form = temperature, alpha, right, form

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        logits = self(batch.images)
        probs = torch.full_like(logits, (1 - self.right) / (logits.shape[1] - 1))
        probs.scatter_(1, batch.labels[:, None], self.right)
        if self.form == "paper":
            virtual = soft_target_loss(probs.log(), logits, self.temperature)
        else:
            virtual = kl_divergence(probs / self.temperature, logits)  # a softmax of probabilities, as published
        terms = {"ce": (1 - self.alpha) * self.cross_entropy(logits, batch), "virtual": self.alpha * virtual}
        return StepOutput(terms, logits)

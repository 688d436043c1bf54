"""Regularizing Class-Wise Predictions via Self-Knowledge Distillation (Yun et al., CVPR 2020), CS-KD.

    L = CE(y, f(x)) + lambda T^2 KL(p^T(f(x')) || p^T(f(x)))        p^T(z) = softmax(z / T)

    x    n new samples
    x'   for each another training sample of its class, perhaps itself, under a view of its own; no gradient
    f    the network, with this step's weights for both
    y    labels of x, (n,)

The data module appends x' (``needs.pairs_classes``); x' is a function of seed, epoch and sample. As in the authors' code the
second pass runs in training mode, so that batch norm's running statistics move twice a step. With label noise, x' is of
the same label, not of the same class.

Nothing is kept between steps.
"""

from typing import Any

import torch
from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.losses import cross_entropy, soft_target_loss
from distill_lightning.methods.base import Method
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class CSKD(Method):
    """Teaches a sample with the prediction for another of its class.

    Args:
        network: see Method.
        temperature: T > 0.
        weight: lambda >= 0; 1 for CIFAR-100, 3 for fine-grained data in the paper.
        kwargs: see Method.
    """

    needs = BatchNeeds(pairs_classes=True, allows_mixing=False)  # a mixture has no one class

    def __init__(self, network: nn.Module, temperature: float = 4.0, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        if not temperature > 0 or weight < 0:
            raise InputError(
                f"temperature is {temperature}, weight {weight}: T must be above 0, the weight not below 0"
            )
        self.temperature, self.weight = temperature, weight

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        n = batch.num_new
        logits = self(batch.images[:n])
        with torch.no_grad():
            of_partners = self(batch.images[n:])
        soft = soft_target_loss(of_partners, logits, self.temperature)
        terms = {"ce": cross_entropy(logits, batch.labels[:n]), "class": self.weight * soft}
        return StepOutput(terms, logits)

"""Regularizing Class-Wise Predictions via Self-Knowledge Distillation (Yun et al., CVPR 2020), CS-KD.

    L = CE(y, f(x)) + lambda T^2 KL(p^T(f(x')) || p^T(f(x)))        p^T(z) = softmax(z / T)

    x    n fresh samples
    x'   for each another training sample of its class, perhaps itself, under a view of its own; no gradient
    f    the network, with this step's weights for both
    y    labels of x, (n,)

The data module appends x' (``pairs_classes``); x' is a function of seed, epoch and sample. As in the authors' code the
second pass runs in training mode, so that batch norm's running statistics move twice a step. With label noise, x' is of
the same label, not of the same class.

Nothing is kept between steps.
"""

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.losses import soft_target_loss
from distill_lightning.methods.base import Batch, Method


class CSKD(Method):
    """Teaches a sample with the prediction for another of its class.

    Args:
        network: see Method.
        temperature: T > 0.
        weight: lambda >= 0; 1 for CIFAR-100, 3 for fine-grained data in the paper.
        kwargs: see Method.
    """

    pairs_classes = True
    mixes = False  # a mixture has no one class

    def __init__(self, network: nn.Module, temperature: float = 4.0, weight: float = 1.0, **kwargs) -> None:
        super().__init__(network, **kwargs)
        if not temperature > 0 or weight < 0:
            raise InputError(
                f"temperature is {temperature}, weight {weight}: T must be above 0, the weight not below 0"
            )
        self.temperature, self.weight = temperature, weight

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        n = batch["fresh"]
        logits = self(batch["image"][:n])
        with torch.no_grad():
            of_partners = self(batch["image"][n:])
        fresh = batch | {"label": batch["label"][:n]}
        soft = soft_target_loss(of_partners, logits, self.temperature)
        return {"ce": self.cross_entropy(logits, fresh), "class": self.weight * soft}

"""Regularizing Class-Wise Predictions via Self-Knowledge Distillation (Yun et al., CVPR 2020), CS-KD.

    L = CE(y, f(x)) + lambda T^2 KL(p^T(f(x')) || p^T(f(x)))        p^T(z) = softmax(z / T)

    x    n new samples
    x'   for each sample in x a random training sample of its class (possibly itself), in another view; no gradient
    f    the logits (n, K) of the network; both passes use the current weights
    y    labels of x, (n,)

The data module appends x' to the batch (``needs.pairs_classes``); x' is a function of seed, epoch and sample. The
second pass runs in training mode, as in the authors' code, so the running statistics of batch norm are updated twice
per step. With label noise, x' has the same noisy label.

State between steps: none.
"""

from typing import Any

import torch

from distill_lightning.losses import kd
from distill_lightning.methods.base import Method
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class CSKD(Method):
    """The soft target of a sample is the prediction for another sample of its class.

    Args:
        network: see Method.
        temperature: T, by which logits are divided before the softmax.
        weight: lambda, the weight of the soft term; the paper uses 1 for CIFAR-100 and 3 for fine-grained data.
        kwargs: see Method.

    Raises:
        InputError: an option is out of range.
    """

    needs = BatchNeeds(pairs_classes=True, allows_mixing=False)  # a mixture belongs to more than one class

    def __init__(self, network: Network, temperature: Positive = 4.0, weight: NonNegative = 1.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.temperature, self.weight = temperature, weight

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce`` (labels) and ``class`` (partners)."""
        n = batch.num_new
        logits = self(batch.images[:n])
        with torch.no_grad():
            of_partners = self(batch.images[n:])
        soft = kd(logits, of_partners, temperature=self.temperature)
        terms = {"ce": self.cross_entropy(logits, batch), "class": self.weight * soft}
        return StepOutput(terms, logits)

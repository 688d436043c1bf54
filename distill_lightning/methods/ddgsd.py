"""Data-Distortion Guided Self-Distillation (Xu & Liu, AAAI 2019, arXiv:1906.00555), DDGSD.

    L = CE(y, a) + CE(y, b) + lambda T^2 [KL(p^T(a) || p^T(b)) + KL(p^T(b) || p^T(a))] + mu |mean f_a - mean f_b|^2

    a, b       logits of two views of the same samples, (n, K) each, from one forward pass over both views
    f_a, f_b   inputs of the last linear layer, (n, D); the mean is over the global batch (MMD with a linear kernel)
    y          labels, (n,)

It could not be verified whether in the paper the gradient flows into both sides of each divergence. It does in the only
public implementation, and here. lambda = 1 is the value of the paper; mu = 5e-4 is in the range that the paper tries
(1e-4 to 5e-4). T = 3 is from the public implementation, which has no factor T^2.

State between steps: none. A step costs two steps of the baseline.
"""

from typing import Any

from torch import nn

from distill_lightning.distributed import mean_over_processes
from distill_lightning.errors import InputError
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.features import last_linear
from distill_lightning.losses import symmetric_kl
from distill_lightning.methods.base import Method
from distill_lightning.models.outputs import in_full
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class DDGSD(Method):
    """Two views of a picture teach each other.

    Args:
        network: a network whose last layer is linear; see Method.
        temperature: T, by which logits are divided before the softmax.
        weight: lambda, the weight of the divergence between the views.
        feature_weight: mu, the weight of the distance between features.
        kwargs: see Method.

    Raises:
        InputError: an option is out of range, or the network has no linear layer.
    """

    needs = BatchNeeds(views=2)

    def __init__(
        self,
        network: Network,
        temperature: Positive = 3.0,
        weight: NonNegative = 1.0,
        feature_weight: NonNegative = 5e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.temperature, self.weight, self.feature_weight = temperature, weight, feature_weight

    def network_is_set(self, network: nn.Module) -> None:
        """Watches the input of the last linear layer.

        Raises:
            InputError: there is none.
        """
        head = last_linear(network)
        if head is None:
            raise InputError(f"DDGSD needs a network with a linear layer at its end: {type(network).__name__} has none")
        self.features = FeatureHook(inputs=True)
        self.features.watch(head)

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce`` (labels, both views), ``views`` (divergences) and ``features`` (MMD)."""
        n = batch.num_new
        logits = self(batch.images)
        first, second = logits.split(n)
        f_a, f_b = (mean_over_processes(part, batch.weight) for part in in_full(self.features.take()).split(n))
        terms = {
            "ce": 2 * self.cross_entropy(logits, batch),
            "views": self.weight * symmetric_kl(first, second, temperature=self.temperature),
            "features": self.feature_weight * (f_a - f_b).square().sum(),
        }
        return StepOutput(terms, first)

"""The average of networks, trained as one (Allen-Zhu & Li 2020, arXiv:2012.09816, section 1.1).

    F = 1/n (F_1 + ... + F_n)        one loss, on F

The counterpart of an ensemble, whose members are trained one by one: each F_i starts from its own initialisation, but
all learn together, from the gradient of their average. The paper finds that this gains nothing over one network.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class AveragedTraining(nn.Module):
    """Logits (B, K), the mean of those of n networks.

    Args:
        network: makes one of them; in YAML, a network by class_path.
        n: how many.

    Raises:
        ValueError: n is less than 1.
    """

    def __init__(self, network: Callable[[], nn.Module], n: int = 10) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n is {n}: it must be 1 or more")
        self.networks = nn.ModuleList(network() for _ in range(n))

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([network(images) for network in self.networks]).mean(0)

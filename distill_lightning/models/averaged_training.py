"""An average of networks that are trained together (Allen-Zhu & Li 2020, arXiv:2012.09816, section 1.1).

    F = 1/n (F_1 + ... + F_n)        one loss, on F

It is the counterpart of an ensemble, in which each network is trained separately. Each F_i has its own initialisation,
but all are trained with the gradient of the loss of their average. The paper finds no improvement over a single
network.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distill_lightning.ranges import Count, Ranged


class AveragedTraining(Ranged, nn.Module):
    """The mean of the logits of n networks.

    Args:
        network: makes one of the networks; in YAML it is a network with a class_path.
        n: the number of networks.
    """

    def __init__(self, network: Callable[[], nn.Module], n: Count = 10) -> None:
        super().__init__()
        self.networks = nn.ModuleList(network() for _ in range(n))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        return torch.stack([network(images) for network in self.networks]).mean(0)

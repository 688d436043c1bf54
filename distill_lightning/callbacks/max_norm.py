"""The weight constraint that goes with dropout (Hinton et al. 2012, arXiv:1207.0580, section 2)."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from distill_lightning.errors import InputError


class MaxNorm(Callback):
    """After every step, weight vectors of units that have grown beyond a length are scaled back to it.

    A unit's vector is its row of a Linear layer, or its filter of a convolution; biases are left alone.

    Args:
        limit: the length. The paper bounds the squared length by 15 on MNIST: 3.87.
    """

    def __init__(self, limit: float = 15**0.5) -> None:
        if not limit > 0:
            raise InputError(f"MaxNorm.limit is {limit}: it must be greater than 0")
        self.limit = limit

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        network = pl_module.model
        assert isinstance(network, nn.Module)
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                length = torch.linalg.vector_norm(module.weight.flatten(1), dim=1)
                scale = (self.limit / length.clamp(min=self.limit)).view(-1, *[1] * (module.weight.ndim - 1))
                module.weight.mul_(scale)

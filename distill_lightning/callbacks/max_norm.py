"""The max-norm constraint on weights, used together with dropout (Hinton et al. 2012, arXiv:1207.0580, section 2)."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from distill_lightning.callbacks.of_method import method_of
from distill_lightning.ranges import Positive
from distill_lightning.recorded import Recorded


class MaxNorm(Recorded, Callback):
    """Scales each weight vector that is longer than ``limit`` back to that length, after every batch.

    The weight vector of a unit is its row in a Linear layer, or its filter in a Conv2d. Biases are not changed, nor are
    weights that ``fine_tuning`` does not train.

    Args:
        limit: the largest L2 norm. The default is the paper's value for MNIST, the square root of 15.

    Raises:
        InputError: ``limit`` is out of range.
    """

    def __init__(self, limit: Positive = 15**0.5) -> None:
        self.limit = limit

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        method = method_of(pl_module, self)
        trained = {id(parameter) for parameter, _ in method.optimization.trained(trainer.optimizers[0])}
        for module in method.model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and id(module.weight) in trained:
                length = torch.linalg.vector_norm(module.weight.flatten(1), dim=1)
                scale = (self.limit / length.clamp(min=self.limit)).view(-1, *[1] * (module.weight.ndim - 1))
                module.weight.mul_(scale)

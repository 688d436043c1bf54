"""Self-Distillation from the Last Mini-Batch (Shen et al., CVPR 2022, arXiv:2203.16172), section 3.

    L = CE(y, s) + alpha T^2 KL(p^T(o') || p^T(r))        p^T(z) = softmax(z / T)

    s   logits of the whole batch, (2n, K): n new samples, then the n of the last batch, under another view
    y   their labels, (2n,)
    r   the repeated half of s, (n, K)
    o'  the last step's logits of the same samples as r, (n, K), made before its update, no gradient
    T, alpha  temperature and weight

The data module repeats the last batch, across the ends of epochs too; an epoch is one pass of fresh samples, so that a
step costs twice the baseline's. Equal exposures are half the epochs. T = 3 and alpha = 1 are the paper's by a third
party's account of it; the authors' code has no defaults.

One forward pass over 2n samples, as the paper has it. The authors' code makes two, which gives each half its own
batch-norm statistics and moves the running ones twice a step: ``separate_halves``. It also starts each run, as here,
with one step on n samples alone.

Where the data mixes pictures (Mixup, CutMix), a repeated sample is of the same mixture as when it was fresh, so that r
and o' are of the same content, and its label is mixed alike.

Kept between steps: o', float32. It is in the checkpoint, for each process its own share; nothing is gathered for the
loss, and no process needs another's. With accumulated gradients, "last" is the last batch, whatever the weights did.
"""

from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.losses import soft_target_loss
from distill_lightning.methods.base import Method
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class DLB(Method):
    """Teaches itself with its own answers of one step before.

    Args:
        network: see Method.
        temperature: T > 0.
        alpha: weight of the soft term, >= 0.
        separate_halves: one forward pass for each half, as in the authors' code.
        kwargs: see Method.
    """

    needs = BatchNeeds(repeats_last_batch=True)
    memory = ("last_logits",)

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 3.0,
        alpha: float = 1.0,
        separate_halves: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}: it must be greater than 0")
        if alpha < 0:
            raise InputError(f"alpha is {alpha}: it may not be below 0")
        self.temperature, self.alpha, self.separate_halves = temperature, alpha, separate_halves
        self.last_logits: Tensor | None = None

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        images, n = batch.images, batch.num_new
        halves = images.split([n, len(images) - n]) if self.separate_halves and len(images) > n else [images]
        logits = torch.cat([self(half) for half in halves])
        last_logits, self.last_logits = self.last_logits, logits[:n].detach()
        terms = {"ce": self.cross_entropy(logits, batch)}
        if last_logits is not None:
            terms["last_batch"] = self.alpha * soft_target_loss(last_logits, logits[n:], self.temperature)
        return StepOutput(terms, logits[:n])

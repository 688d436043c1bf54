"""Self-Distillation from the Last Mini-Batch (Shen et al., CVPR 2022, arXiv:2203.16172), section 3.

    L = CE(y, s) + alpha T^2 KL(p^T(o') || p^T(r))        p^T(z) = softmax(z / T)

    s   logits of the whole batch, (2n, K): n new samples, then the n new samples of the last batch in another view
    y   labels of the same samples, (2n,)
    r   the rows of s with the repeated samples, (n, K)
    o'  logits of the samples of r in the last step, before its update, (n, K), no gradient
    T, alpha  temperature and weight

The data module repeats the last batch, also from one epoch to the next. In an epoch each sample is new once and
repeated once, so a step costs two steps of the baseline. For a comparison with equal exposures, train half the epochs.
T = 3 and alpha = 1 are the values of the paper according to a third party; the authors' code has no defaults.

By default there is one forward pass over 2n samples, as in the paper. The authors' code has two passes over n samples,
in which each half has its own batch-norm statistics, and the running statistics are updated twice per step; the option
``separate_halves`` does the same. The first step of a run has only n samples, here and in that code.

With Mixup or CutMix, a repeated sample has the same partner and share as when it was new. So r and o' are logits for
the same content, and the label is the same.

State between steps: o', float32. The checkpoint contains the part of each process; there is no communication for the
loss. With gradient accumulation, "last" means the last batch, even if the weights have not changed since.
"""

from typing import Any

import torch
from torch import Tensor

from distill_lightning.losses import kd
from distill_lightning.methods.base import Method
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class DLB(Method):
    """Learns from its own soft targets of the last step.

    Args:
        network: see Method.
        temperature: T, by which logits are divided before the softmax.
        alpha: the weight of the soft term.
        separate_halves: whether new and repeated samples have separate forward passes, as in the authors' code.
        kwargs: see Method.

    Raises:
        InputError: an option is out of range.
    """

    needs = BatchNeeds(repeats_last_batch=True)
    memory = ("last_logits",)

    def __init__(
        self,
        network: Network,
        temperature: Positive = 3.0,
        alpha: NonNegative = 1.0,
        separate_halves: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.temperature, self.alpha, self.separate_halves = temperature, alpha, separate_halves
        self.last_logits: Tensor | None = None

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The term ``ce`` (labels) and, from the second step on, ``last_batch`` (soft targets)."""
        images, n = batch.images, batch.num_new
        halves = images.split([n, len(images) - n]) if self.separate_halves and len(images) > n else [images]
        logits = torch.cat([self(half) for half in halves])
        last_logits, self.last_logits = self.last_logits, logits[:n].detach()
        terms = {"ce": self.cross_entropy(logits, batch)}
        if last_logits is not None:
            terms["last_batch"] = self.alpha * kd(logits[n:], last_logits, temperature=self.temperature)
        return StepOutput(terms, logits[:n])

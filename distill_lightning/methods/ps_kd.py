"""Self-Knowledge Distillation with Progressive Refinement of Targets (Kim et al., ICCV 2021), PS-KD.

    L = CE((1 - a_t) q + a_t P_{t-1}(x), s)        a_t = a_T (t + 1) / E

    s         logits, (B, K)
    q         the label as a distribution, (B, K)
    P_{t-1}   what the network said of the sample when it was last seen, softmax(s), (N, K); at first the label
    t, E      epoch, from 0, and how many there are
    a_T       weight at the end

P is not the prediction of the last epoch's network, but, as in the authors' code, that made in training mode, on the
augmented picture, when the sample came up. The code starts its table with zeros, which samples keep that are dropped
with the last partial batch; here a sample that was never seen counts with its label.

Kept between steps: P, float32, N x K (20 MB for CIFAR-100, 5 GB for ImageNet), on the CPU if larger than 1 GB. It is in
the checkpoint, once; under DDP every process holds all of it, and the rows of each step are gathered.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.distributed import gather_rows
from distill_lightning.errors import InputError
from distill_lightning.losses import cross_entropy
from distill_lightning.methods.base import Method
from distill_lightning.values import Batch, BatchNeeds, DataInfo, Position, StepOutput

LARGE = 2**30


class PSKD(Method):
    """Softens labels with its own past predictions.

    Args:
        network: see Method.
        alpha: a_T in [0, 1].
        kwargs: see Method.
    """

    shared_memory = ("past_probs",)
    needs = BatchNeeds(allows_mixing=False)  # the last mixture of a sample is not this one

    def __init__(self, network: nn.Module, alpha: float = 0.8, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha is {alpha}: it must lie in [0, 1]")
        self.alpha = alpha
        self.past_probs: Tensor | None = None
        self.shape = (0, 0)

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        logits = self(batch.images)
        labels = F.one_hot(batch.labels, logits.shape[1]).float()
        past = self._past(batch.index, labels)
        alpha = self.alpha * min(1.0, (position.epoch + 1) / position.epochs)
        seen = slice(None if batch.weight else 0)  # a process with nothing to do repeats a sample
        self._remember(batch.index[seen], logits.detach()[seen].softmax(1))
        return StepOutput({"ce": cross_entropy(logits, (1 - alpha) * labels + alpha * past)}, logits)

    def build(self, info: DataInfo) -> None:
        self.shape = info.num_samples, info.num_classes

    def _past(self, index: Tensor, labels: Tensor) -> Tensor:
        """(B, K): what was predicted for these samples when they were last seen; at first their labels."""
        if self.past_probs is None:
            self.past_probs = torch.zeros(self.shape)  # of a sample that was seen, the sum is 1
        if self.past_probs.nbytes <= LARGE:
            self.past_probs = self.past_probs.to(index.device)
        past = self.past_probs[index.to(self.past_probs.device)].to(labels.device)
        return torch.where(past.any(1, keepdim=True), past, labels)

    def _remember(self, index: Tensor, probs: Tensor) -> None:
        table = self.past_probs
        assert table is not None
        index, probs = gather_rows(index), gather_rows(probs)  # shares may be unequal
        table[index.to(table.device)] = probs.to(table.device)

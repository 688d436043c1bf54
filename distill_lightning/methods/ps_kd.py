"""Self-Knowledge Distillation with Progressive Refinement of Targets (Kim et al., ICCV 2021), PS-KD.

    L = CE((1 - a_t) q + a_t P_{t-1}(x), s)        a_t = a_T (t + 1) / E

    s         logits, (B, K)
    q         the label as a distribution, (B, K)
    P_{t-1}   what the network said of the sample when it was last seen, softmax(s), (N, K); at first the label
    t, E      epoch, from 0, and how many there are
    a_T       weight at the end

P is not the prediction of the last epoch's network, but, as in the authors' code, that made in training mode, on the
augmented picture, when the sample came up. The code starts its table with zeros, which samples keep that are dropped
with the last partial batch; here they keep their labels.

Kept between steps: P, float32, N x K (20 MB for CIFAR-100, 5 GB for ImageNet), on the CPU if larger than 1 GB. It is in
the checkpoint, once; under DDP every process holds all of it, and the rows of each step are gathered.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from distill_lightning.errors import InputError
from distill_lightning.losses import cross_entropy
from distill_lightning.methods.base import Batch, Method

LARGE = 2**30


class PSKD(Method):
    """Softens labels with its own past predictions.

    Args:
        network: see Method.
        alpha: a_T in [0, 1].
        kwargs: see Method.
    """

    shared_memory = ("past_probs",)
    mixes = False  # what was said of the last mixture is not of this one

    def __init__(self, network: nn.Module, alpha: float = 0.8, **kwargs) -> None:
        super().__init__(network, **kwargs)
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha is {alpha}: it must lie in [0, 1]")
        self.alpha = alpha
        self.past_probs: Tensor | None = None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self(batch["image"])
        labels = F.one_hot(batch["label"], logits.shape[1]).float()
        past = self._past(logits.shape[1], batch["index"]).to(logits.device)
        alpha = self.alpha * min(1.0, (self.epoch + 1) / self.epochs)
        seen = slice(None if batch["weight"] else 0)  # a process with nothing to do repeats a sample
        self._remember(batch["index"][seen], logits.detach()[seen].softmax(1))
        return {"ce": cross_entropy(logits, (1 - alpha) * labels + alpha * past)}

    def _past(self, classes: int, index: Tensor) -> Tensor:
        if self.past_probs is None:
            self.past_probs = F.one_hot(self.trainer.datamodule.labels, classes).float()
        if self.past_probs.nbytes <= LARGE:
            self.past_probs = self.past_probs.to(index.device)
        return self.past_probs[index.to(self.past_probs.device)]

    def _remember(self, index: Tensor, probs: Tensor) -> None:
        if self.trainer.world_size > 1:
            index, probs = (torch.cat(gather_all_tensors(rows)) for rows in (index, probs))  # shares may be unequal
        table = self.past_probs
        table[index.to(table.device)] = probs.to(table.device)

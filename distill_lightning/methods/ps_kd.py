"""Self-Knowledge Distillation with Progressive Refinement of Targets (Kim et al., ICCV 2021), PS-KD.

    L = CE((1 - a_t) q + a_t P_{t-1}(x), s)        a_t = a_T (t + 1) / E

    s         logits, (B, K)
    q         the label as a distribution, (B, K)
    P_{t-1}   last prediction of the network for each training sample, softmax(s), (N, K); q before the first one
    t, E      the epoch, from 0, and the number of epochs
    a_T       the weight in the last epoch

P is not computed by the network at the end of the last epoch. As in the authors' code, it contains the prediction that
was made for the sample in training, in training mode and for the augmented picture. In that code the table starts with
zeros, and a sample in the dropped last batch of the first epoch is trained with zeros; here its label is used.

State between steps: P, float32, N x K (20 MB for CIFAR-100, 5 GB for ImageNet), on the CPU if it is larger than 1 GiB.
The checkpoint contains it once. With DDP each process holds the whole table, and the rows of each step are gathered.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.distributed import gather_rows
from distill_lightning.losses import past_predictions
from distill_lightning.methods.base import Method
from distill_lightning.methods.memory import put_rows
from distill_lightning.networks import Network
from distill_lightning.ranges import Fraction
from distill_lightning.values import Batch, BatchNeeds, DataInfo, Position, StepOutput

LARGE = 2**30


class PSKD(Method):
    """The targets are mixtures of the labels and the network's own past predictions.

    Args:
        network: see Method.
        alpha: a_T, the weight of past predictions in the last epoch.
        kwargs: see Method.

    Raises:
        InputError: an option is out of range.
    """

    shared_memory = ("past_probs",)
    needs = BatchNeeds(allows_mixing=False)  # the past prediction would be for another mixture

    def __init__(self, network: Network, alpha: Fraction = 0.8, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.alpha = alpha
        self.past_probs: Tensor | None = None
        self.shape = (0, 0)

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The term ``ce``, with the mixed targets."""
        logits = self(batch.images)
        labels = F.one_hot(batch.labels, logits.shape[1]).float()
        past = self._past(batch.index, labels)
        alpha = self.alpha * min(1.0, (position.epoch + 1) / position.epochs)
        self._remember(batch.index[batch.seen], logits.detach()[batch.seen].softmax(1))
        ce = past_predictions(logits, labels, past, alpha=alpha, class_weights=batch.class_weights)
        return StepOutput({"ce": ce}, logits)

    def build(self, info: DataInfo) -> None:
        """Sets the shape (N, K) of the table. There is no module to make."""
        self.shape = info.num_samples, info.num_classes

    def setup(self, stage: str) -> None:
        """See Method; a network that was given ready-made may be fitted to one data set after another."""
        super().setup(stage)
        if stage == "fit" and self.trained_on is not None:
            self.build(self.trained_on.info)

    def _past(self, index: Tensor, labels: Tensor) -> Tensor:
        """The last predictions for the samples ``index`` (B,), (B, K). For a sample without one it is the row of
        ``labels`` (B, K).
        """
        if self.past_probs is None:
            # a row of zeros means that there is no prediction yet
            self.past_probs = torch.zeros(self.shape, dtype=torch.float32)
        if self.past_probs.nbytes <= LARGE:
            self.past_probs = self.past_probs.to(index.device)
        past = self.past_probs[index.to(self.past_probs.device)].to(labels.device)
        return torch.where(past.any(1, keepdim=True), past, labels)

    def _remember(self, index: Tensor, probs: Tensor) -> None:
        table = self.past_probs
        assert table is not None
        index, probs = gather_rows(index), gather_rows(probs)  # processes may have different numbers of rows
        put_rows(table, index.to(table.device), probs.to(table.device))

"""Evaluation metrics that are computed from sums.

The sums of all processes add up to the exact result, even if some processes have no samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class NegativeLogLikelihood(Metric):
    """Mean of -log p_y, in nats, from logits (B, K) and labels (B,)."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits (B, K) and labels (B,) int64."""
        self.total += F.cross_entropy(logits.double(), labels, reduction="sum")
        self.count += len(labels)

    def compute(self) -> Tensor:
        """The mean, a float64 scalar."""
        return self.total / self.count


class CalibrationError(Metric):
    """Expected calibration error (Guo et al. 2017, equation 3): |accuracy - confidence| over bins of equal width.

    The metric of torchmetrics keeps every prediction in memory; this one keeps three numbers per bin.

    Args:
        bins: the number of bins for the confidence, which is the largest probability.
    """

    full_state_update = False
    count: Tensor
    confidence: Tensor
    right: Tensor

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        self.bins = bins
        for name in ("count", "confidence", "right"):
            self.add_state(name, torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits (B, K) and labels (B,) int64."""
        confidence, predicted = logits.softmax(1).max(1)
        bin_of = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1  # (lower, upper], as in the paper
        self.count.index_add_(0, bin_of, torch.ones_like(confidence, dtype=torch.float64))
        self.confidence.index_add_(0, bin_of, confidence.double())
        self.right.index_add_(0, bin_of, (predicted == labels).double())

    def compute(self) -> Tensor:
        """The error, a float64 scalar in [0, 1]. ``table`` then holds the three numbers of each bin."""
        # the data of a reliability diagram; torchmetrics sums over all processes only for the duration of this call
        self.table = {k: getattr(self, k).tolist() for k in ("count", "confidence", "right")}
        return (self.right - self.confidence).abs().sum() / self.count.sum()


class ConfusionMatrix(Metric):
    """Counts of pairs of true and predicted class.

    The metric of torchmetrics counts with ``bincount``. With deterministic algorithms on a GPU, that takes memory for
    K * K * B numbers.

    Args:
        num_classes: K.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(num_classes * num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits (B, K) and labels (B,) int64."""
        self.counts.index_add_(0, labels * self.num_classes + logits.argmax(1), torch.ones_like(labels))

    def compute(self) -> Tensor:
        """The counts, (K, K) int64. The row is the true class, the column is the predicted one."""
        return self.counts.view(self.num_classes, self.num_classes)


class MembersMetric(Metric):
    """Disagreement and accuracy of the members of an ensemble, and the accuracy of its first 1 .. M members.

    Args:
        members: M, the number of members.
    """

    full_state_update = False
    differ: Tensor
    right: Tensor
    right_of_first: Tensor
    count: Tensor

    def __init__(self, members: int) -> None:
        super().__init__()
        self.pairs = members * (members - 1) / 2
        self.add_state("differ", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("right", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("right_of_first", torch.zeros(members, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, predicted_by_first: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            predicted: the class that each member predicts, (M, B) int64.
            predicted_by_first: the class that the ensemble of the first m members predicts, m = 1 .. M, (M, B) int64.
            labels: (B,) int64.
        """
        differ = (predicted[:, None] != predicted[None]).sum().double() / 2
        self.differ += differ / self.pairs if self.pairs else 0.0
        self.right += (predicted == labels).double().mean(0).sum()
        self.right_of_first += (predicted_by_first == labels).double().sum(1)
        self.count += len(labels)

    def compute(self) -> dict[str, Tensor]:
        """Fractions of 1, float64: ``accuracy_by_members`` is (M,), the others are scalars."""
        return {
            "disagreement": self.differ / self.count,
            "member_accuracy": self.right / self.count,
            "accuracy_by_members": self.right_of_first / self.count,
        }

"""Metrics of evaluation that are sums, so that any number of processes, some of them with nothing, add up exactly."""

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
        self.total += F.cross_entropy(logits.double(), labels, reduction="sum")
        self.count += len(labels)

    def compute(self) -> Tensor:
        return self.total / self.count


class CalibrationError(Metric):
    """Expected calibration error (Guo et al. 2017, equation 3): |accuracy - confidence| over bins of equal width.

    torchmetrics' own keeps every prediction; this keeps three numbers a bin.

    Args:
        bins: of the top probability.
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
        confidence, predicted = logits.softmax(1).max(1)
        bin_of = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1  # (lower, upper], as in the paper
        self.count.index_add_(0, bin_of, torch.ones_like(confidence, dtype=torch.float64))
        self.confidence.index_add_(0, bin_of, confidence.double())
        self.right.index_add_(0, bin_of, (predicted == labels).double())

    def compute(self) -> Tensor:
        # what a reliability diagram shows; kept here, since the sums over all processes exist only now
        self.table = {k: getattr(self, k).tolist() for k in ("count", "confidence", "right")}
        return (self.right - self.confidence).abs().sum() / self.count.sum()


class MembersMetric(Metric):
    """How the members of an ensemble differ, and what each adds.

    Args:
        members: M.
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
        """
        Args:
            predicted: by each member, (M, B) int64.
            predicted_by_first: by the ensembles of the first 1 .. M members, (M, B) int64.
            labels: (B,) int64.
        """
        differ = (predicted[:, None] != predicted[None]).sum().double() / 2
        self.differ += differ / self.pairs if self.pairs else 0.0
        self.right += (predicted == labels).double().mean(0).sum()
        self.right_of_first += (predicted_by_first == labels).double().sum(1)
        self.count += len(labels)

    def compute(self) -> dict[str, Tensor]:
        return {
            "disagreement": self.differ / self.count,
            "member_accuracy": self.right / self.count,
            "accuracy_by_members": self.right_of_first / self.count,
        }

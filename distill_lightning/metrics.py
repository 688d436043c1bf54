"""Evaluation metrics that are computed from sums.

The sums of all processes add up to the exact result, even if some processes have no samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from distill_lightning.diversity import (
    STEPS,
    disagreements,
    divergences,
    error_correlation,
    members_needed,
    temperature_of,
    temperature_sums,
)


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
    """How the members of an ensemble differ, and the accuracy of its first 1 .. M members. See `diversity`.

    Args:
        members: M, the number of members.
    """

    full_state_update = False
    differ: Tensor
    divergence: Tensor
    right: Tensor
    both_wrong: Tensor
    right_of_first: Tensor
    count: Tensor

    def __init__(self, members: int) -> None:
        super().__init__()
        for name, shape in (
            ("differ", ()),
            ("divergence", ()),
            ("right", ()),
            ("both_wrong", (members, members)),
            ("right_of_first", (members,)),
        ):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, predicted_by_first: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: the logits of each member, (M, B, K).
            predicted_by_first: the class that the ensemble of the first m members predicts, m = 1 .. M, (M, B) int64.
            labels: (B,) int64.
        """
        predicted = logits.argmax(2)
        wrong = (predicted != labels).double()
        self.differ += disagreements(predicted)
        self.divergence += divergences(logits).sum()
        self.right += (predicted == labels).double().mean(0).sum()
        self.both_wrong += wrong @ wrong.T
        self.right_of_first += (predicted_by_first == labels).double().sum(1)
        self.count += len(labels)

    def compute(self) -> dict[str, Tensor]:
        """Float64: ``accuracy_by_members`` is (M,), the others are scalars.

        ``disagreement``, ``member_accuracy`` and ``accuracy_by_members`` are fractions of 1, ``members_kl`` is in nats,
        ``members_needed`` is a number of members. ``error_correlation`` is missing if no two members have both right
        and wrong predictions.
        """
        by_members, one = self.right_of_first / self.count, self.right / self.count
        found = {
            "disagreement": self.differ / self.count,
            "members_kl": self.divergence / self.count,
            "member_accuracy": one,
            "accuracy_by_members": by_members,
            "members_needed": torch.tensor(members_needed(by_members, float(one)), dtype=torch.float64),
        }
        correlation = error_correlation(self.both_wrong, float(self.count))
        return found if correlation is None else found | {"error_correlation": one.new_tensor(correlation)}


class TemperatureMetric(Metric):
    """The temperature with the smallest negative log-likelihood, from logits (B, K) and labels (B,)."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, STEPS + 1, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits (B, K) and labels (B,) int64."""
        self.sums += temperature_sums(logits, labels)

    def compute(self) -> Tensor:
        """The temperature, a float64 scalar."""
        return torch.tensor(temperature_of(self.sums), dtype=torch.float64)

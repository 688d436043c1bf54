"""Evaluation metrics that are computed from sums.

The sums of all processes add up to the exact result, even if some processes have no samples.
"""

from collections.abc import Sequence

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
from distill_lightning.losses import dustbin_labels, dustbin_logits


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


class SpecialistMetric(Metric):
    """How well a specialist tells its classes apart, and from all others.

    Args:
        classes: the classes of the specialist.
    """

    full_state_update = False
    special: Tensor
    right: Tensor
    nll: Tensor
    dustbin: Tensor
    count: Tensor

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("classes", torch.tensor(classes), persistent=False)
        for name, kind in (("special", torch.int64), ("right", torch.int64), ("count", torch.int64)):
            self.add_state(name, torch.zeros((), dtype=kind), dist_reduce_fx="sum")
        for name in ("nll", "dustbin"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits of all classes (B, K) and labels (B,) int64."""
        classes = self.classes
        assert isinstance(classes, Tensor)
        columns, targets = dustbin_logits(logits.double(), classes), dustbin_labels(labels, classes)
        is_special = targets < len(classes)
        within = columns[:, :-1].argmax(1)
        self.special += is_special.sum()
        self.right += (is_special & (within == targets)).sum()
        log_dustbin = columns.log_softmax(1)[:, -1]
        log_special = columns[:, :-1].logsumexp(1) - columns.logsumexp(1)
        self.nll -= torch.where(is_special, log_special, log_dustbin).sum()
        self.dustbin += log_dustbin.exp().sum()
        self.count += len(labels)

    def compute(self) -> dict[str, Tensor]:
        """Scalars, float64: ``special_accuracy``, of the pictures of its classes when only these classes are compared;
        ``dustbin_nll``, of the decision between its classes and the dustbin, in nats; ``dustbin_probs``, the mean
        probability of the dustbin; ``dustbin_share``, the share of pictures that belong in it.
        """
        return {
            "special_accuracy": self.right.double() / self.special,
            "dustbin_nll": self.nll / self.count,
            "dustbin_probs": self.dustbin / self.count,
            "dustbin_share": 1 - self.special.double() / self.count,
        }


class CoverageMetric(Metric):
    """What specialists change, by the number of specialists whose set has the correct class of a picture.

    Args:
        members: (M, K) bool, the sets of the M specialists.
    """

    full_state_update = False
    pictures: Tensor
    before: Tensor
    after: Tensor
    conditional: Tensor
    asked: Tensor
    repairable: Tensor

    def __init__(self, members: Tensor) -> None:
        super().__init__()
        self.register_buffer("members", members, persistent=False)
        for name in ("pictures", "before", "after"):
            self.add_state(name, torch.zeros(len(members) + 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("conditional", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("asked", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("repairable", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, general: Tensor, log_probs: Tensor, asked: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            general: the log-probabilities of the generalist, (B, K).
            log_probs: the joint log-probabilities, (B, K).
            asked: which specialists were asked, (B, M) bool.
            labels: (B,) int64.
        """
        members = self.members
        assert isinstance(members, Tensor)
        covers = members.T[labels]  # (B, M)
        coverage = covers.sum(1)
        right = [general.argmax(1) == labels, log_probs.argmax(1) == labels]
        for total, of_batch in (
            (self.pictures, torch.ones_like(labels)),
            (self.before, right[0]),
            (self.after, right[1]),
        ):
            total.index_add_(0, coverage, of_batch.long())
        self.asked += asked.sum()
        self.repairable += (~right[0] & (covers & asked).any(1)).sum()
        for number, classes in enumerate(members):
            rows = covers[:, number].nonzero().flatten()
            if len(rows):
                within = [logits[rows].masked_fill(~classes, -torch.inf).argmax(1) for logits in (general, log_probs)]
                counts = [torch.ones_like(rows), *(one == labels[rows] for one in within)]
                self.conditional += torch.stack([count.long().sum() for count in counts])

    def compute(self) -> dict[str, Tensor]:
        """Scalars, float64, and counts by coverage.

        ``specialists_asked`` is the mean number of specialists that were asked for a picture. ``conditional_accuracy``
        and ``generalist_conditional_accuracy`` compare only the classes of a set with the correct class, over all pairs
        of a picture and such a set. ``repairable`` is the share of the generalist's errors in which an active set has
        the correct class: the most that specialists could repair. ``pictures``, ``before`` and ``after`` are the counts
        of all pictures and of the right ones by coverage, (M + 1,) int64 each.
        """
        count, right = self.pictures.sum().double(), self.before.sum().double()
        pairs, before, after = self.conditional.double()
        return {
            "specialists_asked": self.asked / count,
            "generalist_accuracy": right / count,
            "conditional_accuracy": after / pairs,
            "generalist_conditional_accuracy": before / pairs,
            "repairable": self.repairable / (count - right).clamp(min=1),
            "pictures": self.pictures,
            "before": self.before,
            "after": self.after,
        }


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

"""How different the members of an ensemble are, how many of them are enough, and the temperature of its logits.

Pure functions. What is summed over samples can be summed over batches and processes, too.
"""

import torch
from torch import Tensor

LEAST, MOST = 0.05, 20.0
"""The smallest and the largest temperature that is fitted."""
STEPS = 80
"""The number of steps between them, of equal ratios."""


def disagreements(predicted: Tensor) -> Tensor:
    """The share of the pairs of members that predict different classes, summed over samples; 0 for one member.

    Args:
        predicted: the class that each of M members predicts, (M, B) int64.

    Returns:
        A float64 scalar, from 0 to B.
    """
    pairs = len(predicted) * (len(predicted) - 1) / 2
    differ = (predicted[:, None] != predicted[None]).sum().double() / 2
    return differ / pairs if pairs else differ


def divergences(logits: Tensor) -> Tensor:
    """For each sample, the mean of KL(p_i || p_j) in nats over all ordered pairs of different members i and j.

    With M members, p_i and their logarithms l_i, it is (M sum_i p_i l_i - (sum_i p_i) (sum_j l_j)) / (M (M - 1)),
    summed over classes: no pair has to be visited.

    Args:
        logits: (M, B, K).

    Returns:
        (B,) float64, 0 or more; 0 for one member.
    """
    log_probs = logits.double().log_softmax(2)
    probs, members = log_probs.exp(), len(logits)
    own = (probs * log_probs).sum((0, 2))
    crossed = (probs.sum(0) * log_probs.sum(0)).sum(1)
    return (members * own - crossed) / max(1, members * (members - 1))


def error_correlation(both_wrong: Tensor, count: float) -> float | None:
    """The correlation of the errors of two members (Pearson's, of wrong = 1 and right = 0), mean over all pairs.

    It is 1 if all members are wrong on the same samples, and 0 if the errors of one say nothing about those of another.

    Args:
        both_wrong: (M, M), the number of samples on which both members are wrong; on the diagonal, on which one is.
        count: the number of samples.

    Returns:
        The mean over pairs in which both members are sometimes right and sometimes wrong; None if there is none.
    """
    both = both_wrong.double() / count
    wrong = both.diagonal()
    deviation = (wrong * (1 - wrong)).sqrt()
    first, second = torch.triu_indices(len(wrong), len(wrong), 1, device=both.device)
    size = deviation[first] * deviation[second]
    correlation = (both[first, second] - wrong[first] * wrong[second])[size > 0] / size[size > 0]
    return float(correlation.mean()) if len(correlation) else None


def members_needed(accuracy_by_members: Tensor, member_accuracy: float, share: float = 0.95) -> int:
    """How many members are enough: the smallest m from which on the first m, m + 1, ... M have most of the gain.

    The gain is that of all M members over the mean accuracy of one. Without a gain it is 1.

    Args:
        accuracy_by_members: the accuracy of the first 1 .. M members, (M,).
        member_accuracy: the mean accuracy of one member.
        share: the part of the gain that is meant.
    """
    accuracies = accuracy_by_members.double().view(-1)
    gain = float(accuracies[-1]) - member_accuracy
    if gain <= 0:
        return 1
    missing = (accuracies < member_accuracy + share * gain - 1e-12).nonzero()
    return 1 if not len(missing) else int(missing[-1]) + 2


def _inverse_temperatures() -> Tensor:
    """1 / T for each temperature T that is tried, (STEPS + 1,) float64, rising."""
    steps = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
    return (1 / MOST) * (MOST / LEAST) ** steps


def temperature_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """What `temperature_of` needs of some samples.

    With b = 1 / T, the derivative of the sum of -log softmax(b z)_y by b is the sum of E[z] - z_y, and the second one
    is the sum of the variances of z, where z is drawn by softmax(b z).

    Args:
        logits: z, (B, K).
        labels: y, (B,) int64.

    Returns:
        (2, STEPS + 1) float64: both derivatives for each temperature that is tried.
    """
    z, inverse = logits.double(), _inverse_temperatures().to(logits.device)
    z = z - z.gather(1, labels[:, None])  # E[z] - z_y becomes a mean of small numbers
    sums = []
    for b in inverse:
        probs = (b * z).softmax(1)
        mean = (probs * z).sum(1)
        variance = (probs * (z - mean[:, None]) ** 2).sum(1)
        sums.append(torch.stack([mean.sum(), variance.sum()]))
    return torch.stack(sums, 1)


def temperature_of(sums: Tensor) -> float:
    """The temperature T with the smallest negative log-likelihood of z / T (Guo et al. 2017, section 4.2).

    The likelihood is convex in 1 / T, so that the first derivative changes its sign once. Between two temperatures that
    were tried it is the cubic with the same values and slopes there: its root is exact to about 1e-6.

    Args:
        sums: the sum of `temperature_sums` over all samples, (2, STEPS + 1).

    Returns:
        T, from LEAST to MOST.
    """
    slope, curvature = sums.double().cpu()
    inverse = _inverse_temperatures()
    above = (slope > 0).nonzero()
    if not len(above):
        return LEAST
    right = int(above[0])
    if right == 0:
        return MOST
    low, high = float(inverse[right - 1]), float(inverse[right])
    width = high - low
    f0, f1 = float(slope[right - 1]), float(slope[right])
    d0, d1 = width * float(curvature[right - 1]), width * float(curvature[right])
    start, end = 0.0, 1.0
    for _ in range(60):
        x = (start + end) / 2
        value = (
            (1 + 2 * x) * (1 - x) ** 2 * f0 + x * (1 - x) ** 2 * d0 + x * x * (3 - 2 * x) * f1 - x * x * (1 - x) * d1
        )
        start, end = (x, end) if value < 0 else (start, x)
    return 1 / (low + width * start)

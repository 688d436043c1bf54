"""Terms of the logits of a student and a teacher.

s are the student's logits, t the teacher's, (B, K) each, both raw. y are the labels, (B,). T is the temperature, above
0. p^T(z) = softmax(z / T), and p = p^1. H(q, p) = -sum_k q_k log p_k. z^ is z without the logit of y, (B, K - 1). The
gradient flows into s alone.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.losses.precision import in_full_precision


@in_full_precision
def cross_entropy(
    logits: Tensor, target: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """-sum_k w_k q_k log p_k(s), mean over the batch.

    With weights, the sum is divided by the number of rows. torch divides by the sum of their weights, so that the loss
    of a row depends on the others in its batch.

    Args:
        logits: s, (B, K).
        target: class numbers (B,), or a distribution q (B, K).
        label_smoothing: eps in [0, 1]; q becomes (1 - eps) q + eps / K
            (Szegedy et al. 2016, section 7, with the uniform prior).
        class_weights: w, (K,), 0 or more; 1 by default.
    """
    target = target.detach()
    if class_weights is not None:
        each = F.cross_entropy(logits, target, class_weights, reduction="none", label_smoothing=label_smoothing)
        return each.mean()
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing)


@in_full_precision
def kl_divergence(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(p^T(t) || p^T(s)), summed over classes, mean over the batch.

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        temperature: T.

    Raises:
        ValueError: T is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: it must be greater than 0")
    return F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(teacher_logits.detach() / temperature, dim=1),
        reduction="batchmean",  # "mean" would divide by K too
        log_target=True,
    )


@in_full_precision
def standardised(logits: Tensor) -> Tensor:
    """(z - mean(z)) / (std(z) + 1e-7), for each row: logit standardisation (Sun et al., CVPR 2024, arXiv:2403.01427).

    The deviation has the divisor K - 1. A row of equal logits gives 0; but the gradient of a row that is nearly so is
    huge, so a student should not begin with logits of 0.

    Args:
        logits: z, (B, K).
    """
    deviation = logits.std(1, keepdim=True) + 1e-7
    return (logits - logits.mean(1, keepdim=True)) / deviation


def _standardised_if(standardise: bool, *logits: Tensor) -> tuple[Tensor, ...]:
    return tuple(standardised(z) for z in logits) if standardise else logits


def kd(logits: Tensor, teacher_logits: Tensor, *, temperature: float, standardise: bool = False) -> Tensor:
    """T^2 KL(p^T(t) || p^T(s)), the soft term of distillation (Hinton et al. 2015, section 2).

    The factor T^2 keeps the size of the gradient as T grows. DLB, CS-KD, Tf-KD, Mr-KD and BYOT use the same term with
    logits of the network itself as t.

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        temperature: T.
        standardise: whether s and t are replaced by ``standardised(s)`` and ``standardised(t)``.

    Raises:
        ValueError: T is not positive.
    """
    logits, teacher_logits = _standardised_if(standardise, logits, teacher_logits)
    return temperature**2 * kl_divergence(logits, teacher_logits, temperature=temperature)


def without_label(logits: Tensor, labels: Tensor) -> Tensor:
    """z^: the logits (B, K - 1) of the classes that are not the label.

    Args:
        logits: z, (B, K).
        labels: y, (B,).
    """
    columns = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    return logits.gather(1, columns + (columns >= labels[:, None]))


@in_full_precision
def dkd(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 8.0,
    standardise: bool = False,
) -> Tensor:
    """T^2 [alpha KL(b_t || b_s) + beta KL(p^T(t^) || p^T(s^))], decoupled distillation (DKD: Zhao et al., CVPR 2022,
    arXiv:2203.08679, equation 7).

    b = (p_y, 1 - p_y) at temperature T. ``kd`` is the same sum with alpha = 1 and, for each row, beta = 1 - p_y(t).
    log(1 - p_y) is a difference of two logsumexp: the logarithm of a sum of probabilities would be -inf for sure
    networks.

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        labels: y, (B,).
        temperature: T.
        alpha: the weight of the target's divergence.
        beta: the weight of the divergence of the other classes.
        standardise: see ``kd``.
    """
    s, t = (z / temperature for z in _standardised_if(standardise, logits, teacher_logits.detach()))
    target = F.kl_div(_log_binary(s, labels), _log_binary(t, labels), reduction="batchmean", log_target=True)
    others = kl_divergence(without_label(s, labels), without_label(t, labels))
    return temperature**2 * (alpha * target + beta * others)


def _log_binary(logits: Tensor, labels: Tensor) -> Tensor:
    """(log p_y, log(1 - p_y)), (B, 2)."""
    of_all = logits.logsumexp(1)
    of_label, of_others = logits.gather(1, labels[:, None])[:, 0], without_label(logits, labels).logsumexp(1)
    return torch.stack([of_label - of_all, of_others - of_all], 1)


@in_full_precision
def dist(
    logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    standardise: bool = False,
) -> Tensor:
    """T^2 [w_inter mean_b (1 - r(P_t[b, :], P_s[b, :])) + w_intra mean_k (1 - r(P_t[:, k], P_s[:, k]))] (DIST: Huang et
    al., NeurIPS 2022, arXiv:2205.10536).

    P = p^T(z), (B, K); r is Pearson's correlation, with 1e-8 added to its denominator. The second term depends on
    which rows are in the batch. The factor T^2 is of the authors' code for CIFAR.

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        temperature: T.
        inter_weight: w_inter, the weight of the relation between the classes of a sample.
        intra_weight: w_intra, the weight of the relation between the samples of a class.
        standardise: see ``kd``.
    """
    both = _standardised_if(standardise, logits, teacher_logits.detach())
    s, t = ((z / temperature).softmax(1) for z in both)
    inter, intra = (1 - _correlation(s, t)).mean(), (1 - _correlation(s.T, t.T)).mean()
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (a * b).sum(1) / (lengths + 1e-8)


@in_full_precision
def nkd(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float = 1.0, gamma: float = 1.5
) -> Tensor:
    """mean_b [-p_y(t) log p_y(s) + gamma T^2 H(p^T(t^), p^T(s^))], normalised distillation (NKD: Yang et al., ICCV
    2023, arXiv:2303.13005).

    The first part has no temperature. H is a cross-entropy, not a divergence: the gradient is the same.

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        labels: y, (B,).
        temperature: T.
        gamma: the weight of the other classes.
    """
    teacher_logits = teacher_logits.detach()
    of_label = [z.log_softmax(1).gather(1, labels[:, None]) for z in (logits, teacher_logits)]
    s, t = (without_label(z, labels) / temperature for z in (logits, teacher_logits))
    return -(of_label[1].exp() * of_label[0]).mean() + gamma * temperature**2 * cross_entropy(s, t.softmax(1))


@in_full_precision
def wsld(logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """T^2 mean_b w_b H(p^T(t), p^T(s)) with w_b = 1 - exp(-CE(y, s) / CE(y, t)), weighted soft labels (WSLD: Zhou et
    al., ICLR 2021, arXiv:2102.00650).

    The weights have no gradient. They are near 1 where the teacher is sure of the label, and small where it is wrong.
    1e-7 is added to CE(y, t).

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        labels: y, (B,).
        temperature: T.
    """
    teacher_logits = teacher_logits.detach()
    ce, ce_of_teacher = (F.cross_entropy(z, labels, reduction="none") for z in (logits.detach(), teacher_logits))
    weights = 1 - (-ce / (ce_of_teacher + 1e-7)).exp()
    soft = F.cross_entropy(logits / temperature, (teacher_logits / temperature).softmax(1), reduction="none")
    return temperature**2 * (weights * soft).mean()


@in_full_precision
def ctkd(
    logits: Tensor,
    teacher_logits: Tensor,
    raw_temperature: Tensor,
    *,
    strength: float = 1.0,
    lowest: float = 1.0,
    width: float = 20.0,
) -> Tensor:
    """T^2 KL(p^T(t) || p^T(s)) with T = T_0 + R sigmoid(a), and the gradient of a multiplied by -``strength`` (CTKD: Li
    et al., AAAI 2023, arXiv:2211.16231).

    So an optimizer that lowers the loss by s raises it by a. Computes in float64: the derivative by T is a small
    difference of sums, of which float32 has two digits at T = 15.

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        raw_temperature: a, a scalar. The gradient flows into it, too.
        strength: 0 or more; 0 leaves the temperature as it is.
        lowest: T_0.
        width: R.
    """
    reversed_temperature: Tensor = _Reversed.apply(raw_temperature.double(), strength)
    temperature = lowest + width * reversed_temperature.sigmoid()
    log_s, log_t = ((z.double() / temperature).log_softmax(1) for z in (logits, teacher_logits.detach()))
    loss = temperature.square() * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
    return loss.to(logits.dtype)


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -strength."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


@in_full_precision
def ca_mkd(logits: Tensor, of_teachers: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """T^2 mean_b sum_m w_bm KL(p^T(t_m) || p^T(s)) with w_bm = (1 - softmax_m CE(y, t_m)) / (M - 1), several teachers,
    weighted by sample (CA-MKD: Zhang et al., ICASSP 2022, arXiv:2201.00007).

    Args:
        logits: s, (B, K).
        of_teachers: t, (M, B, K), M 2 or more.
        labels: y, (B,).
        temperature: T.

    Raises:
        ValueError: there is one teacher, which has no weight.
    """
    of_teachers, count = of_teachers.detach(), len(of_teachers)
    if count < 2:
        raise ValueError(f"there is {count} teacher: weights are those of 2 or more")
    ce = torch.stack([F.cross_entropy(t, labels, reduction="none") for t in of_teachers])
    weights = (1 - ce.softmax(0)) / (count - 1)
    log_s, log_t = (z / temperature for z in (logits, of_teachers))
    log_s, log_t = log_s.log_softmax(1), log_t.log_softmax(2)
    each = (log_t.exp() * (log_t - log_s)).sum(2)
    return temperature**2 * (weights * each).sum(0).mean()

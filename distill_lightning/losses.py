"""Losses as pure functions of logits. All are means over the batch, in nats.

Symbols: s student logits (B, K), t teacher logits (B, K), T temperature,
p^T(z) = softmax(z / T), sg = no gradient.
"""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(
    logits: Tensor, target: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """-sum_k w_k q_k log p_k(s), with p = p^1, mean over the batch.

    With weights, the sum is divided by the number of rows. torch divides by the sum of their weights, so that the loss
    of a row depends on the others in its batch.

    Args:
        logits: s, (B, K).
        target: class numbers (B,), or a distribution q (B, K).
        label_smoothing: eps in [0, 1]; q becomes (1 - eps) q + eps / K
            (Szegedy et al. 2016, section 7, with the uniform prior).
        class_weights: w, (K,), 0 or more; 1 by default.
    """
    if class_weights is not None:
        each = F.cross_entropy(logits, target, class_weights, reduction="none", label_smoothing=label_smoothing)
        return each.mean()
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing)


def kl_divergence(teacher_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(sg p^T(t) || p^T(s)), summed over classes, mean over the batch.

    The gradient flows into ``logits`` only.

    Args:
        teacher_logits: t, (B, K), raw.
        logits: s, (B, K), raw.
        temperature: T > 0.

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


def soft_target_loss(teacher_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(sg p^T(t) || p^T(s)). The factor T^2 keeps the size of the gradient as T grows (Hinton et al. 2015,
    section 2). Shapes and errors as in ``kl_divergence``.
    """
    return temperature**2 * kl_divergence(teacher_logits, logits, temperature)


def symmetric_kl(logits_a: Tensor, logits_b: Tensor, temperature: float) -> Tensor:
    """T^2 [KL(p^T(a) || p^T(b)) + KL(p^T(b) || p^T(a))], mean over the batch. The gradient flows into both arguments.

    Args:
        logits_a: a, (B, K), raw.
        logits_b: b, (B, K), raw.
        temperature: T > 0.
    """
    log_a, log_b = (F.log_softmax(logits / temperature, dim=1) for logits in (logits_a, logits_b))
    both = (log_a.exp() - log_b.exp()) * (log_a - log_b)
    return temperature**2 * both.sum(1).mean()

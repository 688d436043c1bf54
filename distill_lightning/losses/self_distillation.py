"""Terms for networks that teach themselves or each other. The symbols are those of ``losses.logits``."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.losses.logits import cross_entropy, kd, kl_divergence
from distill_lightning.losses.precision import in_full_precision


@in_full_precision
def symmetric_kl(logits_a: Tensor, logits_b: Tensor, *, temperature: float) -> Tensor:
    """T^2 [KL(p^T(a) || p^T(b)) + KL(p^T(b) || p^T(a))], between two views (DDGSD: Xu & Liu, AAAI 2019).

    The gradient flows into both arguments.

    Args:
        logits_a: a, (B, K).
        logits_b: b, (B, K).
        temperature: T.
    """
    log_a, log_b = (F.log_softmax(logits / temperature, dim=1) for logits in (logits_a, logits_b))
    both = (log_a.exp() - log_b.exp()) * (log_a - log_b)
    return temperature**2 * both.sum(1).mean()


def mutual(logits: Sequence[Tensor]) -> list[Tensor]:
    """For each network i the term 1 / (M - 1) sum_{j != i} KL(p(s_j) || p(s_i)) (DML: Zhang et al., CVPR 2018). The
    gradient of term i flows into the logits of network i alone.

    Args:
        logits: s_1 .. s_M, (B, K) each.
    """
    return [
        torch.stack([kl_divergence(mine, theirs) for j, theirs in enumerate(logits) if j != i]).mean()
        for i, mine in enumerate(logits)
    ]


@in_full_precision
def virtual_teacher(
    logits: Tensor, labels: Tensor, *, temperature: float, right: float, form: Literal["paper", "code"] = "paper"
) -> Tensor:
    """The divergence from a teacher that is right with a given probability (Tf-KD reg: Yuan et al., CVPR 2020).

    The teacher's distribution is u = ``right`` for the label, (1 - ``right``) / (K - 1) for each other class.

    Args:
        logits: s, (B, K).
        labels: y, (B,).
        temperature: T.
        right: the probability of the label, in (0, 1).
        form: "paper" for T^2 KL(p^T(log u) || p^T(s)); "code" for KL(p^T(u) || p(s)), as in the authors' code.
    """
    probs = torch.full_like(logits, (1 - right) / (logits.shape[1] - 1))
    probs.scatter_(1, labels[:, None], right)
    if form == "paper":
        return kd(logits, probs.log(), temperature=temperature)
    # kl_divergence takes the softmax of the probabilities, as the authors' code does
    return kl_divergence(logits, probs / temperature)


@in_full_precision
def past_predictions(
    logits: Tensor, label_probs: Tensor, past_probs: Tensor, *, alpha: float, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy with the targets (1 - alpha) q + alpha p' (PS-KD: Kim et al., ICCV 2021).

    Args:
        logits: s, (B, K).
        label_probs: q, (B, K), the labels as distributions.
        past_probs: p', (B, K), the predictions of an earlier epoch.
        alpha: the weight of the past, in [0, 1].
        class_weights: see ``cross_entropy``.
    """
    targets = (1 - alpha) * label_probs + alpha * past_probs
    return cross_entropy(logits, targets, class_weights=class_weights)


@in_full_precision
def softened_teacher(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KL(p^T(t) || p(s)): the temperature acts on the teacher alone (snapshot distillation: Yang et al., CVPR 2019).

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        temperature: T.
    """
    probs = (teacher_logits.detach() / temperature).softmax(1)
    entropy: Tensor = -torch.special.entr(probs).sum(1).mean()
    return cross_entropy(logits, probs) + entropy


def adjusted(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, K) in which each row's largest logit and that of the label are exchanged: knowledge adjustment, as
    Mr-KD uses it for the logits of a teacher that may be wrong.

    Args:
        logits: t, (B, K).
        labels: y, (B,).
    """
    most, answer = logits.max(1, keepdim=True)
    of_label = logits.gather(1, labels[:, None])
    return logits.scatter(1, answer, of_label).scatter(1, labels[:, None], most)


@in_full_precision
def feature_distance(features: Tensor, teacher_features: Tensor) -> Tensor:
    """||f - f'||^2, mean over the batch (BYOT: Zhang et al., ICCV 2019).

    Args:
        features: f, (B, D).
        teacher_features: f', (B, D).
    """
    return torch.square(features - teacher_features.detach()).sum(1).mean()

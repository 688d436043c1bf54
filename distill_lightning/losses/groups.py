"""Terms of groups of networks or branches that are trained together and teach each other.

z_1, ..., z_M are the logits of the members, (B, K) each. T is the temperature; p^T(z) = softmax(z / T).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.losses.logits import kd
from distill_lightning.losses.precision import in_full_precision

KDCLTarget = Literal["min_logit", "naive"]


def ramp(epoch: float, epochs: float) -> float:
    """r(e) = exp(-5 (1 - min(e / E, 1))^2): a weight that grows from 0.0067 to 1 (ONE and OKDDip; Laine & Aila 2017,
    arXiv:1610.02242).

    Args:
        epoch: e, from 0.
        epochs: E; 0 for the weight 1 at once.
    """
    return math.exp(-5 * (1 - min(epoch / epochs, 1.0)) ** 2) if epochs else 1.0


@in_full_precision
def weighted_logits(logits: Sequence[Tensor], weights: Tensor) -> Tensor:
    """sum_m g_m z_m, (B, K). The gradient flows into both arguments.

    Args:
        logits: z_1, ..., z_M, (B, K) each.
        weights: g, (B, M).
    """
    return (torch.stack(list(logits), 2) * weights[:, None, :]).sum(2)


def one(logits: Sequence[Tensor], group_logits: Tensor, *, temperature: float) -> Tensor:
    """sum_m T^2 KL(p^T(z_g) || p^T(z_m)), the group teaches its members (ONE: Lan et al., NeurIPS 2018,
    arXiv:1806.04606, equations 5 and 6).

    The gradient flows into the members alone.

    Args:
        logits: z_1, ..., z_M, (B, K) each.
        group_logits: z_g, (B, K).
        temperature: T.
    """
    return torch.stack([kd(mine, group_logits, temperature=temperature) for mine in logits]).sum()


@torch.no_grad()
@in_full_precision
def kdcl_target(logits: Sequence[Tensor], labels: Tensor, target: KDCLTarget) -> Tensor:
    """z, (B, K), the logits of the group (KDCL: Guo et al., CVPR 2020), without a gradient.

    Args:
        logits: z_1, ..., z_M, (B, K) each.
        labels: y, (B,).
        target: "min_logit" for z^c = min_m (z_m^c - z_m^y); "naive" for the z_m with the smallest cross-entropy.
    """
    stacked = torch.stack(list(logits))
    if target == "min_logit":
        of_label = stacked.gather(2, labels.expand(len(stacked), -1)[..., None])
        return (stacked - of_label).amin(0)
    cross_entropy = torch.stack([F.cross_entropy(mine, labels, reduction="none") for mine in stacked])
    return stacked[cross_entropy.argmin(0), torch.arange(len(labels), device=labels.device)]


def kdcl(logits: Sequence[Tensor], labels: Tensor, *, temperature: float, target: KDCLTarget = "min_logit") -> Tensor:
    """sum_m T^2 KL(p^T(z) || p^T(z_m)), the best of the group teaches its members (KDCL: Guo et al., CVPR 2020).

    The gradient flows into the members alone.

    Args:
        logits: z_1, ..., z_M, (B, K) each.
        labels: y, (B,).
        temperature: T.
        target: how z is made, see ``kdcl_target``.
    """
    return one(logits, kdcl_target(logits, labels, target), temperature=temperature)


def pcl(logits: Sequence[Tensor], group_logits: Tensor, mean_logits: Sequence[Tensor], *, temperature: float) -> Tensor:
    """sum_m T^2 [ KL(p^T(z_g) || p^T(z_m)) + 1/(M-1) sum_{j != m} KL(p^T(t_j) || p^T(z_m)) ], PCL (Wu & Gong, AAAI
    2021, arXiv:2006.04147).

    The group teaches each member, and so do the other members with averaged weights. The gradient flows into z_1, ...,
    z_M alone.

    Args:
        logits: z_1, ..., z_M, (B, K) each; M is 2 or more.
        group_logits: z_g, (B, K).
        mean_logits: t_1, ..., t_M, (B, K) each, of the members with averaged weights.
        temperature: T.
    """
    terms = [one(logits, group_logits, temperature=temperature)]
    for j, mean in enumerate(mean_logits):
        others = [mine for m, mine in enumerate(logits) if m != j]
        terms.append(one(others, mean, temperature=temperature) / len(others))
    return torch.stack(terms).sum()


@in_full_precision
def okddip(peers: Sequence[Tensor], attention: Tensor, leader: Tensor, *, temperature: float) -> Tensor:
    """sum_i T^2 KL(p^T(sum_j A_ij z_j) || p^T(z_i)) + T^2 KL(p^T(mean_j z_j) || p^T(z_l)), diverse peers and their
    leader (OKDDip: Chen et al., AAAI 2020, arXiv:1912.00350).

    The gradient flows into everything, targets included: otherwise the attention would not learn.

    Args:
        peers: z_1, ..., z_M, (B, K) each.
        attention: A, (B, M, M) or (M, M); its rows have the sum 1.
        leader: z_l, (B, K).
        temperature: T.
    """
    stacked = torch.stack(list(peers), 1)
    targets = attention @ stacked
    of_peers = [_soft(mine, targets[:, i], temperature) for i, mine in enumerate(peers)]
    return torch.stack([*of_peers, _soft(leader, stacked.mean(1), temperature)]).sum()


def _soft(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p^T(target) || p^T(logits)), with the gradient into both."""
    log_p, log_q = ((z / temperature).log_softmax(1) for z in (logits, target))
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)

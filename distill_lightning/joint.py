"""Joint inference of a generalist and its specialists (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5.5).

    F(q) = KL(p^g || q) + sum_{m in A} [ sum_{k in S^m} p^m_k log(p^m_k / q_k) + p^m_D log(p^m_D / q^m_D) ]
    q^m_D = sum_{k not in S^m} q_k

    p^g     probabilities of the generalist, (B, K)
    S^m     the classes of specialist m
    p^m     probabilities of specialist m, for the classes of S^m and for D, its dustbin: all other classes
    A       the active specialists of a picture, M of them
    q       the joint probabilities, (B, K), which minimise F

F is convex in q. With c_j = p^g_j + sum_{m: j in S^m} p^m_j, the minimum is the fixed point of

    q_j <- q_j r_j / (1 + M),        r_j = c_j / q_j + sum_{m: j not in S^m} p^m_D / q^m_D

(expectation-maximisation: F never rises). There is no step size, and F(q) - min F <= max_j r_j - (1 + M) bounds what is
left. With one active specialist the first step from q = p^g is the minimum:

    q_k = (p^g_k + p^m_k) / 2  for k in S^m,        q_k = p^g_k (1 + p^m_D / p^g_D) / 2  for all others

The paper finds q by gradient descent on logits, which takes many more steps: the gradient of a small q_j is of the size
of q_j. Everything here is float64 and has no gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = -60.0
"""The smallest log-probability of a generalist. If all of p^g outside S^m were 0, the mass of the dustbin would have no
class to go to."""


class Evidence(NamedTuple):
    """What the generalist and the specialists say of B pictures.

    Args:
        general: p^g, (B, K) float64, above 0.
        special: p^m_k, (B, M, K) float64: 0 outside S^m.
        dustbin: p^m_D, (B, M) float64.
        active: (B, M) bool, which specialists count for a picture. The numbers of others are not used.
        members: (M, K) bool, the sets S^m.
    """

    general: Tensor
    special: Tensor
    dustbin: Tensor
    active: Tensor
    members: Tensor

    @property
    def mass(self) -> Tensor:
        """c, (B, K)."""
        return self.general + (self.special * self.active[:, :, None]).sum(1)

    @property
    def outside(self) -> Tensor:
        """(M, K) float64: 1 for the classes that are in the dustbin of specialist m."""
        return (~self.members).to(self.general.dtype)


class Solution(NamedTuple):
    """The result of joint inference.

    Args:
        probs: q, (B, K) float64.
        gap: (B,), an upper bound of F(q) - min F; 0 for pictures without a specialist.
        steps: the number of steps until all pictures were done.
    """

    probs: Tensor
    gap: Tensor
    steps: int


def clamped_probs(logits: Tensor) -> Tensor:
    """Probabilities (B, K) in float64 for logits (B, K). None is below exp(SMALLEST)."""
    return logits.double().log_softmax(1).clamp(min=SMALLEST).exp()


def evidence(general: Tensor, special: Tensor, active: Tensor, members: Tensor) -> Evidence:
    """The evidence in logits over all K classes.

    Args:
        general: the logits of the generalist, (B, K).
        special: the logits of each specialist, (B, M, K). The logit of its dustbin is their logsumexp outside its set.
        active: (B, M) bool.
        members: (M, K) bool.
    """
    probs = special.double().softmax(2)
    return Evidence(clamped_probs(general), probs * members, (probs * ~members).sum(2), active.bool(), members.bool())


def objective(probs: Tensor, given: Evidence) -> Tensor:
    """F(q) of each picture, (B,), in nats.

    Args:
        probs: q, (B, K), above 0.
        given: the evidence.
    """

    def divergence(p: Tensor, q: Tensor) -> Tensor:
        return torch.where(p > 0, p * (p.clamp(min=1e-300).log() - q.log()), 0.0)

    general = divergence(given.general, probs).sum(1)
    inside = divergence(given.special, probs[:, None]).sum(2)
    outside = divergence(given.dustbin, probs @ given.outside.T)
    return general + ((inside + outside) * given.active).sum(1)


def closed_form(general: Tensor, special: Tensor, dustbin: Tensor, members: Tensor) -> Tensor:
    """The joint probabilities with one active specialist for each picture.

    Args:
        general: p^g, (B, K).
        special: p^m_k of the specialist of each picture, (B, K): 0 outside its set.
        dustbin: its p^m_D, (B,).
        members: its set, (B, K) bool.

    Returns:
        q, (B, K).
    """
    rest = (general * ~members).sum(1)
    return torch.where(members, (general + special) / 2, general * (1 + dustbin / rest)[:, None] / 2)


def joint_probs(given: Evidence, gap: float = 1e-9, most_steps: int = 20_000) -> Solution:
    """The joint probabilities, by the fixed point from q = p^g. Pictures that are done leave the batch.

    Args:
        given: the evidence.
        gap: a picture is done when F(q) is proven to be this near to its minimum.
        most_steps: the largest number of steps; ``Solution.gap`` says what is then left.
    """
    q, left = given.general.clone(), torch.zeros(len(given.general), dtype=given.general.dtype)
    left = left.to(given.general.device)
    rows, steps = given.active.any(1).nonzero().flatten(), 0
    mass, dustbin = given.mass, given.dustbin * given.active
    weight, outside = 1 + given.active.sum(1).to(q.dtype), given.outside
    while len(rows):
        now = q[rows]
        # what each dustbin asks of the probabilities in it
        asked = (dustbin[rows] / (now @ outside.T)) @ outside
        ratio = mass[rows] / now + asked
        left[rows] = (ratio.amax(1) - weight[rows]).clamp(min=0.0)
        if steps == most_steps:
            break
        more = left[rows] > gap
        rows = rows[more]
        q[rows] = now[more] * ratio[more] / weight[rows, None]
        steps += bool(len(rows))
    return Solution(q, left, steps)

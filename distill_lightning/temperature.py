"""What the temperature of a softmax does, as pure functions and as the pictures of docs/explanations/temperature.md."""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill_lightning.losses import cross_entropy, kd, kl_divergence
from distill_lightning.plots import Line, Plot

EXAMPLE = (2.0, 7.0, 10.0)
"""Logits of three classes."""
STUDENT = (4.0, 3.0, 5.0)
"""Logits of a student that learns from them."""
SHOWN = (1.0, 5.0, 10.0, 20.0)
"""Temperatures of the pictures."""


def softened(logits: Tensor, temperature: float) -> Tensor:
    """softmax(z / T) over the last dimension (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, equation 1).

    Args:
        logits: z, (..., K).
        temperature: T, above 0.

    Returns:
        (..., K), the probabilities.
    """
    probs: Tensor = (logits / temperature).softmax(-1)
    return probs


def entropy(probs: Tensor) -> Tensor:
    """-sum_k p_k log p_k in nats, over the last dimension: from 0 to log K. A probability of 0 adds 0."""
    each: Tensor = torch.special.entr(probs)
    return each.sum(-1)


def gradient(logits: Tensor, teacher_logits: Tensor, temperature: float, scaled: bool) -> Tensor:
    """The gradient of the soft loss by the student's logits, (B, K).

    It is (softmax(s / T) - softmax(t / T)) / T for KL, and T times the difference for `losses.kd`, whose factor is T^2;
    both divided by B.

    Args:
        logits: s, (B, K).
        teacher_logits: t, (B, K).
        temperature: T.
        scaled: whether the loss has the factor T^2, as `losses.kd` does.
    """
    wanted = logits.detach().clone().requires_grad_()
    loss = (kd if scaled else kl_divergence)(wanted, teacher_logits, temperature=temperature)
    (found,) = torch.autograd.grad(loss, wanted)
    return found


def limit(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """What `gradient` with T^2 approaches as T grows: ((s - mean s) - (t - mean t)) / (K B), (B, K).

    It is the gradient of 1 / (2 K) times the squared distance of the centred logits: at high temperature, distillation
    matches logits (Hinton, Vinyals & Dean 2015, section 2.1, equation 4, where both means are 0).
    """
    difference = logits - teacher_logits
    return (difference - difference.mean(1, keepdim=True)) / logits.numel()


def figures() -> dict[str, Plot]:
    """The pictures of the page, by the names of their files."""
    example = torch.tensor(EXAMPLE, dtype=torch.float64)
    teacher, student = example[None], torch.tensor([STUDENT], dtype=torch.float64)
    bars = [Line(f"T = {t:g}", EXAMPLE, softened(example, t).tolist()) for t in SHOWN]
    x = torch.linspace(-10, 10, 81, dtype=torch.float64)
    two = torch.stack([x, torch.zeros_like(x)], 1)
    curves = [Line(f"T = {t:g}", x.tolist(), softened(two, t)[:, 0].tolist()) for t in SHOWN]
    temperatures = [2 ** (step / 4) for step in range(41)]
    at_one = float(cross_entropy_gradient(student).norm())

    def norms(scaled: bool) -> list[float]:
        return [float(gradient(student, teacher, t, scaled).norm()) for t in temperatures]

    last = temperatures[-1]
    square = [norms(False)[-1] * (last / t) ** 2 for t in temperatures]
    far = limit(student, teacher)
    distances = [float((gradient(student, teacher, t, True) - far).norm() / far.norm()) for t in temperatures]
    inverse = [distances[-1] * last / t for t in temperatures]
    return {
        "temperature_example": Plot("softmax((2, 7, 10) / T)", bars, "logit of the class", "probability"),
        "temperature_curves": Plot("Two classes with the logits x and 0", curves, "x", "probability of the first"),
        "temperature_gradients": Plot(
            "Size of the gradient of the soft loss",
            [
                Line("proportional to 1 / T²", temperatures, square, place=7),
                Line("KL", temperatures, norms(False), place=0),
                Line("T² KL", temperatures, norms(True), place=1),
                Line("cross-entropy with the label", temperatures, [at_one] * len(temperatures), place=5),
            ],
            "T",
            "norm",
            log_x=True,
            log_y=True,
        ),
        "temperature_limit": Plot(
            "Distance of the gradient of T² KL to matching logits",
            [
                Line("proportional to 1 / T", temperatures, inverse, place=7),
                Line("relative distance", temperatures, distances, place=0),
            ],
            "T",
            "of the gradient's size",
            log_x=True,
            log_y=True,
        ),
    }


def cross_entropy_gradient(logits: Tensor, label: int = 2) -> Tensor:
    """The gradient of the cross-entropy with a label by the logits, (B, K). It does not depend on the temperature."""
    wanted = logits.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(cross_entropy(wanted, torch.full((len(logits),), label)), wanted)
    return found


def entropies(logits: Sequence[float] = EXAMPLE, temperatures: Sequence[float] = SHOWN) -> list[float]:
    """The entropy of the softened probabilities at each temperature, in nats."""
    z = torch.tensor(logits, dtype=torch.float64)
    return [float(entropy(softened(z, t))) for t in temperatures]

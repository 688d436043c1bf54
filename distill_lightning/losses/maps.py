"""Terms of the feature maps of a student and a teacher.

f are the student's features, g the teacher's. The gradient flows into the student's alone. Maps are (B, C, H, W); N(x)
is x divided by the larger of its length and 1e-12. Where a size may differ, the larger map is averaged to the smaller.
All compute in float32.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.losses.precision import in_full_precision


def same_size(features: Tensor, teacher_features: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps of the same height and width: the larger one is averaged to the size of the smaller (adaptive average).

    Args:
        features: (B, C, H, W).
        teacher_features: (B, C', H', W').
    """
    (height, width), of_teacher = features.shape[2:], teacher_features.shape[2:]
    if height * width > of_teacher.numel():
        return F.adaptive_avg_pool2d(features, (of_teacher[0], of_teacher[1])), teacher_features
    if (height, width) == tuple(of_teacher):
        return features, teacher_features
    return features, F.adaptive_avg_pool2d(teacher_features, (height, width))


@in_full_precision
def fitnets(adapted: Tensor, teacher_features: Tensor) -> Tensor:
    """The mean of (r(f) - g)^2 over B, C, H and W: the hint of FitNets (Romero et al., ICLR 2015, arXiv:1412.6550,
    equation 3; here a mean).

    Args:
        adapted: r(f), the student's features after an adapter, with the shape of g.
        teacher_features: g, of any shape (B, ...).

    Raises:
        ValueError: the shapes differ; a mean over broadcast features would hide it.
    """
    if adapted.shape != teacher_features.shape:
        shapes = f"{tuple(adapted.shape)} and {tuple(teacher_features.shape)}"
        raise ValueError(f"features of {shapes} cannot be compared: they must have the same shape")
    return F.mse_loss(adapted, teacher_features.detach())


@in_full_precision
def simkd(projected: Tensor, teacher_features: Tensor) -> Tensor:
    """The mean of (P(f) - g)^2 of the last maps: SimKD (Chen et al., CVPR 2022, arXiv:2203.14001).

    The larger map is averaged to the smaller.

    Args:
        projected: P(f), the student's map after the projector, (B, C, H, W), with the teacher's channels.
        teacher_features: g, (B, C, H', W').

    Raises:
        ValueError: the channels differ.
    """
    return fitnets(*same_size(projected, teacher_features))


@in_full_precision
def attention(features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """mean_c f_c^2, where a map is large, before its length is divided out (AT: Zagoruyko & Komodakis, ICLR 2017,
    arXiv:1612.03928), (B, H, W).

    Args:
        features: f, (B, C, H, W).
        size: the height and width of a map that this one is compared with. Unless f is smaller, it is averaged to this
            size first.
    """
    own = features.shape[2:]
    if size is not None and own != size and own.numel() >= size[0] * size[1]:
        features = F.adaptive_avg_pool2d(features, size)
    return features.square().mean(1)


@in_full_precision
def at(features: Tensor, teacher_features: Tensor) -> Tensor:
    """The mean of over B and HW of (A(f) - A(g))^2 with A(f) = N(mean_c f_c^2), attention transfer (AT: Zagoruyko &
    Komodakis, ICLR 2017, arXiv:1612.03928).

    This is the form of the authors' code. Their equation 2 has the length of the difference instead, not squared. With
    a mean over HW, a stage of 32x32 weighs a sixteenth of one of 8x8.

    Args:
        features: f, (B, C, H, W).
        teacher_features: g, (B, C', H', W'); or `attention` of it at the size of f, (B, H', W').

    Raises:
        ValueError: the attention is larger than f.
    """
    g = teacher_features.detach()
    if g.dim() == 4:
        height, width = features.shape[2:]
        g = attention(g, (height, width))
    f = attention(features, (g.shape[1], g.shape[2]))
    if f.shape != g.shape:
        raise ValueError(
            f"the attention is {tuple(g.shape)} and the maps are {tuple(features.shape)}: it must not be larger"
        )
    return F.mse_loss(F.normalize(f.flatten(1)), F.normalize(g.flatten(1)))


@in_full_precision
def nst(features: Tensor, teacher_features: Tensor) -> Tensor:
    """mean_b [mean_cc' k(g_c, g_c') + mean_cc' k(f_c, f_c') - 2 mean_cc' k(f_c, g_c')], neuron selectivity transfer
    with the kernel k(a, b) = (N(a) . N(b))^2 (NST: Huang & Wang 2017, arXiv:1707.01219).

    f_c is the map of channel c, (HW,). The kernels are products of matrices; elementwise ones need C^2 HW numbers a
    sample.

    Args:
        features: f, (B, C, H, W).
        teacher_features: g, (B, C', H', W').
    """
    f, g = (F.normalize(m.flatten(2), dim=2) for m in same_size(features, teacher_features.detach()))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT).square().mean()

    return kernel(g, g) + kernel(f, f) - 2 * kernel(f, g)


@in_full_precision
def class_maps(features: Tensor, weight: Tensor) -> Tensor:
    """M_k = sum_c W_kc f_c, the class activation maps, (B, K, H, W): where the pictures speak for each class (Zhou et
    al., CVPR 2016, arXiv:1512.04150). Their mean over H and W is the logits without bias. The gradient flows into both.

    Args:
        features: f, the input of the average pooling, (B, C, H, W).
        weight: W, of the linear layer after it, (K, C).
    """
    dtype = torch.promote_types(features.dtype, weight.dtype)  # float64 if one of both is
    return torch.einsum("kc,bchw->bkhw", weight.to(dtype), features.to(dtype))


@in_full_precision
def cat_kd(maps: Tensor, teacher_maps: Tensor, *, size: int = 2, normalise: bool = False) -> Tensor:
    """The mean of (n(P(M_s)) - n(P(M_t)))^2, class attention transfer (CAT-KD: Guo et al., CVPR 2023,
    arXiv:2304.12777).

    Args:
        maps: M_s, the student's class activation maps, (B, K, H, W).
        teacher_maps: M_t, (B, K, H', W').
        size: the height and width to which P averages the maps (adaptive average).
        normalise: whether n divides each map by its length, or by 1e-4 if it is shorter, which bounds the gradient;
            otherwise n changes nothing.

    Raises:
        ValueError: the numbers of classes differ.
    """
    m, t = (F.adaptive_avg_pool2d(one, size).flatten(2) for one in (maps, teacher_maps.detach()))
    return fitnets(*(F.normalize(one, dim=2, eps=1e-4) for one in (m, t))) if normalise else fitnets(m, t)


@in_full_precision
def vid(predicted: Tensor, teacher_features: Tensor, raw_variance: Tensor) -> Tensor:
    """The mean of 1/2 [(mu(f) - g)^2 / v_c + log v_c] with v_c = softplus(a_c) + 1e-5, variational information
    distillation (VID: Ahn et al., CVPR 2019, arXiv:1904.05835).

    The gradient also flows into a, which must be trained: with a fixed a this is a mean squared error.

    Args:
        predicted: mu(f), the prediction of g from the student's features, (B, C, H, W).
        teacher_features: g, (B, C, H, W).
        raw_variance: a, (C,).

    Raises:
        ValueError: mu(f) and g have other shapes.
    """
    if predicted.shape != teacher_features.shape:
        raise ValueError(
            f"the maps are {tuple(predicted.shape)} and {tuple(teacher_features.shape)}: they must be alike"
        )
    variance = (F.softplus(raw_variance) + 1e-5)[:, None, None]
    return ((predicted - teacher_features.detach()).square() / variance + variance.log()).mean() / 2


def ofd_margins(weight: Tensor, bias: Tensor) -> Tensor:
    """The mean of the negative half of each channel, E[x | x < 0] for x ~ N(beta, gamma^2), (C,) (OFD: Heo et al., ICCV
    2019, arXiv:1904.01866).

    beta - |gamma| phi(beta / |gamma|) / Phi(-beta / |gamma|), and -3 |gamma| if less than a thousandth is negative.

    Args:
        weight: gamma of the batch norm before the ReLU, (C,).
        bias: beta, (C,).
    """
    scale, shift = weight.detach().abs().double().clamp_min(1e-12), bias.detach().double()
    ratio = shift / scale
    negative = torch.special.ndtr(-ratio)
    density = (-ratio.square() / 2).exp() / math.sqrt(2 * math.pi)
    margins = torch.where(negative > 0.001, shift - scale * density / negative.clamp_min(0.001), -3 * scale)
    return margins.to(weight.dtype)


@in_full_precision
def ofd(adapted: Tensor, teacher_features: Tensor, margins: Tensor) -> Tensor:
    """mean_b sum_{C,H,W} [r(f) > g' or g' > 0] (r(f) - g')^2 with g' = max(g, m), features before the ReLU (OFD: Heo et
    al., ICCV 2019, arXiv:1904.01866).

    A response that is negative in both networks, and lower in the student, costs nothing. The sum is large: the authors
    multiply it by 1e-3.

    Args:
        adapted: r(f), (B, C, H, W).
        teacher_features: g, (B, C, H, W), before the ReLU.
        margins: m, (C,), see ``ofd_margins``.
    """
    target = torch.maximum(teacher_features.detach(), margins.detach()[:, None, None])
    counts = (adapted > target) | (target > 0)
    return ((adapted - target).square() * counts).sum() / len(adapted)


@in_full_precision
def hcl(features: Tensor, teacher_features: Tensor) -> Tensor:
    """The hierarchical context loss of ReviewKD (Chen et al., CVPR 2021, arXiv:2104.09044).

    The mean squared error of the maps, and of the maps averaged to 4x4, 2x2 and 1x1 as far as these are smaller, with
    the weights 1, 1/2, 1/4, 1/8 in this order, divided by their sum.

    Args:
        features: (B, C, H, W).
        teacher_features: (B, C, H, W).
    """
    teacher_features = teacher_features.detach()
    total, weight, weights = fitnets(features, teacher_features), 1.0, 1.0
    for size in (4, 2, 1):
        if size < features.shape[2]:
            weight /= 2
            f, g = (F.adaptive_avg_pool2d(m, size) for m in (features, teacher_features))
            total, weights = total + weight * F.mse_loss(f, g), weights + weight
    return total / weights


@in_full_precision
def srrl(
    adapted: Tensor, teacher_features: Tensor, logits: Tensor, teacher_logits: Tensor, *, logit_weight: float = 1.0
) -> Tensor:
    """The mean of (r(f) - g)^2 + w mean (c(r(f)) - t)^2, softmax regression representation learning (SRRL: Yang et al.,
    ICLR 2021).

    c is the teacher's classifier with frozen weights; the gradient passes through it. Means over all entries.

    Args:
        adapted: r(f), the student's features after an adapter, (B, D).
        teacher_features: g, (B, D).
        logits: c(r(f)), (B, K).
        teacher_logits: t, (B, K).
        logit_weight: w.
    """
    return fitnets(adapted, teacher_features) + logit_weight * F.mse_loss(logits, teacher_logits.detach())

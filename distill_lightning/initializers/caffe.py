"""Caffe's initialisers (BVLC/caffe, include/caffe/filler.hpp)."""

import math
from abc import ABC
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.initializers.rules import Initializer
from distill_lightning.ranges import CountOrZero, Finite, NonNegative

FanMode = Literal["fan_in", "fan_out", "average"]


def fans(shape: torch.Size, layer: nn.Module, true: bool) -> tuple[float, float]:
    """fan_in and fan_out of a tensor.

    Caffe and torch count fan_in = count / shape[0] and fan_out = count / shape[1] for a tensor of ``count`` numbers;
    Caffe takes 1 and ``count`` for a bias. This fan_out of a grouped convolution, and both fans of a transposed one,
    are not the numbers of terms in the sums. Those are in / groups * k * k, divided by stride^2 for a transposed
    convolution, and out / groups * k * k.

    Args:
        shape: its shape.
        layer: the module whose parameter it is.
        true: whether the numbers of terms in the sums are returned.
    """
    count = math.prod(shape)
    if len(shape) < 2:
        return 1.0, float(count)
    kernel, groups = math.prod(shape[2:]), getattr(layer, "groups", 1)
    if not true:
        return count / shape[0], count / shape[1]
    if getattr(layer, "transposed", False):
        return shape[0] // groups * kernel / math.prod(getattr(layer, "stride", ())), float(shape[1] * kernel)
    return float(shape[1] * kernel), shape[0] // groups * float(kernel)


def normal(shape: torch.Size, std: float, generator: Generator, mean: float = 0.0) -> Tensor:
    """Draws from N(mean, std^2), float32."""
    return torch.randn(shape, generator=generator) * std + mean


class Constant(Initializer):
    """Every weight is ``value`` (Caffe's default for weights and biases, 0)."""

    def __init__(self, params: str = "*.weight", value: Finite = 0.0, only: list[str] | None = None) -> None:
        super().__init__(params, only)
        self.value = value

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        return torch.full(shape, float(self.value))


class Uniform(Initializer):
    """U(min, max). The defaults are Caffe's: from 0 to 1.

    Raises:
        InputError: ``min`` is larger than ``max``.
    """

    def __init__(
        self, params: str = "*.weight", min: Finite = 0.0, max: Finite = 1.0, only: list[str] | None = None
    ) -> None:
        super().__init__(params, only)
        if min > max:
            raise InputError(f"Uniform.min is {min:g}: it must be at most max, {max:g}")
        self.min, self.max = min, max

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        return torch.rand(shape, generator=generator) * (self.max - self.min) + self.min


class Gaussian(Initializer):
    """N(mean, std^2).

    Args:
        params: see Initializer.
        mean: the mean.
        std: the standard deviation.
        sparse: the number of weights that each input keeps, on average: a weight is kept with probability
            sparse / shape[0], otherwise it is 0. None keeps all.
        only: see Initializer.
    """

    def __init__(
        self,
        params: str = "*.weight",
        mean: Finite = 0.0,
        std: NonNegative = 1.0,
        sparse: CountOrZero | None = None,
        only: list[str] | None = None,
    ) -> None:
        super().__init__(params, only)
        self.mean, self.std, self.sparse = mean, std, sparse

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        drawn = normal(shape, self.std, generator, self.mean)
        if self.sparse is None:
            return drawn
        if self.sparse > shape[0]:
            raise InputError(f"sparse is {self.sparse}: it must be at most the number of outputs, {shape[0]}")
        return drawn * (torch.rand(shape, generator=generator) < self.sparse / shape[0])


class PositiveUnitball(Initializer):
    """U(0, 1), then each output's weights are divided by their sum: they are positive and add up to 1."""

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64).flatten(1 if len(shape) > 1 else 0)
        return (drawn / drawn.sum(-1, keepdim=True)).view(shape).float()


class ByFan(Initializer, ABC):
    """A base class of initialisers whose scale depends on a fan.

    Args:
        params: see Initializer.
        variance_norm: which fan n is.
        true_fans: whether the fans are the numbers of terms in the sums (see ``fans``), instead of Caffe's.
        only: see Initializer.
    """

    def __init__(
        self,
        params: str = "*.weight",
        variance_norm: FanMode = "fan_in",
        true_fans: bool = False,
        only: list[str] | None = None,
    ) -> None:
        super().__init__(params, only)
        self.variance_norm, self.true_fans = variance_norm, true_fans

    def fan(self, shape: torch.Size, layer: nn.Module) -> float:
        """n: fan_in, fan_out, or their mean."""
        fan_in, fan_out = fans(shape, layer, self.true_fans)
        return {"fan_in": fan_in, "fan_out": fan_out, "average": (fan_in + fan_out) / 2}[self.variance_norm]


class Xavier(ByFan):
    """U(-a, a) with a = sqrt(3 / n) (Glorot & Bengio 2010). torch's xavier_uniform_ is ``average``.

    Args:
        params: see Initializer.
        variance_norm: which fan n is.
        true_fans: whether the fans are the numbers of terms in the sums (see ``fans``), instead of Caffe's.
        only: see Initializer.
    """

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1) * math.sqrt(3 / self.fan(shape, layer))


class MSRA(ByFan):
    """N(0, 2 / n) (He et al. 2015, arXiv:1502.01852), for ReLU.

    Args:
        params: see Initializer.
        variance_norm: which fan n is.
        true_fans: whether the fans are the numbers of terms in the sums (see ``fans``), instead of Caffe's.
        only: see Initializer.
    """

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        return normal(shape, math.sqrt(2 / self.fan(shape, layer)), generator)


class Bilinear(Initializer):
    """Bilinear interpolation, the same for every (out, in): w[y, x] = (1 - |x / f - c|) (1 - |y / f - c|).

    f = ceil(K / 2) and c = (K - 1) / (2 f) for a KxK kernel. A ConvTranspose2d(C, C, K, stride=f, groups=C,
    padding=ceil((f - 1) / 2)) with K = 2 f - f mod 2 then enlarges f-fold.
    """

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        if len(shape) != 4 or shape[2] != shape[3]:
            raise InputError("Bilinear needs square kernels, (out, in, K, K)")
        size = shape[3]
        f = math.ceil(size / 2)
        line = 1 - (torch.arange(size, dtype=torch.float64) / f - (size - 1) / (2 * f)).abs()
        return torch.outer(line, line).float().expand(shape)

"""Other initialisers."""

import math
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.initializers.caffe import ByFan, FanMode, normal
from distill_lightning.initializers.rules import Initializer
from distill_lightning.ranges import Positive

LAST_NORMS = {"BasicBlock": "bn2", "Bottleneck": "bn3"}
"""The last batch norm of residual blocks, by the class of the block, in this program, torchvision and timm."""
GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 1.0,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
    # 1 / sqrt(E elu(z)^2), with E = 1 + e^2 Phi(-2) - 2 e^(1/2) Phi(-1)
    "elu": (1 + math.e**2 * math.erfc(math.sqrt(2)) / 2 - math.sqrt(math.e) * math.erfc(math.sqrt(0.5))) ** -0.5,
    "selu": 1.0,
    "gelu": math.sqrt(2),
    "silu": math.sqrt(2),
    "mish": math.sqrt(2),
}
"""The gain g of weights N(0, g^2 / fan): 1 / sqrt(E f(z)^2) over z ~ N(0, 1), where this keeps the signal stable over
many layers. For GELU, SiLU and Mish it does not, and sqrt(2) is the better gain; 1 for tanh and the sigmoid."""


class Kaiming(ByFan):
    """N(0, g^2 / n) with the gain g of an activation: MSRA for others than ReLU.

    Args:
        params: see Initializer.
        nonlinearity: the activation. Its gain is 1 for linear, sigmoid, tanh and selu; sqrt(2) for relu, gelu, silu and
            mish; 1.245 for elu; and sqrt(2 / (1 + 0.01^2)) for leaky_relu.
        variance_norm: which fan n is.
        true_fans: whether the fans are the numbers of terms in the sums, see ``fans``.
        only: see Initializer.
    """

    def __init__(
        self,
        params: str = "*.weight",
        nonlinearity: Literal[
            "linear", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish"
        ] = "relu",
        variance_norm: FanMode = "fan_in",
        true_fans: bool = False,
        only: list[str] | None = None,
    ) -> None:
        super().__init__(params, variance_norm, true_fans, only)
        self.gain = GAINS[nonlinearity]

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        return normal(shape, self.gain / math.sqrt(self.fan(shape, layer)), generator)


class Orthogonal(Initializer):
    """Rows (out) that are orthonormal after flattening to (out, in*k*k), times ``gain`` (Saxe et al. 2014); columns if
    there are more rows. sqrt(2) is the gain for ReLU.
    """

    def __init__(self, params: str = "*.weight", gain: Positive = 1.0, only: list[str] | None = None) -> None:
        super().__init__(params, only)
        self.gain = gain

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        if len(shape) < 2:
            raise InputError("Orthogonal needs two dimensions or more")
        return nn.init.orthogonal_(torch.empty(shape), self.gain, generator=generator)


class TruncNormal(Initializer):
    """N(0, std^2), cut at -2 and 2. These are numbers, not multiples of ``std``: as in torch, with the usual std 0.02
    next to nothing is cut.
    """

    def __init__(self, params: str = "*.weight", std: Positive = 0.02, only: list[str] | None = None) -> None:
        super().__init__(params, only)
        self.std = std

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        return nn.init.trunc_normal_(torch.empty(shape), 0.0, self.std, generator=generator)


class ZeroLastGamma(Initializer):
    """Weight 0 for the last batch norm of each residual block, so that a block begins as the identity (Goyal et al.
    2017, arXiv:1706.02677, section 5.1). It knows BasicBlock and Bottleneck of ResNets. For other blocks use Constant,
    as Constant("*.norm2.weight", only=["BatchNorm2d"]).
    """

    def __init__(self, params: str = "*.weight") -> None:
        super().__init__(params, ["*"])

    def takes(self, name: str, layer: nn.Module, inside: nn.Module | None) -> bool:
        """Whether a parameter is the weight of the last batch norm of a block."""
        last = LAST_NORMS.get(type(inside).__name__)
        return fnmatchcase(name, self.params) and name.endswith(f".{last}.weight")

    def values(self, shape: torch.Size, layer: nn.Module, generator: Generator) -> Tensor:
        return torch.zeros(shape)

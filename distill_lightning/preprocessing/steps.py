"""What a fitted preprocessing does with pictures: one of four steps, or several one after another.

Pictures are (B, C, H, W) in units of full scale: 0 is black, 1 is white. A step is plain data: its kind and its
tensors.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError


class Step(nn.Module):
    """A base class of steps. The buffers are float64 while a preprocessing is fitted, and float32 afterwards.

    Args:
        tensors: the tensors of the step, by name.
    """

    dimensions: ClassVar[Mapping[str, int]]
    """The number of dimensions of each tensor, by name."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


class Pixelwise(Step):
    """x * scale + shift, with ``scale`` and ``shift`` that broadcast to (C, H, W)."""

    dimensions: ClassVar = {"scale": 3, "shift": 3}
    scale: Tensor
    shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images, self.scale)


class Contrast(Step):
    """s (x - m) / max(eps, sqrt(lambda + v)), with mean m and variance v of each picture's own C*H*W values.

    ``numbers`` is (s, lambda, eps).
    """

    dimensions: ClassVar = {"numbers": 1}
    numbers: Tensor

    def forward(self, images: Tensor) -> Tensor:
        scale, regulariser, eps = self.numbers.unbind()
        centred = images - images.mean((1, 2, 3), keepdim=True)
        variance = centred.square().mean((1, 2, 3), keepdim=True)
        return scale * centred / torch.maximum((variance + regulariser).sqrt(), eps)


class WithSpectrum(Step):
    """A step that is made from a covariance."""

    spectrum: Tensor


class Linear(WithSpectrum):
    """weight @ x + bias for the flat picture: ``weight`` (D, D), ``bias`` (D,), D = C*H*W. ``spectrum`` (D,) has the
    eigenvalues of the covariance, the largest first.
    """

    dimensions: ClassVar = {"weight": 2, "bias": 1, "spectrum": 1}
    weight: Tensor
    bias: Tensor

    def forward(self, images: Tensor) -> Tensor:
        return F.linear(images.flatten(1), self.weight, self.bias).view(images.shape)


class Filter(WithSpectrum):
    """A convolution of C to C channels with reflected borders: ``weight`` (C, C, P, P), ``bias`` (C,). ``spectrum`` has
    the eigenvalues of the patches' covariance.
    """

    dimensions: ClassVar = {"weight": 4, "bias": 1, "spectrum": 1}
    weight: Tensor
    bias: Tensor

    def forward(self, images: Tensor) -> Tensor:
        border = self.weight.shape[-1] // 2
        return F.conv2d(F.pad(images, [border] * 4, mode="reflect"), self.weight, self.bias)


KINDS: dict[str, type[Step]] = {"pixelwise": Pixelwise, "contrast": Contrast, "linear": Linear, "filter": Filter}
"""The kinds of steps that a checkpoint may contain."""
MOST_STEPS = 100
"""A checkpoint with more steps is refused: a small file could otherwise keep a program busy for hours."""


class Fitted(nn.Module):
    """A fitted preprocessing: steps that are applied one after another, in float32.

    Args:
        steps: the steps.
        words: what it is, as "ZCA(eps=0.1)".
    """

    def __init__(self, steps: Sequence[nn.Module], words: str) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps).float().eval()
        self.words = words

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in units of full scale to float32 of the same shape, also under autocast."""
        if torch.is_autocast_enabled(images.device.type):  # 8 bits are too few: eigenvalues differ by 10^5
            with torch.autocast(images.device.type, enabled=False):
                return self._applied(images.float())
        return self._applied(images.float())

    def _applied(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return images

    @property
    def spectra(self) -> Iterator[Tensor]:
        """The eigenvalues of each step that has some."""
        return (step.spectrum for step in self.steps if isinstance(step, WithSpectrum))

    @property
    def num_bytes(self) -> int:
        """The size of its tensors."""
        return sum(buffer.nbytes for buffer in self.buffers())

    @property
    def digest(self) -> str:
        """What it is, with a digest of its tensors."""
        return f"{self.words} {tensors_digest(self.state_dict())}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data and tensors, for a checkpoint."""
        names = {kind: name for name, kind in KINDS.items()}
        steps = [
            {"kind": names[type(step)], **{k: v.cpu() for k, v in step.state_dict().items()}}  # type: ignore[index]
            for step in self.steps
        ]
        return {"words": self.words, "steps": steps}

    @classmethod
    def from_dict(cls, content: Any, shape: tuple[int, int, int], where: str) -> "Fitted":
        """The inverse of ``as_dict``.

        Args:
            content: the dict, which may come from a damaged or foreign file.
            shape: (C, H, W) of the pictures.
            where: the source of the dict, for the error.

        Raises:
            InputError: it does not describe a preprocessing of such pictures.
        """
        try:
            if len(content["steps"]) > MOST_STEPS:
                raise ValueError(f"{len(content['steps'])} steps, and at most {MOST_STEPS} are read")
            steps = [_step(one) for one in content["steps"]]
            made = cls(steps, str(content["words"])[:200])
            with torch.no_grad():
                fits = made(torch.zeros(1, *shape)).shape == (1, *shape)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise InputError(f"{where} has a damaged preprocessing: {str(error).splitlines()[0][:80]}") from error
        if not fits:
            raise InputError(f"{where} has a preprocessing for other pictures than {'x'.join(map(str, shape))}")
        return made


def _step(content: Mapping[str, Any]) -> Step:
    kind = KINDS[content["kind"]]
    tensors = {name: value for name, value in content.items() if name != "kind"}
    if tensors.keys() != kind.dimensions.keys():
        raise ValueError(f"{content['kind']} has {', '.join(map(str, tensors))}")
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.ndim != kind.dimensions[name]:
            raise ValueError(f"{name} is no float32 tensor of {kind.dimensions[name]} dimensions")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} is not finite")
    return kind(**tensors)

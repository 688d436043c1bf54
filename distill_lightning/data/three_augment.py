"""3-Augment (Touvron et al. 2022, arXiv:2204.07118, section 4.2), the augmentation of DeiT III."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data import pixels
from distill_lightning.data.augment import ColorJitter, Draws, Transform
from distill_lightning.ranges import Fraction

RADIUS = 6
"""The radius of the blur in pixels, three standard deviations of the widest one."""


class ThreeAugment(Transform):
    """Makes each picture grey, solarises it at 128, or blurs it, each with probability 1/3; then jitters its colours.

    The blur is Gaussian with a standard deviation from 0.1 to 2 pixels. The paper's crop and flip are transforms of
    their own, which come before.

    Args:
        jitter: the strength of brightness, contrast and saturation, in [0, 1]; see ColorJitter.

    Raises:
        InputError: ``jitter`` is out of range.
    """

    def __init__(self, jitter: Fraction = 0.3) -> None:
        self.jitter = ColorJitter(jitter, jitter, jitter)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        chosen, sigma = draws.integer(3), draws.between(0.1, 2.0)
        grey = pixels.grey(images).floor().to(torch.uint8).expand(images.shape)
        solarised = pixels.solarize(images, torch.full_like(sigma, 128))
        changed = torch.stack([grey, solarised, gaussian_blur(images, sigma)])
        return self.jitter(changed[chosen, torch.arange(len(images), device=images.device)], draws)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blurs each picture with a Gaussian of its own standard deviation; the border is mirrored.

    Args:
        images: uint8 (B, C, H, W).
        sigma: (B,), in pixels.

    Returns:
        uint8 (B, C, H, W).
    """
    count, channels, height, width = images.shape
    result = images.float()
    for length, dimension in ((height, 2), (width, 3)):
        radius = min(RADIUS, length - 1)
        places = torch.arange(-radius, radius + 1, device=images.device)
        kernel = (-0.5 * (places / sigma[:, None]) ** 2).exp()
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
        margins = [0, 0, radius, radius] if dimension == 2 else [radius, radius, 0, 0]
        padded = F.pad(result, margins, mode="reflect").view(1, count * channels, *_grown(height, width, margins))
        weights = kernel.view(count * channels, 1, *((-1, 1) if dimension == 2 else (1, -1)))
        result = F.conv2d(padded, weights, groups=count * channels).view(count, channels, height, width)
    return pixels.to_bytes(result)


def _grown(height: int, width: int, margins: list[int]) -> tuple[int, int]:
    return height + margins[2] + margins[3], width + margins[0] + margins[1]

"""Operations on a batch of pictures, each by an amount of its own. uint8 (B, C, H, W) in and out; amounts are (B,)."""

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R BT.601)."""


def to_bytes(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


def affine(images: Tensor, matrix: Tensor, mode: str = "bilinear") -> Tensor:
    """Moves pixels; what comes from outside is 0.

    Args:
        images: uint8 (B, C, H, W).
        matrix: (B, 2, 3), where in the input (x, y) an output pixel (x, y, 1) is taken from, in pixels from the centre.
        mode: "bilinear" or "nearest".
    """
    height, width = images.shape[2:]
    half = torch.tensor([width / 2, height / 2], device=images.device)
    # in units of half the picture, as affine_grid counts
    theta = torch.cat([matrix[:, :, :2] * half / half[:, None], matrix[:, :, 2:] / half[:, None]], 2)
    grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
    return to_bytes(F.grid_sample(images.float(), grid, mode=mode, padding_mode="zeros", align_corners=False))


def matrices(xx: Tensor, xy: Tensor, x: Tensor, yx: Tensor, yy: Tensor, y: Tensor) -> Tensor:
    """(B, 2, 3) out of its six (B,)."""
    return torch.stack([torch.stack([xx, xy, x], 1), torch.stack([yx, yy, y], 1)], 1)


def rotation(degrees: Tensor) -> Tensor:
    """Counterclockwise, about the centre. (B,) to (B, 2, 3)."""
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return matrices(cos, -sin, zero, sin, cos, zero)


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor * images + (1 - factor) * other: 1 leaves a picture alone, 0 makes it the other, above 1 exaggerates."""
    return to_bytes(torch.lerp(other.float(), images.float(), factor[:, None, None, None]))


def grey(images: Tensor) -> Tensor:
    """float32 (B, 1, H, W) of pictures with one or three channels, not rounded."""
    if images.shape[1] != 3:
        return images.float().mean(1, keepdim=True)
    return (images * torch.tensor(GREY, device=images.device)[:, None, None]).sum(1, keepdim=True)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, torch.zeros_like(images), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, grey(images).floor().mean((1, 2, 3), keepdim=True).expand(images.shape), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, grey(images).floor().expand(images.shape), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """0 is the picture blurred by a 3x3 kernel of ones with 5 in its middle; the border stays."""
    kernel = torch.ones(images.shape[1], 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    blurred = images.float()
    blurred[:, :, 1:-1, 1:-1] = F.conv2d(images.float(), kernel / 13, groups=images.shape[1]).round()
    return blend(images, blurred, factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turns colours about the grey axis, by a part of a full turn, from red towards green; luma stays, so that it is
    not torchvision's turn in HSV. Grey pictures stay as they are."""
    if images.shape[1] != 3:
        return images
    # to luma and two colour differences (YIQ), turned, and back
    to_yiq = torch.tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], device=images.device)
    angle = -2 * torch.pi * turn
    turned = torch.zeros(len(turn), 3, 3, device=images.device)
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = angle.cos()
    turned[:, 2, 1], turned[:, 1, 2] = angle.sin(), -angle.sin()
    return to_bytes(torch.einsum("bij,bjhw->bihw", torch.linalg.inv(to_yiq) @ turned @ to_yiq, images.float()))


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keeps the highest bits of every value. ``bits`` is int64, 0 to 8."""
    return images & (256 - 2 ** (8 - bits)).to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts values from the threshold on."""
    return torch.where(images >= threshold[:, None, None, None], 255 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretches every channel to full scale; one that never varies stays."""
    values = images.float()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    flat = high == low
    return torch.where(flat, images, to_bytes((values - low) * (255 / torch.where(flat, 1, high - low))))

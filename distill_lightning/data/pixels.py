"""Operations on a batch of pictures, with a separate parameter for each picture.

Unless stated otherwise, pictures are uint8 (B, C, H, W), results have the type and shape of the input, and parameters
are (B,).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in the luma (ITU-R BT.601)."""


def to_bytes(images: Tensor) -> Tensor:
    """Rounds and clips float pictures to uint8 of the same shape."""
    return images.round().clamp(0, 255).to(torch.uint8)


def affine(images: Tensor, matrix: Tensor, mode: str = "bilinear") -> Tensor:
    """Applies an affine transformation. Pixels from outside the picture are 0.

    Args:
        images: uint8 (B, C, H, W).
        matrix: (B, 2, 3). It maps a position (x, y, 1) in the output to the position (x, y) in the input, in pixels
            from the centre.
        mode: the interpolation, "bilinear" or "nearest".
    """
    height, width = images.shape[2:]
    half = torch.tensor([width / 2, height / 2], device=images.device)
    # affine_grid expects positions in units of half the picture size
    theta = torch.cat([matrix[:, :, :2] * half / half[:, None], matrix[:, :, 2:] / half[:, None]], 2)
    grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
    return to_bytes(F.grid_sample(images.float(), grid, mode=mode, padding_mode="zeros", align_corners=False))


def matrices(xx: Tensor, xy: Tensor, x: Tensor, yx: Tensor, yy: Tensor, y: Tensor) -> Tensor:
    """Matrices (B, 2, 3) with the rows (xx, xy, x) and (yx, yy, y), from their six elements (B,)."""
    return torch.stack([torch.stack([xx, xy, x], 1), torch.stack([yx, yy, y], 1)], 1)


def rotation(degrees: Tensor) -> Tensor:
    """The matrices (B, 2, 3) for ``affine`` that rotate about the centre, counterclockwise by ``degrees`` (B,)."""
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return matrices(cos, -sin, zero, sin, cos, zero)


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Factor * images + (1 - factor) * other. A factor above 1 increases the difference to ``other``."""
    return to_bytes(torch.lerp(other.float(), images.float(), factor[:, None, None, None]))


def grey(images: Tensor) -> Tensor:
    """The luma of pictures with one or three channels, float32 (B, 1, H, W), not rounded."""
    if images.shape[1] != 3:
        return images.float().mean(1, keepdim=True)
    return (images * torch.tensor(GREY, device=images.device)[:, None, None]).sum(1, keepdim=True)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with black: factor 0 is black, 1 is the picture."""
    return blend(images, torch.zeros_like(images), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean luma of the picture: factor 0 is uniform grey, 1 is the picture."""
    return blend(images, grey(images).floor().mean((1, 2, 3), keepdim=True).expand(images.shape), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with the luma of each pixel: factor 0 is a grey picture, 1 is the picture."""
    return blend(images, grey(images).floor().expand(images.shape), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blends with a blurred picture: factor 0 is blurred, 1 is the picture. The blur is a 3x3 kernel of ones with 5 in
    the middle, normalised; pixels at the border are not blurred, so pictures below 3x3 do not change.
    """
    if min(images.shape[2:]) < 3:
        return images
    kernel = torch.ones(images.shape[1], 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    blurred = images.float()
    blurred[:, :, 1:-1, 1:-1] = F.conv2d(images.float(), kernel / 13, groups=images.shape[1]).round()
    return blend(images, blurred, factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotates the hue of each pixel in YIQ, from red towards green, by the fraction ``turn`` of a full turn.

    The luma does not change, unlike in torchvision, which rotates in HSV. Pictures with one channel do not change.
    """
    if images.shape[1] != 3:
        return images
    # the matrix from RGB to YIQ: luma and two colour differences
    to_yiq = torch.tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], device=images.device)
    angle = -2 * torch.pi * turn
    turned = torch.zeros(len(turn), 3, 3, device=images.device)
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = angle.cos()
    turned[:, 2, 1], turned[:, 1, 2] = angle.sin(), -angle.sin()
    return to_bytes(torch.einsum("bij,bjhw->bihw", torch.linalg.inv(to_yiq) @ turned @ to_yiq, images.float()))


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keeps the highest ``bits`` bits of each value. ``bits`` is int64, 0 to 8."""
    return images & (256 - 2 ** (8 - bits)).to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the values that are at least ``threshold``."""
    return torch.where(images >= threshold[:, None, None, None], 255 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretches the values of each channel to 0 .. 255. A constant channel does not change."""
    values = images.float()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    flat = high == low
    return torch.where(flat, images, to_bytes((values - low) * (255 / torch.where(flat, 1, high - low))))

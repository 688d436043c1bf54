"""The operations of the automatic augmentations, batched, with a separate strength for each picture.

The strength has the meaning that it has in torchvision: see ``operate``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import equalize

from distill_lightning.data import pixels

SIGNED = (
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast", "sharpness",
)  # fmt: skip
"""The operations whose strength has a random sign."""


def operate(name: str, images: Tensor, amount: Tensor, mode: str = "nearest") -> Tensor:
    """Applies one operation to all pictures of a batch.

    Args:
        name: "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation",
            "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize" or "invert".
        images: uint8 (B, C, H, W).
        amount: (B,), the strength: the tangent of the angle for shears, pixels (cut to whole ones) for translations,
            degrees for rotations; x for a factor of 1 + x for brightness, saturation, contrast and sharpness; the
            number of bits that remain for posterize, the threshold for solarize. The others have none.
        mode: the interpolation of geometric operations, "nearest" or "bilinear".

    Returns:
        uint8 (B, C, H, W). Pixels from outside the picture are black.
    """
    zero, one = torch.zeros_like(amount), torch.ones_like(amount)
    left, top = -images.shape[3] / 2, -images.shape[2] / 2  # the upper left corner is the fixed point of shears
    match name:
        case "shear_x":
            matrix = pixels.matrices(one, amount, -amount * top, zero, one, zero)
        case "shear_y":
            matrix = pixels.matrices(one, zero, zero, amount, one, -amount * left)
        case "translate_x":
            matrix = pixels.matrices(one, zero, -amount.trunc(), zero, one, zero)
        case "translate_y":
            matrix = pixels.matrices(one, zero, zero, zero, one, -amount.trunc())
        case "rotate":
            matrix = pixels.rotation(amount)
        case "posterize":
            return pixels.posterize(images, amount.long())
        case "solarize":
            return pixels.solarize(images, amount)
        case "autocontrast":
            return pixels.autocontrast(images)
        case "equalize":
            equalized: Tensor = equalize(images)
            return equalized
        case "invert":
            return 255 - images
        case "identity":
            return images
        case _:
            changed: Tensor = getattr(pixels, name)(images, 1 + amount)
            return changed
    return pixels.affine(images, matrix, mode=mode)


def operate_by_rows(
    names: Sequence[str], chosen: Tensor, images: Tensor, amount: Tensor, mode: str = "nearest"
) -> Tensor:
    """Applies to each picture an operation of its own.

    Args:
        names: the operations.
        chosen: (B,) int64, the number of the operation of each picture; -1 for none.
        images: uint8 (B, C, H, W).
        amount: (B,), see ``operate``.
        mode: see ``operate``.
    """
    result = images.clone()
    for number in chosen.unique().tolist():
        if number >= 0:
            rows = (chosen == number).nonzero().flatten()
            result[rows] = operate(names[number], images[rows], amount[rows], mode)
    return result


def amounts(names: Sequence[str], chosen: Tensor, share: Tensor, sign: Tensor, size: int, moves: float) -> Tensor:
    """The strengths in the ranges of RandAugment, AutoAugment and AugMix.

    Args:
        names: the operations.
        chosen: (B,) int64, the number of the operation of each picture.
        share: (B,) in [0, 1], the strength as a fraction of the largest.
        sign: (B,), 1 or -1.
        size: the side of the pictures in pixels.
        moves: the largest translation, as a fraction of the side.

    Returns:
        (B,) float32, see ``operate``.
    """
    most = {"shear_x": 0.3, "shear_y": 0.3, "rotate": 30.0, "translate_x": moves * size, "translate_y": moves * size}
    most |= dict.fromkeys(("brightness", "saturation", "contrast", "sharpness"), 0.9)
    result = torch.zeros_like(share)
    for number, name in enumerate(names):
        mine = chosen == number
        if name in SIGNED:
            result = torch.where(mine, most[name] * share * sign, result)
        elif name == "posterize":
            result = torch.where(mine, 8 - (4 * share).round(), result)
        elif name == "solarize":
            result = torch.where(mine, 255 * (1 - share), result)
    return result

"""TrivialAugment (Müller & Hutter, ICCV 2021, arXiv:2103.10158): a random operation of random strength per picture."""

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import equalize

from distill_lightning.data import pixels
from distill_lightning.data.augment import Draws, Transform

LEVELS = 31
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip


class TrivialAugment(Transform):
    """Applies to each picture one of 14 operations with one of 31 strengths and, for some operations, a random sign.

    The operations are the paper's wide space. Geometric operations use the nearest pixel; pixels from outside the
    picture are black.
    """

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        chosen = draws.integer(len(OPERATIONS))
        level = draws.integer(LEVELS)
        sign = 1 - 2 * draws.integer(2)
        result = images.clone()
        for number in chosen.unique().tolist():
            rows = (chosen == number).nonzero().flatten()
            result[rows] = apply(OPERATIONS[number], images[rows], level[rows], sign[rows])
        return result


def apply(name: str, images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Applies one operation to all pictures of a batch, with a separate strength for each.

    Args:
        name: one of OPERATIONS.
        images: uint8 (B, C, H, W).
        level: (B,) int64, the strength, from 0 (weakest) to 30 (strongest).
        sign: (B,) int64, the direction, 1 or -1.

    Returns:
        uint8 (B, C, H, W).
    """
    share = level / (LEVELS - 1)
    factor = 1 + 0.99 * share * sign
    amount, zero, one = 0.99 * share * sign, torch.zeros_like(share), torch.ones_like(share)
    left, top = -images.shape[3] / 2, -images.shape[2] / 2  # the upper left corner is the fixed point of shears
    shift = 32 * share * sign
    match name:
        case "shear_x":
            matrix = pixels.matrices(one, amount, -amount * top, zero, one, zero)
        case "shear_y":
            matrix = pixels.matrices(one, zero, zero, amount, one, -amount * left)
        case "translate_x":
            matrix = pixels.matrices(one, zero, -shift.trunc(), zero, one, zero)
        case "translate_y":
            matrix = pixels.matrices(one, zero, zero, zero, one, -shift.trunc())
        case "rotate":
            matrix = pixels.rotation(135 * share * sign)
        case "posterize":
            return pixels.posterize(images, 8 - (level / 5).round().long())
        case "solarize":
            return pixels.solarize(images, 255 * (1 - share))
        case "autocontrast":
            return pixels.autocontrast(images)
        case "equalize":
            equalized: Tensor = equalize(images)
            return equalized
        case "identity":
            return images
        case _:
            changed: Tensor = getattr(pixels, name)(images, factor)
            return changed
    return pixels.affine(images, matrix, mode="nearest")

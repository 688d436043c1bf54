"""TrivialAugment (Müller & Hutter, ICCV 2021, arXiv:2103.10158): a random operation of random strength per picture."""

from torch import Tensor

from distill_lightning.data.augment import Draws, Transform
from distill_lightning.data.operations import operate

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
    most = {"translate_x": 32.0, "translate_y": 32.0, "rotate": 135.0}.get(name, 0.99)
    amount = most * share * sign
    if name == "posterize":
        amount = 8 - (level / 5).round()
    elif name == "solarize":
        amount = 255 * (1 - share)
    return operate(name, images, amount)

"""RandAugment, AutoAugment and AugMix on tensors, with the operations and ranges of torchvision."""

from typing import Annotated

import torch
from torch import Tensor

from distill_lightning.data.augment import Draws, Transform
from distill_lightning.data.operations import SIGNED, amounts, operate_by_rows
from distill_lightning.errors import InputError
from distill_lightning.ranges import Count, Range

BINS = 31
"""The number of strengths of RandAugment."""
Magnitude = Annotated[int, Range(0, BINS - 1)]
Severity = Annotated[int, Range(1, 10)]
Depth = Annotated[int, Range(at_least=-1)]
MOVES = 150 / 331
"""The largest translation of RandAugment and AutoAugment, as a fraction of the side."""
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
OF_POLICIES = (*OPERATIONS[1:], "invert")
OF_AUGMIX = (*SIGNED, "posterize", "solarize", "autocontrast", "equalize")


class RandAugment(Transform):
    """Applies random operations of one strength (Cubuk et al. 2020, arXiv:1909.13719).

    Geometric operations use the nearest pixel; pixels from outside the picture are black.

    Args:
        num_ops: the number of operations in a row, at least 1.
        magnitude: the strength, from 0 to 30.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, num_ops: Count = 2, magnitude: Magnitude = 9) -> None:
        self.num_ops, self.magnitude = num_ops, magnitude

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        for _ in range(self.num_ops):
            chosen, sign = draws.integer(len(OPERATIONS)), 1 - 2 * draws.integer(2)
            share = torch.full_like(sign, self.magnitude, dtype=torch.float32) / (BINS - 1)
            amount = amounts(OPERATIONS, chosen, share, sign, images.shape[3], MOVES)
            images = operate_by_rows(OPERATIONS, chosen, images, amount)
        return images


class AutoAugment(Transform):
    """Applies one of 25 learned policies of two operations (Cubuk et al. 2019, arXiv:1805.09501).

    Each of the two operations is applied with its own probability. Geometric operations use the nearest pixel.

    Args:
        policy: the data that the policies were learned on: "cifar10" (also used for CIFAR-100), "imagenet" or "svhn".

    Raises:
        InputError: there is no such policy.
    """

    def __init__(self, policy: str = "cifar10") -> None:
        if policy not in POLICIES:
            raise InputError(f"policy is {policy}: AutoAugment has {', '.join(POLICIES)}")
        self.policies = [
            [_operation(words) for words in line.split(",")] for line in POLICIES[policy].strip().splitlines()
        ]

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        chosen = draws.integer(len(self.policies))
        for step in range(2):
            operation = torch.tensor([policy[step][0] for policy in self.policies], device=chosen.device)[chosen]
            probability = torch.tensor([policy[step][1] for policy in self.policies], device=chosen.device)[chosen]
            share = torch.tensor([policy[step][2] for policy in self.policies], device=chosen.device)[chosen]
            happens, sign = draws.uniform() < probability, 1 - 2 * draws.integer(2)
            amount = amounts(OF_POLICIES, operation, share, sign, images.shape[3], MOVES)
            images = operate_by_rows(OF_POLICIES, torch.where(happens, operation, -1), images, amount)
        return images


class AugMix(Transform):
    """Mixes the picture with chains of random operations on it (Hendrycks et al. 2020, arXiv:1912.02781).

    The result is m x + (1 - m) sum_i w_i chain_i(x), with m ~ Beta(1, 1) and w ~ Dirichlet(1, ..., 1). The paper's
    loss, which compares three views, is not a part of this transform. Geometric operations are bilinear.

    Args:
        severity: the strength of each operation is drawn below this number of 10; 1 to 10.
        width: the number of chains, at least 1.
        depth: the number of operations in a chain; -1 draws 1 to 3 for each.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, severity: Severity = 3, width: Count = 3, depth: Depth = -1) -> None:
        if depth == 0:
            raise InputError("depth is 0: AugMix needs 1 or more, or -1 to draw it")
        self.severity, self.width, self.depth = severity, width, depth

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        own = draws.uniform()
        # the logarithm of 1 - U, which is never 0, is exponentially distributed
        weights = torch.stack([-torch.log1p(-draws.uniform()) for _ in range(self.width)], 1)
        weights = (1 - own)[:, None] * weights / weights.sum(1, keepdim=True).clamp(min=1e-20)
        mixed = own[:, None, None, None] * images
        for chain in range(self.width):
            mixed = mixed + weights[:, chain, None, None, None] * self._chain(images, draws)
        return (mixed + 1e-3).clamp(0, 255).to(torch.uint8)  # cut off as in torchvision, but not below a whole number

    def _chain(self, images: Tensor, draws: Draws) -> Tensor:
        length = draws.integer(3) + 1 if self.depth < 0 else torch.full_like(draws.index, self.depth)
        for step in range(3 if self.depth < 0 else self.depth):
            operation, level = draws.integer(len(OF_AUGMIX)), draws.integer(self.severity)
            sign = 1 - 2 * draws.integer(2)
            amount = amounts(OF_AUGMIX, operation, level / 9, sign, images.shape[3], 1 / 3)
            amount = torch.where(operation == OF_AUGMIX.index("posterize"), amount - 4, amount)  # 4 bits at the most
            images = operate_by_rows(OF_AUGMIX, torch.where(step < length, operation, -1), images, amount, "bilinear")
        return images


def _operation(words: str) -> tuple[int, float, float]:
    """The number, probability and strength of an operation such as "rotate .6 9", with 9 of 0 to 9."""
    name, probability, *level = words.split()
    return OF_POLICIES.index(name), float(probability), int(level[0]) / 9 if level else 0.0


POLICIES = {
    "cifar10": """
invert .1, contrast .2 6
rotate .7 2, translate_x .3 9
sharpness .8 1, sharpness .9 3
shear_y .5 8, translate_y .7 9
autocontrast .5, equalize .9
shear_y .2 7, posterize .3 7
saturation .4 3, brightness .6 7
sharpness .3 9, brightness .7 9
equalize .6, equalize .5
contrast .6 7, sharpness .6 5
saturation .7 7, translate_x .5 8
equalize .3, autocontrast .4
translate_y .4 3, sharpness .2 6
brightness .9 6, saturation .2 8
solarize .5 2, invert 0
equalize .2, autocontrast .6
equalize .2, equalize .6
saturation .9 9, equalize .6
autocontrast .8, solarize .2 8
brightness .1 3, saturation .7 0
solarize .4 5, autocontrast .9
translate_y .9 9, translate_y .7 9
autocontrast .9, solarize .8 3
equalize .8, invert .1
translate_y .7 9, autocontrast .9
""",
    "imagenet": """
posterize .4 8, rotate .6 9
solarize .6 5, autocontrast .6
equalize .8, equalize .6
posterize .6 7, posterize .6 6
equalize .4, solarize .2 4
equalize .4, rotate .8 8
solarize .6 3, equalize .6
posterize .8 5, equalize 1
rotate .2 3, solarize .6 8
equalize .6, posterize .4 6
rotate .8 8, saturation .4 0
rotate .4 9, equalize .6
equalize 0, equalize .8
invert .6, equalize 1
saturation .6 4, contrast 1 8
rotate .8 8, saturation 1 2
saturation .8 8, solarize .8 7
sharpness .4 7, invert .6
shear_x .6 5, equalize 1
saturation .4 0, equalize .6
equalize .4, solarize .2 4
solarize .6 5, autocontrast .6
invert .6, equalize 1
saturation .6 4, contrast 1 8
equalize .8, equalize .6
""",
    "svhn": """
shear_x .9 4, invert .2
shear_y .9 8, invert .7
equalize .6, solarize .6 6
invert .9, equalize .6
equalize .6, rotate .9 3
shear_x .9 4, autocontrast .8
shear_y .9 8, invert .4
shear_y .9 5, solarize .2 6
invert .9, autocontrast .8
equalize .6, rotate .9 3
shear_x .9 4, solarize .3 3
shear_y .8 8, invert .7
equalize .9, translate_y .6 6
invert .9, equalize .6
contrast .3 3, rotate .8 4
invert .8, translate_y 0 2
shear_y .7 6, solarize .4 8
invert .6, rotate .8 4
shear_y .3 7, translate_x .9 3
shear_x .1 6, invert .6
solarize .7 2, translate_y .6 7
shear_y .8 4, invert .8
shear_x .7 9, translate_y .8 3
shear_y .8 5, autocontrast .7
shear_x .7 2, invert .1
""",
}
"""The policies of the paper, as torchvision has them: an operation, its probability, and its strength of 0 to 9."""

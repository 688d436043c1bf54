"""Patches that are dropped at random (Singh & Lee, ICCV 2017, arXiv:1704.04232, Hide-and-Seek).

Allen-Zhu & Li (2020, arXiv:2012.09816, section 1.3) expect that random crops make one network learn several views of a
class: a crop may lack the view that the network knows, so that it has to learn another one. Dropped patches are this
idea without the geometry of a picture.
"""

from torch import Tensor

from distill_lightning.data.augment import Draws, Transform
from distill_lightning.ranges import Count, Fraction


class DropPatches(Transform):
    """Sets each square patch of a picture to 0 with a given probability, independently of the others.

    The paper of Hide-and-Seek fills patches with the mean of all pictures; 0 is black, and nothing in made data. It
    takes uint8 and float pictures.

    Args:
        probability: the probability that a patch is dropped.
        size: the side of a patch in pixels; 1 for `MultiView`, where each place of a picture is a patch.

    Raises:
        InputError: an option is out of range.
    """

    takes_floats = True

    def __init__(self, probability: Fraction = 0.5, size: Count = 1) -> None:
        self.probability, self.size = probability, size

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """See Transform."""
        height, width = images.shape[2:]
        down, across = -(-height // self.size), -(-width // self.size)
        kept = draws.uniforms(down * across).view(-1, 1, down, across) >= self.probability
        kept = kept.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)[:, :, :height, :width]
        return images * kept.to(images.dtype)

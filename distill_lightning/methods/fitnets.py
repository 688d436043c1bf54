"""FitNets: Hints for Thin Deep Nets (Romero et al., ICLR 2015, arXiv:1412.6550).

    L = CE(y, s) + gamma mean over B, C, H and W of (r(f) - g)^2

    s      logits of the student, (B, K)
    f, g   maps of student and teacher in the middle of the network, (B, C, H, W) and (B, C', H', W'); g has no gradient
    r      the adapter (the paper's regressor): convolution, batch norm, ReLU, to the shape of g
    y      labels, (B,)

The convolution follows from the shapes: if f is twice as high and wide as g, 3x3 with stride 2; if half, transposed 4x4
with stride 2; else, if it is at least as large, a kernel of 1 + H - H' without padding, which is 1x1 for equal sizes.

The paper trains in two stages, first the hint alone up to its layer, then the whole student with soft targets. This is
the form with one stage that the field compares with, with gamma = 100 and the second stage of the network (Tian et al.,
ICLR 2020); ``soft_weight`` adds the soft targets.

With several processes, the adapter's batch norm uses the statistics of each one's own rows, so two processes do not
give exactly what one gives.

State between steps: none. The adapter is in the checkpoint, under ``adapters.``.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.losses import fitnets
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position


class FitNets(FeatureTaught):
    """Learns to predict a teacher's feature maps in the middle of the network.

    Args:
        network: the student; see Method.
        hint_weight: gamma, the weight of the hint.
        kwargs: see FeatureTaught.
    """

    usual_layers: ClassVar = ["stage2"]

    def __init__(self, network: Network, hint_weight: NonNegative = 100.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.hint_weight = hint_weight

    def make_adapters(
        self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]
    ) -> list[nn.Module]:
        """Makes r for each layer."""
        return [regressor(own, theirs) for own, theirs in zip(shapes, of_teacher, strict=True)]

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``hint_j``, one for each layer, from 1."""
        triples = enumerate(zip(self.adapters, features, teacher_features, strict=True), 1)
        return {f"hint_{j}": self.hint_weight * fitnets(r(f), g) for j, (r, f, g) in triples}


def regressor(shape: tuple[int, ...], of_teacher: tuple[int, ...]) -> nn.Module:
    """The adapter r from maps of a shape (C, H, W) to those of a teacher.

    Raises:
        InputError: the student's map is smaller than the teacher's, and not half as high and wide.
    """
    (n_in, *size), (n_out, *target) = shape, of_teacher
    convolution: nn.Module
    if size == [2 * side for side in target]:
        convolution = nn.Conv2d(n_in, n_out, 3, 2, 1)
    elif target == [2 * side for side in size]:
        convolution = nn.ConvTranspose2d(n_in, n_out, 4, 2, 1)
    elif size[0] >= target[0] and size[1] >= target[1]:
        convolution = nn.Conv2d(n_in, n_out, (1 + size[0] - target[0], 1 + size[1] - target[1]))
    else:
        raise InputError(
            f"FitNets cannot match maps of {size[0]}x{size[1]} with the teacher's of {target[0]}x{target[1]}: give "
            "layers and teacher_layers with a student's map as large, or half as high and wide"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU())

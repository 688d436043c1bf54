"""Distilling Knowledge via Knowledge Review (Chen et al., CVPR 2021, arXiv:2104.09044), ReviewKD.

    L = CE(y, s) + w min((t + 1) / E, 1) sum_j HCL(u_j, g_j)        u_j = o_j(x_j)        x_j = ABF_j(f_j, x_{j+1})

    s       logits of the student, (B, K)
    f_j     features of the student, from the first stage to the last, then the pooled ones as a map of 1x1
    g_j     features of the teacher, (B, C_j, H_j, W_j): the stages before the ReLU, then the pooled ones; no gradient
    x_j     residue: from the deepest features to the first, each level reviews what the deeper ones have found
    ABF_j   attention-based fusion: f_j to M channels (1x1 convolution, batch norm), the deeper residue in the size of
            f_j (nearest), a map of weights for each of both (1x1 convolution, sigmoid), the weighted sum, and that in
            the size of g_j (nearest). The deepest level has no residue and no weights
    o_j     3x3 convolution and batch norm, to the channels of g_j
    HCL     the hierarchical context loss, ``losses.hcl``
    t, E    the epoch, from 0, and the epochs of the warm-up
    M       512, or the channels of the deepest features of the student if these are fewer
    y       labels, (B,)

The student's maps are those after the ReLU, as in the authors' code. That code has (t / E), so its first epoch has no
distillation; here, as in other programs, the first epoch has 1 / E. w depends on the networks: 5 for a ResNet-8x4 of a
ResNet-32x4, 0.6 for a ResNet-20 of a ResNet-56.

With several processes, the adapters' batch norms use the statistics of each one's own rows, so two processes do not
give exactly what one gives.

State between steps: none, beside the epoch. The adapters (ABF and o) are in the checkpoint, under ``adapters.``. They
cost more than the student: for a ResNet-8x4 of a ResNet-32x4, 1.7 forward passes of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.losses import hcl
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, CountOrZero, NonNegative, Ranged
from distill_lightning.values import Batch, Position, StepOutput


class ReviewKD(FeatureTaught):
    """Learns a teacher's features at each level from the student's at this level and all deeper ones.

    Args:
        network: the student; see Method.
        review_weight: w, the weight of the features.
        warmup_epochs: E, the number of epochs in which this weight grows to its full value.
        most_channels: the largest M.
        kwargs: see FeatureTaught.
    """

    usual_layers: ClassVar = ["all_stages", "pooled"]
    usual_teacher_layers: ClassVar = ["all_stages.before_relu", "pooled"]
    takes: ClassVar = "any"
    needs_two_samples = True
    """The batch norms at pooled features need them."""

    def __init__(
        self,
        network: Network,
        review_weight: NonNegative = 5.0,
        warmup_epochs: CountOrZero = 20,
        most_channels: Count = 512,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.review_weight, self.warmup_epochs, self.most_channels = review_weight, warmup_epochs, most_channels

    def make_adapters(
        self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]
    ) -> list[nn.Module]:
        """Makes the fusion of each level."""
        middle, deepest = min(self.most_channels, shapes[-1][0]), len(shapes) - 1
        return [
            Fusion(own[0], middle, theirs[0], reviews=level < deepest)
            for level, (own, theirs) in enumerate(zip(shapes, of_teacher, strict=True))
        ]

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """See FeatureTaught; the terms of features grow during the warm-up."""
        warmth = min((position.epoch + 1) / max(self.warmup_epochs, 1), 1.0)
        output = super().training_loss(batch, position)
        terms = {name: warmth * term if name.startswith("review") else term for name, term in output.terms.items()}
        return replace(output, terms=terms)

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``review_j``, one for each level, from 1."""
        targets = [as_map(g) for g in teacher_features]
        reviewed = review(list(self.adapters), [as_map(f) for f in features], [g.shape[2:] for g in targets])
        pairs = enumerate(zip(reviewed, targets, strict=True), 1)
        return {f"review_{j}": self.review_weight * hcl(u, g) for j, (u, g) in pairs}


def as_map(features: Tensor) -> Tensor:
    """Vectors (B, C) as maps (B, C, 1, 1); maps as they are."""
    return features[:, :, None, None] if features.ndim == 2 else features


def review(fusions: Sequence[nn.Module], features: Sequence[Tensor], sizes: Sequence[torch.Size]) -> list[Tensor]:
    """The features u_j of all levels, from the first to the deepest.

    Args:
        fusions: a `Fusion` for each level.
        features: f_j, (B, C, H, W) each.
        sizes: the height and width of each u_j.
    """
    reviewed: list[Tensor] = []
    residue: Tensor | None = None
    for fusion, f, size in reversed(list(zip(fusions, features, sizes, strict=True))):
        made, residue = fusion(f, residue, size)
        reviewed.insert(0, made)
    return reviewed


class Fusion(Ranged, nn.Module):
    """ABF and o of a level.

    Args:
        channels: the channels of f.
        middle: M.
        of_teacher: the channels of g.
        reviews: whether there is a deeper level.
    """

    def __init__(self, channels: Count, middle: Count, of_teacher: Count, reviews: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.attention = nn.Conv2d(2 * middle, 2, 1) if reviews else None
        self.leave = nn.Sequential(nn.Conv2d(middle, of_teacher, 3, padding=1, bias=False), nn.BatchNorm2d(of_teacher))
        for convolution in (self.enter[0], self.leave[0]):
            nn.init.kaiming_uniform_(convolution.weight, a=1)  # type: ignore[arg-type]

    def forward(self, features: Tensor, residue: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """U (B, C_j, H_j, W_j) and x (B, M, H_j, W_j), from f and the residue of the deeper level."""
        x: Tensor = self.enter(features)
        if self.attention is not None:
            assert residue is not None
            deeper = F.interpolate(residue, x.shape[2:], mode="nearest")
            weights = self.attention(torch.cat([x, deeper], 1)).sigmoid()
            x = x * weights[:, :1] + deeper * weights[:, 1:]
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="nearest")
        return self.leave(x), x

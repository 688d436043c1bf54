"""Variational Information Distillation for Knowledge Transfer (Ahn et al., CVPR 2019, arXiv:1904.05835), VID.

    L = CE(y, s) + w sum_j mean over B, C, H and W of 1/2 [(mu_j(f_j) - g_j)^2 / v_jc + log v_jc]
    v_jc = softplus(a_jc) + 1e-5

    s      logits of the student, (B, K)
    f, g   maps of student and teacher at the end of each stage, (B, C, H, W) and (B, C', H', W'); g has no gradient.
           The larger of mu(f) and g is averaged to the smaller
    mu     the adapter: three 1x1 convolutions without bias, with ReLU between them, through the channels of g
    a      a number for each channel of g, (C',), trained, from a variance of 5
    y      labels, (B,)

Up to constants the term is the negative log-likelihood of g under a normal distribution with mean mu(f) and a variance
for each channel (section 3.1, equation 5). It bounds the mutual information of f and g from below.

In mdistiller the a lie in a Python list: they are not trained, and the term is a mean squared error with the factor
1/10. Here they are parameters. w = 1 and mu are as in RepDistiller.

State between steps: none. The adapters and the a are in the checkpoint, under ``adapters.``.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.losses import same_size, vid
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, NonNegative, Ranged
from distill_lightning.values import Batch, Position

FIRST_VARIANCE = 5.0
"""The variance of each channel before training, as in RepDistiller."""


class VID(FeatureTaught):
    """Learns to predict the distribution of a teacher's feature maps.

    Args:
        network: the student; see Method.
        information_weight: w, the weight of the terms of the features.
        kwargs: see FeatureTaught.
    """

    def __init__(self, network: Network, information_weight: NonNegative = 1.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.information_weight = information_weight

    def make_adapters(
        self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]
    ) -> list[nn.Module]:
        """Makes mu and a for each layer."""
        return [MapPrediction(own[0], theirs[0]) for own, theirs in zip(shapes, of_teacher, strict=True)]

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``information_j``, one for each layer, from 1."""
        terms = {}
        for j, (adapter, f, g) in enumerate(zip(self.adapters, features, teacher_features, strict=True), 1):
            predicted, target = same_size(adapter(f), g)
            term = vid(predicted, target, adapter.get_parameter("raw_variance"))
            terms[f"information_{j}"] = self.information_weight * term
        return terms


class MapPrediction(Ranged, nn.Module):
    """The adapter mu, from C to C' channels, with the numbers a for the variances, (C',)."""

    def __init__(self, channels: Count, of_teacher: Count) -> None:
        super().__init__()
        widths = [channels, of_teacher, of_teacher, of_teacher]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(n_in, n_out, 1, bias=False), nn.ReLU()]
        self.mean = nn.Sequential(*layers[:-1])
        self.raw_variance = nn.Parameter(torch.full((of_teacher,), math.log(math.expm1(FIRST_VARIANCE - 1e-5))))

    def forward(self, features: Tensor) -> Tensor:
        """mu(f), (B, C', H, W)."""
        predicted: Tensor = self.mean(features)
        return predicted

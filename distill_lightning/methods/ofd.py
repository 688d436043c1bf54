"""A Comprehensive Overhaul of Feature Distillation (Heo et al., ICCV 2019, arXiv:1904.01866), OFD.

    L = CE(y, s) + w sum_j 2^(j - J) d(r_j(f_j), max(g_j, m_j))
    d(u, t) = mean_b sum over C, H and W of [u > t or t > 0] (u - t)^2

    s          logits of the student, (B, K)
    f_j, g_j   maps of student and teacher at the end of stage j of J, before the ReLU, (B, C, H, W); g_j has no
               gradient
    r_j        the adapter: 1x1 convolution and batch norm, to the channels of g_j
    m_j        margins, (C,): the mean of the negative half of each channel of g_j, from the weight and the bias of the
               last batch norm before that ReLU. In a residual block it is that of the branch, as in the authors' code
    y          labels, (B,)

A value that is negative in the teacher may be anything below the margin in the student. Where the sizes differ, the
larger map is averaged to the smaller. w = 1e-3, since d is a sum.

In the authors' code the teacher's batch norms use the statistics of the batch, on purpose; ``teacher_batch_norm`` is
"batch" for that, or "running". The teacher's running statistics do not move here. With "batch" and several processes,
each one uses the statistics of its own rows, so two processes do not give what one gives.

State between steps: none. The adapters are in the checkpoint, under ``adapters.``; the margins follow from the teacher.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.features import BEFORE, layers_of, norm_before_relu
from distill_lightning.losses import ofd, ofd_margins, same_size
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position, TeacherGiver


class OFD(FeatureTaught):
    """Learns a teacher's feature maps before the ReLU, but not how negative they are.

    Args:
        network: the student; see Method.
        distance_weight: w, the weight of the distances.
        teacher_batch_norm: whose statistics the teacher's batch norms use: "batch" or "running".
        kwargs: see FeatureTaught.
    """

    usual_layers: ClassVar = ["all_stages.before_relu"]

    def __init__(
        self,
        network: Network,
        distance_weight: NonNegative = 1e-3,
        teacher_batch_norm: Literal["batch", "running"] = "batch",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.distance_weight = distance_weight
        self.batch_statistics = teacher_batch_norm == "batch"
        self.margins: list[Tensor] = []

    def get_ready(self, giver: TeacherGiver, data: ImageData) -> None:
        """Reads the margins from the teacher's batch norms."""
        teacher, shape = giver.copy_of_teacher(data.info.shape)
        layers = layers_of(teacher, self.layers_of_teacher)
        if plain := next((layer for layer in layers if not layer.endswith(BEFORE)), None):
            raise InputError(f"OFD needs the teacher's features before the ReLU: give {plain}{BEFORE}, not {plain}")
        norms = [norm_before_relu(teacher, layer, shape) for layer in layers]
        self.margins = [margins_of(norm) for norm in norms]

    def make_adapters(
        self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]
    ) -> list[nn.Module]:
        """Makes r for each layer."""
        return [connector(own[0], theirs[0]) for own, theirs in zip(shapes, of_teacher, strict=True)]

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``distance_j``, one for each layer, from 1."""
        terms = {}
        parts = zip(self.adapters, features, teacher_features, self.margins, strict=True)
        for j, (r, f, g, margins) in enumerate(parts, 1):
            weight = self.distance_weight * 2.0 ** (j - len(features))
            terms[f"distance_{j}"] = weight * ofd(*same_size(r(f), g), margins.to(f.device))
        return terms


def connector(channels: int, of_teacher: int) -> nn.Module:
    """The adapter r: a 1x1 convolution, drawn from N(0, 2 / C'), and batch norm."""
    convolution = nn.Conv2d(channels, of_teacher, 1, bias=False)
    nn.init.normal_(convolution.weight, 0.0, (2 / of_teacher) ** 0.5)
    return nn.Sequential(convolution, nn.BatchNorm2d(of_teacher))


def margins_of(norm: nn.BatchNorm2d) -> Tensor:
    """The margins of features after a batch norm, (C,). Without a weight and a bias, these are 1 and 0."""
    weight, bias = norm.weight, norm.bias
    if weight is None:
        weight, bias = torch.ones(norm.num_features), torch.zeros(norm.num_features)
    return ofd_margins(weight, bias)

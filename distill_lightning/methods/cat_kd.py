"""Class Attention Transfer Based Knowledge Distillation (Guo et al., CVPR 2023, arXiv:2304.12777), CAT-KD.

    L = CE(y, s) + beta mean over B, K and places of (n(P(M_s)) - n(P(M_t)))^2        M_k = sum_c W_kc f_c

    s          logits of the student, (B, K)
    f          the last map of a network, before its average pooling, (B, C, H, W)
    W          the weights of its linear layer, (K, C); those of the student are trained by this term, too
    M_s, M_t   class activation maps of student and teacher, (B, K, H, W); M_t has no gradient
    P          adaptive average pooling to 2x2 places
    n          divides each map by its length, or changes nothing
    y          labels, (B,)

The authors rebuild their networks so that the linear layer is a 1x1 convolution before the pooling. The same maps come
from any network whose logits are a linear layer on the mean of a map, so nothing is rebuilt here. As in their code, the
bias is no part of the maps.

beta depends on the pair: in the authors' code 15 for ResNet-32x4 and ResNet-8x4, 0.7 for ResNet-56 and ResNet-20, both
without n; 600 with n and 4x4 places for ResNet-32x4 and ShuffleNet.

State between steps: none. There is no adapter.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.features import last_linear
from distill_lightning.losses import cat_kd, class_maps
from distill_lightning.methods.classifier_taught import ClassifierTaught, classifier_of
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, NonNegative
from distill_lightning.values import Batch, Position, Reading, TeacherGiver


class CATKD(ClassifierTaught):
    """Learns where in a picture a teacher sees each class.

    Args:
        network: the student; see Method.
        class_map_weight: beta, the weight of the maps.
        map_size: the height and width to which P averages the maps.
        normalise: whether n divides each map by its length.
        kwargs: see FeatureTaught.
    """

    def __init__(
        self,
        network: Network,
        class_map_weight: NonNegative = 15.0,
        map_size: Count = 2,
        normalise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.class_map_weight, self.map_size, self.normalise = class_map_weight, map_size, normalise

    def get_ready(self, giver: TeacherGiver, data: ImageData) -> None:
        """Reads the teacher's classifier, and checks the student's.

        Raises:
            InputError: the logits of a network are not its linear layer on the mean of its last map.
        """
        super().get_ready(giver, data)
        classifier_of(self.model, self.student_layers, data.info.shape, type(self).__name__, "layers")

    def reading(self, shapes: Sequence[tuple[int, ...]]) -> Reading:
        """P(M_t), (B, K, P, P)."""

        def read(features: Sequence[Tensor]) -> list[Tensor]:
            weight = self.teacher_classifier(features[0].device).weight
            return [F.adaptive_avg_pool2d(class_maps(one, weight), self.map_size) for one in features]

        return Reading(f"class maps, {self.map_size}x{self.map_size}", read)

    def untouched(self, shape: tuple[int, int, int]) -> list[nn.Parameter]:
        """See FeatureTaught; the maps depend on the weights of the last layer, too."""
        last = last_linear(self.model)
        return [one for one in super().untouched(shape) if last is None or one is not last.weight]

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The term ``class_maps``."""
        own = last_linear(self.model)
        assert own is not None
        maps = class_maps(features[0], own.weight)
        term = cat_kd(maps, teacher_features[0], size=self.map_size, normalise=self.normalise)
        return {"class_maps": self.class_map_weight * term}

"""Knowledge distillation via softmax regression representation learning (Yang et al., ICLR 2021), SRRL.

    L = CE(y, s) + w [mean over B and D of (h - u)^2 + v mean over B and K of (c(h) - t)^2]
    h = mean over H and W of r(f)        u = mean over H and W of g

    s, t   logits of student and teacher, (B, K); t has no gradient
    f, g   the last maps of student and teacher, (B, C, H, W) and (B, D, H', W'); g has no gradient
    r      the adapter: 1x1 convolution without bias, batch norm and ReLU, to the channels of g
    c      the teacher's classifier, a linear layer that is not trained; the gradient passes through it
    y      labels, (B,)

What the teacher's classifier says about the student's features should be what it says about the teacher's own. The
adapter acts on the map, before the mean, as in the authors' code; in SimKD's toolbox it acts after it, which is not the
same with a ReLU. w = v = 1 as in the authors' code.

The student is deployed as it is: neither r nor c is part of it.

With several processes, the adapter's batch norm uses the statistics of each one's own rows, so two processes do not
give exactly what one gives.

State between steps: none. The adapter is in the checkpoint, under ``adapters.``; c is read from the teacher.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from distill_lightning.losses import srrl
from distill_lightning.methods.classifier_taught import ClassifierTaught
from distill_lightning.methods.feature_taught import through
from distill_lightning.models.early_exit import pooled
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position, Reading


class SRRL(ClassifierTaught):
    """Learns features that the teacher's classifier reads as its own.

    Args:
        network: the student; see Method.
        regression_weight: w, the weight of both terms.
        logit_weight: v, the weight of the logits that the teacher's classifier gives, beside the features.
        kwargs: see FeatureTaught.
    """

    def __init__(
        self, network: Network, regression_weight: NonNegative = 1.0, logit_weight: NonNegative = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(network, **kwargs)
        self.regression_weight, self.logit_weight = regression_weight, logit_weight

    def make_adapters(
        self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]
    ) -> list[nn.Module]:
        """Makes r."""
        ((own, *_),), ((theirs, *_),) = shapes, of_teacher
        return [nn.Sequential(nn.Conv2d(own, theirs, 1, bias=False), nn.BatchNorm2d(theirs), nn.ReLU())]

    def reading(self, shapes: Sequence[tuple[int, ...]]) -> Reading:
        """The means of the teacher's map over its places."""
        return Reading("means over places", lambda features: [pooled(one) for one in features])

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The term ``regression``."""
        adapted = pooled(self.adapters[0](features[0]))
        both = adapted, teacher_features[0]
        logits = through(self.teacher_classifier(adapted.device), adapted), self.teacher_logits(batch)
        term = srrl(*both, *logits, logit_weight=self.logit_weight)
        return {"regression": self.regression_weight * term}

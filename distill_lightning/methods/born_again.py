"""Born-Again Neural Networks (Furlanello et al. 2018, arXiv:1805.04770), section 3: "BAN+L".

    L = CE(y, s) + KL(p(t) || p(s))        p(z) = softmax(z), T = 1

    s   logits of this generation, (B, K)
    t   logits of the previous generation, (B, K), no gradient, from the callback SoftTargets
    y   labels, (B,)

One run trains one generation: a new network of the same architecture, initialised with a new seed, whose teacher is the
checkpoint of the previous generation. The paper's plain BAN does not use the labels: set ``hard_weight: 0``. The
formula could not be verified against the paper.

State between steps: none.
"""

from typing import Any

from distill_lightning.losses import kl_divergence
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative
from distill_lightning.values import Batch, Position, StepOutput


class BornAgain(Taught):
    """Trains one generation with the previous generation as its teacher.

    Args:
        network: see Method.
        hard_weight: the weight of the cross-entropy with the labels.
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, network: Network, hard_weight: NonNegative = 1.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.hard_weight = hard_weight

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels) and ``soft`` (teacher)."""
        logits = self(batch.images)
        terms = {
            "hard": self.hard_weight * self.cross_entropy(logits, batch),
            "soft": kl_divergence(logits, self.teacher_logits(batch)),
        }
        return StepOutput(terms, logits)

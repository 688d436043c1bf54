"""Born-Again Neural Networks (Furlanello et al. 2018, arXiv:1805.04770), section 3: "BAN+L".

    L = CE(y, s) + KL(p(t) || p(s))        p(z) = softmax(z), T = 1

    s   logits of this generation, (B, K)
    t   logits of the generation before, (B, K), no gradient, from the callback SoftTargets
    y   labels, (B,)

One generation is one run: the same network from a fresh start under a new seed, taught by the checkpoint of the
generation before. The paper's plain BAN leaves out the labels; ``hard_weight: 0`` gives it. The formula could not be
verified against the paper.

Nothing is kept between steps.
"""

from typing import Any

from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.losses import kl_divergence
from distill_lightning.methods.base import Method
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class BornAgain(Method):
    """One generation, taught by the one before.

    Args:
        network: see Method.
        hard_weight: of the labels, >= 0.
        kwargs: see Method.
    """

    needs = BatchNeeds(teacher_logits=True)

    def __init__(self, network: nn.Module, hard_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        if hard_weight < 0:
            raise InputError(f"hard_weight is {hard_weight}: it may not be below 0")
        self.hard_weight = hard_weight

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        logits = self(batch.images)
        terms = {
            "hard": self.hard_weight * self.cross_entropy(logits, batch),
            "soft": kl_divergence(self.teacher_logits(batch), logits),
        }
        return StepOutput(terms, logits)

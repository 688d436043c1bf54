"""Training on the labels without distillation.

    L = CE(q, s)        q = (1 - eps) onehot(y) + eps / K

    s   logits, (B, K)
    y   labels, (B,)
    eps label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7)

State between steps: none.
"""

from typing import Any

from distill_lightning import losses
from distill_lightning.methods.base import Method
from distill_lightning.networks import Network
from distill_lightning.ranges import BelowOne
from distill_lightning.values import Batch, Position, StepOutput


class Baseline(Method):
    """Trains with cross-entropy, by default without label smoothing.

    Args:
        network: see Method.
        label_smoothing: eps, the share of the label that is spread over all classes.
        kwargs: see Method.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(self, network: Network, label_smoothing: BelowOne = 0.0, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.label_smoothing = label_smoothing

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The term ``ce``."""
        logits = self(batch.images)
        ce = losses.cross_entropy(logits, batch.targets, self.label_smoothing, batch.class_weights)
        return StepOutput({"ce": ce}, logits)

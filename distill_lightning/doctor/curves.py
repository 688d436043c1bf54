"""The curves of one training run, as the doctor reads them: plain arrays, whoever has written them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """The values of one tag.

    Args:
        steps: (n,) the optimizer steps, rising.
        values: (n,) the value at each step; may be NaN or infinite.
    """

    steps: Array
    values: Array

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]]) -> "Series":
        """The points (step, value), sorted by step. Of several points with one step the last counts."""
        by_step = dict(points)
        steps = sorted(by_step)
        return cls(np.array(steps, float), np.array([by_step[step] for step in steps], float))

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> "Series":
        """The points that are finite."""
        kept = np.isfinite(self.values)
        return Series(self.steps[kept], self.values[kept])

    def at(self, steps: Array) -> Array:
        """The values at other steps, by linear interpolation."""
        return np.asarray(np.interp(steps, self.steps, self.values), float)


NOTHING = Series(np.array([]), np.array([]))
"""A tag that was not logged."""


@dataclass(frozen=True)
class Curves:
    """What a training run has logged, and what of its configuration its curves depend on.

    Args:
        file: the file or folder, as it was given.
        loss: the training loss in nats: of each step, or the mean over a window of steps that ends at this step.
        largest: the largest loss of a batch within each window.
        deviation: the standard deviation of the losses of the batches within each window.
        accuracy: the training accuracy, in [0, 1], of windows or epochs.
        val_loss: the cross-entropy on the validation split, in nats.
        val_accuracy: the accuracy on the validation split, in [0, 1].
        rate: the learning rate.
        of_epochs: whether the steps of the curves are epochs, so that the number of optimizer steps is not known.
        goes_on: whether the network had trained weights before the first step.
        num_classes: K; None where nothing says it.
        batch_size: the number of pictures of an optimizer step; None where nothing says it.
        smoothing: the share of label smoothing, in [0, 1).
        soft_labels: whether the labels are mixed, so that the loss cannot fall to 0.
        mixed: whether training is harder than validation by design (Mixup, CutMix, dropout, strong augmentation), so
            that the accuracies of the two cannot be compared.
        augmented: whether training pictures are augmented, so that they are a little harder than those of validation.
        of_labels: whether the training loss is the cross-entropy of the labels. It is not where a method teaches by
            features or soft targets alone; there the loss has no ln K to compare with.
        settings: the options that can change the result, by short name as "model.optimizer.lr"; empty for curves of
            other programs.
    """

    file: str
    loss: Series = NOTHING
    largest: Series = NOTHING
    deviation: Series = NOTHING
    accuracy: Series = NOTHING
    val_loss: Series = NOTHING
    val_accuracy: Series = NOTHING
    rate: Series = NOTHING
    of_epochs: bool = False
    goes_on: bool = False
    num_classes: int | None = None
    batch_size: int | None = None
    smoothing: float = 0.0
    soft_labels: bool = False
    mixed: bool = False
    augmented: bool = False
    of_labels: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

"""Wrong labels, as a pure function of (seed, index): the same in every run, on every process, after every resume."""

from collections.abc import Mapping

import torch
from torch import Tensor

from distill_lightning.seeds import NOISE, uniform


def with_noise(
    labels: Tensor, fraction: float, classes: int, seed: int, class_map: Mapping[int, int] | None = None
) -> Tensor:
    """Labels of which some are wrong.

    Args:
        labels: int64 (N,), by index.
        fraction: of the samples (of the mapped classes, where there is a map) whose label is flipped, in expectation.
        classes: K.
        seed: of the draw.
        class_map: what each class is mistaken for (asymmetric noise); any other class, each alike, without (symmetric).

    Returns:
        int64 (N,). A flipped label is never the right one.
    """
    index = torch.arange(len(labels))
    flipped = uniform(NOISE, seed, 0, index) < fraction
    if class_map is None:
        wrong = (labels + 1 + (uniform(NOISE, seed, 1, index).double() * (classes - 1)).long()) % classes
    else:
        target = torch.arange(classes)
        for right, mistaken in class_map.items():
            target[right] = mistaken
        wrong = target[labels]
    return torch.where(flipped, wrong, labels)

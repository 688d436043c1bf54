"""Label noise as a pure function of (seed, index): the same in every run and process, and after a resume."""

from collections.abc import Mapping

import torch
from torch import Tensor

from distill_lightning.seeds import NOISE, uniform


def with_noise(
    labels: Tensor, fraction: float, classes: int, seed: int, class_map: Mapping[int, int] | None = None
) -> Tensor:
    """Replaces some labels by wrong ones.

    Args:
        labels: (N,) int64, the correct labels.
        fraction: the expected fraction of wrong labels, in [0, 1]; with ``class_map``, among the samples of the classes
            in the map.
        classes: K.
        seed: the seed of the label noise.
        class_map: for each noisy class the class of its wrong labels (asymmetric noise). None for symmetric noise: each
            other class is equally likely.

    Returns:
        (N,) int64. A replaced label is never the correct one.
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

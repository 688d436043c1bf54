"""Training with classes of different sizes: weights of classes, and an order that shows all classes equally often."""

import re
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.orders import in_turns
from distill_lightning.seeds import BALANCE, hash_names, seed_for


def check_weights(given: str | Mapping[str | int, float] | None) -> None:
    """Checks the option ``class_weights``.

    Raises:
        InputError: it has another form, or a weight is out of range.
    """
    if isinstance(given, str):
        if given != "inverse" and not _beta(given):
            raise InputError(f'class_weights is {given}: give inverse, "effective 0.999", or a weight for each class')
    elif given is not None:
        for name, weight in given.items():
            if not 0 <= weight < float("inf"):
                raise InputError(f"the weight of class {name} is {weight}: it must be 0 or more")


def class_weights(given: str | Mapping[int, float], counts: Tensor) -> Tensor:
    """The weight of each class in the cross-entropy.

    "inverse" is proportional to 1 / n_c, "effective B" to (1 - B) / (1 - B^n_c) (Cui et al. 2019, arXiv:1901.05555,
    equation 2). Both are scaled so that the mean over the training samples is 1. A class without samples has weight 0.

    Args:
        given: "inverse", "effective B" with 0 < B < 1, or numbers by class, which are used as they are; a class that is
            not given has 1.
        counts: n_c, (K,) int64, the number of training samples of each class.

    Returns:
        (K,) float32.

    Raises:
        InputError: the weight of each class that has samples is 0.
    """
    if not isinstance(given, str):
        weights = torch.ones(len(counts))
        for number, weight in given.items():
            weights[number] = weight
        if not (weights * counts).any():
            raise InputError(
                "data.class_weights gives every class with training pictures the weight 0: nothing would be trained"
            )
        return weights
    n = counts.double()
    if given == "inverse":
        weights = 1 / n.clamp(min=1)
    else:
        beta = _beta(given)
        assert beta is not None
        weights = (1 - beta) / (1 - beta ** n.clamp(min=1))
    weights = torch.where(counts > 0, weights, 0)
    return (weights * n.sum() / (weights * n).sum()).float()


def _beta(text: str) -> float | None:
    match = re.fullmatch(r"effective (0?\.\d+)", text)
    return float(match[1]) if match and 0 < float(match[1]) < 1 else None


def balanced_order(labels: Tensor, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """An order of an epoch in which all classes occur equally often.

    An epoch has as many samples as there are, n. Each of the K classes that have samples gets n / K places, rounded up
    for some classes. The samples of a class follow each other in random orders, one after the other, also across
    epochs: each is shown once before one is shown again.

    Args:
        labels: (n,) int64, the labels of the training samples.
        seed: the seed of the order.
        epoch: the number of the epoch; the result is a function of (labels, seed, epoch).

    Returns:
        Numbers of samples, (n,) int64, and how often each of them was shown before, (n,) int64. The second takes the
        place of the epoch in the number of the view, so that a sample that is shown twice is augmented in two ways.
    """
    total, classes = len(labels), labels.unique()
    places = torch.full_like(classes, total // len(classes))
    places[: total % len(classes)] += 1
    numbers, shown = [], []
    for label, count in zip(classes.tolist(), places.tolist(), strict=True):
        mine = (labels == label).nonzero().flatten()
        within, turn = in_turns(epoch * count + torch.arange(count), len(mine), partial(_order, len(mine), seed, label))
        numbers.append(mine[within])
        shown.append(turn)
    mixed = hash_names(BALANCE, seed_for(BALANCE, seed), epoch, torch.arange(total)).argsort(stable=True)
    return torch.cat(numbers)[mixed], torch.cat(shown)[mixed]


def _order(count: int, seed: int, label: int, turn: int) -> Tensor:
    return hash_names(BALANCE, seed, label, turn, torch.arange(count)).argsort(stable=True)


def counts_by_class(labels: Tensor, taken: Tensor, class_names: Sequence[str]) -> Tensor:
    """The number of training samples of each class, (K,) int64."""
    return labels[taken].bincount(minlength=len(class_names))

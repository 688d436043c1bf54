"""Clusters of classes that a network confuses, for specialists (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, 5.3).

    C = cov over pictures of p(x)        (K, K), p(x) the probabilities of the network at temperature 1

Two classes that the network confuses get high probabilities for the same pictures, so their columns of C are alike.
The paper clusters the raw columns by an online K-means. The length of a column grows with the variance of the class, so
raw columns put all easy classes into one large cluster. The default here compares columns of unit length, and makes
clusters of equal size.

Everything is a pure function of (probabilities, options, seed). Ties go to the class with the lower number.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.seeds import CLUSTER, hash_names, uniform

Kind = Literal["equal", "lloyd", "paper", "random"]
FEWEST_CLASSES = 10
"""The smallest number of classes that are clustered."""
STARTS = 5
"""How often "equal" and "lloyd" start anew. The best result counts."""
PASSES = 10
"""How often the online K-means shows all columns."""


def check_clusters(classes: int, count: int, classes_per_specialist: int | None = None) -> None:
    """Checks whether classes can be clustered.

    Args:
        classes: K.
        count: the number of clusters.
        classes_per_specialist: see ``clusters``.

    Raises:
        InputError: there are too few classes, or too many clusters.
    """
    if classes < FEWEST_CLASSES:
        raise InputError(f"specialists need {FEWEST_CLASSES} classes or more, and the data have {classes}")
    if count > classes:
        raise InputError(f"specialists is {count}, more than the {classes} classes: give at most {classes // 2}")
    if count > classes // 2 and classes_per_specialist is None:
        raise InputError(
            f"{count} clusters of {classes} classes leave a cluster of one, which nothing can be told apart in: give "
            f"at most {classes // 2} specialists"
        )
    if classes_per_specialist is not None and not 2 <= classes_per_specialist < classes:
        raise InputError(
            f"classes_per_specialist is {classes_per_specialist}: it must be from 2 to {classes - 1}, one class less "
            "than there are"
        )


def clusters(
    probs: Tensor, count: int, kind: Kind = "equal", seed: int = 0, classes_per_specialist: int | None = None
) -> list[list[int]]:
    """Sets of classes that a network confuses.

    Args:
        probs: (n, K), the probabilities of the network for n pictures that it was not trained on.
        count: the number of sets.
        kind: "equal", clusters of equal size of columns of unit length; "lloyd", the same without equal sizes; "paper",
            online K-means of the raw columns; "random", random sets of equal size, as a control.
        seed: the seed of all draws.
        classes_per_specialist: the size of sets that may overlap: the classes whose columns are nearest to the centroid
            of each cluster. None for the clusters themselves, which are a partition.

    Returns:
        The classes of each set in ascending order. The sets are ordered by their smallest class, then by the next one.

    Raises:
        InputError: see ``check_clusters``.
    """
    check_clusters(probs.shape[1], count, classes_per_specialist)
    columns = covariance(probs)
    if kind != "paper":
        columns = unit_columns(columns)
    found = PARTITIONS[kind](columns, count, seed)
    if classes_per_specialist is not None:
        away = torch.cdist(centroids(columns, found, count), columns)
        nearest = away.argsort(dim=1, stable=True)[:, :classes_per_specialist]
        return sorted(sorted(of_one) for of_one in nearest.tolist())
    return sorted((found == one).nonzero().flatten().tolist() for one in range(count) if bool((found == one).any()))


def covariance(probs: Tensor) -> Tensor:
    """The covariance of probabilities over pictures, (n, K) to (K, K) float64, with the divisor n."""
    centred = probs.double() - probs.double().mean(0)
    return centred.T @ centred / len(probs)


def unit_columns(matrix: Tensor) -> Tensor:
    """The columns of a symmetric matrix with unit length, as rows (K, K). A column of zeros stays as it is."""
    length = matrix.norm(dim=0)
    return (matrix / torch.where(length > 0, length, 1.0)).T.contiguous()


def centroids(columns: Tensor, found: Tensor, count: int) -> Tensor:
    """The mean of the columns in each cluster; zeros for an empty one.

    Args:
        columns: (K, D).
        found: the cluster of each class, (K,) int64.
        count: the number of clusters, k.

    Returns:
        (k, D).
    """
    sums = torch.zeros(count, columns.shape[1], dtype=columns.dtype).index_add_(0, found, columns)
    return sums / found.bincount(minlength=count).clamp(min=1)[:, None]


def spread(columns: Tensor, found: Tensor, count: int) -> float:
    """The sum of squared distances of columns to the centroids of their clusters; arguments as in ``centroids``."""
    return float((columns - centroids(columns, found, count)[found]).square().sum())


def _best(make: Callable[[Tensor, int, int], Tensor], columns: Tensor, count: int, seed: int) -> Tensor:
    """The result with the smallest spread over several starts; of equal ones the first."""
    results = [make(columns, count, int(hash_names(CLUSTER, seed, start, torch.tensor(0)))) for start in range(STARTS)]
    return min(results, key=lambda found: spread(columns, found, count))


def _first_centres(columns: Tensor, count: int, seed: int) -> Tensor:
    """The first centres of k-means++ (Arthur & Vassilvitskii 2007): each next one is drawn by its squared distance."""
    draws = uniform(CLUSTER, seed, torch.arange(count)).double()
    chosen = [int(draws[0] * len(columns))]
    for draw in draws[1:]:
        away = torch.cdist(columns, columns[chosen]).square().amin(1)
        sums = away.cumsum(0)
        left = [k for k in range(len(columns)) if k not in chosen]  # where all the rest lie on a centre
        chosen.append(int((sums <= draw * sums[-1]).sum().clamp(max=len(columns) - 1)) if sums[-1] > 0 else left[0])
    return columns[chosen]


def _lloyd_once(columns: Tensor, count: int, seed: int) -> Tensor:
    centres, found = _first_centres(columns, count, seed), torch.full((len(columns),), -1)
    while True:
        away = torch.cdist(columns, centres)
        nearest = away.argmin(1)
        for empty in sorted(set(range(count)) - set(nearest.tolist())):  # takes the column that fits worst
            own = away.gather(1, nearest[:, None]).flatten()
            alone = nearest.bincount(minlength=count)[nearest] == 1
            nearest[own.masked_fill(alone, -1.0).argmax()] = empty
        if torch.equal(nearest, found):
            return found
        if (found >= 0).all() and spread(columns, nearest, count) >= spread(columns, found, count):
            return found  # rounding may let it go round in a circle
        found = nearest
        centres = centroids(columns, found, count)


def _lloyd(columns: Tensor, count: int, seed: int) -> Tensor:
    return _best(_lloyd_once, columns, count, seed)


def _equal_once(columns: Tensor, count: int, seed: int) -> Tensor:
    """Fills clusters of equal size by distance, then swaps the pair of classes that lowers the spread most."""
    classes = len(columns)
    centres = centroids(columns, _lloyd_once(columns, count, seed), count)
    away = torch.cdist(columns, centres)
    left = torch.full((count,), classes // count)
    left[: classes % count] += 1
    found = torch.full((classes,), -1)
    for place in away.flatten().argsort(stable=True).tolist():
        one, cluster = divmod(place, count)
        if found[one] < 0 and left[cluster] > 0:
            found[one], left[cluster] = cluster, left[cluster] - 1
    best = spread(columns, found, count)
    while True:
        away = torch.cdist(columns, centroids(columns, found, count)).square()
        own, others = away.gather(1, found[:, None]), away[:, found]  # others[i, j]: class i in the cluster of j
        gain = own + own.T - others - others.T
        place = int(gain.argmax())
        one, other = divmod(place, classes)
        swapped = found.clone()
        swapped[one], swapped[other] = found[other], found[one]
        after = spread(columns, swapped, count)
        if gain.flatten()[place] <= 0 or after >= best:
            return found
        found, best = swapped, after


def _equal(columns: Tensor, count: int, seed: int) -> Tensor:
    return _best(_equal_once, columns, count, seed)


def _online(columns: Tensor, count: int, seed: int) -> Tensor:
    """K-means that moves the nearest centroid after each column (MacQueen 1967), in a new order in each pass."""
    classes = len(columns)
    order = hash_names(CLUSTER, seed, 0, torch.arange(classes)).argsort(stable=True)
    centres, shown = columns[order[:count]].clone(), torch.ones(count, dtype=torch.int64)
    for turn in range(PASSES):
        order = hash_names(CLUSTER, seed, turn, torch.arange(classes)).argsort(stable=True)
        for one in order[count if turn == 0 else 0 :].tolist():
            nearest = int((centres - columns[one]).square().sum(1).argmin())
            shown[nearest] += 1
            centres[nearest] += (columns[one] - centres[nearest]) / shown[nearest]
    return torch.cdist(columns, centres).argmin(1)


def _random(columns: Tensor, count: int, seed: int) -> Tensor:
    found = torch.empty(len(columns), dtype=torch.int64)
    found[hash_names(CLUSTER, seed, torch.arange(len(columns))).argsort(stable=True)] = (
        torch.arange(len(columns)) % count
    )
    return found


PARTITIONS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "equal": _equal,
    "lloyd": _lloyd,
    "paper": _online,
    "random": _random,
}
"""For each kind a function of the columns (K, D), the number of clusters and the seed: the cluster of each class."""

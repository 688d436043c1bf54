"""Clusters of confused classes, on made matrices."""

import pytest
import torch

from distill_lightning.clusters import clusters, covariance, unit_columns
from distill_lightning.errors import InputError

GROUPS = [[0, 3, 7, 9], [1, 4, 8, 10], [2, 5, 6, 11]]


def confused(scales=(1.0, 1.0, 1.0), rows: int = 4000, classes: int = 12) -> torch.Tensor:
    """Probabilities of a network that confuses the classes of each group; a larger scale spreads them more."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.full((rows, classes), -4.0, dtype=torch.float64)
    labels = torch.arange(rows) % classes
    for group, scale in zip(GROUPS, scales, strict=True):
        mine = torch.isin(labels, torch.tensor(group)).nonzero().flatten()
        noise = scale * torch.randn(len(mine), len(group), generator=draw, dtype=torch.float64)
        logits[mine[:, None], torch.tensor(group)[None]] = noise
        logits[mine, labels[mine]] += 1.0
    return logits.softmax(1)


@pytest.mark.parametrize("kind", ["equal", "lloyd"])
def test_groups_are_found(kind):
    assert clusters(confused(), 3, kind) == GROUPS
    # a group whose probabilities hardly vary has short columns, and is found all the same
    assert clusters(confused((0.05, 1.0, 3.0)), 3, kind) == GROUPS


def test_raw_columns_put_what_varies_little_together():
    """The paper's way: the length of a column decides."""
    sizes = sorted(map(len, clusters(confused((3.0, 0.02, 0.02)), 4, "paper")))
    assert sizes[-1] > 4
    assert sizes[0] < 3


@pytest.mark.parametrize(("count", "sizes"), [(3, [4, 4, 4]), (5, [2, 2, 2, 3, 3]), (6, [2] * 6)])
@pytest.mark.parametrize("kind", ["equal", "random"])
def test_equal_sizes(kind, count, sizes):
    found = clusters(confused(), count, kind, seed=3)
    assert sorted(map(len, found)) == sizes
    assert sorted(one for classes in found for one in classes) == list(range(12))
    assert [classes[0] for classes in found] == sorted(classes[0] for classes in found)


@pytest.mark.parametrize("kind", ["equal", "lloyd", "paper", "random"])
def test_the_seed_decides(kind):
    found = clusters(confused(), 4, kind, seed=1)
    assert found == clusters(confused(), 4, kind, seed=1)
    assert sorted(one for classes in found for one in classes) == list(range(12))
    if kind == "random":
        assert found != clusters(confused(), 4, kind, seed=2)


def test_sets_that_overlap():
    found = clusters(confused(), 3, classes_per_specialist=6)
    assert [len(classes) for classes in found] == [6, 6, 6]
    # the classes of each group are nearest to their own centre
    assert all(any(set(group) <= set(classes) for classes in found) for group in GROUPS)
    assert clusters(confused(), 3, classes_per_specialist=4) == GROUPS


def test_a_class_that_never_varies_has_a_column_of_zeros():
    probs = confused()
    probs = torch.cat([0.99 * probs, torch.full((len(probs), 1), 0.01, dtype=torch.float64)], dim=1)
    columns = unit_columns(covariance(probs))
    assert columns[:-1].norm(dim=1).tolist() == pytest.approx([1.0] * 12)
    assert columns[-1].norm() < 1.1  # nothing is divided by 0
    assert sorted(map(len, clusters(probs, 3))) == [4, 4, 5]
    assert bool((unit_columns(torch.zeros(3, 3)) == 0).all())


@pytest.mark.parametrize(
    ("classes", "count", "more", "words"),
    [
        (9, 3, None, "specialists need 10 classes or more, and the data have 9"),
        (12, 13, None, "specialists is 13, more than the 12 classes"),
        (12, 7, None, "7 clusters of 12 classes leave a cluster of one"),
        (12, 3, 12, "classes_per_specialist is 12: it must be from 2 to 11"),
        (12, 3, 1, "classes_per_specialist is 1"),
    ],
)
def test_what_cannot_be_clustered(classes, count, more, words):
    with pytest.raises(InputError, match=words) as error:
        clusters(torch.full((5, classes), 1 / classes), count, classes_per_specialist=more)
    assert len(str(error.value)) < 200

"""Ensembles of models whose features are random (Allen-Zhu & Li 2020, arXiv:2012.09816, section 1.1 and Fig. 3).

A model draws features phi(x) once and trains a linear map on them. The paper's claim: the ensemble of ten such models
is better than one, but no single model can learn from it, since it has not the others' features; and the average of
ten trained as one is better still, since it has all features. Deep networks behave in the opposite way.

Features of D numbers for an input x, each model with a seed of its own:

    conv      D filters 5x5, ReLU, average pool to 2x2: 4D numbers
    dense     relu(x W), D numbers
    tangent   the tangent kernel of f(x) = m^(-1/2) sum_r a_r relu(w_r . x) with respect to W at the start, D = m:
              phi(x) = {a_r 1[w_r . x > 0] x}_r / sqrt(m), so that K(x, x') = (x . x') (G G^T) with the gates G

The linear map is ridge regression on one-hot labels minus 1/K, with lambda chosen by the accuracy on validation
samples: W = (Phi^T Phi + lambda I)^-1 Phi^T Y where there are fewer features than samples, otherwise in the dual,
alpha = (K + lambda I)^-1 Y with K = Phi Phi^T, which is the same. The average of n models trained as one has all their
features side by side, each divided by sqrt(n): its kernel is the mean of theirs.

`figure_3` has the networks that are trained beside it: d-10-10 with ReLU, all five bars on the same samples.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.sources import MemorySource
from distill_lightning.data.splits import Split
from distill_lightning.errors import InputError
from distill_lightning.ranges import Count
from distill_lightning.seeds import MADE, seed_for, stratified_order
from distill_lightning.theory.computed import Computed
from distill_lightning.theory.networks import (
    Networks,
    Recipe,
    accuracy,
    averaged,
    cross_entropy,
    distillation,
    logits_of,
    train,
)
from distill_lightning.theory.ridge import Model, Ridge, side_by_side

Kind = Literal["conv", "dense", "tangent", "trained"]
TEST_SIZE = 2000
"""The largest number of test samples, the same for all seeds."""
ROWS = 500
"""Pictures that are convolved at once."""
FEATURES, PLAIN, DISTILLED, SELF, START, ORDER = range(6)
"""What has random numbers of its own."""


def figure_3(
    data: ImageData,
    kind: Kind = "conv",
    width: Count = 30,
    samples: Count = 1000,
    members: Count = 10,
    seed: int = 0,
) -> Computed:
    """The five bars of the paper's figure: one model, the ensemble, one distilled from it, the average as one, and
    one distilled from another.

    Args:
        data: the pictures. ``samples`` of their training part are trained on, as many others choose the ridge.
        kind: how features are made; "trained" for networks whose features are learned.
        width: the number of filters, features or neurons.
        samples: N, the number of training samples.
        members: n, the number of models.
        seed: decides the samples, the features and the order.

    Returns:
        ``accuracy/one`` (the mean of the n models), ``accuracy/ensemble``, ``accuracy/plain`` (further models, as the
        distilled ones are), ``accuracy/distilled``, ``accuracy/self_distilled``, ``accuracy/average_as_one``;
        ``absorbed``, the part of the ensemble's gain over one that the distilled model has.
    """
    parts = _samples(data, samples, seed)
    bars = (
        trained_bars(parts, width, members, seed)
        if kind == "trained"
        else ridge_bars(parts, kind, width, members, seed)
    )
    gain = bars["ensemble"] - bars["one"]
    metrics = {f"accuracy/{name}": value for name, value in bars.items()}
    metrics["absorbed"] = (bars["distilled"] - bars["one"]) / gain if gain else math.nan
    return Computed({name: value for name, value in metrics.items() if math.isfinite(value)})


Part = tuple[Tensor, Tensor]
"""Normalised pictures, float32 (N, C, H, W), and labels, int64 (N,)."""


def _samples(data: ImageData, samples: int, seed: int) -> dict[str, Part]:
    """The parts "train", "val" and "test". The test samples are the same for every seed."""
    data.prepare_data()
    data.setup("test")
    data.setup("fit")
    train_split = data.training_split
    if 2 * samples > len(train_split):
        raise InputError(
            f"samples is {samples}: {data.name} has {len(train_split)} training samples, and as many choose the ridge"
        )
    assert train_split.labels is not None
    order = train_split.taken[stratified_order(train_split.labels[train_split.taken], seed)]
    parts = {"train": (train_split, order[:samples]), "val": (train_split, order[samples : 2 * samples])}
    if data.test is None:
        raise InputError(f"{data.name} in {data.root} has no test part: give data that have one")
    assert data.test.labels is not None
    fixed = stratified_order(data.test.labels[data.test.taken], 0)[:TEST_SIZE]
    parts["test"] = (data.test, data.test.taken[fixed])
    return {name: _pictures(data, split, rows) for name, (split, rows) in parts.items()}


def _pictures(data: ImageData, split: Split, rows: Tensor) -> Part:
    if not isinstance(split.source, MemorySource):
        raise InputError(f"{data.name} does not lie in memory: random features need a small data set")
    assert data.normaliser is not None and split.labels is not None
    return data.normaliser(split.source.images[rows]), split.labels[rows]


# Random features


def ridge_bars(parts: dict[str, Part], kind: Kind, width: int, members: int, seed: int) -> dict[str, float]:
    """The accuracies of models with random features; see `figure_3`.

    Args:
        parts: the samples.
        kind: "conv", "dense" or "tangent".
        width: the number of filters, features or neurons.
        members: n.
        seed: decides the features.
    """
    images = torch.cat([part[0] for part in parts.values()])
    labels = {name: part[1] for name, part in parts.items()}
    count = len(labels["train"])
    classes = int(torch.cat([*labels.values()]).max()) + 1
    wanted = F.one_hot(labels["train"], classes).double() - 1 / classes

    def model(role: int, number: int) -> Model:
        generator = torch.Generator().manual_seed(seed_for(MADE, seed, role, number))
        return draw_model(images, kind, width, count, generator)

    def outputs(of: Ridge, targets: Tensor) -> Tensor:
        return of.best(targets, labels["val"])

    def score(of: Tensor) -> float:
        return accuracy(of[-len(labels["test"]) :], labels["test"])

    models = [model(FEATURES, number) for number in range(members)]
    found = [outputs(Ridge.of(one, count), wanted) for one in models]
    together = torch.stack(found)
    students: dict[str, list[float]] = {"plain": [], "distilled": [], "self_distilled": []}
    for number in range(max(1, members // 2)):  # single models scatter: the mean of several
        new = Ridge.of(model(DISTILLED, number), count)
        students["plain"].append(score(outputs(new, wanted)))
        students["distilled"].append(score(outputs(new, together.mean(0)[:count])))
        students["self_distilled"].append(score(outputs(new, found[number][:count])))
    return {
        "one": sum(map(score, found)) / members,
        "ensemble": score(together.mean(0)),
        **{name: sum(scores) / len(scores) for name, scores in students.items()},
        "average_as_one": score(outputs(Ridge.of(side_by_side(models, count), count), wanted)),
    }


def draw_model(images: Tensor, kind: Kind, width: int, count: int, generator: torch.Generator) -> Model:
    """Draws the features of a model.

    Args:
        images: (N', C, H, W).
        kind: "conv", "dense" or "tangent".
        width: the number of filters, features or neurons.
        count: N, the number of samples that are trained on. They decide mean and scale of the features.
        generator: draws the features.
    """
    if kind == "tangent":
        return Model(kernel=tangent_kernel(images.flatten(1), width, count, generator))
    made = conv_features if kind == "conv" else dense_features
    features = made(images, width, generator).double()
    features = features - features[:count].mean(0)
    return Model(features / (features[:count].std(0).mean() * math.sqrt(features.shape[1])))


def conv_features(images: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Random filters 5x5, weights N(0, 1 / (25 C)) and bias N(0, 1/4); ReLU; average pool to 2x2: (N, 4D)."""
    channels = images.shape[1]
    filters = torch.randn(width, channels, 5, 5, generator=generator) / math.sqrt(25 * channels)
    bias = 0.5 * torch.randn(width, generator=generator)
    pooled = [F.adaptive_avg_pool2d(F.conv2d(some, filters, bias).relu(), 2).flatten(1) for some in images.split(ROWS)]
    return torch.cat(pooled)


def dense_features(images: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """relu(x W) with W ~ N(0, 1 / d): (N, D)."""
    inputs = images.flatten(1)
    weights = torch.randn(inputs.shape[1], width, generator=generator) / math.sqrt(inputs.shape[1])
    return (inputs @ weights).relu()


def tangent_kernel(inputs: Tensor, width: int, count: int, generator: torch.Generator) -> Tensor:
    """The tangent kernel of a network with one hidden layer at its start; see the top of this file. (N', N).

    Args:
        inputs: (N', d). A 1 is appended to each, and the result scaled to length 1.
        width: m.
        count: N.
        generator: draws W ~ N(0, 1) and a = -1 or 1.
    """
    padded = F.normalize(F.pad(inputs.double(), (0, 1), value=1.0), dim=1)
    gates = tangent_gates(padded, width, generator)
    return (padded @ padded[:count].T) * (gates @ gates[:count].T)


def tangent_gates(inputs: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """a_r 1[w_r . x > 0] / sqrt(m): float64 (N', m)."""
    weights = torch.randn(inputs.shape[1], width, generator=generator, dtype=torch.float64)
    signs = 2 * torch.randint(2, (width,), generator=generator).double() - 1
    return (inputs @ weights > 0) * signs / math.sqrt(width)


# Trained networks


def trained_bars(parts: dict[str, Part], width: int, members: int, seed: int) -> dict[str, float]:
    """The accuracies of networks d-h-K whose features are trained; see `figure_3`.

    SGD with momentum 0.9, rate 0.02 along a cosine, 600 steps of 100; KD with 0.1 CE + 0.9 T^2 KL, T = 4.

    Args:
        parts: the samples.
        width: h.
        members: n.
        seed: decides starts and order.
    """
    inputs, labels = parts["train"][0].flatten(1), parts["train"][1]
    test_inputs, test_labels = parts["test"][0].flatten(1), parts["test"][1]
    sizes = (inputs.shape[1], width, int(torch.cat([labels, test_labels]).max()) + 1)
    recipe = Recipe(rate=0.02, steps=600, batch=min(100, len(inputs)))

    def generator(role: int, what: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed_for(MADE, seed, role, what))

    def fresh(role: int, count: int) -> Networks:
        return Networks(count, sizes, generator(START, role))

    ones = fresh(FEATURES, members)
    train(ones, inputs, cross_entropy(labels), recipe, generator(ORDER, FEATURES))
    teacher, logits = logits_of(ones, inputs), logits_of(ones, test_inputs)
    found = {"one": accuracy(logits, test_labels), "ensemble": accuracy(logits.mean(0), test_labels)}
    students = max(1, members // 2)
    targets = {
        "plain": None,
        "distilled": teacher.mean(0).expand(students, -1, -1),
        "self_distilled": teacher[:students],
    }
    for role, (name, wanted) in zip((PLAIN, DISTILLED, SELF), targets.items(), strict=True):
        networks = fresh(role, students)
        loss = cross_entropy(labels) if wanted is None else distillation(labels, wanted, 4.0, 0.1, 0.9)
        train(networks, inputs, loss, recipe, generator(ORDER, role))
        found[name] = accuracy(logits_of(networks, test_inputs), test_labels)
    together = fresh(START, members)
    train(together, inputs, averaged(labels), recipe, generator(ORDER, START))
    found["average_as_one"] = accuracy(logits_of(together, test_inputs).mean(0), test_labels)
    return found

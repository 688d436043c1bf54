"""Ridge regression on features or on a kernel, for every strength of the ridge by one decomposition."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lightning.theory.networks import accuracy

LAMBDAS = [10.0**power for power in range(-6, 5)]
"""The strengths of the ridge that are tried."""


@dataclass(frozen=True)
class Model:
    """Random features of all N' samples, of which the first N are trained on, or their kernel.

    Args:
        features: float64 (N', F); None if only the kernel is known.
        kernel: float64 (N', N), the kernel of all samples with those that are trained on; None if it is not known.
    """

    features: Tensor | None = None
    kernel: Tensor | None = None

    def kernel_with(self, count: int) -> Tensor:
        """The kernel, (N', N), with the first ``count`` samples."""
        if self.kernel is not None:
            return self.kernel
        assert self.features is not None
        return self.features @ self.features[:count].T


def side_by_side(models: Sequence[Model], count: int) -> Model:
    """The average of n models as one: all features, each divided by sqrt(n), or the mean of the kernels.

    Args:
        models: the models.
        count: N.
    """
    given = [model.features for model in models if model.features is not None]
    if len(given) == len(models) and sum(one.shape[1] for one in given) <= count:
        return Model(torch.cat(given, 1) / math.sqrt(len(models)))
    return Model(kernel=torch.stack([model.kernel_with(count) for model in models]).mean(0))


@dataclass(frozen=True)
class Ridge:
    """The eigenvectors of a ridge regression, which give the outputs for every lambda: inside (v + lambda)^-1 back Y.

    Args:
        values: v, float64 (R,).
        inside: float64 (N', R).
        back: float64 (R, N).
    """

    values: Tensor
    inside: Tensor
    back: Tensor

    @classmethod
    def of(cls, model: Model, count: int) -> "Ridge":
        """The regression on a model's features, on the first ``count`` samples."""
        if model.features is not None and model.features.shape[1] <= count:
            trained = model.features[:count]
            values, vectors = torch.linalg.eigh(trained.T @ trained)
            return cls(values.clamp(min=0), model.features @ vectors, vectors.T @ trained.T)
        kernel = model.kernel_with(count)
        values, vectors = torch.linalg.eigh((kernel[:count] + kernel[:count].T) / 2)
        return cls(values.clamp(min=0), kernel @ vectors, vectors.T)

    def outputs(self, strength: float, targets: Tensor) -> Tensor:
        """The outputs for all samples, (N', K).

        Args:
            strength: lambda.
            targets: float64 (N, K).
        """
        return self.inside @ (self.back @ targets / (self.values + strength)[:, None])

    def best(self, targets: Tensor, val_labels: Tensor) -> Tensor:
        """The outputs with the lambda that is best on the validation samples; of equally good ones the smallest.

        Args:
            targets: float64 (N, K).
            val_labels: the labels of the samples after the first N.
        """
        count = len(targets)
        every = [self.outputs(strength, targets) for strength in LAMBDAS]
        scores = [accuracy(one[count : count + len(val_labels)], val_labels) for one in every]
        return every[scores.index(max(scores))]

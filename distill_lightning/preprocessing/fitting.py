"""The preprocessings, and how they are fitted: on the training samples that a run takes, in float64, in one pass.

x is a picture in units of full scale, D = C * H * W its size, and N the number of training samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lightning.distributed import say
from distill_lightning.errors import InputError
from distill_lightning.preprocessing.spectra import covariance, principal_components, whitening
from distill_lightning.preprocessing.steps import Contrast, Filter, Fitted, Linear, Pixelwise, Step
from distill_lightning.ranges import Count, NonNegative, Positive
from distill_lightning.recorded import Recorded
from distill_lightning.seeds import PATCHES, uniform
from distill_lightning.signatures import signature

MOST_DIMENSIONS = 4096
"""The largest D for which the full covariance is computed."""


@dataclass(frozen=True)
class FitSet:
    """The pictures that a preprocessing is fitted to.

    Args:
        read: reads them: yields (n, C, H, W) float64 in units of full scale, in the order of their positions.
        count: N.
        shape: (C, H, W).
        mean: (C,) float64, the mean of each channel of the data.
        std: (C,) float64, the standard deviation of each channel of the data.
    """

    read: Callable[[], Iterable[Tensor]]
    count: int
    shape: tuple[int, int, int]
    mean: Tensor
    std: Tensor

    @property
    def size(self) -> int:
        """D."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def after(self, step: Step) -> "FitSet":
        """The pictures after a step, which are then not scaled per channel any more."""
        ones = torch.ones(self.shape[0], dtype=torch.float64)
        return FitSet(lambda: map(step, self.read()), self.count, self.shape, 0 * ones, ones)


class Preprocessing(Recorded, ABC):
    """A base class. Objects are options; ``fit`` makes what is applied."""

    @abstractmethod
    def fit(self, pictures: FitSet) -> Step:
        """Fits to pictures.

        Raises:
            InputError: they are too large or too few.
        """


def fit_all(several: list[Preprocessing], pictures: FitSet) -> Fitted:
    """Fits several preprocessings, each to the result of those before it.

    Raises:
        InputError: see ``Preprocessing.fit``.
    """
    steps: list[Step] = []
    for one in several:
        steps.append(one.fit(pictures))
        pictures = pictures.after(steps[-1])
    return Fitted(steps, ", then ".join(map(in_words, several)))


def in_words(one: Preprocessing) -> str:
    """The class with the arguments that are not the defaults, as "ZCA(eps=0.05)"."""
    usual = {name: argument.default for name, argument in signature(type(one)).arguments.items()}
    given = [f"{name}={value}" for name, value in one.given_arguments.items() if value != usual[name]]
    return f"{type(one).__name__}({', '.join(given)})"


class MeanPicture(Preprocessing):
    """(x - mean picture) * scale, as Caffe with its mean.binaryproto.

    Args:
        scale: the factor; by default 1 / standard deviation of each channel.
    """

    def __init__(self, scale: Positive | None = None) -> None:
        self.scale = scale

    def fit(self, pictures: FitSet) -> Step:
        mean = sum(chunk.sum(0) for chunk in pictures.read()) / pictures.count
        scale = (1 / pictures.std if self.scale is None else torch.full_like(pictures.std, self.scale))[:, None, None]
        return Pixelwise(scale=scale, shift=-mean * scale)


class PixelStandardise(Preprocessing):
    """(x - mean) / (standard deviation + constant) for each pixel of each channel.

    Args:
        constant: is added to the standard deviation, which may be 0 (the border of MNIST's pictures).
    """

    def __init__(self, constant: Positive = 1e-2) -> None:
        self.constant = constant

    def fit(self, pictures: FitSet) -> Step:
        total, squares = torch.zeros(pictures.shape).double(), torch.zeros(pictures.shape).double()
        for chunk in pictures.read():
            total += chunk.sum(0)
            squares += chunk.square().sum(0)
        mean = total / pictures.count
        std = (squares / pictures.count - mean.square()).clamp(min=0).sqrt()
        scale = 1 / (std + self.constant)
        return Pixelwise(scale=scale, shift=-mean * scale)


class GCN(Preprocessing):
    """Global contrast normalisation: s (x - m) / max(eps, sqrt(lambda + v)), with mean m and variance v of the
    picture's own D values (Goodfellow et al., Deep Learning, 12.2.1). A constant picture becomes 0.

    Args:
        scale: s.
        regulariser: lambda, in units of full scale squared. The book's 10 is for pixels from 0 to 255.
        eps: the smallest divisor.
    """

    def __init__(self, scale: Positive = 1.0, regulariser: NonNegative = 10 / 255**2, eps: Positive = 1e-8) -> None:
        self.scale, self.regulariser, self.eps = scale, regulariser, eps

    def fit(self, pictures: FitSet) -> Step:
        return Contrast(numbers=torch.tensor([self.scale, self.regulariser, self.eps], dtype=torch.float64))


def _spectrum(pictures: FitSet, name: str, others: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, eigenvalues and components of whole pictures."""
    size = pictures.size
    if size > MOST_DIMENSIONS:
        raise InputError(
            f"{name}: pictures of {'x'.join(map(str, pictures.shape))} have a covariance of {8 * size**2:,} bytes; "
            f"give pictures of at most {MOST_DIMENSIONS} values, {others}"
        )
    mean, matrix, _ = covariance(chunk.flatten(1) for chunk in pictures.read())
    return mean, *principal_components(matrix)


def _say_few(pictures: FitSet, name: str, eps: float) -> None:
    if pictures.count < pictures.size:
        say(
            f"{name}: {pictures.count} pictures have fewer dimensions than the {pictures.size} of a picture: in the "
            f"others the variance is 0, and eps {eps:g} alone decides the scale"
        )


class PCA(Preprocessing):
    """mean + (x - mean) U_k U_k^T: the picture made of its first k principal components alone, normalised per channel.

    Args:
        k: the number of components.

    Raises:
        InputError: when it is fitted: k is larger than N or D, or pictures have more than 4096 values.
    """

    def __init__(self, k: Count) -> None:
        self.k = k

    def fit(self, pictures: FitSet) -> Step:
        if self.k > (most := min(pictures.count, pictures.size)):
            raise InputError(
                f"PCA.k is {self.k}: {pictures.count} pictures of {pictures.size} values have at most {most} components"
            )
        mean, values, components = _spectrum(pictures, "PCA", "or GCN or MeanPicture")
        kept = components[: self.k]
        area = pictures.shape[1] * pictures.shape[2]
        scale, centre = (1 / pictures.std).repeat_interleave(area), pictures.mean.repeat_interleave(area)
        weight = kept.T @ kept
        return Linear(weight=scale[:, None] * weight, bias=scale * (mean - weight @ mean - centre), spectrum=values)


class PCAWhitening(Preprocessing):
    """(x - mean) U diag(lambda + eps)^-1/2, the D components in place of the D pixels. The result is not a picture any
    more: it is for networks of linear layers.

    Args:
        eps: is added to the eigenvalues lambda, in units of full scale squared.

    Raises:
        InputError: when it is fitted: pictures have more than 4096 values.
    """

    def __init__(self, eps: Positive = 0.1) -> None:
        self.eps = eps

    def fit(self, pictures: FitSet) -> Step:
        mean, values, components = _spectrum(pictures, "PCAWhitening", "or PatchZCA")
        _say_few(pictures, "PCAWhitening", self.eps)
        weight = whitening(values, components, self.eps, zca=False)
        return Linear(weight=weight, bias=-weight @ mean, spectrum=values)


class ZCA(Preprocessing):
    """(x - mean) U diag(lambda + eps)^-1/2 U^T, divided by the standard deviation of the result (Krizhevsky 2009,
    appendix A). It stays a picture: of all whitenings the one that is nearest to the original.

    Args:
        eps: is added to the eigenvalues lambda, in units of full scale squared: 0.01 to 0.1, and 0.1 after GCN. Much
            smaller ones blow up the noise.

    Raises:
        InputError: when it is fitted: pictures have more than 4096 values.
    """

    def __init__(self, eps: Positive = 0.1) -> None:
        self.eps = eps

    def fit(self, pictures: FitSet) -> Step:
        mean, values, components = _spectrum(pictures, "ZCA", "or PatchZCA")
        _say_few(pictures, "ZCA", self.eps)
        # the variance of the result along component i is lambda_i / (lambda_i + eps)
        std = (values / (values + self.eps)).mean().sqrt()
        weight = whitening(values, components, self.eps, zca=True) / std
        return Linear(weight=weight, bias=-weight @ mean, spectrum=values)


class PatchZCA(Preprocessing):
    """ZCA of patches as a convolution, for pictures of any size: ZCA is fitted to random CxPxP patches, and its rows
    for the pixel in the middle are the filters. Borders are reflected. The result is divided by its standard deviation.

    Args:
        size: P, odd.
        eps: see ZCA.
        patches: the number of patches.

    Raises:
        InputError: ``size`` is even, or, when it is fitted, larger than the pictures.
    """

    def __init__(self, size: Count = 5, eps: Positive = 0.01, patches: Count = 100_000) -> None:
        if size % 2 == 0:
            raise InputError(f"PatchZCA.size is {size}: a patch with a pixel in its middle has an odd size")
        self.size, self.eps, self.patches = size, eps, patches

    def fit(self, pictures: FitSet) -> Step:
        (channels, height, width), size = pictures.shape, self.size
        if size > min(height, width):
            raise InputError(f"PatchZCA.size is {size}: pictures of {height}x{width} are smaller")
        if (most := channels * size**2) > MOST_DIMENSIONS:
            raise InputError(f"PatchZCA: patches of {most} values are too large: give a smaller size")
        mean, matrix, _ = covariance(self._patches(pictures))
        values, components = principal_components(matrix)
        middle = torch.arange(channels) * size**2 + size**2 // 2
        rows = whitening(values, components, self.eps, zca=True)[middle]
        rows = rows / (rows @ matrix @ rows.T).diagonal().mean().sqrt()
        return Filter(weight=rows.view(channels, channels, size, size), bias=-rows @ mean, spectrum=values)

    def _patches(self, pictures: FitSet) -> Iterator[Tensor]:
        """(n, C * P * P) each; which patches of a picture are taken depends on its place among the samples alone."""
        (_, height, width), size = pictures.shape, self.size
        each, first = -(-self.patches // pictures.count), 0
        for chunk in pictures.read():
            number = torch.arange(first, first + len(chunk)).repeat_interleave(each) * each
            number += torch.arange(each).repeat(len(chunk))
            first += len(chunk)
            down, across = (
                (uniform(PATCHES, axis, number) * (side - size + 1)).long() for axis, side in ((0, height), (1, width))
            )
            windows = chunk.unfold(2, size, 1).unfold(3, size, 1)  # (n, C, H - P + 1, W - P + 1, P, P)
            picture = torch.arange(len(chunk)).repeat_interleave(each)
            yield windows[picture, :, down, across].flatten(1)

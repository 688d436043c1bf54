"""Made data whose classes have two views each (Allen-Zhu & Li 2020, arXiv:2012.09816, Definition 3.1), in a small size.

Class c has the features v_c1 and v_c2, all orthonormal: the two views by which a sample of the class can be recognised.
A sample X of class y is a bag of P patches x_p, vectors of d numbers:

    x_p = sum_v share(v, p) w(v) v  +  sum_v a_pv v  +  noise       a_pv ~ U[0, GAMMA],  noise ~ N(0, SIGMA^2 / d I)

    w(v)          of the label's views: U[1, 1.5] each; in a single-view sample one of them has RHO instead
                  of any other class's view: U[0, 0.4] with probability 1/2, otherwise 0
    share(v, p)   how v is shared out over patches: with probability 1/2 it is on one patch, otherwise two patches have
                  the parts a and 1 - a, a ~ U[0, 1]

The label's two views have patches of their own (the definition's disjoint sets P_v). This is no detail: where both lie
on one patch, a neuron that has learned one of them is in its linear part and learns the other too, and the effect that
the theorem describes is gone.

The definition lets P, the number of classes and the smallness of noise grow together. The sizes here are our own: the
smallest with which the effect shows within seconds.
"""

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.sources import MemorySource, Source
from distill_lightning.errors import InputError
from distill_lightning.ranges import Count, Fraction, Range, Seed
from distill_lightning.seeds import MADE, seed_for

SIGMA, GAMMA, RHO, PRESENT, OTHERS = 0.6, 0.02, 0.05, 0.5, 0.4
"""See the top of this file; PRESENT and OTHERS are the probability and the largest weight of other classes' views."""
TEST_SIZE, VAL_SIZE = 2000, 1000
OWN = 4
"""The number of patches that the label's two views have to themselves."""
FEATURES, TRAIN, VAL, TEST = range(4)
"""What has random numbers of its own."""


class MultiView(ImageData):
    """Made data of Allen-Zhu & Li: each class has two views, by either of which a sample can be recognised.

    A picture (d, S, S) has a patch of d numbers in each of its first P places; the others are 0. The test part has
    2,000 single-view samples: a network that has learned one view of a class gets those wrong that have the other. The
    validation part has 1,000 multi-view samples.

    Args:
        num_classes: the number of classes.
        dimension: d, the length of a patch; at least twice the number of classes.
        patches: P.
        samples: the number of training samples.
        single_view: the probability that a training sample is single-view.
        own_patches: whether the label's two views have patches of their own. Without it each view lies on any patches,
            and the effect that the data are made for is gone.
        data_seed: the seed of features and samples.
        kwargs: see ImageData. ``root`` and ``pictures`` have no meaning here.

    Raises:
        InputError: an option is out of range.
    """

    root_names_the_pictures = False

    def __init__(
        self,
        num_classes: Annotated[int, Range(at_least=2)] = 5,
        dimension: Count = 150,
        patches: Annotated[int, Range(at_least=OWN + 2)] = 8,
        samples: Count = 500,
        single_view: Fraction = 0.0,
        own_patches: bool = True,
        data_seed: Seed = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dimension < 2 * num_classes:
            raise InputError(
                f"data.dimension is {dimension}: two views of {num_classes} classes need {2 * num_classes}"
            )
        if self.pictures is not None:
            raise InputError("data.pictures has no meaning with MultiView, whose samples are no pictures: leave it out")
        self._num_classes, self.channels, self.patches = num_classes, dimension, patches
        self.image_size = math.ceil(math.sqrt(patches))
        self.count, self.single_view, self.own_patches, self.data_seed = samples, single_view, own_patches, data_seed

    @property
    def num_classes(self) -> int:
        """K."""
        return self._num_classes

    @property
    def features(self) -> Tensor:
        """The views of all classes, orthonormal: float32 (K, 2, d)."""
        drawn = torch.randn(self.channels, 2 * self.num_classes, generator=self._generator(FEATURES))
        found: Tensor = torch.linalg.qr(drawn).Q.T.reshape(self.num_classes, 2, self.channels).contiguous()
        return found

    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """See ImageData."""
        count, single, names = {
            "train": (self.count, self.single_view, TRAIN),
            "val": (VAL_SIZE, 0.0, VAL),
            "test": (TEST_SIZE, 1.0, TEST),
        }[part]
        bags, labels = draw_samples(
            self.features, count, single, self.patches, self.own_patches, self._generator(names)
        )
        images = torch.zeros(count, self.channels, self.image_size**2)
        images[:, :, : self.patches] = bags.transpose(1, 2)
        return MemorySource(images.view(count, self.channels, self.image_size, self.image_size)), labels

    def _generator(self, role: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed_for(MADE, self.data_seed, role))


def draw_samples(
    features: Tensor, count: int, single_view: float, patches: int, own_patches: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws samples: bags of patches, float32 (N, P, d), and labels, int64 (N,).

    Args:
        features: float32 (K, 2, d), orthonormal.
        count: N.
        single_view: the probability that a sample is single-view.
        patches: P.
        own_patches: whether the label's two views have patches of their own.
        generator: draws everything.
    """
    num_classes, _, dimension = features.shape
    labels = torch.randint(num_classes, (count,), generator=generator)
    weights = draw_weights(labels, num_classes, single_view, generator)
    shares = draw_shares(labels, num_classes, patches, own_patches, generator)
    # what each patch has of each feature: (N, P, 2K)
    amounts = (weights[:, :, None] * shares).transpose(1, 2)
    amounts = amounts + GAMMA * torch.rand(amounts.shape, generator=generator)
    noise = SIGMA / math.sqrt(dimension) * torch.randn(count, patches, dimension, generator=generator)
    return amounts @ features.flatten(0, 1) + noise, labels


def draw_weights(labels: Tensor, num_classes: int, single_view: float, generator: torch.Generator) -> Tensor:
    """Draws w(v) of each feature: float32 (N, 2K); features 2y and 2y + 1 are the views of class y.

    Args:
        labels: int64 (N,).
        num_classes: K.
        single_view: the probability that a sample is single-view.
        generator: draws everything.
    """
    count = len(labels)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    present = uniform(2 * num_classes) < PRESENT
    weights = OTHERS * uniform(2 * num_classes) * present
    own = 1 + 0.5 * uniform(2)
    weak = (uniform() < 0.5).long()
    single = uniform() < single_view
    rows = torch.arange(count)
    own[rows[single], weak[single]] = RHO
    return weights.scatter(1, 2 * labels[:, None] + torch.arange(2), own)


def draw_shares(
    labels: Tensor, num_classes: int, patches: int, own_patches: bool, generator: torch.Generator
) -> Tensor:
    """Draws how each feature is shared out over the patches: float32 (N, 2K, P), of which each row sums to 1.

    Args:
        labels: int64 (N,).
        num_classes: K.
        patches: P.
        own_patches: whether the label's two views have OWN patches to themselves.
        generator: draws everything.
    """
    count, features = len(labels), 2 * num_classes

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    first = torch.where(uniform(features) < 0.5, 1.0, uniform(features))
    if own_patches:
        order = uniform(patches).argsort(1)
        others = uniform(features, patches - OWN).argsort(2)[:, :, :2]
        places = order[:, OWN:].gather(1, others.flatten(1)).view(count, features, 2)
        of_label = (2 * labels[:, None] + torch.arange(2))[:, :, None].expand(-1, -1, 2)
        places = places.scatter(1, of_label, order[:, :OWN].view(count, 2, 2))
    else:
        places = uniform(features, patches).argsort(2)[:, :, :2]
    shares = torch.zeros(count, features, patches)
    return shares.scatter(2, places, torch.stack([first, 1 - first], 2))

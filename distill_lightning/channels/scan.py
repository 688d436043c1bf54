"""One pass over pictures: how strongly each channel of a layer answers to each of them, and where."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from distill_lightning.channels.taps import Tap

SMALLEST = 4
"""Maps of at least this many rows and columns are searched without their outermost cells."""
ALIKE = 0.95
"""Two channels whose correlation is larger are duplicates."""
OF_CLASS = 100
"""The number of strongest pictures whose classes are counted."""


@dataclass(frozen=True, eq=False)
class Scan:
    """The answers of C channels to N pictures.

    With zero padding, many channels answer to the border of a picture. So the strongest cell is looked for without the
    outermost cells of a map, if it has four rows and columns or more.

    Args:
        maxima: (N, C), the largest value within the inner cells.
        places: (N, C) int64, its place in the map, row * W + column; the first one of equal values.
        means: (N, C), the mean over all cells.
        largest: (C,), the largest value of all cells and pictures.
        smallest: (C,), the smallest one.
        rim: (C,), the share of the pictures whose largest value lies on an outermost cell; 0 if these are searched.
    """

    maxima: Tensor
    places: Tensor
    means: Tensor
    largest: Tensor
    smallest: Tensor
    rim: Tensor

    @property
    def dead(self) -> Tensor:
        """(C,) bool: channels that are never above 0, or always the same."""
        return (self.largest <= 0) | (self.largest == self.smallest)

    @property
    def distinct(self) -> Tensor:
        """(C,) bool: channels that are neither dead nor a duplicate."""
        return ~self.dead & (self.duplicates == -1)

    @cached_property
    def duplicates(self) -> Tensor:
        """(C,) int64: the first living channel that a channel is a duplicate of; -1 if it is none, or dead.

        The correlation is that of the maxima over pictures. A channel whose maxima are all equal is no duplicate.
        """
        centred = self.maxima.double() - self.maxima.double().mean(0)
        size = centred.norm(dim=0)
        usable = ~self.dead & (size > 0)
        correlation = (centred.T @ centred) / (size[:, None] * size[None]).clamp(min=1e-300)
        found = torch.full((len(size),), -1)
        for channel in usable.nonzero().view(-1).tolist():
            earlier = usable & (found == -1) & (correlation[channel] > ALIKE)
            earlier[channel:] = False
            if earlier.any():
                found[channel] = int(earlier.nonzero()[0])
        return found

    def strongest(self, channel: int, count: int) -> list[int]:
        """The pictures with the largest maxima of a channel, the strongest first; of equal ones the first."""
        order = self.maxima[:, channel].sort(descending=True, stable=True).indices
        return [int(picture) for picture in order[:count]]

    def by_class(self, labels: Tensor, num_classes: int) -> Tensor:
        """The mean of the maxima in each class, in standard deviations from the mean of all pictures.

        Args:
            labels: (N,) int64.
            num_classes: K.

        Returns:
            (K, C) float64; 0 for a dead channel and for a class without pictures.
        """
        values = self.maxima.double()
        deviation = values.std(0, correction=0)
        standard = torch.where(deviation > 0, (values - values.mean(0)) / deviation.clamp(min=1e-300), 0.0)
        standard[:, self.dead] = 0.0
        sums = torch.zeros(num_classes, values.shape[1], dtype=torch.float64).index_add_(0, labels, standard)
        return sums / labels.bincount(minlength=num_classes).clamp(min=1)[:, None]

    def classes_of_strongest(self, channel: int, labels: Tensor, num_classes: int) -> Tensor:
        """(K,) int64: how many of the channel's 100 strongest pictures are of each class."""
        return labels[self.strongest(channel, OF_CLASS)].bincount(minlength=num_classes)


def scan(tap: Tap, batches: Iterable[Tensor]) -> Scan:
    """Passes pictures through a network, up to the layer.

    Args:
        tap: the layer.
        batches: what the network gets, (B, C', H', W') each. The result does not depend on the size of the batches.
    """
    _, height, width = tap.shape
    outer = torch.zeros(height, width, dtype=torch.bool)
    if min(height, width) >= SMALLEST:
        outer[[0, -1]] = outer[:, [0, -1]] = True
    parts: dict[str, list[Tensor]] = {name: [] for name in ("maxima", "places", "means", "low", "high", "rim")}
    for batch in batches:
        maps = tap(batch).cpu()
        flat = maps.flatten(2)
        inner = flat.masked_fill(outer.view(-1), -torch.inf)
        places = inner.argmax(2)
        maxima = inner.gather(2, places[..., None])[..., 0]
        high = flat.amax(2)
        parts["maxima"].append(maxima)
        parts["places"].append(places)
        parts["means"].append(flat.mean(2))
        parts["low"].append(flat.amin(2).amin(0))
        parts["high"].append(high.amax(0))
        parts["rim"].append((high > maxima).double().sum(0))
    maxima = torch.cat(parts["maxima"])
    return Scan(
        maxima,
        torch.cat(parts["places"]),
        torch.cat(parts["means"]),
        torch.stack(parts["high"]).amax(0),
        torch.stack(parts["low"]).amin(0),
        torch.stack(parts["rim"]).sum(0) / len(maxima),
    )

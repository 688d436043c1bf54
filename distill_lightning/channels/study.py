"""What the channels of one layer see, all of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lightning.channels.field import receptive_field
from distill_lightning.channels.halves import Halves, compare_halves
from distill_lightning.channels.occlusion import occlusion_map
from distill_lightning.channels.scan import Scan, scan
from distill_lightning.channels.taps import Tap
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError, nearest
from distill_lightning.exporting.opening import Opened
from distill_lightning.exporting.parity import evaluation_pictures

AT_ONCE = 100
"""The number of pictures that the network gets at once."""


@dataclass(frozen=True, eq=False)
class Study:
    """What the channels of a layer see.

    Args:
        where: the run or the checkpoint.
        layer: the layer.
        part: where the pictures come from: test, val or train.
        class_names: the names of the K classes.
        pictures: (N, C', H', W') uint8, as evaluation shows them to the network.
        labels: (N,) int64.
        found: the answers of the channels.
        field: (H, W, 4), the receptive field of each cell, see `receptive_field`.
        halves: what halves of the channels know; None if there are too few channels or pictures.
        chosen: the channels that are shown, living ones without duplicates.
        occlusions: for each channel that is shown, how much less it answers to its strongest picture, by place of the
            square.
    """

    where: str
    layer: str
    part: str
    class_names: tuple[str, ...]
    pictures: Tensor
    labels: Tensor
    found: Scan
    field: Tensor
    halves: Halves | None
    chosen: list[int]
    occlusions: Mapping[int, Tensor]

    @property
    def channels(self) -> int:
        """The number of channels, C."""
        return len(self.found.dead)

    @property
    def width(self) -> int:
        """The number of columns of a map."""
        return self.field.shape[1]

    def region(self, channel: int, picture: int) -> tuple[int, int, int, int]:
        """The pixels that the strongest cell of a channel depends on: first and last row, first and last column."""
        row, column = divmod(int(self.found.places[picture, channel]), self.width)
        top, bottom, left, right = self.field[row, column].tolist()
        return top, bottom, left, right

    def largest_region(self) -> tuple[int, int]:
        """Rows and columns of the largest receptive field, within the picture."""
        sizes = self.field[..., [1, 3]] - self.field[..., [0, 2]] + 1
        return int(sizes[..., 0].max()), int(sizes[..., 1].max())


def study(
    opened: Opened,
    data: ImageData,
    layer: str,
    count: int = 16,
    most: int = 10_000,
    class_name: str | None = None,
    seed: int = 0,
) -> Study:
    """Looks at the channels of a layer.

    Args:
        opened: the network.
        data: its data.
        layer: a module path or a word, see `distill_lightning.features`.
        count: how many channels are shown: those that differ most between the classes.
        most: the largest number of pictures, taken at equal distances from the test part.
        class_name: the class whose channels are shown; None for all classes.
        seed: draws the halves.

    Raises:
        InputError: there is no such layer or class, the layer gives no maps, or no channel is alive.
    """
    if class_name is not None and class_name not in opened.info.class_names:
        names = opened.info.class_names
        hint = nearest(class_name, names) or f": it has {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"[:100]
        raise InputError(f"{opened.info.name} has no class {class_name[:40]}{hint}")
    classifier = opened.classifier
    blank = classifier.input_of(classifier.shown(torch.zeros(1, *opened.info.shape, dtype=torch.uint8)))
    tap = Tap(classifier.network, layer, blank)
    taken = evaluation_pictures(data, most)
    pictures = classifier.shown(torch.from_numpy(taken.pixels))
    labels = torch.from_numpy(taken.labels)
    found = scan(tap, (classifier.input_of(part) for part in pictures.split(AT_ONCE)))
    if bool(found.dead.all()):
        raise InputError(f"no channel of {layer} ever answers: all {len(found.dead)} are dead")
    num_classes = len(opened.info.class_names)
    by_class = found.by_class(labels, num_classes)
    shown = found.distinct
    wanted = by_class.amax(0) if class_name is None else by_class[opened.info.class_names.index(class_name)]
    order = wanted.masked_fill(~shown, -torch.inf).sort(descending=True, stable=True).indices
    chosen = [int(channel) for channel in order[: min(count, int(shown.sum()))]]
    colour = (255 * torch.tensor(opened.info.mean)).round().to(torch.uint8)

    def occluded(channel: int) -> Tensor:
        def answer(covered: Tensor) -> Tensor:
            return scan(tap, [classifier.input_of(covered)]).maxima[:, channel]

        return occlusion_map(answer, pictures[found.strongest(channel, 1)[0]], colour)

    return Study(
        where=opened.where,
        layer=layer,
        part=taken.name,
        class_names=tuple(opened.info.class_names),
        pictures=pictures,
        labels=labels,
        found=found,
        field=receptive_field(tap, (blank.shape[1], blank.shape[2], blank.shape[3])),
        halves=compare_halves(found.means[:, ~found.dead], labels, num_classes, seed),
        chosen=chosen,
        occlusions={channel: occluded(channel) for channel in chosen},
    )

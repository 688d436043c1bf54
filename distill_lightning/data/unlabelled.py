"""Training pictures without labels, which a student learns from by the soft targets of its teacher alone.

They are the rest of the training part, under the positions that they have there, or the pictures of another folder. The
positions of a folder's pictures begin at `START`, so that they do not depend on the size of the training part, and no
position means two pictures.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from distill_lightning.data.options import REST, DataOptions
from distill_lightning.data.picture_files import Pictures
from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.predicted_files import find_pictures
from distill_lightning.data.sources import ChooseBoxes, Source, Streamed
from distill_lightning.data.splits import without_classes
from distill_lightning.data.training_part import TrainingPart, good
from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError
from distill_lightning.orders import Order, epoch_order, in_turns
from distill_lightning.pillow_decoding import ChooseBox
from distill_lightning.seeds import UNLABELLED, seed_for

START = 1 << 40
"""The position of the first picture of a folder without labels. It is larger than any training part."""


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """The training pictures without labels.

    Args:
        index: (M,) int64, their positions in ascending order.
        rows: the number of them in a global batch.
        source: the pictures of the folder, the first at position `START`; None for pictures of the training part.
        files: their files; None likewise.
    """

    index: Tensor
    rows: int
    source: Source | None = None
    files: Pictures | None = None

    @property
    def digest(self) -> str:
        """A digest of the pictures and their positions."""
        mark = "" if self.source is None else self.source.mark().hex()[:20]
        return tensors_digest({"index": self.index}) + mark

    def drawn(self, seed: int, number: int) -> tuple[Tensor, Tensor]:
        """The pictures of a batch. All are shown once, in a random order, before one is shown again.

        Args:
            seed: the seed of the order.
            number: the number of the batch since the start of training; the result is a function of (seed, number).

        Returns:
            Positions, (rows,) int64, and how often each of them was shown before, (rows,) int64.
        """
        place = torch.arange(number * self.rows, (number + 1) * self.rows)
        rows, shown = in_turns(place, len(self.index), partial(_order, len(self.index), seed))
        return self.index[rows], shown


@lru_cache(maxsize=4)
def _order(count: int, seed: int, turn: int) -> Order:
    return epoch_order(count, seed_for(UNLABELLED, seed), turn)


def read_unlabelled(data: DataOptions, part: TrainingPart, decode: Callable[[Pictures], Source]) -> Unlabelled | None:
    """Reads the training pictures without labels.

    Args:
        data: the options.
        part: the training part.
        decode: reads the files of a folder.

    Returns:
        The pictures; None without the option ``unlabelled``.

    Raises:
        InputError: there are none.
    """
    if data.unlabelled is None:
        return None
    if data.unlabelled == REST:
        return Unlabelled(_rest_of(part, data), data.unlabelled_rows)
    files = find_unlabelled(data.unlabelled, data)
    source = decode(files)
    return Unlabelled(START + good(source, torch.arange(len(source))), data.unlabelled_rows, source, files)


def _rest_of(part: TrainingPart, data: DataOptions) -> Tensor:
    """The positions of the training pictures that are neither trained on with labels, nor held out, nor left out."""
    source, labels = part.train.source, part.train.labels
    assert labels is not None
    every = good(source, torch.arange(len(source)))
    rest = every[~torch.isin(every, torch.cat([part.train.taken, part.held_out.long()]))]
    if data.leave_out:
        rest = without_classes(rest, data.class_numbers(data.leave_out), part.clean_labels, labels)
    if not len(rest):
        raise InputError(
            f"data.unlabelled is {REST}, but train_part takes all pictures with their labels: give a smaller one, "
            'such as "50 per class"'
        )
    return rest


def find_unlabelled(path: str, data: DataOptions) -> Pictures:
    """Finds the pictures of a folder without labels.

    Args:
        path: the folder, zip or tar file.
        data: the data, whose channels and size the pictures get.

    Raises:
        InputError: there are no pictures.
    """
    try:
        store, names, _ = find_pictures(path)
    except InputError as error:
        raise InputError(f"data.unlabelled: {error}") from error
    return Pictures(store, names, data.channels, data.image_size, data.bit_depth, "unlabelled")


class JoinedSource:
    """The pictures of the training part, and from position `START` on those of a folder without labels.

    Args:
        labelled: the training part.
        unlabelled: the folder.
    """

    def __init__(self, labelled: Streamed, unlabelled: Streamed) -> None:
        self.sources = labelled, unlabelled
        self.device = labelled.device

    def on(self, device: torch.device) -> "JoinedSource":
        """See Streamed."""
        return JoinedSource(*(source.on(device) for source in self.sources))

    def stream(
        self, plans: Iterable[BatchPlan], groups: Sequence[Tensor] = (), boxes: ChooseBoxes | None = None
    ) -> Iterator[tuple[Tensor, BatchPlan]]:
        """See Streamed. Each source gets its rows of every plan, and workers of its own. Plans have no partners."""
        whole, *copies = itertools.tee(plans, 3)
        streams = [self._own(number, copy, groups, boxes) for number, copy in enumerate(copies)]
        for plan, (images, labelled), (others, unlabelled) in zip(whole, *streams, strict=True):
            inside = plan.index >= START
            joined = images.new_empty(len(inside), *images.shape[1:])
            index = torch.empty_like(plan.index)
            joined[~inside], joined[inside] = images, others.to(images.device)
            index[~inside], index[inside] = labelled.index, unlabelled.index.to(index.device) + START
            yield joined, replace(plan, index=index)

    def _own(
        self, number: int, plans: Iterable[BatchPlan], groups: Sequence[Tensor], boxes: ChooseBoxes | None
    ) -> Iterator[tuple[Tensor, BatchPlan]]:
        source, start = self.sources[number], number * START

        def own(plan: BatchPlan) -> BatchPlan:
            rows = (plan.index >= START) == bool(number)
            index, view = plan.index[rows] - start, plan.view[rows]
            return BatchPlan(index.to(source.device), view.to(source.device), len(index))

        def own_boxes(plan: BatchPlan) -> list[ChooseBox]:
            assert boxes is not None
            return boxes(replace(plan, index=plan.index + start))

        own_groups = [group - start for group in groups[number : number + 1]]
        return source.stream(map(own, plans), own_groups, None if boxes is None else own_boxes)

"""Picture files. They are decoded into memory, through a cache; if they do not fit, worker processes decode them."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill_lightning.data.bad_pictures import refuse_bad, sentence_of
from distill_lightning.data.decoding import decode
from distill_lightning.data.picture_cache import cache_file, from_cache, write_cache
from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.sources import ChooseBoxes, MemorySource, Source, mean_and_std
from distill_lightning.data.stores import Store, shown
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import BadPictureError, ChooseBox, Header, Kind, deepest_value, read_header

LARGEST_IN_MEMORY = 4 << 30
"""The largest size of all decoded pictures, in bytes, that is held in memory."""
UNREAD: Kind = "not read"
"""What is wrong with a file that the system could not read."""
LOOKED_AT = 2000
"""The number of pictures for the mean and standard deviation, if the pictures do not fit in memory."""


@dataclass(frozen=True)
class Pictures:
    """The files of pictures, and how they are decoded.

    Args:
        store: contains the files.
        names: their names in the store.
        channels: 1 or 3.
        size: the side of the decoded pictures in pixels.
        bits: see ``decode``.
        part: the name of the part, so that parts in one folder have caches of their own.
    """

    store: Store
    names: Sequence[str]
    channels: int
    size: int
    bits: int = 16
    part: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def decode(self, position: int, box: ChooseBox | None = None) -> Tensor:
        """Decodes a picture: uint8 (channels, size, size).

        Raises:
            BadPictureError: it cannot be decoded.
        """
        try:
            data = self.store.read(self.names[position])
        except FileNotFoundError as error:
            raise BadPictureError("a link to nothing") from error
        except OSError as error:
            raise BadPictureError(UNREAD, str(error)) from error
        return decode(data, self.channels, self.size, self.bits, box)

    def spread(self, count: int) -> range:
        """Positions of about ``count`` pictures at equal distances."""
        return range(0, len(self), max(1, -(-len(self) // count)))


@dataclass(frozen=True)
class Survey:
    """What the headers of some pictures say.

    Args:
        headers: of those that have one.
        bits: how many bits the values of pictures with 16 bits use, 8 to 16; 16 if there are none.
    """

    headers: tuple[Header, ...]
    bits: int

    @property
    def side(self) -> int:
        """The median of the shorter sides, in pixels; 0 without pictures."""
        sides = sorted(min(header.width, header.height) for header in self.headers)
        return sides[len(sides) // 2] if sides else 0


def survey(store: Store, names: Sequence[str]) -> Survey:
    """Reads the headers of at most `LOOKED_AT` pictures, at equal distances in the list, and the values of those with
    16 bits.
    """
    some = Pictures(store, names, 3, 1)

    def look(position: int) -> tuple[Header, int] | None:
        try:
            with store.open(names[position]) as file:
                header = read_header(file)
        except (BadPictureError, OSError):
            return None
        return header, deepest_value(store.read(names[position])) if header.deep else 0

    with ThreadPoolExecutor() as pool:
        seen = [found for found in pool.map(look, some.spread(LOOKED_AT)) if found is not None]
    deepest = max((deepest for _, deepest in seen), default=0)
    return Survey(tuple(header for header, _ in seen), max(8, deepest.bit_length()) if deepest else 16)


class FileSource(Dataset[tuple[Tensor | None, str]]):
    """A source that decodes picture files in worker processes when they are needed.

    A picture that cannot be decoded is replaced in training by the next good one in the order of the folder, so that it
    is the same one in every epoch, view and process. In evaluation it is left out. Both happen only with ``skip``.

    Args:
        pictures: the files.
        workers: the number of worker processes; 0 decodes in this process.
        skip: whether pictures that cannot be decoded are left out; otherwise they are an error.
    """

    def __init__(self, pictures: Pictures, workers: int, skip: bool = False) -> None:
        self.pictures, self.workers, self.skip = pictures, workers, skip
        self.shape = (pictures.channels, pictures.size, pictures.size)
        self.device, self.pins = torch.device("cpu"), False
        self.bad: dict[int, str] = {}
        """The positions of pictures that could not be decoded so far, with what is wrong with them."""
        self.on_bad: Callable[[], None] | None = None
        """Called after pictures were added to ``bad``."""

    def __len__(self) -> int:
        return len(self.pictures)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"on_bad": None}  # worker processes report to this one

    def __getitem__(self, request: tuple[int, ChooseBox | None]) -> tuple[Tensor | None, str]:
        position, box = request
        try:
            return self.pictures.decode(position, box), ""
        except BadPictureError as error:
            if not self.skip:
                name = shown(self.pictures.names[position])
                raise InputError(sentence_of(name, error)) from error
            return None, error.kind

    def on(self, device: torch.device) -> "FileSource":
        """Itself: the files stay on disk. Pictures for a GPU come in pinned memory."""
        self.pins = device.type == "cuda"
        return self

    def stream(
        self,
        plans: Iterable[BatchPlan],
        groups: Sequence[Tensor] = (),
        boxes: ChooseBoxes | None = None,
    ) -> Iterator[tuple[Tensor, BatchPlan]]:
        """See Streamed.

        Raises:
            InputError: a file cannot be decoded.
        """
        waiting: deque[BatchPlan] = deque()

        class Requests:
            def __iter__(self) -> Iterator[list[tuple[int, ChooseBox | None]]]:
                for plan in plans:
                    fetched = plan.fetched.tolist()
                    chosen = [None] * len(fetched) if boxes is None else boxes(plan)
                    waiting.append(plan)
                    yield list(zip(fetched, chosen, strict=True))

        loader = DataLoader(
            self,
            batch_sampler=Requests(),
            num_workers=self.workers,
            collate_fn=self._stack,
            pin_memory=self.pins,
            generator=torch.Generator(),  # otherwise DataLoader draws from the global generator
        )
        try:
            for images, kinds in loader:
                plan = waiting.popleft()
                yield self._without_bad(images, plan, kinds, groups, boxes) if kinds else (images, plan)
        except InputError as error:  # the message from a worker contains its traceback
            raise InputError(str(error).strip().splitlines()[-1].partition("InputError: ")[2] or str(error)) from None

    def _without_bad(
        self,
        images: Tensor,
        plan: BatchPlan,
        kinds: dict[int, str],
        groups: Sequence[Tensor],
        boxes: ChooseBoxes | None,
    ) -> tuple[Tensor, BatchPlan]:
        """Replaces the rows that could not be decoded or, without groups, leaves them out."""
        fetched = plan.fetched.clone()
        self._remember({int(fetched[row]): kind for row, kind in kinds.items()})
        if not groups:
            good = torch.tensor([row not in kinds for row in range(len(fetched))])
            return images[good], BatchPlan.of_rows(fetched[good])
        for row in kinds:
            view = plan.view[row % len(plan.view)]
            group = next(group for group in groups if bool((group == fetched[row]).any()))
            fetched[row], images[row] = self._next_good(int(fetched[row]), group, view, boxes)
        index, *partner = fetched.split(len(plan.index))
        return images, replace(plan, index=index, partner=partner[0] if partner else None)

    def _next_good(self, position: int, group: Tensor, view: Tensor, boxes: ChooseBoxes | None) -> tuple[int, Tensor]:
        ascending = group.sort().values
        start = int(torch.searchsorted(ascending, position, right=True))
        for candidate in torch.cat([ascending[start:], ascending[:start]]).tolist():
            # its own box, so that a picture is the same whichever picture it replaces
            box = None if boxes is None else boxes(BatchPlan(torch.tensor([candidate]), view[None], 1))[0]
            picture, kind = self[candidate, box]
            if picture is not None:
                return candidate, picture
            self._remember({candidate: kind})
        raise InputError("no training picture can be decoded: replace them")

    def _remember(self, kinds: dict[int, str]) -> None:
        if kinds.keys() - self.bad.keys():
            self.bad |= kinds
            if self.on_bad is not None:
                self.on_bad()

    def _stack(self, decoded: list[tuple[Tensor | None, str]]) -> tuple[Tensor, dict[int, str]]:
        kinds = {row: kind for row, (picture, kind) in enumerate(decoded) if picture is None}
        if not decoded:
            return torch.empty(0, *self.shape, dtype=torch.uint8), kinds
        blank = torch.zeros(self.shape, dtype=torch.uint8)
        return torch.stack([blank if picture is None else picture for picture, _ in decoded]), kinds

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """See Source. It uses at most `LOOKED_AT` pictures, at equal distances in the list."""
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda position: self[position, None][0], self.pictures.spread(LOOKED_AT))
            return mean_and_std(picture[None] for picture in found if picture is not None)

    def mark(self) -> bytes:
        """See Source. It hashes the paths without their common folder, so that the folder may be moved."""
        names = [b"r/" + os.fsencode(name) for name in self.pictures.names]
        start = len(os.path.commonpath(names))
        return hashlib.sha256(b"\n".join(name[start:] for name in names)).digest()


def read_pictures(
    pictures: Pictures,
    workers: int,
    cache: Path | None,
    skip: bool = False,
    from_files: bool | None = None,
) -> Source:
    """Reads picture files.

    Args:
        pictures: the files.
        workers: the number of worker processes if the pictures stay on disk.
        cache: the folder for decoded pictures; None for no cache. A file in it is used only if no picture has changed.
        skip: whether pictures that cannot be decoded are allowed. They are then black in memory, and listed in ``bad``.
        from_files: whether the pictures stay on disk; by default if they are larger than `LARGEST_IN_MEMORY`.

    Returns:
        A MemorySource, or a FileSource if the pictures stay on disk.

    Raises:
        InputError: files cannot be decoded. All of them are listed on stderr.
    """
    count, channels, size = len(pictures), pictures.channels, pictures.size
    if from_files is None:
        from_files = count * channels * size * size > LARGEST_IN_MEMORY
    if from_files:
        return FileSource(pictures, workers, skip)
    form = (pictures.part, channels, size, pictures.bits)
    cached = None if cache is None else cache_file(pictures.store, pictures.names, form, cache)
    source = from_cache(cached, count) if cached is not None else None
    if source is None:
        source = _decode_all(pictures)
        if cached is not None and UNREAD not in source.bad.values():  # what could not be read now may be read later
            write_cache(cached, source)
    if source.bad and not skip:
        refuse_bad({pictures.names[i]: kind for i, kind in source.bad.items()}, count, pictures.store.root)
    return source


def _decode_all(pictures: Pictures) -> MemorySource:
    images = torch.zeros(len(pictures), pictures.channels, pictures.size, pictures.size, dtype=torch.uint8)
    bad: dict[int, str] = {}

    def one(position: int) -> Tensor | str:
        try:
            return pictures.decode(position)
        except BadPictureError as error:
            return error.kind

    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(one, range(len(pictures)))
        words = f"Reading {shown(pictures.store.root)}"
        for position, picture in enumerate(
            track(decoded, words, len(pictures), console=console, disable=not console.is_terminal)
        ):
            if isinstance(picture, str):
                bad[position] = picture
            else:
                images[position] = picture
    return MemorySource(images, bad)

"""Picture files: found, decoded into memory through a cache, or decoded by workers where they are too many."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.sources import MemorySource, Source, mean_and_std
from distill_lightning.errors import InputError
from distill_lightning.files import write_whole

LARGEST_IN_MEMORY = 4 << 30
"""Bytes of decoded pictures up to which they are held in memory."""
LOOKED_AT = 2000
"""Pictures that the mean and standard deviation are taken from, where there are too many for memory."""
DECODER = 2
"""Counts the ways in which pictures have been decoded: caches are each of one."""


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, by path, hidden ones left out. Links are followed, to each folder once.

    Raises:
        InputError: a link leads nowhere.
    """
    found: list[Path] = []
    seen: set[str] = set()

    def look(below: Path) -> None:
        if (real := os.path.realpath(below)) in seen:
            return
        seen.add(real)
        for entry in os.scandir(below):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                look(Path(entry.path))
            elif entry.is_file():
                found.append(Path(entry.path))
            elif entry.is_symlink():
                raise InputError(f"{_said(entry.path)} is a link to nothing: remove it, or bring back what it leads to")

    look(folder)
    return sorted(found)


def _said(path: str | Path) -> str:
    """A path for people: a name in an old encoding has bytes that cannot be printed."""
    return os.fsencode(path).decode(errors="backslashreplace")


def decode(path: Path, channels: int, size: int) -> Tensor:
    """uint8 (C, size, size): the shorter side resized, the centre cut out. Of 16 bits, the upper ones count.

    Raises:
        InputError: naming a file that is no picture, or one whose values have no known scale.
    """
    try:
        with Image.open(path) as opened:
            picture: Image.Image = opened
            if picture.mode in ("I", "F"):
                raise InputError(f"{_said(path)} has values of 32 bits, whose scale is not known: save it with 8 or 16")
            if picture.mode.startswith("I;16"):
                picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
            picture = picture.convert("L" if channels == 1 else "RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{_said(path)} is too large: {error}") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{_said(path)} is no picture that can be read: remove it, or replace it") from error
    if picture.size != (size, size):
        width, height = picture.size
        shorter = min(width, height)
        wide, high = round(width * size / shorter), round(height * size / shorter)
        left, top = (wide - size) // 2, (high - size) // 2
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


class FileSource(Dataset[Tensor]):
    """Pictures that worker processes decode as they are needed.

    Args:
        paths: of the pictures.
        channels, size: what they become.
        workers: processes.
    """

    def __init__(self, paths: list[Path], channels: int, size: int, workers: int) -> None:
        self.paths, self.workers = paths, workers
        self.shape = (channels, size, size)
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Tensor:
        return decode(self.paths[position], self.shape[0], self.shape[1])

    def on(self, device: torch.device) -> "FileSource":
        return self

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[tuple[Tensor, BatchPlan]]:
        waiting: deque[BatchPlan] = deque()

        class Positions:
            def __iter__(self) -> Iterator[list[int]]:
                for plan in plans:
                    waiting.append(plan)
                    yield plan.fetched.tolist()

        loader = DataLoader(
            self,
            batch_sampler=Positions(),
            num_workers=self.workers,
            collate_fn=self._stack,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own: the global one is not to move
        )
        try:
            for images in loader:
                yield images, waiting.popleft()
        except InputError as error:  # from a worker, it comes with the worker's traceback
            raise InputError(str(error).strip().splitlines()[-1].partition("InputError: ")[2] or str(error)) from None

    def _stack(self, images: list[Tensor]) -> Tensor:
        return torch.stack(images) if images else torch.empty(0, *self.shape, dtype=torch.uint8)

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Of 2,000 pictures at even distances."""
        step = -(-len(self) // LOOKED_AT)
        with ThreadPoolExecutor() as pool:
            return mean_and_std(x[None] for x in pool.map(self.__getitem__, range(0, len(self), step)))

    def mark(self) -> bytes:
        """Their names, from where they differ: the folder may move."""
        names = list(map(os.fsencode, self.paths))
        start = len(os.path.commonpath(names))
        return hashlib.sha256(b"\n".join(name[start:] for name in names)).digest()


def read_pictures(paths: list[Path], root: Path, channels: int, size: int, workers: int, cache: Path | None) -> Source:
    """Pictures below ``root``: in memory, from the cache where it is fresh; by workers where they are too many."""
    if len(paths) * channels * size * size > LARGEST_IN_MEMORY:
        return FileSource(paths, channels, size, workers)
    cached = _cache_file(paths, root, channels, size, cache) if cache is not None else None
    if cached is not None and cached.exists():
        try:
            return MemorySource(torch.from_numpy(np.load(cached, allow_pickle=False)))
        except (OSError, ValueError, EOFError):
            pass  # damaged: made anew below
    images = torch.empty(len(paths), channels, size, size, dtype=torch.uint8)
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda path: decode(path, channels, size), paths)
        shown = track(decoded, f"Reading {root}", len(paths), console=console, disable=not console.is_terminal)
        for position, picture in enumerate(shown):
            images[position] = picture
    if cached is not None:
        try:
            write_whole(cached, lambda file: np.save(file, images.numpy()))
            for stale in cached.parent.glob(cached.name.rpartition("-")[0] + "-*.npy"):
                if stale != cached:
                    stale.unlink(missing_ok=True)
        except OSError:
            pass  # nowhere to keep it: the next start decodes again
    return MemorySource(images)


def _cache_file(paths: list[Path], root: Path, channels: int, size: int, cache: Path) -> Path:
    """Named by where the pictures are and, behind the last dash, by their names, sizes and times of change."""
    state = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        state.update(os.fsencode(path.relative_to(root)) + f" {stat.st_size} {stat.st_mtime_ns}\n".encode())
    place = json.dumps([_said(root.resolve()), channels, size, DECODER])
    where = hashlib.sha256(place.encode()).hexdigest()[:12]
    return cache / f"{where}-{state.hexdigest()[:16]}.npy"


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distill_lightning"


def pictures_in(folder: str, channels: int, size: int, workers: int) -> tuple[Source, list[str]]:
    """All pictures below a folder, by their extensions, whatever its folders are called, and their paths in it.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    root, known = Path(folder), Image.registered_extensions()
    if not root.is_dir() or not (paths := [path for path in files_in(root) if path.suffix.lower() in known]):
        raise InputError(f"there are no pictures in {folder}: give a folder that holds some")
    source = read_pictures(paths, root, channels, size, workers, cache=None)
    return source, [str(path.relative_to(root)) for path in paths]



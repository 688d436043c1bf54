"""Picture files. They are decoded into memory, through a cache; if they do not fit, worker processes decode them."""

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
from distill_lightning.files import atomic_write

LARGEST_IN_MEMORY = 4 << 30
"""The largest size of all decoded pictures, in bytes, that is held in memory."""
LOOKED_AT = 2000
"""The number of pictures for the mean and standard deviation, if the pictures do not fit in memory."""
DECODER = 2
"""The version of the decoder. A cache that another version wrote is not used."""


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted by path, without hidden ones. Symbolic links are followed, but
    each folder is searched only once.

    Raises:
        InputError: the target of a link does not exist.
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
                raise InputError(f"{_printable(entry.path)} is a link to nothing: remove it, or restore its target")

    look(folder)
    return sorted(found)


def _printable(path: str | Path) -> str:
    """The path with escapes for bytes that are not UTF-8, as in file names of an old encoding."""
    return os.fsencode(path).decode(errors="backslashreplace")


def decode(path: Path, channels: int, size: int) -> Tensor:
    """Decodes a picture file. The shorter side is resized to ``size``, and the centre is cropped.

    Args:
        path: the file. Values with 16 bits are reduced to 8 bits.
        channels: 1 for grey, 3 for RGB.
        size: the side of the result in pixels.

    Returns:
        uint8 (channels, size, size).

    Raises:
        InputError: the file cannot be read as a picture, is too large, or has 32-bit values, whose scale is unknown.
    """
    try:
        with Image.open(path) as opened:
            picture: Image.Image = opened
            if picture.mode in ("I", "F"):
                raise InputError(
                    f"{_printable(path)} has values of 32 bits, whose scale is unknown: save it with 8 or 16 bits"
                )
            if picture.mode.startswith("I;16"):
                picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
            picture = picture.convert("L" if channels == 1 else "RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{_printable(path)} is too large: {error}") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{_printable(path)} is no picture that can be read: remove or replace it") from error
    if picture.size != (size, size):
        width, height = picture.size
        shorter = min(width, height)
        wide, high = round(width * size / shorter), round(height * size / shorter)
        left, top = (wide - size) // 2, (high - size) // 2
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


class FileSource(Dataset[Tensor]):
    """A source that decodes picture files in worker processes when they are needed.

    Args:
        paths: the files.
        channels: 1 or 3.
        size: the side of the decoded pictures in pixels.
        workers: the number of worker processes; 0 decodes in this process.
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
        """Itself: the files stay on disk."""
        return self

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[tuple[Tensor, BatchPlan]]:
        """See Source.

        Raises:
            InputError: a file cannot be decoded.
        """
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
            generator=torch.Generator(),  # otherwise DataLoader draws from the global generator
        )
        try:
            for images in loader:
                yield images, waiting.popleft()
        except InputError as error:  # the message from a worker contains its traceback
            raise InputError(str(error).strip().splitlines()[-1].partition("InputError: ")[2] or str(error)) from None

    def _stack(self, images: list[Tensor]) -> Tensor:
        return torch.stack(images) if images else torch.empty(0, *self.shape, dtype=torch.uint8)

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """See Source. It uses at most `LOOKED_AT` pictures, at equal distances in the list."""
        step = -(-len(self) // LOOKED_AT)
        with ThreadPoolExecutor() as pool:
            return mean_and_std(x[None] for x in pool.map(self.__getitem__, range(0, len(self), step)))

    def mark(self) -> bytes:
        """See Source. It hashes the paths without their common folder, so that the folder may be moved."""
        names = list(map(os.fsencode, self.paths))
        start = len(os.path.commonpath(names))
        return hashlib.sha256(b"\n".join(name[start:] for name in names)).digest()


def read_pictures(paths: list[Path], root: Path, channels: int, size: int, workers: int, cache: Path | None) -> Source:
    """Reads picture files.

    Args:
        paths: the files, all below ``root``.
        root: the folder that the cache is for.
        channels: 1 or 3.
        size: the side of the decoded pictures in pixels.
        workers: the number of worker processes if the pictures do not fit in memory.
        cache: the folder for decoded pictures; None for no cache. A file in it is used only if no picture has changed.

    Returns:
        A MemorySource, or a FileSource if the decoded pictures are larger than `LARGEST_IN_MEMORY`.

    Raises:
        InputError: a file cannot be decoded.
    """
    if len(paths) * channels * size * size > LARGEST_IN_MEMORY:
        return FileSource(paths, channels, size, workers)
    cached = _cache_file(paths, root, channels, size, cache) if cache is not None else None
    if cached is not None and cached.exists():
        try:
            return MemorySource(torch.from_numpy(np.load(cached, allow_pickle=False)))
        except (OSError, ValueError, EOFError):
            pass  # the cache file is damaged and is written again below
    images = torch.empty(len(paths), channels, size, size, dtype=torch.uint8)
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda path: decode(path, channels, size), paths)
        shown = track(decoded, f"Reading {root}", len(paths), console=console, disable=not console.is_terminal)
        for position, picture in enumerate(shown):
            images[position] = picture
    if cached is not None:
        try:
            atomic_write(cached, lambda file: np.save(file, images.numpy()))
            for stale in cached.parent.glob(cached.name.rpartition("-")[0] + "-*.npy"):
                if stale != cached:
                    stale.unlink(missing_ok=True)
        except OSError:
            pass  # the cache cannot be written: the next run decodes again
    return MemorySource(images)


def _cache_file(paths: list[Path], root: Path, channels: int, size: int, cache: Path) -> Path:
    """The cache file. Before the dash its name is a digest of the folder and the format; after the dash it is a digest
    of the names, sizes and modification times of the pictures.
    """
    state = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        state.update(os.fsencode(path.relative_to(root)) + f" {stat.st_size} {stat.st_mtime_ns}\n".encode())
    place = json.dumps([_printable(root.resolve()), channels, size, DECODER])
    where = hashlib.sha256(place.encode()).hexdigest()[:12]
    return cache / f"{where}-{state.hexdigest()[:16]}.npy"


def default_cache() -> Path:
    """The folder for decoded pictures in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distill_lightning"


def pictures_in(folder: str, channels: int, size: int, workers: int) -> tuple[Source, list[str]]:
    """Reads all pictures in a folder and its subfolders. A picture is a file with the extension of a picture format.

    Args:
        folder: the folder.
        channels: 1 or 3.
        size: the side of the decoded pictures in pixels.
        workers: the number of worker processes if the pictures do not fit in memory.

    Returns:
        The pictures, and their paths relative to the folder.

    Raises:
        InputError: there are no pictures, or one cannot be decoded.
    """
    root, known = Path(folder), Image.registered_extensions()
    if not root.is_dir() or not (paths := [path for path in files_in(root) if path.suffix.lower() in known]):
        raise InputError(f"there are no pictures in {folder}: give a folder that holds some")
    source = read_pictures(paths, root, channels, size, workers, cache=None)
    return source, [str(path.relative_to(root)) for path in paths]

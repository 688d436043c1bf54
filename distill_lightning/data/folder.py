"""Pictures in folders: one folder a class. Decoded once into a cache, or by workers where they are too many."""

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

from distill_lightning.data.base import ImageData, Plan
from distill_lightning.data.sources import MemorySource, Source, mean_and_std
from distill_lightning.errors import InputError
from distill_lightning.files import write_whole

LARGEST_IN_MEMORY = 4 << 30
"""Bytes of decoded pictures up to which they are held in memory."""
LOOKED_AT = 2000
"""Pictures that the mean and standard deviation are taken from, where there are too many for memory."""
PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""What their folders are called, in small or capital letters."""
LARGEST_SIDE = 8192
"""Pixels. One picture of that size takes 800 MB as float32."""
DECODER = 2
"""Counts the ways in which pictures have been decoded: caches are each of one."""


def class_folders(folder: Path) -> list[Path]:
    """By name, hidden ones left out."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


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
        with Image.open(path) as picture:
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


class FileSource(Dataset):
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

    def stream(self, plans: Iterable[Plan]) -> Iterator[tuple[Tensor, Plan]]:
        waiting: deque[Plan] = deque()

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


def pictures_in(folder: str, channels: int, size: int, workers: int) -> Source:
    """All pictures below a folder, by their extensions, whatever its folders are called. ``names`` has their paths.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    root, known = Path(folder), Image.registered_extensions()
    if not root.is_dir() or not (paths := [path for path in files_in(root) if path.suffix.lower() in known]):
        raise InputError(f"there are no pictures in {folder}: give a folder that holds some")
    source = read_pictures(paths, root, channels, size, workers, cache=None)
    source.names = [str(path.relative_to(root)) for path in paths]
    return source


class ImageFolder(ImageData):
    """A folder of class folders, or of ``train``, ``val`` and ``test`` (the last two if there are any) of such.

    Args:
        root: the folder.
        image_size: side of the square pictures: the shorter side is resized, the centre cut out.
        grey: one channel instead of three.
        cache: where decoded pictures are kept; by default in the user's cache folder.
        kwargs: see ImageData.

    Raises:
        InputError: the folder is missing or empty, or a class lacks in one of its parts.
    """

    writes_to = ("cache",)
    """Options that name folders to write to: a file may not choose them."""

    def __init__(self, root: str, image_size: int = 64, grey: bool = False, cache: str | None = None, **kwargs) -> None:
        super().__init__(root, **kwargs)
        if not 1 <= image_size <= LARGEST_SIDE:
            raise InputError(f"image_size is {image_size}: it must be from 1 to {LARGEST_SIDE} pixels")
        self.image_size, self.channels = image_size, 1 if grey else 3
        self.cache = Path(cache) if cache is not None else default_cache()

    @property
    def name(self) -> str:
        return Path(self.root).resolve().name

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        if self.remembered:
            return self.remembered["class_names"]
        names = [folder.name for folder in class_folders(self._part_folder("train"))]
        if len(names) < 2:
            raise InputError(f"{self._part_folder('train')} has {len(names)} class folders: there must be 2 or more")
        return names

    def _part_folder(self, part: str) -> Path | None:
        root = Path(self.root)
        if not root.is_dir():
            raise InputError(f"there is no folder {root}: data.root must be a folder of class folders")
        named = {folder.name.lower(): folder for folder in class_folders(root)}
        classes = named.keys() - {name for names in PARTS.values() for name in names}
        # beside other classes, a folder of trains is one too
        found = [
            named[name] for name in PARTS[part] if name in named and not (classes and not class_folders(named[name]))
        ]
        if found:
            return found[0]
        return root if part == "train" else None

    def prepare_data(self) -> None:
        if self.pictures is None or not self.remembered:
            for part in PARTS:  # one process a node fills the cache, the others find it filled
                self.read(part)

    def read(self, part: str) -> tuple[Source, Tensor] | None:
        folder = self._part_folder(part)
        if folder is None:
            return None
        return read_class_folders(
            folder, self.class_names, self.channels, self.image_size, self.num_workers, self.cache
        )


def read_class_folders(
    folder: Path, classes: list[str], channels: int, size: int, workers: int, cache: Path
) -> tuple[Source, Tensor]:
    """Pictures and labels (N,) of a folder of class folders, by class and name.

    Raises:
        InputError: it has other classes than ``classes``, a class without pictures, or a file that is none.
    """
    found = [f.name for f in class_folders(folder)]
    for odd in sorted(set(found) ^ set(classes)):
        lacks = "has a class" if odd in found else "lacks the class"
        raise InputError(f"{folder} {lacks} {odd}: all parts must have the same {len(classes)} classes")
    by_class = [files_in(folder / name) for name in classes]
    for name, files in zip(classes, by_class, strict=True):
        if not files:
            raise InputError(f"{folder / name} holds no pictures: each class needs some")
    labels = torch.tensor([label for label, files in enumerate(by_class) for _ in files])
    paths = [path for files in by_class for path in files]
    return read_pictures(paths, folder, channels, size, workers, cache), labels

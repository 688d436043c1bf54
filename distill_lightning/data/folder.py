"""Pictures in folders: one folder a class."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.picture_files import default_cache, files_in, read_pictures
from distill_lightning.data.sources import Source
from distill_lightning.errors import InputError

PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""What their folders are called, in small or capital letters."""
LARGEST_SIDE = 8192
"""Pixels. One picture of that size takes 800 MB as float32."""


def class_folders(folder: Path) -> list[Path]:
    """By name, hidden ones left out."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


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

    free_options: tuple[str, ...] = ("cache",)
    writes_to = ("cache",)
    """Options that name folders to write to: a file may not choose them."""

    def __init__(self, root: str, image_size: int = 64, grey: bool = False, cache: str | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        if not 1 <= image_size <= LARGEST_SIDE:
            raise InputError(f"image_size is {image_size}: it must be from 1 to {LARGEST_SIDE} pixels")
        self.image_size, self.channels = image_size, 1 if grey else 3
        self.cache = Path(cache) if cache is not None else default_cache()

    @property
    def name(self) -> str:  # type: ignore[override]
        return Path(self.root).resolve().name

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        if self.trained_on is not None:
            return list(self.trained_on.info.class_names)
        names = [folder.name for folder in class_folders(self._training_folder)]
        if len(names) < 2:
            raise InputError(f"{self._training_folder} has {len(names)} class folders: there must be 2 or more")
        return names

    @property
    def _training_folder(self) -> Path:
        folder = self._part_folder("train")
        assert folder is not None  # where there is no folder of that name, it is the root
        return folder

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
        if self.pictures is None or self.trained_on is None:
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

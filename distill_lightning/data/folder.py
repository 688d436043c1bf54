"""Pictures in folders, with one folder for each class."""

from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.picture_files import default_cache, files_in, read_pictures
from distill_lightning.data.sources import Source
from distill_lightning.errors import InputError
from distill_lightning.ranges import Range

PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""The names of the folders of each part. Case is ignored."""
Side = Annotated[int, Range(1, 8192)]
"""In pixels. The largest picture takes 800 MB as float32."""


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


class ImageFolder(ImageData):
    """A folder that contains class folders, or folders ``train``, ``val`` and ``test`` that contain class folders.
    ``val`` and ``test`` may be missing.

    Args:
        root: the folder.
        image_size: the side of the square pictures in pixels. The shorter side of a file is resized to it, and the
            centre is cropped.
        grey: whether the pictures have one channel instead of three.
        cache: the folder for decoded pictures; by default in the user's cache folder.
        kwargs: see ImageData.

    Raises:
        InputError: an option is out of range. Reading raises it if the folder is missing or empty, or if a class is
            missing in one of the parts.
    """

    free_options: tuple[str, ...] = ("cache",)
    writes_to = ("cache",)
    """Options that name folders to write to. Their values are not taken from a file, such as a checkpoint."""

    def __init__(
        self, root: str, image_size: Side = 64, grey: bool = False, cache: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(root, **kwargs)
        self.image_size, self.channels = image_size, 1 if grey else 3
        self.cache = Path(cache) if cache is not None else default_cache()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the folder ``root``."""
        return Path(self.root).resolve().name

    @property
    def num_classes(self) -> int:
        """The number of class folders."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """The names of the class folders or, for a checkpoint, those that it was trained on.

        Raises:
            InputError: there are fewer than two class folders.
        """
        if self.trained_on is not None:
            return list(self.trained_on.info.class_names)
        names = [folder.name for folder in class_folders(self._training_folder)]
        if len(names) < 2:
            raise InputError(f"{self._training_folder} has {len(names)} class folders: there must be 2 or more")
        return names

    @property
    def _training_folder(self) -> Path:
        folder = self._part_folder("train")
        assert folder is not None  # without a folder for training, it is the root
        return folder

    def _part_folder(self, part: str) -> Path | None:
        root = Path(self.root)
        if not root.is_dir():
            raise InputError(f"there is no folder {root}: data.root must be a folder of class folders")
        named = {folder.name.lower(): folder for folder in class_folders(root)}
        classes = named.keys() - {name for names in PARTS.values() for name in names}
        # a folder "train" beside other class folders is a class (pictures of trains), unless it contains folders
        found = [
            named[name] for name in PARTS[part] if name in named and not (classes and not class_folders(named[name]))
        ]
        if found:
            return found[0]
        return root if part == "train" else None

    def prepare_data(self) -> None:
        """Decodes the pictures into the cache, on one process per node."""
        if self.pictures is None or self.trained_on is None:
            for part in PARTS:
                self.read(part)

    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """See ImageData."""
        folder = self._part_folder(part)
        if folder is None:
            return None
        return read_class_folders(
            folder, self.class_names, self.channels, self.image_size, self.num_workers, self.cache
        )


def read_class_folders(
    folder: Path, classes: list[str], channels: int, size: int, workers: int, cache: Path
) -> tuple[Source, Tensor]:
    """Reads the pictures in a folder of class folders, sorted by class and name.

    Args:
        folder: the folder that contains the class folders.
        classes: the names that the class folders must have.
        channels: 1 or 3.
        size: the side of the square pictures in pixels.
        workers: the number of processes that decode pictures if they do not fit in memory.
        cache: the folder for decoded pictures.

    Returns:
        The pictures, and labels (N,) int64.

    Raises:
        InputError: the class folders are not those of ``classes``, one is empty, or a file is not a picture.
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

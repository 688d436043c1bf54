"""Reads class folders that must have given names, as those of published data sets."""

from pathlib import Path

import torch
from torch import Tensor

from distill_lightning.data.picture_files import Pictures, read_pictures
from distill_lightning.data.sources import Source
from distill_lightning.data.stores import FolderStore
from distill_lightning.errors import InputError


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


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
    store = FolderStore(folder)
    number = {name: label for label, name in enumerate(classes)}
    names = [name for name in store.listing().files if name.partition("/")[0] in number and "/" in name]
    labels = torch.tensor([number[name.partition("/")[0]] for name in names])
    for name, count in zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True):
        if not count:
            raise InputError(f"{folder / name} holds no pictures: each class needs some")
    return read_pictures(Pictures(store, names, channels, size), workers, cache), labels

"""Tiny-ImageNet, read from the folders of its unpacked archive."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.class_folders import class_folders
from distill_lightning.data.picture_cache import default_cache
from distill_lightning.data.picture_files import Pictures, read_pictures
from distill_lightning.data.sources import Source
from distill_lightning.data.stores import FolderStore
from distill_lightning.errors import InputError
from distill_lightning.ranges import Count

FOLDER = "tiny-imagenet-200"


class TinyImageNet(ImageData):
    """100,000 training pictures of 200 classes, 3x64x64, or resized.

    Its 10,000 validation pictures are used as the test part, since its test pictures have no labels. The data set is
    not downloaded: the archive is at cs231n.stanford.edu/tiny-imagenet-200.zip.

    Args:
        root: the folder ``tiny-imagenet-200``, or the folder that contains it.
        image_size: the side of the pictures in pixels: 64, or 32 as in some papers. Results at 32 and 64 are not
            comparable.
        kwargs: see ImageData.

    Raises:
        InputError: an option is out of range. Reading raises it if folders or files of the archive are missing.
    """

    root_names_the_pictures = False
    num_classes, channels = 200, 3

    def __init__(self, root: str = "data", image_size: Count = 64, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.image_size = image_size

    @property
    def class_names(self) -> list[str]:
        """The WordNet IDs of the classes, which are the names of their folders or, for a checkpoint, those that it was
        trained on.
        """
        return list(self.trained_on.info.class_names) if self.trained_on is not None else self._classes()

    def _folder(self) -> Path:
        for folder in (Path(self.root) / FOLDER, Path(self.root)):
            if (folder / "train").is_dir() and (folder / "val" / "val_annotations.txt").is_file():
                return folder
        raise InputError(
            f"Tiny-ImageNet is not in {self.root}: unpack cs231n.stanford.edu/tiny-imagenet-200.zip there, or set "
            "data.root to where it is"
        )

    def _classes(self) -> list[str]:
        folder = self._folder()
        names = [f.name for f in class_folders(folder / "train")]
        if len(names) != self.num_classes:
            raise InputError(f"{folder / 'train'} has {len(names)} classes: Tiny-ImageNet has {self.num_classes}")
        return names

    def prepare_data(self) -> None:
        """Decodes the pictures into the cache, on one process per node."""
        if self.pictures is None or self.trained_on is None:
            for part in ("train", "test"):
                self.read(part)

    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """See ImageData. There is no part "val"."""
        if part == "val":
            return None
        folder, classes = self._folder(), self._classes()
        if part == "train":
            files = FolderStore(folder / "train").listing().files
            number = {name: label for label, name in enumerate(classes)}
            inside = [name for name in files if name.partition("/")[2].startswith("images/")]
            labels = [number[name.partition("/")[0]] for name in inside]
            names = [f"train/{name}" for name in inside]
        else:
            annotations = folder / "val" / "val_annotations.txt"
            lines = sorted(line.split("\t")[:2] for line in annotations.read_text().splitlines() if line)
            number = {name: label for label, name in enumerate(classes)}
            if odd := [name for _, name in lines if name not in number]:
                raise InputError(
                    f"{annotations} has the class {odd[0]}, which is not in {folder / 'train'}: unpack Tiny-ImageNet "
                    "again"
                )
            labels = [number[name] for _, name in lines]
            names = [f"val/images/{file}" for file, _ in lines]
        if missing := [name for name in names[:1] + names[-1:] if not (folder / name).is_file()]:
            raise InputError(f"there is no picture {folder / missing[0]}: unpack Tiny-ImageNet again")
        files_read = Pictures(FolderStore(folder), names, 3, self.image_size)
        source = read_pictures(files_read, self.num_workers, default_cache())
        return source, torch.tensor(labels)

"""MNIST, CIFAR-10 and CIFAR-100, downloaded by torchvision."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import datasets

from distill_lightning.data.base import ImageData
from distill_lightning.data.class_folders import class_folders, read_class_folders
from distill_lightning.data.picture_cache import default_cache
from distill_lightning.data.sources import MemorySource, Source
from distill_lightning.errors import InputError
from distill_lightning.files import locked


class _TorchvisionSet(ImageData):
    """A published data set.

    Args:
        root: the folder that contains the data set, or that it is downloaded to.
        classes: the names of the classes that the data consist of, at least two; all by default. In the order given,
            they are the classes 0, 1, ... of the network. All parts have the pictures of these classes alone.
        kwargs: see ImageData.

    Raises:
        InputError: an option is out of range.
    """

    later_options: ClassVar[Mapping[str, Any]] = {"classes": None}
    root_names_the_pictures = False
    dataset: type
    num_classes: int = 0

    def __init__(self, root: str = "data", classes: list[str | int] | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.classes: list[int] | None = None
        if classes is None:
            return
        self.classes = self.class_numbers(classes)
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise InputError(f"data.classes is {classes}: give two classes or more, each once")
        self.num_classes = len(self.classes)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes: the numbers that they have in the whole data set."""
        return super().class_names if self.classes is None else [str(number) for number in self.classes]

    def of_classes(self, source: Source, labels: Tensor) -> tuple[Source, Tensor]:
        """The pictures and labels of ``classes`` alone, in the same order.

        Args:
            source: N pictures.
            labels: (N,) int64, the numbers that the classes have in the whole data set.
        """
        if self.classes is None:
            return source, labels
        assert isinstance(source, MemorySource)  # these data sets fit in memory
        of = labels[:, None] == torch.tensor(self.classes)
        kept = of.any(1)
        return MemorySource(source.images[kept]), of[kept].long().argmax(1)

    def prepare_data(self) -> None:
        """Downloads the data set if it is missing, on one process per node.

        Raises:
            InputError: it cannot be downloaded.
        """
        if self.pictures is not None and self.trained_on is not None:
            return
        for train in (True, False):
            self._open(train)

    def _open(self, train: bool) -> datasets.VisionDataset:
        # torchvision opens the pickles of CIFAR only if their checksums match
        with suppress(RuntimeError):
            return self.dataset(self.root, train=train)
        try:
            # runs that begin at once would write the same files; torchvision downloads what is not there by now
            with locked(Path(self.root) / f".{self.dataset.__name__}.lock"):
                return self.dataset(self.root, train=train, download=True)
        except Exception as error:
            raise InputError(
                f"{self.dataset.__name__} is missing or damaged in {self.root} and could not be downloaded "
                f"({type(error).__name__}): put its files there, or set data.root to where they are"
            ) from error

    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """See ImageData. There is no part "val"."""
        if part == "val":
            return None
        dataset = self._open(part == "train")
        images = torch.as_tensor(dataset.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        return self.of_classes(MemorySource(images), torch.as_tensor(dataset.targets).long())


class MNIST(_TorchvisionSet):
    """Handwritten digits: 60,000 training and 10,000 test pictures, 1x28x28, 10 classes."""

    num_classes, channels, image_size = 10, 1, 28
    dataset = datasets.MNIST


class _CIFAR(_TorchvisionSet):
    """CIFAR from torchvision's files or from class folders: ``root/<name>/{train,test}/<class>/`` or
    ``root/{train,test}/<class>/``.
    """

    channels, image_size = 3, 32

    def _class_folders(self) -> Path | None:
        """The folder whose subfolders train and test contain class folders; None if there is none."""
        for folder in (Path(self.root) / self.name, Path(self.root)):
            if (folder / "train").is_dir() and class_folders(folder / "train"):
                return folder
        return None

    def prepare_data(self) -> None:
        """Decodes class folders into the cache, or downloads the data set if it is missing, on one process per node.

        Raises:
            InputError: it cannot be downloaded, or the class folders are damaged.
        """
        if self._class_folders() is None:
            super().prepare_data()
        else:
            for part in ("train", "test"):
                self.read(part)

    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """See ImageData. There is no part "val"."""
        folder = self._class_folders()
        if folder is None or part == "val":
            return super().read(part)
        classes = [f.name for f in class_folders(folder / "train")]
        if all(name.isdecimal() for name in classes):  # the numbers of the classes: 2 comes before 10
            classes.sort(key=int)
        if len(classes) != type(self).num_classes:
            raise InputError(
                f"{folder / 'train'} has {len(classes)} class folders: {self.name} has {type(self).num_classes}"
            )
        return self.of_classes(*read_class_folders(folder / part, classes, 3, 32, self.num_workers, default_cache()))


class CIFAR10(_CIFAR):
    """50,000 training and 10,000 test pictures, 3x32x32, 10 classes."""

    num_classes = 10
    dataset = datasets.CIFAR10


class CIFAR100(_CIFAR):
    """50,000 training and 10,000 test pictures, 3x32x32, 100 classes."""

    num_classes = 100
    dataset = datasets.CIFAR100

"""The options of all data sets, and what can be said about a data set before its pictures are read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import lightning.pytorch as pl
from torch import Tensor

from distill_lightning.data import imbalance
from distill_lightning.data.augment import Transform
from distill_lightning.data.evaluation_views import EvaluationViews
from distill_lightning.data.mixing import Mixing
from distill_lightning.data.provenance import differ
from distill_lightning.data.sources import Source
from distill_lightning.errors import InputError
from distill_lightning.preprocessing import Preprocessing
from distill_lightning.ranges import (
    BelowOne,
    Count,
    CountOrZero,
    Fraction,
    NonNegative,
    OpenFraction,
    Range,
    Seed,
)
from distill_lightning.recorded import Recorded
from distill_lightning.seeds import run_seed
from distill_lightning.values import TrainedOn

Workers = Annotated[int, Range(0, 512)]
PartOfAll = Annotated[float, Range(above=0, at_most=1)]
REST = "rest"
"""The value of the option ``unlabelled`` that stands for the rest of the training part."""


class DataOptions(Recorded, pl.LightningDataModule, ABC):
    """The options and the description of a data set; the base class of ImageData.

    Args:
        root: the folder that contains the data set, or that it is downloaded to.
        batch_size: the number of new samples in a global batch, which is split evenly over the processes.
        eval_batch_size: the number of samples per process in a batch of validation, test and prediction.
        val_size: the size of the validation split, which is held out of the training part: a fraction (below 1) or a
            number of samples; 0 for none. The classes keep their proportions. Ignored if the data set has its own
            validation part.
        split_seed: the seed of the validation split and of ``train_part``; by default the same in every run.
        train_part: the part of the remaining training samples to use: a fraction (float), a number of samples (int), or
            a number for each class ("10 per class", by their clean labels); all by default.
        leave_out: names of classes without training samples. A sample is left out if its clean or its noisy label is
            one of them. Validation and test keep these classes.
        label_noise: the expected fraction of wrong labels in the training samples (with ``noise_map``, in the samples
            of its classes). The labels of validation and test stay clean. A teacher is not trained again, so it may
            have learned from clean labels.
        noise_map: for each class with label noise the class of its wrong labels, by name, {"4": "9"}. By default a
            wrong label is any other class.
        noise_seed: the seed of the label noise; 0 by default, so that all runs have the same wrong labels.
        augment: the transforms of the training pictures, in order.
        class_weights: the weights of the classes in the cross-entropy with labels: "inverse" (of the number of training
            samples), "effective 0.999" (of the effective number, Cui et al. 2019), or a number for each class by name;
            1 by default. The loss with a teacher's soft targets has no weights.
        balanced: whether all classes occur equally often in training, by repeating the samples of small classes and
            leaving out some of large ones; an epoch has as many samples as without it.
        test_views: the views of a picture whose logits are averaged in test and predict, such as FlipViews; the picture
            alone by default.
        unlabelled: training pictures without labels, from which KD learns by soft targets alone and SEED by the
            teacher's features: a folder, zip or tar file of pictures, or "rest" for the training pictures that
            ``train_part`` does not take; none by default. They change neither an epoch, which is one pass through the
            pictures with labels, nor the normalisation.
        unlabelled_share: the share of unlabelled pictures in each batch of ``batch_size``.
        eval_transforms: the transforms of validation, test and predicted pictures, such as ResizeAndCenterCrop; none
            by default.
        preprocess: what is done with each picture right before the network, in the place of the normalisation by mean
            and standard deviation of each channel, such as ZCA; or several, one after another. It is fitted to the
            training samples. A teacher has that of its own run.
        mix: Mixup or CutMix, which mixes training pictures and their labels after augmentation.
        keep_last: whether the last partial batch of an epoch is kept; by default it is dropped.
        seed: the seed of sample order and augmentation; by default the seed of the run.
        num_workers: the number of processes that decode pictures if the data set does not fit in memory.
        pictures: the pictures to predict: a folder, with or without class folders, a zip or tar file, a picture, or a
            list of them; the test split by default.

    Attributes:
        channels: C, available before any data is read, as ``num_classes`` is.
        image_size: the height and width of a picture in pixels, available before any data is read.

    Raises:
        InputError: an option is out of range.
    """

    later_options: ClassVar[Mapping[str, Any]] = {
        "balanced": False,
        "unlabelled": None,
        "unlabelled_share": 0.5,
        "preprocess": None,
    }
    """Options that were added after version 0.2, with the value that means the same as no such option."""
    free_options: tuple[str, ...] = ("root", "num_workers", "pictures", "eval_batch_size")
    """Options that do not change the result of a run."""
    root_names_the_pictures = True
    """Whether another ``root`` means other pictures. False for a published data set, the same in every folder."""
    takes_urls = False
    """Whether ``root`` may be a URL."""

    channels: int
    image_size: int

    def __init__(
        self,
        root: str = "data",
        batch_size: Count = 128,
        eval_batch_size: Count = 500,
        val_size: CountOrZero | BelowOne = 0.1,
        split_seed: Seed = 0,
        train_part: Count | PartOfAll | str | None = None,
        leave_out: list[str | int] | None = None,
        label_noise: Fraction | None = None,
        noise_map: dict[str | int, str | int] | None = None,
        noise_seed: Seed | None = None,
        augment: list[Transform] | None = None,
        mix: Mixing | None = None,
        keep_last: bool = False,
        seed: Seed | None = None,
        num_workers: Workers = 0,
        pictures: str | list[str] | None = None,
        eval_transforms: list[Transform] | None = None,
        class_weights: str | dict[str | int, NonNegative] | None = None,
        balanced: bool = False,
        test_views: EvaluationViews | None = None,
        unlabelled: str | None = None,
        unlabelled_share: OpenFraction = 0.5,
        preprocess: Preprocessing | list[Preprocessing] | None = None,
    ) -> None:
        super().__init__()
        if noise_map and label_noise is None:
            raise InputError("noise_map is set without label_noise: give label_noise as well")
        for right, mistaken in (noise_map or {}).items():
            if str(right) == str(mistaken):
                raise InputError(f"in noise_map the class {right} is mistaken for itself: give another class")
        self.root = str(root)  # in Python it may be a Path
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.split_seed = val_size, split_seed
        self.train_part, self.leave_out = train_part, leave_out or []
        self.label_noise, self.noise_map, self.noise_seed = label_noise, noise_map, noise_seed or 0
        self.augment, self.mix = augment or [], mix
        self.eval_transforms = eval_transforms or []
        imbalance.check_weights(class_weights)
        self.class_weights, self.balanced, self.test_views = class_weights, balanced, test_views
        self.preprocess = [preprocess] if isinstance(preprocess, Preprocessing) else preprocess or []
        self.keep_last = keep_last
        self.unlabelled = unlabelled
        self.unlabelled_rows = 0 if unlabelled is None else round(unlabelled_share * batch_size)
        """The number of unlabelled pictures in a global batch."""
        if unlabelled is not None:
            self._check_unlabelled(unlabelled_share)
        self.given_seed = seed
        self.num_workers, self.pictures = num_workers, pictures
        self.trained_on: TrainedOn | None = None
        """The training data of the checkpoint that is evaluated; None if no checkpoint is."""

    def _check_unlabelled(self, share: float) -> None:
        if self.mix is not None:
            raise InputError("data.mix mixes labels, which unlabelled pictures lack: leave out mix or unlabelled")
        if self.keep_last:
            raise InputError("data.keep_last has no meaning with data.unlabelled, which never ends: leave it out")
        if not 0 < self.unlabelled_rows < self.batch_size:
            raise InputError(
                f"data.unlabelled_share {share} of batch_size {self.batch_size} is {self.unlabelled_rows} pictures: "
                "each batch needs at least one with a label and one without"
            )

    # Description of the data set

    @property
    def name(self) -> str:  # type: ignore[override]  # Lightning declares a string, but never reads it
        """The name of the data set, and of the folder of its runs in logs/."""
        return type(self).__name__.lower()

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """K, available before any data is read."""

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of their numbers."""
        return [str(k) for k in range(self.num_classes)]

    def class_numbers(self, names: Iterable[str | int]) -> list[int]:
        """The numbers of the classes with the given names.

        Raises:
            InputError: there is no class with one of the names.
        """
        known = {name: number for number, name in enumerate(self.class_names)}
        wanted = [str(name) for name in names]
        for name in wanted:
            if name not in known:
                raise InputError(f"{self.name} has no class {name}: it has {', '.join([*known][:10])} ...")
        return [known[name] for name in wanted]

    def refuse_other_classes(self, trained: Sequence[str], where: str) -> None:
        """Checks that a checkpoint was trained on these classes.

        Args:
            trained: the names of the classes that it was trained on.
            where: the checkpoint's file, for the error.

        Raises:
            InputError: the classes differ.
        """
        own = self.class_names
        if list(trained) != own:
            raise InputError(f"{where[-60:]} was trained on other classes than {self.name} has: {differ(trained, own)}")

    @abstractmethod
    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """Reads the pictures and labels of a part.

        Args:
            part: "train", "val" or "test".

        Returns:
            The pictures, and labels (N,) int64; None if the data set has no such part.
        """

    @property
    def weights_by_number(self) -> str | dict[int, float] | None:
        """The option ``class_weights``, with the numbers of the classes for their names.

        Raises:
            InputError: there is no class with one of the names.
        """
        given = self.class_weights
        if given is None or isinstance(given, str):
            return given
        return dict(zip(self.class_numbers(given), given.values(), strict=True))

    @property
    def bit_depth(self) -> int:
        """How many bits the values of pictures with 16 bits use, 8 to 16."""
        return 16

    @property
    def seed(self) -> int:
        """The seed of sample order and augmentation."""
        return run_seed() if self.given_seed is None else self.given_seed

    @property
    def noise(self) -> tuple[float | None, tuple[tuple[str, str], ...] | None, int]:
        """See DataInfo."""
        mistaken = self.noise_map and tuple((str(k), str(v)) for k, v in self.noise_map.items())
        return self.label_noise, mistaken or None, self.noise_seed

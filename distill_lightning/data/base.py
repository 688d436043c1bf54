"""The base class of the data modules: it reads the parts of a data set, splits them, and makes data loaders.

A subclass implements ``ImageData.read``. The modules ``loaders`` and ``rendering`` make batches from the pictures. The
checkpoint contains no state of the sample order: a batch is a function of the seed and of the position of training.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from distill_lightning.data import imbalance, overview
from distill_lightning.data.augment import Transform
from distill_lightning.data.bad_pictures import counts_of, lines_of_bad
from distill_lightning.data.evaluation_views import EvaluationViews
from distill_lightning.data.loaders import EvalLoader, Share, TrainingSamples, TrainLoader
from distill_lightning.data.mixing import Mixing
from distill_lightning.data.noise import with_noise
from distill_lightning.data.picture_files import FileSource, Pictures, read_pictures
from distill_lightning.data.predicted_files import find_pictures
from distill_lightning.data.provenance import differ, refuse_seen
from distill_lightning.data.rendering import Normaliser, Renderer
from distill_lightning.data.sources import Source
from distill_lightning.data.splits import Split, hold_out, take_part, without_classes
from distill_lightning.digests import tensors_digest
from distill_lightning.distributed import is_first
from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write
from distill_lightning.ranges import BelowOne, Count, CountOrZero, Fraction, NonNegative, Range, Seed
from distill_lightning.recorded import Recorded
from distill_lightning.seeds import run_seed, stratified_order
from distill_lightning.values import Batch, BatchNeeds, DataInfo, PlainTimeline, Timeline, TrainedOn

Workers = Annotated[int, Range(0, 512)]
PartOfAll = Annotated[float, Range(above=0, at_most=1)]
NO_SAMPLES = torch.empty(0, dtype=torch.int32)


class ImageData(Recorded, pl.LightningDataModule):
    """A data set of pictures. A subclass defines how it is read.

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
        eval_transforms: the transforms of validation, test and predicted pictures, such as ResizeAndCenterCrop; none
            by default.
        mix: Mixup or CutMix, which mixes training pictures and their labels after augmentation.
        keep_last: whether the last partial batch of an epoch is kept; by default it is dropped.
        seed: the seed of sample order and augmentation; by default the seed of the run.
        num_workers: the number of processes that decode pictures if the data set does not fit in memory.
        pictures: the pictures to predict: a folder, with or without class folders, a zip or tar file, a picture, or a
            list of them; the test split by default.

    Attributes:
        channels: C, available before any data is read, as ``num_classes`` is.
        image_size: the height and width of a picture in pixels, available before any data is read.
        train: the training split; None before it is read.
        val: the validation split; None before it is read, or if there is none.
        test: the test split; None before it is read, or if there is none.
        clean_labels: (N,) int64, the labels of the full training part without label noise.
        normaliser: normalises with the mean and standard deviation of the training pictures or, for a checkpoint, of
            the pictures that it was trained on.

    Raises:
        InputError: an option is out of range.
    """

    later_options: ClassVar[Mapping[str, Any]] = {"balanced": False}
    """Options that were added after version 0.2, with the value that means the same as no such option."""
    free_options: tuple[str, ...] = ("root", "num_workers", "pictures", "eval_batch_size")
    """Options that do not change the result of a run."""
    root_names_the_pictures = True
    """Whether another ``root`` means other pictures. False for a published data set, the same in every folder."""

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
    ) -> None:
        super().__init__()
        if noise_map and label_noise is None:
            raise InputError("noise_map is set without label_noise: give label_noise as well")
        for right, mistaken in (noise_map or {}).items():
            if str(right) == str(mistaken):
                raise InputError(f"in noise_map the class {right} is mistaken for itself: give another class")
        self.root = root
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.split_seed = val_size, split_seed
        self.train_part, self.leave_out = train_part, leave_out or []
        self.label_noise, self.noise_map, self.noise_seed = label_noise, noise_map, noise_seed or 0
        self.augment, self.mix = augment or [], mix
        self.eval_transforms = eval_transforms or []
        imbalance.check_weights(class_weights)
        self.class_weights, self.balanced, self.test_views = class_weights, balanced, test_views
        self.keep_last = keep_last
        self.given_seed = seed
        self.num_workers, self.pictures = num_workers, pictures
        self.train: Split | None = None
        self.val: Split | None = None
        self.test: Split | None = None
        self.clean_labels: Tensor | None = None
        self.normaliser: Normaliser | None = None
        self.trained_on: TrainedOn | None = None
        """The training data of the checkpoint that is evaluated; None if no checkpoint is."""
        self.needs = BatchNeeds()
        self.timeline: Timeline | None = None
        self.view_cycle: int | None = None

    # Description of the data set

    @property
    def name(self) -> str:  # type: ignore[override]  # Lightning declares a string, but never reads it
        """The name of the data set, and of the folder of its runs in logs/."""
        return type(self).__name__.lower()

    @property
    def num_classes(self) -> int:
        """K, available before any data is read. A subclass defines it."""
        raise NotImplementedError

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
    def info(self) -> DataInfo:
        """The description of the data.

        Raises:
            InputError: ``setup`` has not read the training part yet.
        """
        count = len(self.training_split.source)
        mistaken = self.noise_map and tuple((str(k), str(v)) for k, v in self.noise_map.items())
        return DataInfo(
            name=self.name,
            class_names=tuple(self.class_names),
            channels=self.channels,
            image_size=self.image_size,
            mean=tuple(self._mean.tolist()),
            std=tuple(self._std.tolist()),
            num_samples=count,
            fingerprint=self.fingerprint,
            noise=(self.label_noise, mistaken or None, self.noise_seed),
            held_out=tensors_digest({"held_out": self.held_out}) if len(self.held_out) else "",
            bit_depth=self.bit_depth,
        )

    @property
    def bit_depth(self) -> int:
        """How many bits the values of pictures with 16 bits use, 8 to 16."""
        return 16

    @property
    def held_out(self) -> Tensor:
        """(n,) int32, the positions of the samples that are held out of the training part for validation. It is empty
        if there are none, or if the data set has its own validation part.
        """
        return NO_SAMPLES if self.val is None or self._has_own_val else self.val.taken.int()

    @property
    def training_split(self) -> Split:
        """The split ``train``, which is never None.

        Raises:
            InputError: ``setup`` has not read the training part yet.
        """
        if self.train is None:
            raise InputError(f"the training part of {self.name} is not read yet: call setup first")
        return self.train

    # Reading

    @property
    def seed(self) -> int:
        """The seed of sample order and augmentation."""
        return run_seed() if self.given_seed is None else self.given_seed

    def setup(self, stage: str) -> None:
        """Reads the parts that a stage needs, and sets the normalisation.

        Args:
            stage: Lightning's "fit", "validate", "test" or "predict".

        Raises:
            InputError: a part is missing or damaged, an option does not fit the data, or the checkpoint to validate was
                trained on validation pictures.
        """
        if stage == "predict" and self.pictures is not None and self.trained_on is not None:
            self.normaliser = _normaliser_of(self.trained_on.info)
            return
        if stage == "test" and self.trained_on is not None:
            # the checkpoint gives classes and normalisation, so that the test part is all that is needed
            self.normaliser = _normaliser_of(self.trained_on.info)
            self.read_test_part()
            return
        if self.train is None:
            self._read_training_part()
        if stage == "validate" and self.trained_on is not None:
            refuse_seen(self.info, self.held_out, self.trained_on, "the checkpoint")
        # the normalisation that the network was trained with, also if the pictures in the folder have changed since
        own = Normaliser(self._mean, self._std)
        self.normaliser = own if self.trained_on is None else _normaliser_of(self.trained_on.info)
        if stage == "test" or (stage == "predict" and self.pictures is None):
            self.read_test_part()
        if stage == "fit" and self.trainer is not None and self.root_names_the_pictures and is_first():
            print("\n".join(self.overview()), flush=True)

    def overview(self) -> list[str]:
        """What the data look like: lines about parts, classes, counts, sizes, and what is suspicious. Available after
        ``setup``.
        """
        splits = {"train": self.train, "val": self.val, "test": self.test}
        size = f"{self.channels}x{self.image_size}x{self.image_size}"
        shape = (self.channels, self.image_size, self.image_size)
        first = f"{self.name}: {self.num_classes} classes, pictures {size}, {overview.memory(splits, shape)}"
        lines = [first, *overview.of_splits(splits, self.class_names, not self._has_own_val)]
        facts, odd = self.describe_files()
        odd = [*overview.imbalance(self.training_split, self.class_names), *odd]
        return [*lines, *facts, *(f"  suspicious: {line}" for line in odd)]

    def describe_files(self) -> tuple[list[str], list[str]]:
        """Lines about the files of the pictures, and sentences about what is suspicious in them."""
        return [], []

    def bad_files(self) -> dict[str, str]:
        """The names of the files that could not be decoded so far, with what is wrong with them."""
        return {}

    def list_bad_files(self) -> None:
        """Writes these names into ``bad_pictures.txt`` in the folder of the run, if there are any."""
        loggers = [] if self.trainer is None else self.trainer.loggers
        folder = next((found for logger in loggers if (found := getattr(logger, "log_dir", None))), None)
        if folder is not None and (bad := self.bad_files()):
            text = "".join(f"{line}\n" for line in lines_of_bad(bad))
            rank = self._share().rank
            name = "bad_pictures.txt" if rank == 0 else f"bad_pictures-{rank}.txt"
            atomic_write(Path(folder) / name, lambda file: file.write(text.encode()))

    def begin_fit(self, needs: BatchNeeds, timeline: Timeline, view_cycle: int | None = None) -> None:
        """Sets what the training batches of a fit depend on. The method calls it once, before the first batch.

        Args:
            needs: the requirements of the method.
            timeline: computes the position of training.
            view_cycle: view numbers are taken modulo this number, for example V for soft targets that are stored for V
                views. None for no limit.

        Raises:
            InputError: this data cannot make batches with these requirements.
        """
        self.needs, self.timeline, self.view_cycle = needs, timeline, view_cycle
        self.samples.check_batches(self._share().world, needs.repeats_last_batch)

    def _read_training_part(self) -> None:
        read = self.read("train")
        if read is None:
            raise InputError(f"{self.name} in {self.root} has no training part")
        source, labels = read
        self._checked(labels, "train")
        own_val = self.read("val")
        self._has_own_val = own_val is not None
        if own_val is not None:
            val_source, val_labels = own_val
            self.val = _whole(val_source, self._checked(val_labels, "val"))
            left = _good(source, stratified_order(labels, self.split_seed))
        else:
            held_out, left = (_good(source, rows) for rows in hold_out(labels, self.val_size, self.split_seed))
            self.val = Split(source, held_out, labels) if len(held_out) else None
        taken = take_part(left, self.train_part, labels, self.class_names, self.split_seed).sort().values
        noisy = self._with_noise(labels)
        if self.leave_out:
            taken = without_classes(taken, self.class_numbers(self.leave_out), labels, noisy)
            if not len(taken):
                raise InputError(
                    f"leave_out {', '.join(map(str, self.leave_out))} leaves no training samples: leave out fewer"
                )
        self.train, self.clean_labels = Split(source, taken, noisy), labels
        self._mean, self._std = source.mean_and_std()
        parts = [repr((*source.shape, len(labels))).encode(), source.mark()]
        parts += [array.numpy().tobytes() for array in (labels, self._mean, self._std)]
        self.fingerprint = hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    def _with_noise(self, labels: Tensor) -> Tensor:
        if self.label_noise is None:
            return labels
        given = self.noise_map
        pairs = zip(self.class_numbers(given), self.class_numbers(given.values()), strict=True) if given else None
        return with_noise(labels, self.label_noise, self.num_classes, self.noise_seed, dict(pairs) if pairs else None)

    def _checked(self, labels: Tensor, part: str) -> Tensor:
        if not len(labels):
            raise InputError(f"the {part} part of {self.name} in {self.root} is empty")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise InputError(
                f"{self.name} has labels from {labels.min()} to {labels.max()} in its {part} part: "
                f"with {self.num_classes} classes they must lie in 0 to {self.num_classes - 1}"
            )
        return labels

    def read_test_part(self) -> None:
        """Reads the test part into ``test``. ``test`` stays None if the data set has no such part."""
        if self.test is None and (read := self.read("test")) is not None:
            source, labels = read
            self.test = _whole(source, self._checked(labels, "test"))

    # Loaders

    @property
    def samples(self) -> TrainingSamples:
        """The training samples, and how they are divided into batches."""
        clean = self.clean_labels if self.label_noise is not None else None
        split = self.training_split
        weights, given = None, self.class_weights
        if given is not None:
            assert split.labels is not None
            counts = imbalance.counts_by_class(split.labels, split.taken, self.class_names)
            by_number = (
                given if isinstance(given, str) else dict(zip(self.class_numbers(given), given.values(), strict=True))
            )
            weights = imbalance.class_weights(by_number, counts)
        return TrainingSamples(
            split, self.num_classes, self.batch_size, self.keep_last, self.seed, clean, weights, self.balanced
        )

    @property
    def renderer(self) -> Renderer:
        """The renderer that makes the training pictures. Available after ``setup``."""
        assert self.normaliser is not None
        views, taken = self.needs.views_per_epoch, self.training_split.taken
        from_files = isinstance(self.training_split.source, FileSource)
        return Renderer(self.normaliser, self.augment, self.mix, self.seed, views, taken, from_files)

    def _share(self) -> Share:
        if self.trainer is None:
            return Share()
        return Share(self.trainer.global_rank, self.trainer.world_size, self.trainer.strategy.root_device)

    def train_dataloader(self) -> TrainLoader:
        """Training batches. The first one is given by the counters of the trainer, which a checkpoint restores."""
        self.list_bad_files()
        return self.train_loader_from(self._next_batch)

    def train_loader_from(self, next_batch: Callable[[], tuple[int, int]]) -> TrainLoader:
        """Training batches that start with the (epoch, batch) that ``next_batch`` returns. It is called only when the
        first batch is requested.
        """
        samples = self.samples
        timeline = self.timeline or PlainTimeline(samples.batches, 1)
        return TrainLoader(samples, self.renderer, self.needs, timeline, self._share(), next_batch, self.view_cycle)

    def _next_batch(self) -> tuple[int, int]:
        trainer = self.trainer
        assert trainer is not None
        return trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def val_dataloader(self) -> EvalLoader | list[Batch]:
        """Batches of the validation split; an empty list if there is none."""
        return self.eval_loader(self.val) if self.val else []

    def test_dataloader(self) -> EvalLoader:
        """Batches of the test split.

        Raises:
            InputError: there is no test split.
        """
        if self.test is None:
            raise InputError(
                f"{self.name} in {self.root} has no test part: add a folder test/ or, to predict, set data.pictures"
            )
        return self.eval_loader(self.test)

    def predict_dataloader(self) -> EvalLoader:
        """Batches of the folder ``pictures``, whose file names are then in ``predicted_names``, or of the test split.

        Raises:
            InputError: there are no pictures, or there is no test split.
        """
        if self.pictures is None:
            return self.test_dataloader()
        store, names, self.predicted_names = find_pictures(self.pictures)
        files = Pictures(store, names, self.channels, self.image_size, self.bit_depth)
        self.predicted = read_pictures(files, self.num_workers, cache=None, skip=True)
        return self.eval_loader(Split(self.predicted, _good(self.predicted, torch.arange(len(names)))))

    def unread(self) -> dict[str, str]:
        """The names of the pictures that could not be predicted, with what is wrong with them."""
        if self.pictures is None:
            return {}
        return {self.predicted_names[i]: kind for i, kind in sorted(self.predicted.bad.items())}

    def refuse_unread(self, where: str) -> None:
        """Reports that some of the pictures could not be predicted.

        Args:
            where: the file with the predictions of the others.

        Raises:
            InputError: there are such pictures.
        """
        if unread := self.unread():
            raise InputError(
                f"{len(unread):,} of {len(self.predicted_names):,} pictures could not be read "
                f"({counts_of(unread)[:80]}): {where} has the others"
            )

    def eval_loader(self, split: Split) -> EvalLoader:
        """Batches that contain every sample of a split once."""
        assert self.normaliser is not None
        return EvalLoader(split, self.eval_batch_size, self.normaliser, self._share(), self.eval_transforms)


def _good(source: Source, rows: Tensor) -> Tensor:
    """The rows whose pictures are not known to be damaged."""
    return rows[~torch.isin(rows, torch.tensor(sorted(source.bad)))] if source.bad else rows


def _whole(source: Source, labels: Tensor) -> Split:
    """A split with all pictures of a source that are not known to be damaged."""
    return Split(source, _good(source, torch.arange(len(labels))), labels)


def _normaliser_of(info: DataInfo) -> Normaliser:
    return Normaliser(torch.tensor(info.mean), torch.tensor(info.std))

"""The base class of the data modules: it reads the parts of a data set, and makes data loaders.

A subclass implements ``ImageData.read``. The modules ``loaders`` and ``rendering`` make batches from the pictures. The
checkpoint contains no state of the sample order: a batch is a function of the seed and of the position of training.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from distill_lightning.data import imbalance, overview
from distill_lightning.data.bad_pictures import write_bad
from distill_lightning.data.loaders import EvalLoader, TrainLoader, eval_batches, refuse_none_left
from distill_lightning.data.options import DataOptions
from distill_lightning.data.picture_cache import default_cache
from distill_lightning.data.picture_files import FileSource, Pictures, read_pictures
from distill_lightning.data.predicted_files import Predicted, find_pictures
from distill_lightning.data.provenance import differ, refuse_seen
from distill_lightning.data.rendering import Normaliser, Renderer
from distill_lightning.data.sources import Source
from distill_lightning.data.splits import Split
from distill_lightning.data.training_part import (
    NO_SAMPLES,
    TrainingPart,
    checked,
    fit_preprocessing,
    good,
    read_training_part,
    whole,
)
from distill_lightning.data.training_samples import Share, TrainingSamples
from distill_lightning.data.unlabelled import Unlabelled, read_unlabelled
from distill_lightning.digests import tensors_digest
from distill_lightning.distributed import is_first, say
from distill_lightning.errors import InputError
from distill_lightning.preprocessing import Fitted
from distill_lightning.values import Batch, BatchNeeds, DataInfo, PlainTimeline, Timeline, TrainedOn


class ImageData(DataOptions):
    """A data set of pictures. A subclass defines how it is read. The options are those of DataOptions.

    Attributes:
        part: the training part, with the validation split; None before it is read.
        unlabelled_part: the training pictures without labels; None before they are read, or if there are none.
        test: the test split; None before it is read, or if there is none.
        predicted: the pictures of the option ``pictures``; None before they are read, or without this option.
        normaliser: normalises with the mean and standard deviation of the training pictures or, for a checkpoint, of
            the pictures that it was trained on. Batches have pictures that are normalised so.
        preprocessing: the fitted option ``preprocess`` or, for a checkpoint, that of its run; None for none. Methods
            apply it to the pictures of a batch.
    """

    part: TrainingPart | None = None
    unlabelled_part: Unlabelled | None = None
    predicted: Predicted | None = None
    test: Split | None = None
    normaliser: Normaliser | None = None
    preprocessing: Fitted | None = None
    _own_preprocessing: Fitted | None = None
    needs = BatchNeeds()
    timeline: Timeline | None = None
    view_cycle: int | None = None

    # Description of what was read

    @property
    def train(self) -> Split | None:
        """The training split; None before it is read."""
        return None if self.part is None else self.part.train

    @property
    def val(self) -> Split | None:
        """The validation split; None before it is read, or if there is none."""
        return None if self.part is None else self.part.val

    @property
    def training_part(self) -> TrainingPart:
        """The attribute ``part``, which is never None here.

        Raises:
            InputError: ``setup`` has not read the training part yet.
        """
        if self.part is None:
            raise InputError(f"the training part of {self.name} is not read yet: call setup first")
        return self.part

    @property
    def training_split(self) -> Split:
        """The split ``train``, which is never None here. Raises InputError as ``training_part`` does."""
        return self.training_part.train

    @property
    def held_out(self) -> Tensor:
        """See TrainingPart; empty before it is read."""
        return NO_SAMPLES if self.part is None else self.part.held_out

    @property
    def clean_labels(self) -> Tensor | None:
        """See TrainingPart; None before it is read."""
        return None if self.part is None else self.part.clean_labels

    @property
    def fingerprint(self) -> str:
        """See DataInfo. Raises InputError as ``training_part`` does."""
        return self.training_part.fingerprint

    @property
    def info(self) -> DataInfo:
        """The description of the data. Raises InputError as ``training_part`` does."""
        part = self.training_part
        return DataInfo(
            name=self.name,
            class_names=tuple(self.class_names),
            channels=self.channels,
            image_size=self.image_size,
            mean=tuple(part.mean.tolist()),
            std=tuple(part.std.tolist()),
            num_samples=len(part.train.source),
            fingerprint=part.fingerprint,
            noise=self.noise,
            held_out=tensors_digest({"held_out": part.held_out}) if len(part.held_out) else "",
            bit_depth=self.bit_depth,
            preprocessing="" if self.preprocessing is None else self.preprocessing.digest,
            unlabelled="" if self.unlabelled_part is None else self.unlabelled_part.digest,
        )

    def as_trained_on(self) -> TrainedOn:
        """What a checkpoint says about these data. Raises InputError as ``training_part`` does."""
        return TrainedOn(self.info, self.held_out, self.preprocessing)

    def for_network_of(self, trained_on: TrainedOn | None) -> Self:
        """These data as a network was trained to see them: with its classes, size and normalisation. It is the same
        object if it reads them so already.

        Args:
            trained_on: what the network was trained on; None if it is unknown.

        Raises:
            InputError: the network was trained on other classes.
        """
        if trained_on is None or (self.part is not None and self.info == trained_on.info):
            return self
        self.refuse_other_classes(trained_on.info.class_names, "the network")
        unread = copy.copy(self)
        unread.forget_pictures()
        unread.trained_on = trained_on
        return unread

    def forget_pictures(self) -> None:
        """Forgets the parts that were read, and how they were normalised."""
        self.part = self.unlabelled_part = self.predicted = self.test = None
        self.normaliser = self.preprocessing = self._own_preprocessing = None

    # Reading

    def setup(self, stage: str) -> None:
        """Reads the parts that a stage needs, and sets the normalisation.

        Args:
            stage: Lightning's "fit", "validate", "test" or "predict".

        Raises:
            InputError: a part is missing or damaged, an option does not fit the data, or the checkpoint to validate was
                trained on validation pictures.
        """
        if stage == "predict" and self.pictures is not None and self.trained_on is not None:
            self._normalise_as(self.trained_on)
            return
        if stage == "test" and self.trained_on is not None:
            # the checkpoint gives classes and normalisation, so that the test part is all that is needed
            self._normalise_as(self.trained_on)
            self.read_test_part()
            return
        if self.part is None:
            self.part = read_training_part(self)
        if stage == "fit" and self.unlabelled_part is None:
            self.unlabelled_part = read_unlabelled(self, self.part, self.decode_unlabelled)
        if stage == "validate" and self.trained_on is not None:
            refuse_seen(self.info, self.held_out, self.trained_on, "the checkpoint")
        # the normalisation that the network was trained with, also if the pictures in the folder have changed since
        if self.trained_on is not None:
            self._normalise_as(self.trained_on)
        else:
            self.normaliser = Normaliser(self.training_part.mean, self.training_part.std)
            if self._own_preprocessing is None and self.preprocess:
                self._own_preprocessing = fit_preprocessing(self.training_part, self.preprocess)
            self.preprocessing = self._own_preprocessing
        if stage == "test" or (stage == "predict" and self.pictures is None):
            self.read_test_part()
        shows = self.root_names_the_pictures or self.unlabelled is not None
        if stage == "fit" and self.trainer is not None and shows and is_first():
            print("\n".join(self.overview()), flush=True)

    @property
    def is_a_test_part(self) -> bool:
        """Whether all pictures of the data are a test part, so that there is none to train on."""
        return False

    def evaluate_as(self, trained_on: TrainedOn, stage: str) -> None:
        """Normalises as a network was trained, which these data did not know of when they were read.

        Args:
            trained_on: what the network was trained on.
            stage: Lightning's "validate", "test" or "predict".

        Raises:
            InputError: the network was trained on other classes, or on validation pictures.
        """
        if (size := trained_on.info.image_size) != self.image_size:
            say(f"the network was trained on pictures of {size}x{size}, and gets {self.image_size}x{self.image_size}")
        if self.trained_on is not None:
            return
        theirs, ours = trained_on.info.class_names, self.class_names
        if list(theirs) != ours and not (stage == "predict" and self.pictures is not None):
            raise InputError(f"the network was trained on other classes than {self.name} has: {differ(theirs, ours)}")
        if stage == "validate":
            refuse_seen(self.info, self.held_out, trained_on, "the network")
        self._normalise_as(trained_on)

    def _normalise_as(self, trained_on: TrainedOn) -> None:
        info = trained_on.info
        self.normaliser = Normaliser(torch.tensor(info.mean), torch.tensor(info.std))
        self.preprocessing = trained_on.preprocessing

    def preprocessed(self, images: Tensor) -> Tensor:
        """The pictures of a batch after ``preprocessing``, in the same type; the same tensor if there is none.

        Args:
            images: (B, C, H, W), normalised with ``normaliser``.
        """
        if self.preprocessing is None:
            return images
        assert self.normaliser is not None
        found: Tensor = self.preprocessing.to(images.device)(self.normaliser.undone(images))
        return found.to(images.dtype)

    def overview(self) -> list[str]:
        """What the data look like: lines about parts, classes, counts, sizes, and what is suspicious. Available after
        ``setup``.
        """
        splits = {"train": self.train, "val": self.val, "test": self.test}
        size = f"{self.channels}x{self.image_size}x{self.image_size}"
        shape = (self.channels, self.image_size, self.image_size)
        first = f"{self.name}: {self.num_classes} classes, pictures {size}, {overview.memory(splits, shape)}"
        lines = [first, *overview.of_splits(splits, self.class_names, len(self.held_out) > 0)]
        if self.unlabelled_part is not None:
            lines.append(overview.of_unlabelled(self.unlabelled_part, self.batch_size))
        facts, odd = self.describe_files()
        odd = [*overview.imbalance(self.training_split, self.class_names), *odd]
        return [*lines, *facts, *(f"  suspicious: {line}" for line in odd)]

    def describe_files(self) -> tuple[list[str], list[str]]:
        """Lines about the files of the pictures, and sentences about what is suspicious in them."""
        if self.unlabelled_part is None or self.unlabelled_part.source is None:
            return [], []
        self.read_test_part()
        return [], overview.shared_pictures(self.unlabelled_part.source, {"test": self.test, "val": self.val})

    def bad_files(self) -> dict[str, str]:
        """The names of the files that could not be decoded so far, with what is wrong with them."""
        return {}

    def list_bad_files(self) -> None:
        """Writes these names into ``bad_pictures.txt`` in the folder of the run, if there are any."""
        loggers = [] if self.trainer is None else self.trainer.loggers
        folder = next((found for logger in loggers if (found := getattr(logger, "log_dir", None))), None)
        if folder is not None and (bad := self.bad_files()):
            write_bad(Path(folder), bad, self._share().rank)

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

    def decode_unlabelled(self, files: Pictures) -> Source:
        """Decodes the pictures of the folder ``unlabelled``.

        Raises:
            InputError: some cannot be decoded.
        """
        return read_pictures(files, self.num_workers, default_cache())

    def read_test_part(self) -> None:
        """Reads the test part into ``test``. ``test`` stays None if the data set has no such part."""
        if self.test is None and (read := checked(self, "test")) is not None:
            self.test = whole(*read)

    # Loaders

    @property
    def samples(self) -> TrainingSamples:
        """The training samples, and how they are divided into batches."""
        return self.samples_for(self.needs)

    def samples_for(self, needs: BatchNeeds) -> TrainingSamples:
        """The training samples for a method with these requirements.

        Raises:
            InputError: they do not go together with the options of the data.
        """
        if needs.special_classes and (self.balanced or self.class_weights is not None):
            raise InputError(
                "a specialist decides how often each class is shown: leave out data.balanced and data.class_weights"
            )
        clean = self.clean_labels if self.label_noise is not None else None
        split = self.training_split
        weights = None
        if (given := self.weights_by_number) is not None:
            assert split.labels is not None
            counts = imbalance.counts_by_class(split.labels, split.taken, self.class_names)
            weights = imbalance.class_weights(given, counts)
        return TrainingSamples(
            split=split,
            num_classes=self.num_classes,
            batch_size=self.batch_size - self.unlabelled_rows,
            keep_last=self.keep_last,
            seed=self.seed,
            clean_labels=clean,
            class_weights=weights,
            balanced=self.balanced,
            unlabelled=self.unlabelled_part,
            special_classes=needs.special_classes,
        )

    @property
    def renderer(self) -> Renderer:
        """The renderer that makes the training pictures. Available after ``setup``."""
        assert self.normaliser is not None
        views, taken = self.needs.views_per_epoch, self.training_split.taken
        extra = None if self.unlabelled_part is None else self.unlabelled_part.source
        from_files = isinstance(self.training_split.source, FileSource) and isinstance(extra, FileSource | None)
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
        """Batches of the validation split; an empty list if there is none.

        Raises:
            InputError: the trainer's ``limit_val_batches`` is too small a share.
        """
        return self._limited(self.val, "val") if self.val else []

    def test_dataloader(self) -> EvalLoader:
        """Batches of the test split.

        Raises:
            InputError: there is no test split, or the trainer's ``limit_test_batches`` is too small a share.
        """
        return self._limited(self._of_test(), "test")

    def predict_dataloader(self) -> EvalLoader:
        """Batches of the folder ``pictures``, which are then in ``predicted``, or of the test split.

        Raises:
            InputError: there are no pictures, there is no test split, or the trainer's ``limit_predict_batches`` is too
                small a share.
        """
        if self.pictures is None:
            return self._limited(self._of_test(), "predict")
        store, names, shown = find_pictures(self.pictures)
        files = Pictures(store, names, self.channels, self.image_size, self.bit_depth)
        source = read_pictures(files, self.num_workers, cache=None, skip=True)
        self.predicted = Predicted(source, shown)
        return self._limited(Split(source, good(source, torch.arange(len(names)))), "predict")

    def _of_test(self) -> Split:
        if self.test is None:
            raise InputError(
                f"{self.name} in {self.root} has no test part: add a folder test/ or, to predict, set data.pictures"
            )
        return self.test

    def _limited(self, split: Split, stage: str) -> EvalLoader:
        self._refuse_none_left(split, stage)
        return self.eval_loader(split)

    def _refuse_none_left(self, split: Split, stage: str) -> None:
        batches, option = eval_batches(len(split), self.eval_batch_size, self._share().world), f"limit_{stage}_batches"
        refuse_none_left(batches, getattr(self.trainer, option, None), f"trainer.{option}")

    def refuse_empty_test(self) -> None:
        """Checks before training that the test after it has a batch.

        Raises:
            InputError: the trainer's ``limit_test_batches`` is too small a share.
        """
        limit = getattr(self.trainer, "limit_test_batches", None)
        if isinstance(limit, float) and 0 < limit < 1:
            self.read_test_part()  # which is otherwise read after training
            if self.test is not None:
                self._refuse_none_left(self.test, "test")

    def eval_loader(self, split: Split) -> EvalLoader:
        """Batches that contain every sample of a split once."""
        assert self.normaliser is not None
        return EvalLoader(split, self.eval_batch_size, self.normaliser, self._share(), self.eval_transforms)

"""The values and interfaces that data modules, methods and callbacks exchange. The values are immutable.

`Batch` and `TeacherOutput` are named tuples, not dataclasses: Lightning converts and moves batches with a function that
does not accept frozen dataclasses.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.preprocessing.steps import Fitted

NO_LABEL = -1
"""The label of a picture whose class is not known."""


class Reading(NamedTuple):
    """What a method reads of a teacher's features, if it is less than whole maps. So a table can hold it.

    Args:
        words: what it is, with all options that it depends on. Two readings with the same words are the same function.
        read: the function of the features (B, ...) of all layers.
    """

    words: str
    read: Callable[[Sequence[Tensor]], Sequence[Tensor]]


class TeacherOutput(NamedTuple):
    """The output of a teacher for the rows of a batch.

    Args:
        logits: (B, K) float32, raw: no temperature is applied; (B, 0) from a table that has none, since the method
            reads none.
        features: the features of the layers that the method asked for, (B, ...) each, or what it reads of them; in the
            precision of the run, or float32 from a table.
        members: the logits of each of several teachers, (M, B, K) float32, if the method asked for them.
    """

    logits: Tensor
    features: tuple[Tensor, ...] = ()
    members: Tensor | None = None


class Batch(NamedTuple):
    """The part of a global batch that one process gets.

    The rows are, in this order: the new samples; each further view of the new samples; for each new sample another one
    of its class; the new samples of the last batch; pictures without labels. All but the first are present only if
    `BatchNeeds` requires them, and the last only if the data have such pictures.

    Args:
        images: (B, C, H, W) float32, normalised.
        labels: (B,) int64; `NO_LABEL` for a picture without a label.
        index: (B,) int64, the position of the sample in the full training part, or in the evaluated split.
        num_new: the number of rows with new samples, which have labels.
        view: (B,) int64, the number of the view of each sample; None in evaluation.
        weight: the fraction of the global batch in this process, times the number of processes. It is 1 unless the last
            partial batch of an epoch is kept and cannot be split evenly. It is 0 if no sample is left for this process,
            which then repeats a sample of another process.
        label_probs: (B, K) float32, the mixed labels; None without mixing.
        clean_labels: (B,) int64, the correct labels; None without label noise.
        teacher: the output of the teacher for these rows; None without a teacher.
        class_weights: (K,) float32, the weight of each class in the cross-entropy with labels; None for equal weights.
        num_unlabelled: the number of rows of pictures without labels, which are the last ones.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which is not used for batches
    num_new: int
    view: Tensor | None = None
    weight: float = 1.0
    label_probs: Tensor | None = None
    clean_labels: Tensor | None = None
    teacher: TeacherOutput | None = None
    class_weights: Tensor | None = None
    num_unlabelled: int = 0

    def to(self, device: torch.device | str, **kwargs: Any) -> Self:
        """The batch with its tensors on a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, TeacherOutput):
                return TeacherOutput(*map(moved, value))
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            return value.to(device, **kwargs) if isinstance(value, Tensor) else value

        return type(self)(*map(moved, self))

    @property
    def seen(self) -> slice:
        """The rows to remember: none with weight 0, where the only sample belongs to another process."""
        return slice(None if self.weight else 0)

    @property
    def targets(self) -> Tensor:
        """The targets of cross-entropy: labels (B,) int64, or with mixing distributions (B, K) float32."""
        return self.labels if self.label_probs is None else self.label_probs

    @property
    def labelled(self) -> slice:
        """The rows that have labels: all but the last ``num_unlabelled``."""
        return slice(len(self.labels) - self.num_unlabelled)


@dataclass(frozen=True, slots=True)
class BatchNeeds:
    """The requirements of a method for its batches.

    Args:
        views: the number of views of each new sample in a batch.
        repeats_last_batch: whether a batch also contains the new samples of the last batch, in another view.
        pairs_classes: whether a batch also contains another sample of the same class for each new sample.
        teacher_logits: whether the loss uses the logits of a teacher.
        teacher_features: whether the loss uses features of a teacher.
        teacher_members: whether the loss uses the logits of each of several teachers.
        allows_mixing: whether the loss is valid for pictures that are mixtures of two samples.
        allows_unlabelled: whether the loss is valid for a batch in which some pictures have no labels.
        special_classes: numbers of classes that half of the samples of each batch are of; empty for all samples alike.
    """

    views: int = 1
    repeats_last_batch: bool = False
    pairs_classes: bool = False
    teacher_logits: bool = False
    teacher_features: bool = False
    teacher_members: bool = False
    allows_mixing: bool = True
    allows_unlabelled: bool = False
    special_classes: tuple[int, ...] = ()

    @property
    def views_per_epoch(self) -> int:
        """The number of views of a sample in one epoch."""
        return self.views + self.pairs_classes + self.repeats_last_batch


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The result of a method for a training batch.

    Args:
        terms: the terms of the loss by name, scalars. Each is a mean over the batch, multiplied by its weight. The loss
            is their sum.
        logits: (num_new, K), the logits of the new samples, for the training metrics.
        agrees: (B,) bool, for each row whether the student predicts the class that the teacher predicts; None without
            logits of a teacher.
    """

    terms: dict[str, Tensor]
    logits: Tensor
    agrees: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """The position of training before a batch.

    Args:
        epoch: the number of the epoch, from 0. It restarts in each round of pruning.
        batch: the number of the batch in the epoch, from 0.
        step: the number of optimizer steps so far.
        order: the number of the sample order; 0 if there is only one.
        schedule_epoch: the position in the learning-rate schedule, in epochs.
        epochs: the length of the schedule, in epochs.
    """

    epoch: int
    batch: int
    step: int
    order: int
    schedule_epoch: float
    epochs: float

    @property
    def progress(self) -> float:
        """The completed fraction of the schedule, in [0, 1)."""
        return self.schedule_epoch / self.epochs


class Timeline(Protocol):
    """Computes the position of training from the counters of the trainer."""

    @property
    def batches_per_epoch(self) -> int:
        """The number of training batches in an epoch."""

    def position(self, epoch: int, batch: int) -> Position | None:
        """The position before the trainer's batch ``batch`` of epoch ``epoch``; None after the end of training."""


@dataclass(frozen=True, slots=True)
class PlainTimeline:
    """The timeline of training without rounds: from the first epoch to the last.

    Args:
        batches_per_epoch: the number of training batches in an epoch.
        epochs: the number of epochs.
        batches_per_step: the number of batches whose gradients are accumulated for one optimizer step. The last batch
            of an epoch always completes a step.
    """

    batches_per_epoch: int
    epochs: float
    batches_per_step: int = 1

    def position(self, epoch: int, batch: int) -> Position:
        """The position before batch ``batch`` of epoch ``epoch``."""
        steps = -(-self.batches_per_epoch // self.batches_per_step)
        step = epoch * steps + batch // self.batches_per_step
        return Position(epoch, batch, step, 0, epoch + batch / self.batches_per_epoch, self.epochs)


class TimelineGiver(ABC):
    """A callback with its own timeline, for example training in rounds."""

    @property
    @abstractmethod
    def timeline(self) -> Timeline:
        """The timeline; available after the callback's ``setup``."""


class TeacherGiver(ABC):
    """A callback that provides the output of a teacher."""

    @property
    @abstractmethod
    def view_cycle(self) -> int | None:
        """The number of views per sample that the teacher has outputs for. View numbers are taken modulo this number;
        None means no limit.
        """

    def watch(
        self, layers: Sequence[str] | None, shape: tuple[int, int, int], batch_statistics: bool = False
    ) -> list[tuple[int, ...]]:
        """From now on, ``teach`` also gives the features of layers of the teacher.

        Args:
            layers: module paths or words, see ``features``; None for the ends of the stages.
            shape: (C, H, W) of a picture of the data.
            batch_statistics: whether the teacher's batch norms use the statistics of the batch instead of their own,
                which stay as they are. The logits that ``teach`` gives are of the same pass.

        Returns:
            The shape of the features of a picture, without the batch, for each layer.

        Raises:
            InputError: the teacher has no features, or not these.
        """
        raise InputError(f"{type(self).__name__} gives no features of its teacher: use SoftTargets")

    def read(self, reading: Reading | None) -> None:
        """From now on, ``teach`` gives what is read of the features that are watched, in their place.

        Args:
            reading: what is read; None for the features.

        Raises:
            InputError: the giver can give no more than the features themselves; or the teacher's outputs are in a
                table, which cannot hold these.
        """
        if reading is not None:
            raise InputError(f"{type(self).__name__} does not give {reading.words} of its teacher: use SoftTargets")

    def copy_of_teacher(self, shape: tuple[int, int, int]) -> tuple[nn.Module, tuple[int, int, int]]:
        """A copy of the teacher's network, frozen, in eval mode, on the CPU, and the shape (C, H, W) of its pictures.

        Args:
            shape: the shape of a picture of the data, which a teacher with a picture size of its own gets resized.

        Raises:
            InputError: there is no teacher with a network, or there are several.
        """
        raise InputError(f"{type(self).__name__} gives no network of its teacher: use SoftTargets")

    @abstractmethod
    def teach(self, batch: Batch) -> TeacherOutput:
        """The output of the teacher for a batch."""


class ShowsNumbers(ABC):
    """A callback that shows numbers in the progress bar."""

    @abstractmethod
    def numbers(self) -> dict[str, float]:
        """The numbers by their names, which are short."""


class Summarised(ABC):
    """A callback that adds entries to summary.json."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The entries by key: numbers, strings, lists and dicts."""


@dataclass(frozen=True, slots=True)
class DataInfo:
    """The description of a data set, for networks, methods, teachers, checkpoints and predictions.

    Args:
        name: the name of the data set, and of the folder with its runs.
        class_names: the names of the classes, in the order of their numbers.
        channels: the number of channels of a picture.
        image_size: the height and width of a picture, in pixels.
        mean: the mean of each channel over the training pictures, in units of full scale (255); exact float32 values.
        std: the standard deviation of each channel, likewise.
        num_samples: the size of the full training part, before it is split; 0 if it is unknown.
        fingerprint: a digest of the training part: its labels, the order, shape, mean and standard deviation of its
            pictures.
        noise: the options label_noise, noise_map (as pairs) and noise_seed.
        held_out: a digest of the samples that are held out of the training part for validation; empty if none are.
        bit_depth: how many bits the values of pictures with 16 bits use, 8 to 16; 16 if there are no such pictures.
        preprocessing: the preprocessing beyond mean and std, with a digest of its tensors; empty if there is none.
        unlabelled: a digest of the training pictures without labels; empty if there are none.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_samples: int
    fingerprint: str
    noise: tuple[float | None, tuple[tuple[str, str], ...] | None, int]
    held_out: str
    bit_depth: int = 16
    preprocessing: str = ""
    unlabelled: str = ""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def has_floats(self) -> bool:
        """Whether the pictures are floats, as those of made data: the network gets them as they are, for which mean and
        std stand as 0 and as 1 in the units of a byte.
        """
        return not any(self.mean) and all(abs(255 * std - 1) < 1e-6 for std in self.std)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a picture."""
        return self.channels, self.image_size, self.image_size

    def as_dict(self) -> dict[str, Any]:
        """The fields as a dict of plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> "DataInfo":
        """The inverse of ``as_dict``.

        Args:
            content: the dict, which may come from a damaged or foreign file.
            where: the source of the dict, for the error message.

        Raises:
            InputError: a field is missing or has the wrong type.
        """
        try:
            share, mistaken, seed = content["noise"]
            if not isinstance(names := content["class_names"], list | tuple) or not all(
                isinstance(n, str) for n in names
            ):
                raise TypeError("class_names is not a list of strings")
            if not isinstance(content["name"], str) or not isinstance(content["fingerprint"], str):
                raise TypeError("name or fingerprint is not a string")
            return cls(
                name=content["name"],
                class_names=tuple(names),
                channels=int(content["channels"]),
                image_size=int(content["image_size"]),
                mean=tuple(map(float, content["mean"])),
                std=tuple(map(float, content["std"])),
                num_samples=int(content["num_samples"]),
                fingerprint=content["fingerprint"],
                noise=(share, None if mistaken is None else tuple((str(a), str(b)) for a, b in mistaken), int(seed)),
                held_out=str(content["held_out"]),
                bit_depth=min(max(int(content.get("bit_depth", 16)), 8), 16),
                preprocessing=str(content.get("preprocessing", "")),
                unlabelled=str(content.get("unlabelled", "")),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where} does not say what data it was trained on: {error}") from error


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """The data that a checkpoint was trained on, and the samples that were held out of training.

    Args:
        info: the description of the data.
        held_out: (n,) int32, the positions in the training part of the samples that were held out for validation.
        preprocessing: what was done with the pictures beyond mean and std; None for nothing. See ``preprocessing``.
        root: the option data.root of the run; None where nothing says it.
    """

    info: DataInfo
    held_out: Tensor
    preprocessing: Fitted | None = None
    root: str | None = None

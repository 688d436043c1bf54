"""The values that the rooms hand to each other. Each is immutable, and has one meaning.

`Batch` and `TeacherOutput` are named tuples rather than dataclasses: Lightning converts and moves a batch with a function
that refuses frozen dataclasses.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from distill_lightning.errors import InputError

NO_LABEL = -1
"""The label of a picture whose class is not known."""


class TeacherOutput(NamedTuple):
    """What a teacher answers for the rows of a batch.

    Args:
        logits: (B, K) float32, raw: no temperature applied.
    """

    logits: Tensor


class Batch(NamedTuple):
    """The share that one process has of a global batch.

    Rows are new samples first, then each further view of them, then another sample of its class for each, then the last
    batch's new samples, as far as `BatchNeeds` asks for them.

    Args:
        images: (B, C, H, W) float32, normalised.
        labels: (B,) int64; `NO_LABEL` where there is none.
        index: (B,) int64, the sample's position in the full training part, or in the evaluated split.
        num_new: how many rows are new samples.
        view: (B,) int64, which view of the sample this is; None in evaluation.
        weight: this process's share of the global batch times the number of processes. It is 1 unless the last partial
            batch of an epoch is kept and does not divide evenly; 0 for a process without samples, which repeats one.
        label_probs: (B, K) float32, where pictures are mixed.
        clean_labels: (B,) int64, where some labels are wrong on purpose.
        teacher: what the teacher says of these rows, where there is one.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple has a method of that name, which nobody asks a batch for
    num_new: int
    view: Tensor | None = None
    weight: float = 1.0
    label_probs: Tensor | None = None
    clean_labels: Tensor | None = None
    teacher: TeacherOutput | None = None

    def to(self, device: torch.device | str, **kwargs: Any) -> Self:
        """The same on a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, TeacherOutput):
                return TeacherOutput(*map(moved, value))
            return value.to(device, **kwargs) if isinstance(value, Tensor) else value

        return type(self)(*map(moved, self))

    @property
    def targets(self) -> Tensor:
        """What cross-entropy compares with: labels (B,), or their distributions (B, K) where pictures are mixed."""
        return self.labels if self.label_probs is None else self.label_probs


@dataclass(frozen=True, slots=True)
class BatchNeeds:
    """What a method asks of its batches.

    Args:
        views: how many views of each new sample a batch holds.
        repeats_last_batch: whether a batch ends with the last one's new samples, under one further view.
        pairs_classes: whether each new sample comes with another of its class.
        teacher_logits: whether the loss reads a teacher's logits.
        allows_mixing: whether the loss holds for pictures that are mixed of two samples.
    """

    views: int = 1
    repeats_last_batch: bool = False
    pairs_classes: bool = False
    teacher_logits: bool = False
    allows_mixing: bool = True

    @property
    def views_per_epoch(self) -> int:
        """How many views an epoch shows of a sample."""
        return self.views + self.pairs_classes + self.repeats_last_batch


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a method gives for a training batch.

    Args:
        terms: of the loss, by name, weights already in, means over the batch. Their sum is minimised.
        logits: (num_new, K) of the new samples, which training metrics are taken from.
    """

    terms: dict[str, Tensor]
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Position:
    """Where training stands before a batch.

    Args:
        epoch, batch: which batch of which epoch. Rounds of pruning begin anew.
        step: optimizer steps taken.
        order: which order of the samples, 0 where there is only one.
        schedule_epoch: where the schedule of the learning rate stands, in epochs.
        epochs: how long the schedule is, in epochs.
    """

    epoch: int
    batch: int
    step: int
    order: int
    schedule_epoch: float
    epochs: float

    @property
    def progress(self) -> float:
        """How much of the schedule is done, in [0, 1)."""
        return self.schedule_epoch / self.epochs


class Timeline(Protocol):
    """Tells where training stands, from the trainer's own counters."""

    @property
    def batches_per_epoch(self) -> int:
        """That are trained on."""

    def position(self, epoch: int, batch: int) -> Position | None:
        """Before the trainer's batch; None past the end of training."""


@dataclass(frozen=True, slots=True)
class PlainTimeline:
    """Training from the first epoch to the last.

    Args:
        batches_per_epoch: that are trained on.
        epochs: how many.
        batches_per_step: whose gradients are added up for an optimizer step. The end of an epoch completes a step.
    """

    batches_per_epoch: int
    epochs: float
    batches_per_step: int = 1

    def position(self, epoch: int, batch: int) -> Position:
        """Before that batch."""
        steps = -(-self.batches_per_epoch // self.batches_per_step)
        step = epoch * steps + batch // self.batches_per_step
        return Position(epoch, batch, step, 0, epoch + batch / self.batches_per_epoch, self.epochs)


class TimelineGiver(ABC):
    """A callback that trains in an order of its own."""

    @property
    @abstractmethod
    def timeline(self) -> Timeline:
        """Known once the callback is set up."""


class TeacherGiver(ABC):
    """A callback that asks a teacher."""

    @property
    @abstractmethod
    def view_cycle(self) -> int | None:
        """The number of views of a sample that it knows; views are taken modulo this number. None for any."""

    @abstractmethod
    def teach(self, batch: Batch) -> TeacherOutput:
        """Its answers for a batch."""


class ShowsNumbers(ABC):
    """A callback that has something for the progress bar."""

    @abstractmethod
    def numbers(self) -> dict[str, float]:
        """By name, short."""


class Summarised(ABC):
    """A callback that has something for summary.json."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Plain data, by key."""


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What a data module says of itself: to networks, methods, teachers, checkpoints and predictions.

    Args:
        name: of the data set, and of the folder of its runs.
        class_names: in the order of their numbers.
        channels: of a picture.
        image_size: its height and width, in pixels.
        mean, std: by channel, of the training pictures, in units of full scale; exact float32 values.
        num_samples: of the full training part, before it is split; 0 where it is not known.
        fingerprint: digest of the training part: labels, which picture is where, their shape, mean and std.
        noise: the share of wrong labels, what each class is mistaken for, and the seed of their draw.
        held_out: digest of the samples of the training part that are validated on; empty where there are none, or where
            they have a part of their own.
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

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        return self.channels, self.image_size, self.image_size

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> "DataInfo":
        """
        Raises:
            InputError: the content of ``where`` is not of this kind.
        """
        try:
            share, mistaken, seed = content["noise"]
            if not isinstance(names := content["class_names"], list | tuple) or not all(isinstance(n, str) for n in names):
                raise TypeError("class_names are no list of names")
            if not isinstance(content["name"], str) or not isinstance(content["fingerprint"], str):
                raise TypeError("name and fingerprint are no texts")
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
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where} does not say what data it was trained on: {error}") from error


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """The data that a checkpoint was trained on, and the samples that it has not seen.

    Args:
        info: of the data module.
        held_out: (n,) int32, the samples of the training part that were validated on.
    """

    info: DataInfo
    held_out: Tensor

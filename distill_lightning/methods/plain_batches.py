"""What a method needs to train in another program, with that program's trainer and data loaders."""

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.schedules import Constant, MultiStep, Schedule, Step
from distill_lightning.values import NO_LABEL, Batch, BatchNeeds, Position, Timeline

IMAGES, LABELS = ("images", "image", "pixel_values", "x"), ("labels", "label", "targets", "target", "y")
"""The names under which a batch may hold pictures and labels, if it is a dict."""


def refuse_unmet(needs: BatchNeeds, method: str, builds: bool) -> None:
    """Checks that plain batches fulfil the requirements of a method.

    Args:
        needs: the requirements.
        method: the name of the method.
        builds: whether the method builds modules from the description of the data.

    Raises:
        InputError: they do not. The message names what is missing.
    """
    missing = [
        words
        for is_missing, words in (
            (needs.views > 1, f"{needs.views} views of each picture"),
            (needs.repeats_last_batch, "the last batch again"),
            (needs.pairs_classes, "a second picture of each class"),
            (builds, "a description of the data"),
        )
        if is_missing
    ]
    if missing:
        raise InputError(
            f"{method} needs {' and '.join(missing)}, which plain batches do not give: use a data module of "
            "distill_lightning"
        )


def as_batch(given: Any) -> Batch:
    """A batch from pictures and labels.

    Args:
        given: a `Batch`; a pair (images, labels); a dict with these; or pictures alone. The pictures are (B, C, H, W),
            as the network takes them. The labels are (B,) integers or distributions (B, K), as mixing makes them.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(given, Batch):
        return given
    if isinstance(given, Mapping):
        images = next((given[name] for name in IMAGES if name in given), None)
        labels = next((given[name] for name in LABELS if name in given), None)
    else:
        images, labels = (*given, None)[:2] if isinstance(given, list | tuple) and given else (given, None)
    if not isinstance(images, Tensor) or images.ndim != 4 or not isinstance(labels, Tensor | None):
        what = f"keys {', '.join(map(str, given))}" if isinstance(given, Mapping) else type(given).__name__
        raise InputError(f"a batch is a {what}: expected (images, labels) with images of shape (B, C, H, W)")
    unknown = torch.full((len(images),), NO_LABEL, device=images.device)
    if labels is None or labels.ndim == 1:
        if labels is None:
            return Batch(images, unknown, unknown, 0, num_unlabelled=len(images))
        return Batch(images, labels.long(), unknown, len(images))
    return Batch(images, labels.argmax(1), unknown, len(images), label_probs=labels.float())


def refuse_labels(batch: Batch, needs: BatchNeeds, method: str) -> None:
    """Checks that a method can learn from the labels of a plain batch.

    Args:
        batch: the batch.
        needs: the requirements of the method.
        method: its name.

    Raises:
        InputError: it needs labels, and there are none; or it needs the label of one class, and they are distributions.
    """
    if batch.num_unlabelled and not needs.allows_unlabelled:
        raise InputError(f"{method} needs labels, and a batch has pictures alone: give (images, labels)")
    if batch.label_probs is not None and not needs.allows_mixing:
        raise InputError(f"{method} needs a label of one class for each picture, and a batch has distributions (B, K)")


def refuse_endless(schedule: Any, timeline: Timeline) -> None:
    """Checks that a schedule knows the length of training.

    Raises:
        InputError: the training loader has no length, and the rate depends on more than the number of the epoch.
    """
    counts_epochs = isinstance(schedule, Constant | Step | MultiStep) and not schedule.warmup_epochs
    if math.isinf(timeline.batches_per_epoch) and isinstance(schedule, Schedule) and not counts_epochs:
        raise InputError(
            f"the training loader has no length, so {type(schedule).__name__} does not know where an epoch ends: give "
            "limit_train_batches, a number of batches"
        )


class TrainerTimeline:
    """The timeline of a trainer that trains on plain loaders.

    Args:
        trainer: the trainer, after it has its loaders.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer = trainer

    @property
    def batches_per_epoch(self) -> int:
        """The number of training batches in an epoch. It is infinite for a loader without a length."""
        return self.trainer.num_training_batches  # type: ignore[return-value]

    @property
    def epochs(self) -> float:
        """The length of training in epochs. It is infinite if only time or the user ends it."""
        trainer = self.trainer
        epochs = trainer.max_epochs or 0
        limits = [float(epochs)] if epochs > 0 else []
        if trainer.max_steps > 0 and not math.isinf(self.batches_per_epoch):
            limits.append(trainer.max_steps / self._steps_per_epoch)
        return max(min(limits, default=float("inf")), 1e-9)

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.trainer.accumulate_grad_batches)  # the last step may have fewer

    def position(self, epoch: int, batch: int) -> Position:
        """The position before batch ``batch`` of epoch ``epoch``."""
        done = epoch + batch / self.batches_per_epoch
        return Position(epoch, batch, self.trainer.global_step, 0, done, self.epochs)

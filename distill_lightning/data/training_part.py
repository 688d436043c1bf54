"""The training part of a data set: which of its samples are trained on, which are held out, and their labels."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lightning.data.noise import with_noise
from distill_lightning.data.options import DataOptions
from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.sources import MemorySource, Source
from distill_lightning.data.splits import Split, hold_out, take_part, without_classes
from distill_lightning.distributed import first_decides
from distill_lightning.errors import InputError
from distill_lightning.preprocessing import Fitted, Preprocessing, fit_all
from distill_lightning.preprocessing.fitting import FitSet
from distill_lightning.seeds import stratified_order

ROWS = 500
"""The number of pictures that a preprocessing is fitted to at once."""
NO_SAMPLES = torch.empty(0, dtype=torch.int32)


@dataclass(frozen=True, eq=False)
class TrainingPart:
    """The training part of a data set.

    Args:
        train: the samples that are trained on. Their labels have the label noise.
        val: the validation samples; None if there are none.
        held_out: (n,) int32, the positions of the samples that are held out of the training part for validation. It is
            empty if there are none, or if the data set has its own validation part.
        clean_labels: (N,) int64, the labels of the full training part without label noise.
        mean: the mean of each channel over the full training part, float32 (C,), in units of full scale (255).
        std: the standard deviation of each channel, likewise.
        fingerprint: see DataInfo.
    """

    train: Split
    val: Split | None
    held_out: Tensor
    clean_labels: Tensor
    mean: Tensor
    std: Tensor
    fingerprint: str


def read_training_part(data: DataOptions) -> TrainingPart:
    """Reads the training part and, if the data set has one, the validation part. Otherwise it holds samples out.

    Raises:
        InputError: a part is missing or damaged, or an option does not fit the data.
    """
    read = checked(data, "train")
    if read is None:
        raise InputError(f"{data.name} in {data.root} has no training part")
    source, labels = read
    held_out, val = NO_SAMPLES, None
    if (own_val := checked(data, "val")) is not None:
        val = whole(*own_val)
        left = good(source, stratified_order(labels, data.split_seed))
    else:
        of_val, left = (good(source, rows) for rows in hold_out(labels, data.val_size, data.split_seed))
        if len(of_val):
            held_out, val = of_val.int(), Split(source, of_val, labels)
    taken = take_part(left, data.train_part, labels, data.class_names, data.split_seed).sort().values
    noisy = _with_noise(labels, data)
    if data.leave_out:
        taken = without_classes(taken, data.class_numbers(data.leave_out), labels, noisy)
        if not len(taken):
            raise InputError(
                f"leave_out {', '.join(map(str, data.leave_out))} leaves no training samples: leave out fewer"
            )
    mean, std = source.mean_and_std()
    parts = [repr((*source.shape, len(labels))).encode(), source.mark()]
    parts += [array.numpy().tobytes() for array in (labels, mean, std)]
    fingerprint = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    return TrainingPart(Split(source, taken, noisy), val, held_out, labels, mean, std, fingerprint)


def fit_preprocessing(part: TrainingPart, several: list[Preprocessing]) -> Fitted:
    """Fits preprocessings to the training samples, without augmentation. The first process does it for all.

    Raises:
        InputError: see ``fit_all``.
    """
    source, taken = part.train.source, part.train.taken

    def read() -> Iterator[Tensor]:
        for images, _ in source.stream(map(BatchPlan.of_rows, taken.split(ROWS)), [taken]):
            yield images.cpu().double() / 255

    pictures = FitSet(read, len(taken), source.shape, part.mean.double(), part.std.double())
    return Fitted.from_dict(first_decides(lambda: fit_all(several, pictures).as_dict()), source.shape, "the fit")


def checked(data: DataOptions, part: str) -> tuple[Source, Tensor] | None:
    """Reads a part, and checks its labels.

    Raises:
        InputError: it is empty, its labels are out of range, or it has floats and a transform takes bytes alone.
    """
    read = data.read(part)
    if read is None:
        return None
    labels = read[1]
    if not len(labels):
        raise InputError(f"the {part} part of {data.name} in {data.root} is empty")
    if labels.min() < 0 or labels.max() >= data.num_classes:
        raise InputError(
            f"{data.name} has labels from {labels.min()} to {labels.max()} in its {part} part: "
            f"with {data.num_classes} classes they must lie in 0 to {data.num_classes - 1}"
        )
    if isinstance(read[0], MemorySource) and read[0].has_floats:
        for option, transforms in (("augment", data.augment), ("eval_transforms", data.eval_transforms)):
            if unfit := next((one for one in transforms if not one.takes_floats), None):
                raise InputError(
                    f"data.{option}: {type(unfit).__name__} takes pictures of bytes, and {data.name} has floats: "
                    "leave it out, or take one for floats such as DropPatches"
                )
    return read


def _with_noise(labels: Tensor, data: DataOptions) -> Tensor:
    if data.label_noise is None:
        return labels
    given = data.noise_map
    pairs = zip(data.class_numbers(given), data.class_numbers(given.values()), strict=True) if given else None
    return with_noise(labels, data.label_noise, data.num_classes, data.noise_seed, dict(pairs) if pairs else None)


def good(source: Source, rows: Tensor) -> Tensor:
    """The rows whose pictures are not known to be damaged."""
    return rows[~torch.isin(rows, torch.tensor(sorted(source.bad)))] if source.bad else rows


def whole(source: Source, labels: Tensor) -> Split:
    """A split with all pictures of a source that are not known to be damaged."""
    return Split(source, good(source, torch.arange(len(labels))), labels)

"""Checks that a trainer can run rounds of pruning, and shows warnings and pictures of them."""

import sys

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler, StochasticWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger

from distill_lightning.data.base import ImageData
from distill_lightning.distributed import is_first
from distill_lightning.errors import InputError
from distill_lightning.masks import Masks


def refuse_what_breaks_rounds(trainer: pl.Trainer) -> None:
    """Refuses a trainer that cannot run rounds of pruning.

    Raises:
        InputError: the strategy, a callback or an option of the trainer does not work with rounds of pruning.
    """
    strategy = type(trainer.strategy).__name__
    if any(word in strategy for word in ("FSDP", "DeepSpeed", "ModelParallel")):
        raise InputError(f"Lottery cannot prune under {strategy}: use DDP")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping):
            raise InputError(
                "Lottery: EarlyStopping would end all rounds at once: leave it out; each round keeps its best weights"
            )
        if isinstance(callback, GradientAccumulationScheduler | StochasticWeightAveraging):
            raise InputError(f"Lottery cannot count steps together with {type(callback).__name__}: leave it out")
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise InputError("Lottery: fast_dev_run ends before a round does: give rounds of a short length instead")


def batches_between_validations(trainer: pl.Trainer, per_epoch: int) -> int:
    """The number of batches between two validations.

    Args:
        trainer: the trainer, whose options val_check_interval and check_val_every_n_epoch decide it.
        per_epoch: the number of batches in an epoch.
    """
    interval, epochs = trainer.val_check_interval, trainer.check_val_every_n_epoch
    batches = int(interval * per_epoch) if isinstance(interval, float) else interval
    return max(1, batches if epochs is None or batches < per_epoch else epochs * per_epoch)


def show_first_layer(trainer: pl.Trainer, data: ImageData, masks: Masks, step: int) -> None:
    """Adds a picture to TensorBoard: how many weights of the first layer each pixel has left. Only for a linear first
    layer.

    Args:
        trainer: the trainer, with its loggers.
        data: the data, which know the shape of a picture.
        masks: the masks of the round, by name, the first layer first.
        step: the step that the picture is logged at.
    """
    name, mask = next(iter(masks.items()))
    boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    if mask.ndim != 2 or mask.shape[1] != data.channels * data.image_size**2 or not trainer.is_global_zero:
        return
    left = mask.sum(0).view(data.channels, data.image_size, data.image_size).sum(0, keepdim=True).float()
    for board in boards:
        board.experiment.add_image(f"round/left_of_{name}", left / left.max().clamp(min=1), step)


def warn(text: str) -> None:
    """Prints a line on standard error. Only the first process prints."""
    if is_first():
        print(f"Lottery: {text}", file=sys.stderr)

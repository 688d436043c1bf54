"""The first pictures of a fit, and the figure of its preprocessing, which is shown when it begins."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.plans import BatchPlan
from distill_lightning.files import atomic_write
from distill_lightning.preprocessing.figures import draw_preprocessing

SHOWN = 8
"""The number of pictures that are drawn."""
FILE = "preprocessing.png"


def first_pictures(data: ImageData, count: int) -> Tensor:
    """The first training samples that a run takes, without augmentation: (N, C, H, W) uint8 on the CPU.

    Args:
        data: the data, after ``setup``.
        count: N, or all training samples if there are fewer.
    """
    split = data.training_split
    plan = BatchPlan.of_rows(split.taken[:count].to(split.source.device))
    ((images, _),) = split.source.stream([plan], [split.taken])
    return images.cpu()


def show_preprocessing(data: ImageData, loggers: Sequence[Logger]) -> None:
    """Draws training pictures before and after the preprocessing, and the spectrum: preprocessing.png in the run's
    folder, and the image ``preprocessing`` in TensorBoard.

    Args:
        data: the data, after ``setup``.
        loggers: the loggers of the trainer.
    """
    boards = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    fitted, normaliser = data.preprocessing, data.normaliser
    if not boards or fitted is None or normaliser is None:
        return
    images = first_pictures(data, SHOWN)
    after = data.preprocessed(normaliser(images))
    drawn = draw_preprocessing(images, after, [values.cpu() for values in fitted.spectra], fitted.words)
    for board in boards:
        board.experiment.add_image("preprocessing", drawn, 0, dataformats="HWC")
    file = BytesIO()
    Image.fromarray(drawn.numpy()).save(file, "png")
    atomic_write(Path(boards[0].log_dir) / FILE, lambda out: out.write(file.getvalue()))

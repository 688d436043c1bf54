"""What a fit adds to TensorBoard when it begins."""

from collections.abc import Sequence

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from distill_lightning.data.base import ImageData
from distill_lightning.data.plans import BatchPlan
from distill_lightning.preprocessing.figures import draw_preprocessing

SHOWN = 8
"""The number of pictures that are drawn."""


def show_preprocessing(data: ImageData, loggers: Sequence[Logger]) -> None:
    """Adds ``preprocessing`` to TensorBoard: training pictures before and after it, and the spectrum.

    Args:
        data: the data, after ``setup``.
        loggers: the loggers of the trainer.
    """
    boards = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    fitted, split, normaliser = data.preprocessing, data.training_split, data.normaliser
    if not boards or fitted is None or normaliser is None:
        return
    plan = BatchPlan.of_rows(split.taken[:SHOWN].to(split.source.device))
    ((images, _),) = split.source.stream([plan], [split.taken])
    after = data.preprocessed(normaliser(images.cpu()))
    drawn = draw_preprocessing(images.cpu(), after, [values.cpu() for values in fitted.spectra], fitted.words)
    for board in boards:
        board.experiment.add_image("preprocessing", drawn, 0, dataformats="HWC")

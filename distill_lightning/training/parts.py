"""The parts of a run, which the verbs work with."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.checkpoints import AtomicCheckpointIO
from distill_lightning.data.base import ImageData
from distill_lightning.loggers import MetricsCSV, TensorBoard
from distill_lightning.methods.base import Method
from distill_lightning.runs import Run, RunConfig
from distill_lightning.runs.config import dump
from distill_lightning.trackers import attach_trackers


@dataclass
class Parts:
    """The parts of a run. Each is built once."""

    config: RunConfig
    method: Method
    data: ImageData
    trainer: pl.Trainer
    checkpoint: RunCheckpoint
    checkpoint_io: AtomicCheckpointIO
    user_loggers: list[Logger]

    @property
    def stem(self) -> Path:
        """The folder of all runs of this data set and method: logs/<data set>/<method>."""
        return Path(self.config.options["log_dir"]) / self.data.name / method_name(type(self.method))

    @property
    def usual_name(self) -> str:
        """The name of a run without --name: its network and seed."""
        model = self.config.options["model"]
        arguments = model.get("init_args") or {}
        if arguments.get("network", model) is None:  # given ready-made in Python
            return f"{type(self.method.model).__name__.lower()}-seed{self.config.seed}"
        what = arguments.get("network") or model
        return f"{what['class_path'].rpartition('.')[2].lower()}-seed{self.config.seed}"


def method_name(method: type) -> str:
    """The name of the folder for a method's runs: the name of the Python file that defines the method."""
    return method.__module__.rpartition(".")[2]


def attach(parts: Parts, run: Run, config: RunConfig) -> tuple[TensorBoard, MetricsCSV]:
    """Lets loggers and checkpoints write into a run's folder. Returns the program's own two loggers.

    Args:
        parts: the parts of the run.
        run: the run. If it is resumed, metrics after the step of its checkpoint are removed; all of them, if the method
            does not train, since it evaluates from the beginning.
        config: the configuration that is written into its checkpoints.
    """
    goes_on = run.resume_from if parts.method.trains else None
    step = parts.checkpoint_io.read_ahead(goes_on)["global_step"] if goes_on else -1
    board, record = TensorBoard(run.folder, step), MetricsCSV(run.metrics, step)
    if parts.user_loggers and parts.trainer.is_global_zero:
        attach_trackers(parts.user_loggers, run.folder, step, config.settings())
    parts.trainer.loggers = [board, record, *parts.user_loggers]
    parts.checkpoint.folder, parts.checkpoint.config = run.checkpoints, dump(config.options)
    return board, record


@contextmanager
def attached_for_now(parts: Parts, config: RunConfig) -> Iterator[None]:
    """Within this block, loggers and checkpoints write into a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        board, _ = attach(parts, Run(Path(folder)), config)
        try:
            yield
        finally:
            board.experiment.close()  # its thread would write into the folder while that is removed

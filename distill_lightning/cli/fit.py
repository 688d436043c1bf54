"""``distill fit``: chooses the folder of a run, trains, tests, and writes the summary."""

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger

import distill_lightning
from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.checkpoints import AtomicCheckpointIO
from distill_lightning.cli.processes import children, decide_run
from distill_lightning.cli.tables import print_metrics
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError, first_input_error
from distill_lightning.loggers import MetricsCSV, TensorBoard
from distill_lightning.methods.base import Method
from distill_lightning.runs import Run, RunConfig, resume, start
from distill_lightning.runs.config import dump
from distill_lightning.runs.slurm import folder_of_job, mark_folder
from distill_lightning.runs.summary import write_confusion, write_summary
from distill_lightning.values import Summarised


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
        what = (model.get("init_args") or {}).get("network") or model
        return f"{what['class_path'].rpartition('.')[2].lower()}-seed{self.config.seed}"


def method_name(method: type) -> str:
    """The name of the folder for a method's runs: the name of the Python file that defines the method."""
    return method.__module__.rpartition(".")[2]


def fit(parts: Parts, ckpt_path: str | None) -> None:
    """Trains from the start or from a checkpoint, tests once, and writes the summary.

    Args:
        parts: the parts of the run.
        ckpt_path: a file, "last", "best" or "auto"; None for a new run.
    """
    run = decide_run(parts.trainer, lambda: choose_run(parts, ckpt_path))
    if run.finished:
        _say(parts.trainer, f"run: {run.folder} (finished already)")
        return
    _say(parts.trainer, f"run: {run.folder}")
    try:
        _train_and_test(parts, run)
    except Exception as error:
        if first_input_error(error) and ckpt_path in (None, "auto") and not list(run.checkpoints.glob("*.ckpt")):
            shutil.rmtree(run.folder, ignore_errors=True)  # nothing is saved: a corrected command gets the same name
        raise
    finally:
        run.release()
    _say(parts.trainer, f"run: {run.folder}")


def choose_run(parts: Parts, ckpt_path: str | None) -> Run:
    """Makes the folder of a new run, or finds the run to resume. The folder is locked, unless the run is finished.

    Args:
        parts: the parts of the run.
        ckpt_path: a file, "last", "best" or "auto"; None for a new run.

    Raises:
        InputError: see ``runs.resume``; or "auto" is given without a name.
    """
    name = parts.config.options.get("name")
    auto = ckpt_path == "auto"
    if auto and name is None:
        raise InputError("--ckpt_path auto needs a --name: give the name of the run to resume or to start")
    if ckpt_path is None and (requeued := folder_of_job(parts.stem, parts.config)):
        ckpt_path, name = "last", requeued.name
    if ckpt_path is not None and not auto:
        run = resume(parts.stem, name, parts.config, ckpt_path)
    else:
        run = start(parts.stem, name or parts.usual_name, parts.config, once=auto)
    if not run.finished:
        mark_folder(run.folder)
    return run


def attach(parts: Parts, run: Run, config: RunConfig) -> tuple[TensorBoard, MetricsCSV]:
    """Lets loggers and checkpoints write into a run's folder. Returns the program's own two loggers.

    Args:
        parts: the parts of the run.
        run: the run. If it is resumed, metrics after the step of its checkpoint are removed.
        config: the configuration that is written into its checkpoints.
    """
    step = parts.checkpoint_io.read_ahead(run.resume_from)["global_step"] if run.resume_from else -1
    board, record = TensorBoard(run.folder, step), MetricsCSV(run.metrics, step)
    parts.trainer.loggers = [board, record, *parts.user_loggers]
    parts.checkpoint.folder, parts.checkpoint.config = run.checkpoints, dump(config.options)
    return board, record


def _train_and_test(parts: Parts, run: Run) -> None:
    trainer, method, data = parts.trainer, parts.method, parts.data
    config = RunConfig.read(run.folder)  # as it was resolved when the run was started
    board, record = attach(parts, run, config)
    with children(trainer, run):
        if method.trains:
            trainer.fit(method, datamodule=data, ckpt_path=run.resume_from)
        else:
            parts.checkpoint.start_clock()
            trainer.validate(method, datamodule=data, verbose=False)
        data.read_test_part()
        if data.test is not None:
            trainer.test(method, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.save()
        summary = summarise(parts, config, record.latest)
        outcome = {k: v for k, v in record.latest.items() if k.partition("/")[0] in ("val", "test")}
        board.log_outcome(config.settings(), outcome)
        board.save()
        if method.confusion:
            write_confusion(run.folder, data.class_names, method.confusion)
        write_summary(run.summary, summary)
        print_metrics(record.latest)


def summarise(parts: Parts, config: RunConfig, metrics: dict[str, float]) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        parts: the parts of the run.
        config: the configuration in the run's folder.
        metrics: the last value of each tag.
    """
    trainer, method = parts.trainer, parts.method
    parameters = list(method.model.parameters())
    matrices = [p for p in parameters if p.ndim > 1]
    device = trainer.strategy.root_device
    of_callbacks = [c.summary() for c in trainer.callbacks if isinstance(c, Summarised)]  # type: ignore[attr-defined]
    return {
        **{k: v for summary in of_callbacks for k, v in summary.items()},
        "metrics": metrics,
        "wall_time_s": round(parts.checkpoint.wall_time_s(), 3),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "exposures": method.means.exposures,
        "parameters": sum(p.numel() for p in parameters),
        "density": sum(int(p.count_nonzero()) for p in matrices) / sum(p.numel() for p in matrices),
        "calibration": method.calibration,
        "seed": config.seed,
        "config_digest": config.id(),
        "versions": {
            "distill_lightning": distill_lightning.__version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "python": platform.python_version(),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
    }


def _say(trainer: pl.Trainer, line: str) -> None:
    if trainer.is_global_zero:
        print(line, flush=True)

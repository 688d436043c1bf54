"""A fit: chooses the folder of a run, trains, tests, and writes the summary."""

import shutil
import sys

import lightning.pytorch as pl

from distill_lightning.callbacks.run_checkpoint import OutOfTimeError
from distill_lightning.callbacks.start_from import Start, StartFrom
from distill_lightning.distributed import from_first
from distill_lightning.doctor import LIKELY, examine
from distill_lightning.errors import InputError, first_input_error
from distill_lightning.files import printable, read_json
from distill_lightning.loggers import TensorBoard
from distill_lightning.runs import Run, RunConfig, identity, resume, start
from distill_lightning.runs.config import file_to_start_from
from distill_lightning.runs.slurm import folder_of_job, mark_folder
from distill_lightning.runs.summary import write_confusion, write_summary
from distill_lightning.training.parts import Parts, attach
from distill_lightning.training.processes import children, decide_run
from distill_lightning.training.result import Result
from distill_lightning.training.summary import summarise


def fit(parts: Parts, ckpt_path: str | None) -> Result:
    """Trains from the start or from a checkpoint, tests once, and writes the summary.

    Args:
        parts: the parts of the run.
        ckpt_path: a file, "last", "best" or "auto"; None for a new run.

    Raises:
        InputError: the run cannot be started or resumed.
    """
    run = decide_run(parts.trainer, lambda: choose_run(parts, ckpt_path))
    if run.finished:
        _say(parts.trainer, f"run: {run.folder} (finished already)")
        return Result(run.folder, read_json(run.summary).get("metrics") or {}, trained=False)
    _say(parts.trainer, f"run: {run.folder}")
    try:
        metrics, finished = _train_and_test(parts, run)
    except BaseException as error:
        parts.method.teardown("fit")  # Lightning leaves it out after an error
        if isinstance(error, Exception):
            _after_input_error(parts, run, first_input_error(error), ckpt_path in (None, "auto"))
        raise
    finally:
        run.release()
    return Result(run.folder, metrics, finished=finished)


def choose_run(parts: Parts, ckpt_path: str | None) -> Run:
    """Makes the folder of a new run, or finds the run to resume. The folder is locked, unless the run is finished.

    Args:
        parts: the parts of the run.
        ckpt_path: a file, "last", "best" or "auto"; None for a new run.

    Raises:
        InputError: see ``runs.resume``; or "auto" is given without a name.
    """
    name = parts.config.options.get("name")
    if parts.config.start_from is not None and not parts.method.trains:
        raise InputError(f"{type(parts.method).__name__} trains nothing: leave start_from out")
    if parts.config.options.get("start_optimizer") and parts.config.start_from is None:
        raise InputError("start_optimizer takes an optimizer's state along from another run: give start_from too")
    auto = ckpt_path == "auto"
    if auto and name is None:
        raise InputError("--ckpt_path auto needs a --name: give the name of the run to resume or to start")
    if ckpt_path is None and (requeued := folder_of_job(parts.stem, parts.config)):
        ckpt_path, name = "last", requeued.name
    if ckpt_path is not None and not auto:
        run = resume(parts.stem, name, parts.config, ckpt_path)
    else:
        run = start(parts.stem, name or parts.usual_name, parts.config, once=auto, complete=with_lineage)
    if not run.finished:
        mark_folder(run.folder)
    return run


def with_lineage(config: RunConfig) -> RunConfig:
    """The configuration of a new run, which says what the run starts from.

    Raises:
        InputError: there is no such file, it holds no weights, or it holds other weights than ``config`` says.
    """
    if config.start_from is None:
        return config
    file = file_to_start_from(config.start_from)
    weights, folder = Start.read(file).weights, file.parent.parent
    if (before := config.lineage.get("weights")) not in (None, weights):
        raise InputError(f"{file} holds the weights {weights}, not {before}: give the old file, or only its path")
    of_run = identity(folder) if file.parent.name == "checkpoints" and Run(folder).summary.is_file() else None
    run = f"{of_run}/{file.name}" if of_run else None
    return config.with_options(start_from={"path": config.start_from, "weights": weights, "run": run})


def start_from(parts: Parts, config: RunConfig) -> None:
    """Lets a new run start from the weights of another one, if its configuration says so.

    Raises:
        InputError: there is no such file; its weights have changed since the run was started; or the method does not
            train.
    """
    if config.start_from is None:
        return
    start = Start.read(file_to_start_from(config.start_from))
    if start.weights != config.lineage.get("weights"):
        raise InputError(f"{start.path} has changed since this run was started from it: start a new run")
    callback = StartFrom(start, bool(config.options.get("start_optimizer")))
    parts.trainer.callbacks.insert(0, callback)  # type: ignore[attr-defined]


def _train_and_test(parts: Parts, run: Run) -> tuple[dict[str, float], bool]:
    """Trains and tests. Returns the last value of each tag, and whether the run is finished."""
    trainer, method, data = parts.trainer, parts.method, parts.data
    config = RunConfig.read(run.folder)  # as it was resolved when the run was started
    board, record = attach(parts, run, config)
    if run.resume_from is None:
        start_from(parts, config)
    with children(trainer, run):
        if method.trains:
            try:
                trainer.fit(method, datamodule=data, ckpt_path=run.resume_from)
            except OutOfTimeError:
                return from_first(record.latest), False
        else:
            parts.checkpoint.start_clock()
            trainer.validate(method, datamodule=data, verbose=False)
        data.read_test_part()
        if data.test is not None:
            trainer.test(method, datamodule=data, verbose=False)
        if method.leaves_checkpoint and not method.trains:
            if trainer.is_global_zero:
                run.checkpoints.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(run.checkpoints / "last.ckpt")
        if trainer.is_global_zero:
            _finish(parts, run, config, board, record.latest)
        return from_first(record.latest), True


def _finish(parts: Parts, run: Run, config: RunConfig, board: TensorBoard, latest: dict[str, float]) -> None:
    """Writes what a finished run leaves. ``latest`` is the last value of each tag."""
    trainer, method = parts.trainer, parts.method
    for logger in trainer.loggers:
        logger.save()
    summary = summarise(parts, config, latest)
    outcome = {tag: value for tag, value in latest.items() if tag.partition("/")[0] in ("val", "test")}
    board.log_outcome(config.settings(), outcome)
    board.save()
    if method.confusion:
        write_confusion(run.folder, parts.data.class_names, method.confusion)
    write_summary(run.summary, summary)
    # the run is finished now, even if nobody can read the line
    if method.trains and parts.config.options.get("doctor", True):
        _ask_doctor(run, board, trainer.global_step)


def _after_input_error(parts: Parts, run: Run, error: InputError | None, is_new: bool) -> None:
    """Removes a new run in which nothing is saved, so that a corrected command gets the same name. Another process than
    the first says what it alone may have met: a picture of its share that cannot be read, for example.
    """
    if error is None:
        return
    if not parts.trainer.is_global_zero:
        if parts.checkpoint.began:  # before, all processes meet the same, and the first one says it
            print(f"distill: process {parts.trainer.global_rank}: {printable(str(error))}", file=sys.stderr, flush=True)
    elif is_new and not list(run.checkpoints.glob("*.ckpt")):
        shutil.rmtree(run.folder, ignore_errors=True)


def _ask_doctor(run: Run, board: TensorBoard, step: int) -> None:
    """Says in a line what the curves show, here and in TensorBoard. It is silent where that would be a guess."""
    for _, found in examine([run.metrics.parent]):
        if found.sure >= LIKELY:
            board.experiment.add_text("doctor", found.line, step)
            board.save()
            print(f"doctor: {found.line}", flush=True)


def _say(trainer: pl.Trainer, line: str) -> None:
    if trainer.is_global_zero:
        print(line, flush=True)

"""Writes checkpoints from which a run can be resumed exactly, and ends the run on a signal.

If a validation or the end of an epoch follows a training step, no checkpoint is written between the two, because
Lightning's counters would be wrong after a resume. A checkpoint that is due there (by step, by time or by a signal) is
written after the validation or the end of the epoch. The loggers are flushed before each checkpoint, so that everything
that was logged before the checkpoint is on disk too.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from distill_lightning.data.base import ImageData
from distill_lightning.distributed import largest
from distill_lightning.environment import OF_STUDY, requeue
from distill_lightning.errors import InputError
from distill_lightning.files import atomic_link, sweep
from distill_lightning.lightning_internals import (
    completes_no_step,
    epoch_ends,
    leave_signals_alone,
    validation_is_due,
)
from distill_lightning.methods.base import Method
from distill_lightning.methods.foreign_callbacks import give_one_of
from distill_lightning.ranges import Count, Positive
from distill_lightning.recorded import Recorded

SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])
REQUEUE = getattr(signal, "SIGUSR1", None)
AGREE_EVERY = 10
"""Optimizer steps between two exchanges of signals and due times, if the processes run on GPUs."""
CHILD = "DISTILL_RUN"
"""The environment variable that the first process sets for the processes that it starts: the run's folder."""


def end_children(trainer: pl.Trainer) -> None:
    """Kills the processes that this one has started, if any: otherwise they would wait for it for ever."""
    launcher = trainer.strategy.launcher
    if launcher is not None and hasattr(launcher, "kill"):
        launcher.kill(signal.SIGKILL)


class OutOfTimeError(Exception):
    """Ends a fit after ``trainer.max_time``. Everything is saved, and the run is not finished."""


class RunCheckpoint(Recorded, Checkpoint):
    """Writes ``last.ckpt``, from which the run is resumed, and ``best.ckpt``.

    Args:
        every_n_epochs: writes at the end of every n-th epoch, and always at the end of the last epoch.
        every_n_steps: also writes every n optimizer steps.
        every_minutes: also writes when this many minutes have passed since the last checkpoint.
        monitor: the metric that decides which weights ``best.ckpt`` holds: those with the highest value, or with the
            lowest value if ``lowest_is_best``.
        lowest_is_best: whether a lower value of ``monitor`` is better, as for a loss.

    Raises:
        InputError: an interval is out of range.
    """

    def __init__(
        self,
        every_n_epochs: Count = 1,
        every_n_steps: Count | None = None,
        every_minutes: Positive | None = None,
        monitor: str = "val/accuracy",
        lowest_is_best: bool = False,
    ) -> None:
        super().__init__()
        self.every_n_epochs, self.every_n_steps, self.every_minutes = every_n_epochs, every_n_steps, every_minutes
        self.monitor, self.lowest_is_best = monitor, lowest_is_best
        self.folder: Path | None = None
        self.config: str = ""
        self.best: float | None = None
        self.elapsed_s = 0.0
        self.stopped = False
        self.clock: float | None = None
        self.saved_at = time.monotonic()
        self.due = False
        self.improved = False
        self.received = 0  # the signal that this process received
        self.signal = 0  # the signal that all processes have agreed on
        self.max_time_s: float | None = None  # the longest training time of one start; the trainer sets it
        self.out_of_time = False
        self.stepping = False
        self.began = False  # whether this process has begun to train
        self.writing = False
        self.handlers: dict[int, Any] = {}
        self.parent = int(os.environ.get(OF_STUDY, 0))
        self.alone = True
        """Whether no other run is in this process. Then this run says how to go on, and puts its job back."""

    @property
    def run_folder(self) -> Path:
        """The folder of the run whose checkpoints these are."""
        assert self.folder is not None
        return self.folder.parent

    # The state in the checkpoint

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "elapsed_s": self.wall_time_s(), "stopped": bool(self.trainer.should_stop)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.elapsed_s, self.stopped = state["best"], state["elapsed_s"], state["stopped"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["config"] = self.config

    def wall_time_s(self) -> float:
        """The training time in seconds over all starts of the run, without the interruptions."""
        return self.elapsed_s + (time.monotonic() - self.clock if self.clock is not None else 0.0)

    # Signals and the time limit

    @property
    def leaving(self) -> bool:
        """Whether the run ends after the next checkpoint, because of a signal or because its time is over."""
        return bool(self.signal) or self.out_of_time

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.trainer = trainer
        others = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint) and one.save_last]
        if stage == "fit" and others:
            raise InputError("ModelCheckpoint.save_last: the run writes last.ckpt itself: leave save_last out")
        if stage == "fit" and self.folder is not None:
            if isinstance(data := trainer.datamodule, ImageData):  # type: ignore[attr-defined]
                data.refuse_empty_test()
            if trainer.is_global_zero:
                self.folder.mkdir(parents=True, exist_ok=True)
                sweep(self.folder)
        leave_signals_alone(trainer)
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def _on_signal(self, number: int, frame: Any) -> None:
        """Lets the run end after the running step. It ends at once if no step is running, or on a second signal.

        With several processes the first one decides: if another one ended alone, the others would wait for it. A write
        is not cut: an exception within torch's writer would become another error.
        """
        trainer = self.trainer
        if self.writing or (not self.received and (self.stepping or not trainer.is_global_zero)):
            self.received = self.received or number
            return
        self.received = number
        self._leave_at_once()

    def end_after_step(self, number: int) -> None:
        """Ends the run after its current step, with a checkpoint. For a run in a thread, which gets no signals itself.

        Args:
            number: the signal.
        """
        self.received = self.received or number

    def _leave_at_once(self) -> None:
        self._requeue()
        trainer = self.trainer
        if trainer.is_global_zero:
            self._say("stopped at once, without a checkpoint of the last steps")
        if trainer.world_size > 1:  # without clean-up, which would wait for processes that are blocked in a collective
            end_children(trainer)
            sys.stdout.flush()
            os._exit(128 + self.received)
        raise SystemExit(128 + self.received)

    def start_clock(self) -> None:
        """Starts to count the training time."""
        self.clock = time.monotonic()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start_clock()
        self.out_of_time = False
        tags = pl_module.validation_tags if isinstance(pl_module, Method) and not pl_module.plain_batches else set()
        logged = tags.union(*(getattr(one, "logs", ()) for one in [pl_module, *trainer.callbacks]))  # type: ignore[attr-defined]
        if tags and self.monitor not in logged:
            raise InputError(f"checkpoint.monitor is {self.monitor}: {give_one_of(logged)}")
        if self.stopped:  # the run was interrupted after early stopping had ended it
            trainer.should_stop = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        together, interval = trainer.accumulate_grad_batches, trainer.val_check_batch
        per_epoch, on = trainer.num_training_batches, trainer.check_val_every_n_epoch is None  # counted across epochs
        inside = interval is not None and interval != float("inf") and interval % per_epoch
        if inside and interval is not None and (interval % together or (on and per_epoch % together)):
            raise InputError(
                f"validation after every {interval} batches falls between the {together} of accumulate_grad_batches: "
                f"make trainer.val_check_interval a multiple of {together if interval % together else per_epoch}"
            )
        self.stepping = self.began = True
        self.saved_at = time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stepping = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stepping = False
        if self.received and trainer.is_global_zero:  # it arrived during the last checkpoint
            self._leave_at_once()

    # When to write

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if completes_no_step(trainer):
            return  # a checkpoint does not hold accumulated gradients
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self.due = True
        # a collective waits for the device, so on GPUs it is not run at every step
        at_once = trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu"
        if at_once or trainer.global_step % AGREE_EVERY == 0:
            self._agree(trainer)
        if not self.due and not self.leaving:
            return
        if not epoch_ends(trainer) and not validation_is_due(trainer):
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.stepping = True
        value = float(trainer.callback_metrics[self.monitor])
        if self.best is None or (value < self.best if self.lowest_is_best else value > self.best):
            self.best, self.improved = value, True
        if (self.due or self.improved or self.leaving) and not epoch_ends(trainer):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        is_last = epoch == trainer.max_epochs or trainer.should_stop
        self.due = self.due or is_last or epoch % self.every_n_epochs == 0
        self._agree(trainer)
        self.out_of_time = self.out_of_time and not is_last  # the test and the summary of a trained run still follow
        if self.due or self.improved or self.leaving:
            self._write(trainer)

    def _agree(self, trainer: pl.Trainer) -> None:
        """Tells all processes if one of them has received a signal, or if a checkpoint or the end is due by time."""
        minutes, now = self.every_minutes, time.monotonic()
        late = minutes is not None and now - self.saved_at >= 60 * minutes
        over = self.max_time_s is not None and self.clock is not None and now - self.clock >= self.max_time_s
        if os.getppid() != self.parent and OF_STUDY in os.environ and trainer.is_global_zero:
            self.received = self.received or signal.SIGTERM  # the study that started this run was killed
        # a signal that arrives after this line is handled after the next step
        known = [self.received, int(late), int(over)]
        if trainer.world_size > 1:
            known = largest(torch.tensor(known, device=trainer.strategy.root_device)).tolist()
        self.signal, self.due, self.out_of_time = known[0], self.due or bool(known[1]), bool(known[2])

    # Writing

    def _write(self, trainer: pl.Trainer) -> None:
        method = trainer.lightning_module
        if isinstance(method, Method):
            method.means.raise_if_not_finite(trainer.global_step, trainer.accumulate_grad_batches)
        for logger in trainer.loggers:
            logger.save()
        folder = self.folder
        assert folder is not None
        last = folder / "last.ckpt"
        self.writing = True
        if self.improved:
            best = folder / "best.ckpt"
            trainer.save_checkpoint(best)
            # best.ckpt first: a run that is killed in between resumes from the older last.ckpt, and writes best.ckpt
            # again
            if trainer.is_global_zero:
                atomic_link(best, last)
            trainer.strategy.barrier("best.ckpt")
        else:
            trainer.save_checkpoint(last)
        self.due, self.improved, self.writing, self.saved_at = False, False, False, time.monotonic()
        if self.signal:
            self._leave(trainer)
        if self.out_of_time:
            if trainer.is_global_zero:
                self._say(f"stopped by trainer.max_time and saved after step {trainer.global_step}")
            raise OutOfTimeError

    def _leave(self, trainer: pl.Trainer) -> None:
        self._requeue()
        if trainer.is_global_zero:
            self._say(f"stopped and saved after step {trainer.global_step}")
        # the first process watches the processes that it has started, and takes any status but 0 for a failure
        raise SystemExit(0 if CHILD in os.environ and trainer.local_rank > 0 else 128 + self.signal)

    def _say(self, what: str) -> None:
        """Says that the run has stopped, and how to go on. In a study, the study says it."""
        if self.alone and OF_STUDY not in os.environ and self.folder is not None:
            name = self.run_folder.name
            in_python = "in Python, with ckpt_path='last' and this name"
            print(f"{what}: the same command goes on with --name {name} --ckpt_path last; {in_python}", file=sys.stderr)

    def _requeue(self) -> None:
        """Puts the job back into SLURM's queue if SIGUSR1 was received: SLURM sends it shortly before the time
        limit.
        """
        if self.alone and REQUEUE in (self.signal, self.received) and self.trainer.is_global_zero:
            requeue()

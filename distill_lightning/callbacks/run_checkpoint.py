"""Checkpoints from which a run goes on exactly, and leaving on a signal.

A checkpoint is only ever written where Lightning's counters are right on resume: not between a training step and a
validation or an end of epoch that is due after it. One that falls due there, by step, time or signal, is written after
it. Before each, the loggers are flushed: what a checkpoint has seen is on disk when it is.
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
from lightning.pytorch.callbacks import Checkpoint

from distill_lightning.distributed import largest
from distill_lightning.environment import OF_STUDY, requeue
from distill_lightning.errors import InputError
from distill_lightning.files import link_whole, sweep
from distill_lightning.lightning_internals import (
    completes_no_step,
    epoch_ends,
    leave_signals_alone,
    validation_is_due,
)
from distill_lightning.methods.base import Method

SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])
REQUEUE = getattr(signal, "SIGUSR1", None)
AGREE_EVERY = 10
"""Steps between two agreements of several processes on GPUs."""
CHILD = "DISTILL_RUN"
"""Set for the processes that the first one starts on this machine; it says which folder the run has."""


def end_children(trainer: pl.Trainer) -> None:
    """Ends the processes that this one has started, if any: they would wait for it."""
    launcher = trainer.strategy.launcher
    if launcher is not None and hasattr(launcher, "kill"):
        launcher.kill(signal.SIGKILL)


class RunCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` to go on from, and ``best.ckpt``.

    Args:
        every_n_epochs: write at the end of every n-th epoch; the last one always is.
        every_n_steps: write every so many optimizer steps as well.
        every_minutes: write when so many minutes have passed as well.
        monitor: what ``best.ckpt`` has the most of, or the least where ``lowest_is_best``.
        lowest_is_best: as for a loss.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        every_minutes: float | None = None,
        monitor: str = "val/accuracy",
        lowest_is_best: bool = False,
    ) -> None:
        super().__init__()
        given = {"every_n_epochs": every_n_epochs, "every_n_steps": every_n_steps, "every_minutes": every_minutes}
        for name, value in given.items():
            if value is not None and value <= 0:
                raise InputError(f"checkpoint.{name} is {value}: it must be greater than 0")
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
        self.received = 0  # a signal that this process got
        self.signal = 0  # one that all processes know of
        self.stepping = False
        self.handlers: dict[int, Any] = {}
        self.parent = int(os.environ.get(OF_STUDY, 0))

    @property
    def run_folder(self) -> Path:
        """The folder of the run whose checkpoints these are."""
        assert self.folder is not None
        return self.folder.parent

    # What the checkpoint keeps of this

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "elapsed_s": self.wall_time_s(), "stopped": bool(self.trainer.should_stop)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.elapsed_s, self.stopped = state["best"], state["elapsed_s"], state["stopped"]

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config

    def wall_time_s(self) -> float:
        """Training time, interruptions left out, over all starts of the run."""
        return self.elapsed_s + (time.monotonic() - self.clock if self.clock is not None else 0.0)

    # Signals

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.trainer = trainer
        if stage == "fit" and self.folder is not None and trainer.is_global_zero:
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
        """After the running step where one is running, at once elsewhere, or when asked twice.

        With several processes the first one decides: if another left by itself, the others would wait for it.
        """
        trainer = self.trainer
        if not self.received and (self.stepping or not trainer.is_global_zero):
            self.received = number
            return
        self.received = number
        self._leave_at_once()

    def _leave_at_once(self) -> None:
        self._requeue()
        trainer = self.trainer
        if trainer.world_size > 1:  # without taking leave: whoever is in the middle of a collective would not answer
            end_children(trainer)
            sys.stdout.flush()
            os._exit(128 + self.received)
        raise SystemExit(128 + self.received)

    def start_clock(self) -> None:
        self.clock = time.monotonic()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start_clock()
        if self.stopped:  # early stopping had ended the run when it was interrupted
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
        self.stepping = True
        self.saved_at = time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stepping = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stepping = False
        if self.received and trainer.is_global_zero:  # it came while the last checkpoint was written
            self._leave_at_once()

    # When to write

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if completes_no_step(trainer):
            return  # gradients are not in a checkpoint
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self.due = True
        # a collective waits for the device: on GPUs not at every step
        if trainer.strategy.root_device.type == "cpu" or trainer.global_step % AGREE_EVERY == 0:
            self._agree(trainer)
        if not self.due and not self.signal:
            return
        if not epoch_ends(trainer) and not validation_is_due(trainer):
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.stepping = True
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(k for k in trainer.callback_metrics if k.startswith("val/")))
            raise InputError(f"checkpoint.monitor is {self.monitor}: validation gives {known}")
        value = float(trainer.callback_metrics[self.monitor])
        if self.best is None or (value < self.best if self.lowest_is_best else value > self.best):
            self.best, self.improved = value, True
        if (self.due or self.improved or self.signal) and not epoch_ends(trainer):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop:
            self.due = True
        self._agree(trainer)
        if self.due or self.improved or self.signal:
            self._write(trainer)

    def _agree(self, trainer: pl.Trainer) -> None:
        """All processes learn of a signal or of a time that one of them knows of."""
        minutes = self.every_minutes
        late = minutes is not None and time.monotonic() - self.saved_at >= 60 * minutes
        if os.getppid() != self.parent and OF_STUDY in os.environ and trainer.is_global_zero:
            self.received = self.received or signal.SIGTERM  # its study was killed
        # a signal that comes from here on has its turn after the next step
        known = [self.received, int(late)]
        if trainer.world_size > 1:
            known = largest(torch.tensor(known, device=trainer.strategy.root_device)).tolist()
        self.signal, self.due = known[0], self.due or bool(known[1])

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
        if self.improved:
            best = folder / "best.ckpt"
            trainer.save_checkpoint(best)
            if trainer.is_global_zero:  # best first: a cut in between leaves an older last, which finds it again
                link_whole(best, last)
            trainer.strategy.barrier("best.ckpt")
        else:
            trainer.save_checkpoint(last)
        self.due, self.improved, self.saved_at = False, False, time.monotonic()
        if self.signal:
            self._leave(trainer)

    def _leave(self, trainer: pl.Trainer) -> None:
        self._requeue()
        if trainer.is_global_zero and OF_STUDY not in os.environ:  # a study speaks for its runs
            name = self.run_folder.name
            print(
                f"stopped and saved after step {trainer.global_step}: the same command goes on with --name {name} "
                "--ckpt_path last",
                file=sys.stderr,
            )
        # the first process watches those that it has started, and takes any status but 0 for a failure
        raise SystemExit(0 if CHILD in os.environ and trainer.local_rank > 0 else 128 + self.signal)

    def _requeue(self) -> None:
        """SIGUSR1 is SLURM's word that the time is nearly over: back into the queue."""
        if REQUEUE in (self.signal, self.received) and self.trainer.is_global_zero:
            requeue()

"""The progress of a run on standard error: a bar on a terminal, otherwise one line for each epoch."""

import sys
import time

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, RichProgressBar
from rich.console import Console

from distill_lightning.methods.base import Method
from distill_lightning.values import ShowsNumbers


def _numbers(trainer: pl.Trainer) -> dict[str, float]:
    method = trainer.lightning_module
    loss = method.means.mean_loss() if trainer.state.fn == "fit" and isinstance(method, Method) else None
    numbers = {} if loss is None else {"train/loss": loss}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ShowsNumbers):
            numbers |= callback.numbers()
    return numbers | {k: float(v) for k, v in trainer.callback_metrics.items() if k in ("val/accuracy", "val/nll")}


class Bar(RichProgressBar):
    """Lightning's progress bar with the running mean of the loss and the results of the last validation."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=20, console_kwargs={"stderr": True})
        self.last: dict[str, int | str | float | dict[str, float]] = {}

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        # Lightning calls this at every step, but shows every twentieth; reading a number waits for the device
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready % self.refresh_rate == 0 or trainer.is_last_batch:
            self.last = {name: f"{value:.4g}" for name, value in _numbers(trainer).items()}
        return self.last


class Lines(Callback):
    """Prints one line for each epoch, for log files."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in _numbers(trainer).items())
            now = time.monotonic()
            took = now - getattr(self, "start", now)
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {numbers}  {took:.1f} s", file=sys.stderr)


def progress() -> Callback:
    """A progress bar if standard error is a terminal, otherwise one line for each epoch."""
    return Bar() if Console(stderr=True).is_terminal else Lines()

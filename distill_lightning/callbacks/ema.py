"""An exponential moving average of the weights (Polyak & Juditsky 1992), evaluated beside the weights themselves.

    a_0 = theta_0,    a_n = d_n a_{n-1} + (1 - d_n) theta_n,    d_n = min(decay, (1 + n) / (10 + n))

theta_n are the weights after n optimizer steps. The smaller d_n of the first steps lets the average leave the initial
weights soon. Floating-point buffers (the running statistics of batch norm) are averaged in the same way; whole numbers,
such as the count of batches, are copied. The average has float32 numbers, also where the weights have fewer bits.

The average does not change training. Each validation and the test also evaluate the averaged network, and log its
metrics with the ending ``_ema``. The average is in every checkpoint, so that a run is resumed exactly: under
``callbacks``, ``EMA``, ``weights``, with the names of the plain network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from distill_lightning.callbacks.of_method import method_of
from distill_lightning.data.loaders import EvalLoader
from distill_lightning.errors import InputError
from distill_lightning.evaluation import METRICS
from distill_lightning.lightning_internals import completes_no_step
from distill_lightning.methods.base import Method
from distill_lightning.moving_average import as_average, move_average
from distill_lightning.ranges import OpenFraction
from distill_lightning.recorded import Recorded
from distill_lightning.values import TimelineGiver


class EMA(Recorded, Callback):
    """Averages the weights of the network over the steps of training.

    Args:
        decay: the weight of the old average in each step, in (0, 1).

    Raises:
        InputError: ``decay`` is out of its range.
    """

    logs = tuple(f"val/{name}_ema" for name in METRICS)
    """The tags that each validation logs. Other callbacks can monitor them."""

    def __init__(self, decay: OpenFraction = 0.999) -> None:
        self.decay = decay
        self.steps = 0
        self.weights: dict[str, Tensor] = {}
        self._of: nn.Module | None = None
        """The network that they are of; None if they are of a checkpoint."""
        self.results: dict[str, float] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if any(isinstance(callback, TimelineGiver) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise InputError("EMA would average over the rounds of Lottery: leave one of the two out")
        # drops what an earlier fit left; a checkpoint is loaded after this
        self.steps, self.weights, self._of = 0, {}, None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._of = method_of(pl_module, self).model
        now = self._of.state_dict()
        kept = self.weights or now
        self.weights = as_average({name: kept[name].to(value.device) for name, value in now.items()})

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if completes_no_step(trainer):
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        move_average(self.weights, method_of(pl_module, self).model.state_dict(), decay)

    # Evaluation. It comes before that of the weights themselves, whose sums it would disturb

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.results = {}
        if self.weights and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.results = self._measure(pl_module, "val", trainer.limit_val_batches)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(pl_module, "val")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # one trainer may test several networks
        are_its_own = self.weights and self._of in (None, method_of(pl_module, self).model)
        self.results = self._measure(pl_module, "test", trainer.limit_test_batches) if are_its_own else {}

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(pl_module, "test")

    def _measure(self, pl_module: pl.LightningModule, stage: str, limit: float | None) -> dict[str, float]:
        assert isinstance(pl_module, Method)
        data = pl_module.image_data
        loader = data.val_dataloader() if stage == "val" else data.test_dataloader()
        assert isinstance(loader, EvalLoader)
        with self.averaged(pl_module.model):
            return {f"{name}_ema": value for name, value in pl_module.measure(loader, limit).items()}

    def _log(self, pl_module: pl.LightningModule, stage: str) -> None:
        if self.results:
            assert isinstance(pl_module, Method)
            pl_module.log_results(stage, self.results, pl_module.trainer.global_step)

    @contextmanager
    def averaged(self, network: nn.Module) -> Iterator[None]:
        """Within this block, a network has the averaged weights."""
        mine = network.state_dict()
        kept = {name: value.clone() for name, value in mine.items()}
        _put(mine, self.weights)
        try:
            yield
        finally:
            _put(mine, kept)

    # Resume

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "weights": {name: value.cpu() for name, value in self.weights.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.weights, self._of = state["steps"], dict(state["weights"]), None


@torch.no_grad()
def _put(mine: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    for name, tensor in mine.items():
        tensor.copy_(weights[name])

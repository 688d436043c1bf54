"""What a run's step costs, beside the bare PyTorch loop on the same network.

Three things are timed in turns, a few steps each, so that what else the machine does falls on all alike: the bare loop
(forward, cross-entropy, backward, optimizer) with batches at hand and as many rows as the method's; the data path
alone; and the run as trained, with its method, callbacks, loggers and checkpoints, validation aside.
"""

import copy
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler

from distill_lightning.data.base import ImageData, TrainLoader
from distill_lightning.methods.base import Method

WARM_UP = 3
"""Turns that are not counted."""


class Untimed(PassThroughProfiler):
    """No profile, and none of its cost: Lightning opens some thirty of these contexts in a step."""

    def profile(self, action_name: str) -> AbstractContextManager:
        return nullcontext()


class Trainer(pl.Trainer):
    """Lightning's trainer, which can measure itself, and does not look up training_step's signature at every step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fit_loop.epoch_loop._build_kwargs = lambda _, batch, number: {"batch": batch, "batch_idx": number}

    def bench(self, model: Method, datamodule: ImageData, turns: int = 20, steps: int = 20) -> dict[str, Any]:
        """Time per step of the bare loop, of the data path, and of the run as trained.

        Args:
            model: the method.
            datamodule: its data.
            turns: how often each of the three is timed.
            steps: how many steps a time.
        """
        watch = _Turns(turns + WARM_UP, steps)
        self.callbacks.append(watch)
        self.fit_loop.max_epochs = 10**6  # until the watch says stop
        self.limit_val_batches = 0
        self.fit(model, datamodule=datamodule)
        return watch.summary()


class _Turns(Callback):
    """Stops the run every few steps, for the bare loop and the data path to have their turn."""

    def __init__(self, turns: int, steps: int) -> None:
        self.turns, self.steps = turns, steps
        self.times: dict[str, list[float]] = {"bare": [], "data": [], "run": []}
        self.done = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Method) -> None:
        data: ImageData = trainer.datamodule
        self.loader = TrainLoader(data, trainer.global_rank, trainer.world_size, lambda: (1, 0))
        self.network = copy.deepcopy(pl_module.model).train()
        self.call = torch.compile(self.network) if pl_module.hparams.get("compile") else self.network
        self.optimizer = pl_module.make_optimizer(self.network.parameters())
        self.format = pl_module.memory_format
        self.batches = [
            (batch["image"].contiguous(memory_format=self.format), batch["label"])
            for batch, _ in zip(self.loader, range(8), strict=False)
        ]
        self.rows = len(self.batches[-1][1])
        self.batches = [batch for batch in self.batches if len(batch[1]) == self.rows]
        self.clock = self._now(pl_module)

    @staticmethod
    def _now(pl_module: Method) -> float:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Method, outputs: Any, batch: Any, idx: int) -> None:
        self.done += 1
        if self.done % self.steps:
            return
        times = {"run": self._now(pl_module) - self.clock}
        for name, turn in (("bare", self._bare), ("data", self._data)):
            start = self._now(pl_module)
            turn(trainer)
            times[name] = self._now(pl_module) - start
        for name, took in times.items():
            self.times[name].append(took / self.steps)
        trainer.should_stop = len(self.times["run"]) >= self.turns
        self.clock = self._now(pl_module)

    @torch.enable_grad()
    def _bare(self, trainer: pl.Trainer) -> None:
        for step in range(self.steps):
            images, labels = self.batches[step % len(self.batches)]
            with trainer.precision_plugin.forward_context():
                logits = self.call(images)
            loss = F.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _data(self, trainer: pl.Trainer) -> None:
        left = self.steps
        while left:
            for _ in self.loader:
                left -= 1
                if not left:
                    break

    def summary(self) -> dict[str, Any]:
        """Medians, in seconds a step, and of the ratios turn by turn, with their quartiles."""
        times = {name: took[WARM_UP:] for name, took in self.times.items()}
        result: dict[str, Any] = {f"{name}_s": statistics.median(took) for name, took in times.items()}
        for name in ("run", "data"):
            ratios = [a / b for a, b in zip(times[name], times["bare"], strict=True)]
            result[f"{name}_to_bare"] = statistics.quantiles(ratios, n=4)
        return result | {"rows": self.rows, "turns": len(times["run"]), "steps": self.steps}

"""Measures the time of a training step, and compares it with a bare PyTorch loop on the same network.

Four parts are timed in turns of a few steps, so that other work on the machine affects all of them alike:

    bare    forward, cross-entropy, backward and optimizer on ready batches, with as many rows as the method's batches
    fresh   the same on the new samples only, which is the cost of training with cross-entropy
    data    the data path alone
    run     the run with its method, callbacks, loggers and checkpoints, but without validation

The peak memory is that of the run's turns. The size of the checkpoint is measured too. If the network is compiled, the
graphs that the run compiles are counted: those of the counted turns are recompilations, which cost seconds each.
"""

import copy
import io
import re
import statistics
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.lightning_internals import dump_checkpoint
from distill_lightning.methods.base import Method

WARM_UP = 3
"""The number of first turns that are not counted."""


def time_steps(
    trainer: pl.Trainer, method: Method, data: ImageData, turns: int = 20, steps: int = 20
) -> dict[str, Any]:
    """Times a step of the bare loop, of the data path, and of the run.

    Args:
        trainer: the trainer of the run, with its callbacks and loggers. Its options are changed.
        method: the method of the run.
        data: the data of the run.
        turns: how often each part is timed.
        steps: the number of steps in each turn.

    Returns:
        Median seconds per step (bare_s, fresh_s, data_s, run_s); the quartiles of the ratios within each turn
        (run_to_bare, run_to_fresh, data_to_bare), three numbers each; peak_bytes (None if it cannot be measured);
        checkpoint_bytes; the number of rows of a batch (rows) and of its new samples (fresh); turns; steps; if the
        network is compiled, ``compiled``: how many graphs the run compiled (graphs), how many of them in the counted
        turns (again), and how often one was broken into several (breaks).
    """
    watch = _Turns(turns + WARM_UP, steps)
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    trainer.fit_loop.max_epochs = 10**6  # the callback stops the fit
    trainer.limit_val_batches = 0
    trainer.fit(method, datamodule=data)
    return watch.summary()


class _Turns(Callback):
    """Pauses the run every few steps, and times the bare loop and the data path."""

    def __init__(self, turns: int, steps: int) -> None:
        self.turns, self.steps = turns, steps
        self.times: dict[str, list[float]] = {"bare": [], "fresh": [], "data": [], "run": []}
        self.done = 0
        self.peaks: list[int | None] = []
        self.compiled: list[Counter[str]] = []
        """What the run compiled in each turn."""
        self.checkpoint_bytes = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Method)
        self.loader = pl_module.image_data.train_loader_from(lambda: (1, 0))
        self.network = copy.deepcopy(pl_module.model).train()
        self.call = pl_module.as_called(self.network)
        self.optimizer = pl_module.optimization.make(self.network.parameters())
        self.format = pl_module.memory_format
        made = [batch for batch, _ in zip(self.loader, range(4), strict=False)]
        self.rows, self.fresh = len(made[-1].labels), made[-1].num_new
        # pictures without labels, -1, take as long with any label
        whole = [(batch.images, batch.labels.clamp(min=0)) for batch in made if len(batch.labels) == self.rows]
        self.batches = [(images.contiguous(memory_format=self.format), labels) for images, labels in whole]
        self.fresh_batches = [(images[: self.fresh], labels[: self.fresh]) for images, labels in self.batches]
        self._begin(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        file = io.BytesIO()
        torch.save(dump_checkpoint(trainer), file)
        self.checkpoint_bytes = file.tell()

    @staticmethod
    def _now(pl_module: pl.LightningModule) -> float:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Method)
        self.done += 1
        if self.done % self.steps:
            return
        times = {"run": self._now(pl_module) - self.clock}
        if pl_module.compiled:
            self.compiled.append(_compiled() - self.before)
        self.peaks.append(_peak(pl_module.device))
        turns = {"bare": lambda: self._bare(trainer, self.batches), "data": self._data}
        if self.fresh < self.rows:
            turns["fresh"] = lambda: self._bare(trainer, self.fresh_batches)
        for name, turn in turns.items():
            start = self._now(pl_module)
            turn()
            times[name] = self._now(pl_module) - start
        times.setdefault("fresh", times["bare"])
        for name, took in times.items():
            self.times[name].append(took / self.steps)
        trainer.should_stop = len(self.times["run"]) >= self.turns
        self._begin(pl_module)

    def _begin(self, pl_module: Method) -> None:
        """The run's next turn begins."""
        self.before = _compiled() if pl_module.compiled else Counter()
        _forget_peak(pl_module.device)
        self.clock = self._now(pl_module)

    @torch.enable_grad()
    def _bare(self, trainer: pl.Trainer, batches: list[tuple[Tensor, Tensor]]) -> None:
        for step in range(self.steps):
            images, labels = batches[step % len(batches)]
            with trainer.precision_plugin.forward_context():
                logits = self.call(images)
            loss = F.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _data(self) -> None:
        left = self.steps
        while left:
            for _ in self.loader:
                left -= 1
                if not left:
                    break

    def summary(self) -> dict[str, Any]:
        """The median times in seconds per step, and the quartiles of the ratios within each turn."""
        times = {name: took[WARM_UP:] for name, took in self.times.items()}
        result: dict[str, Any] = {f"{name}_s": statistics.median(took) for name, took in times.items()}
        for name, other in (("run", "bare"), ("run", "fresh"), ("data", "bare")):
            ratios = [a / b for a, b in zip(times[name], times[other], strict=True)]
            result[f"{name}_to_{other}"] = statistics.quantiles(ratios, n=4)
        peaks = [peak for peak in self.peaks[WARM_UP:] if peak is not None]
        result |= {"peak_bytes": max(peaks, default=None), "checkpoint_bytes": self.checkpoint_bytes}
        if self.compiled:
            whole = sum(self.compiled, Counter())
            again = sum(self.compiled[WARM_UP:], Counter())["graphs"]
            result["compiled"] = {"graphs": whole["graphs"], "again": again, "breaks": whole["breaks"]}
        return result | {"rows": self.rows, "fresh": self.fresh, "turns": len(times["run"]), "steps": self.steps}


def _compiled() -> Counter[str]:
    """What torch.compile has done in this process: how many graphs it compiled, and how often it broke one."""
    from torch._dynamo.utils import counters  # only for compiled networks: the import takes seconds

    return Counter(graphs=counters["stats"]["unique_graphs"], breaks=sum(counters["graph_break"].values()))


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int | None:
    """The peak memory since the last reset, in bytes: of tensors on a GPU, of the whole process on a CPU under Linux.

    It is None on other systems.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None

"""Measures the stages of the data path, and says which of them is the limit: decode, transfer, augment or train.

The first stage runs in worker processes if pictures stay on disk and ``num_workers`` is above 0; it then overlaps with
the others, which follow each other in the main process.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.picture_files import FileSource
from distill_lightning.data.plans import BatchPlan
from distill_lightning.methods.base import Method

WARM_UP = 2
"""The number of first batches that are not counted."""


def time_stages(trainer: pl.Trainer, method: Method, data: ImageData, batches: int = 30) -> dict[str, Any]:
    """Times the stages of the data path.

    Args:
        trainer: the trainer of the run, with its callbacks. Its options are changed.
        method: the method of the run.
        data: the data of the run.
        batches: the number of batches of each measurement.

    Returns:
        Seconds for a batch (decode_s, transfer_s, augment_s, train_s), of all of the data path (loader_s), and of
        decoding one picture in this process (one_picture_s, None for pictures in memory); the number of rows of a batch
        (rows) and of workers (workers); the name of the slowest stage (limit), and with how many workers decoding would
        keep up (workers_needed, None for pictures in memory).
    """
    watch = _Stages(batches + WARM_UP)
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    trainer.fit_loop.max_epochs = 10**6  # the callback stops the fit
    trainer.limit_val_batches = 0
    trainer.fit(method, datamodule=data)
    return watch.result


class _Stages(Callback):
    """Measures before the first step, and then stops the run."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.result: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Method)
        trainer.should_stop = True
        data, device = pl_module.image_data, pl_module.device
        loader = data.train_loader_from(lambda: (1, 0))
        plans = [loader.plan(1 + number // len(loader), number % len(loader)) for number in range(self.batches)]
        boxes = None if data.renderer.first_crop is None else data.renderer.boxes
        stream = loader.images.stream(plans, loader.samples.groups, boxes)
        made: list[tuple[Tensor, BatchPlan]] = []

        def keep() -> bool:
            found = next(stream, None)
            if found is not None:
                made[4:] = [found]  # a few are enough for the other stages
            return found is not None

        times = {"decode": _intervals(keep, self.batches)}
        rows = len(plans[0].fetched)
        network = copy.deepcopy(pl_module.model).train()
        optimizer = pl_module.optimization.make(network.parameters())
        labels = data.training_split.labels
        assert labels is not None

        @torch.enable_grad()
        def train(images: Tensor, plan: BatchPlan) -> None:
            with trainer.precision_plugin.forward_context():
                logits = network(images.contiguous(memory_format=pl_module.memory_format))
            optimizer.zero_grad()
            labelled = len(plan.index) - plan.num_unlabelled
            F.cross_entropy(logits[:labelled].float(), labels[plan.index[:labelled].cpu()].to(device)).backward()
            optimizer.step()

        moved = [images.to(device) for images, _ in made]
        ready = [data.renderer.render(images, plan)[0] for images, (_, plan) in zip(moved, made, strict=True)]
        stages: dict[str, Callable[[int], object]] = {
            "transfer": lambda i: made[i][0].to(device, non_blocking=True),
            "augment": lambda i: data.renderer.render(moved[i], made[i][1]),
            "train": lambda i: train(ready[i], made[i][1]),
        }
        for name, stage in stages.items():
            times[name] = []
            for number in range(self.batches):
                start = _now(device)
                stage(number % len(made))
                times[name].append(_now(device) - start)
        endless = _endless(loader)
        times["loader"] = _intervals(lambda: next(endless) is not None, self.batches)
        # workers give batches in bursts, so that the mean of their intervals is their rate
        rates = {"decode": statistics.mean, "loader": statistics.mean}
        self.result = {f"{name}_s": rates.get(name, statistics.median)(took[WARM_UP:]) for name, took in times.items()}
        self.result |= {"rows": rows, **self._verdict(data, self.result, rows)}

    @staticmethod
    def _verdict(data: ImageData, times: dict[str, float], rows: int) -> dict[str, Any]:
        source = data.training_split.source
        stages = {name: times[f"{name}_s"] for name in ("decode", "transfer", "augment", "train")}
        slowest = max(stages, key=stages.__getitem__)
        if not isinstance(source, FileSource):
            return {"one_picture_s": None, "workers": 0, "workers_needed": None, "limit": slowest}
        took = []
        for position in data.training_split.taken[:100].tolist():
            start = time.perf_counter()
            source[position, None]
            took.append(time.perf_counter() - start)
        one, rest = statistics.median(took), sum(stages.values()) - stages["decode"]
        if source.workers and stages["decode"] <= rest:  # the workers wait for the main process
            slowest = max(stages.keys() - {"decode"}, key=stages.__getitem__)
        needed = max(1, math.ceil(one * rows / rest))
        return {"one_picture_s": one, "workers": source.workers, "workers_needed": needed, "limit": slowest}


def _intervals(step: Callable[[], bool], count: int) -> list[float]:
    """The times between the ends of successful steps."""
    found = []
    last = time.perf_counter()
    for _ in range(count):
        if not step():
            break
        now = time.perf_counter()
        found.append(now - last)
        last = now
    return found


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

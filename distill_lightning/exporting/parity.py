"""Compares an exported file with the run: outputs, accuracy, size and latency."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.splits import Split
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import Pixels

BATCHES = (1, 17, 64)
"""The batch sizes of the comparison: one picture, an odd number, a large one."""
FEW = 8
"""The number of batches of the smaller sizes. The largest size takes all pictures."""
TIMED_S = 1.0
"""How long each latency is measured, in seconds."""
WARM_UP = 3

Outputs = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
Run = Callable[[Pixels], Outputs]
"""Gives logits and probabilities, (B, K) each, for pixels (B, C, H, W)."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with labels.

    Args:
        name: the part that they come from: test, val or train.
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64; None if they are not known.
    """

    name: str
    pixels: Pixels
    labels: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Parity:
    """The comparison of a file with the run.

    Args:
        pictures: the number of pictures.
        part: the part that they come from; "random" for random pixels.
        batches: the largest difference of logits and of probabilities, by batch size.
        same_class: the share of the pictures for which the predicted class is the same, by batch size.
        accuracy: of the run and of the file, by name; empty for pictures without labels.
    """

    pictures: int
    part: str
    batches: dict[int, dict[str, float]]
    same_class: dict[int, float]
    accuracy: dict[str, float]


def evaluation_pictures(data: ImageData, count: int) -> Pictures:
    """At most ``count`` pictures of the test part, at equal distances; of validation, or training, if there is none."""
    for name, split in (("test", data.test), ("val", data.val), ("train", data.train)):
        if split is not None:
            return _taken(name, split, split.taken[:: max(1, -(-len(split) // count))])
    raise InputError(f"{data.name} has no pictures: the export is compared on some")


def random_pixels(shape: tuple[int, int, int]) -> Pictures:
    """Random pixels as pictures of a shape (C, H, W), always the same."""
    count = FEW * BATCHES[1]
    return Pictures("random", np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8), None)


def training_pictures(data: ImageData, count: int, seed: int) -> Pictures:
    """``count`` training pictures without augmentation, drawn by a seed."""
    if data.train is None:
        data.setup("fit")
    split = data.training_split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return _taken("train", split, split.taken[order[:count].sort().values])


def _taken(name: str, split: Split, index: Tensor) -> Pictures:
    plans = [BatchPlan.of_rows(part) for part in index.split(500)]
    pixels = torch.cat([images.cpu() for images, _ in split.source.stream(plans)])
    labels = index if split.labels is None else split.labels[index]
    return Pictures(name, pixels.numpy(), labels.numpy())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within this block torch computes with ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_of(module: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Run:
    """A function on arrays, of a function on tensors."""

    def run(pixels: Pixels) -> Outputs:
        with torch.inference_mode():
            logits, probs = module(torch.from_numpy(pixels))
        return logits.numpy(), probs.numpy()

    return run


def compare(reference: Run, file: Run, pictures: Pictures) -> Parity:
    """Compares the outputs of a file with those of the run, at three batch sizes.

    Raises:
        InputError: the file gives other shapes, or values that are not finite.
    """
    largest = max(BATCHES)
    expected = [reference(pictures.pixels[i : i + largest]) for i in range(0, len(pictures.pixels), largest)]
    logits, probs = (np.concatenate([part[i] for part in expected]) for i in range(2))
    differences, same, accuracy = {}, {}, {}
    for size in BATCHES:
        few = len(pictures.pixels) if size == largest else min(len(pictures.pixels), FEW * size)
        found = [file(pictures.pixels[i : min(i + size, few)]) for i in range(0, few, size)]
        its_logits, its_probs = (np.concatenate([part[i] for part in found]) for i in range(2))
        if its_logits.shape != logits[:few].shape or not np.isfinite(its_logits).all():
            raise InputError(f"the file gives outputs of the shape {its_logits.shape} or that are not finite")
        differences[size] = {
            "logits": float(np.abs(its_logits - logits[:few]).max()),
            "probs": float(np.abs(its_probs - probs[:few]).max()),
        }
        same[size] = float((its_probs.argmax(1) == probs[:few].argmax(1)).mean())
        if size == largest and pictures.labels is not None:
            accuracy = {
                name: float((p.argmax(1) == pictures.labels).mean())
                for name, p in (("run", probs), ("file", its_probs))
            }
    return Parity(len(pictures.pixels), pictures.name, differences, same, accuracy)


def refuse_difference(parity: Parity, tolerance: float) -> None:
    """Checks that the probabilities of the file are those of the run.

    Raises:
        InputError: one differs by more than ``tolerance``.
    """
    for size, found in parity.batches.items():
        if not found["probs"] <= tolerance:
            raise InputError(
                f"the file differs from the run by {found['probs']:.2g} in a probability at batch size {size}, more "
                f"than --tolerance {tolerance:g}: nothing is written"
            )


def refuse_loss(parity: Parity, most: float) -> None:
    """Checks that a quantised file has not lost too much accuracy.

    Raises:
        InputError: the accuracy has fallen by more than ``most``.
    """
    lost = parity.accuracy["run"] - parity.accuracy["file"]
    if lost > most:
        raise InputError(
            f"8-bit integers lose {100 * lost:.1f} points of accuracy, more than --accuracy_loss {most:g}: give more "
            "--calibration pictures, or export as onnx; nothing is written"
        )


def latency_ms(run: Run, pixels: Pixels) -> float:
    """The time of the fastest of many calls, in milliseconds: what else the machine does can only add to it."""
    for _ in range(WARM_UP):
        run(pixels)
    times: list[float] = []
    end = time.perf_counter() + TIMED_S
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run(pixels)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def latencies(runs: dict[str, Run], pictures: Pictures, sizes: tuple[int, ...] = (1, 64)) -> dict[str, Any]:
    """The latency of each of ``runs`` in milliseconds, by batch size."""
    repeated = np.resize(pictures.pixels, (max(sizes), *pictures.pixels.shape[1:]))
    return {name: {size: latency_ms(run, repeated[:size]) for size in sizes} for name, run in runs.items()}

"""Means over an epoch, and over the window since they were last logged."""

import time
from typing import Any

import torch
from torch import Tensor

from distill_lightning.distributed import largest, sum_over_processes
from distill_lightning.values import Batch, StepOutput

Sums = dict[str, Tensor | float]


class RunningMeans:
    """Running sums on the device: nothing waits for them.

    The sums of each process are part of the checkpoint, so that a mean over an epoch is the same after a resume.
    """

    def __init__(self) -> None:
        self.window: Sums = {}
        self.epoch: Sums = {}
        self.exposures = 0
        """Pictures that went through the network since training began, over all processes."""
        self._asked_at = time.perf_counter()
        self._rows_since = 0

    def add(self, batch: Batch, output: StepOutput, loss: Tensor) -> None:
        """One step: the terms, right answers for the new samples, and counts of rows."""
        window, weight = self.window, batch.weight
        values = {f"loss_{name}": term.detach() for name, term in output.terms.items()} | {"loss": loss.detach()}
        if weight != 1.0:
            values = {key: value * weight for key, value in values.items()}
        counted = right_answers(output.logits.detach().argmax(1), batch)
        values |= counted if weight else {name: 0 * count for name, count in counted.items()}
        for key, value in values.items():
            if key in window:
                window[key].add_(value)  # type: ignore[union-attr]
            else:
                window[key] = value.to(torch.float64, copy=True)
        # the running sum is finite until the first step whose loss is not
        window["broken"] = window.get("broken", 0) + ~torch.isfinite(window["loss"])  # type: ignore[arg-type,operator]
        counts = (1, batch.num_new, len(batch.index)) if weight else (1, 0, 0)
        for key, count in zip(("steps", "fresh", "rows"), counts, strict=True):
            window[key] = window.get(key, 0) + count
        self._rows_since += counts[2]

    def mean_loss(self) -> float | None:
        """Of the epoch so far, on this process, for the progress bar."""
        steps, loss = (self.epoch.get(k, 0) + self.window.get(k, 0) for k in ("steps", "loss"))
        return float(loss) / float(steps) if steps else None

    def samples_per_s(self) -> float:
        """Pictures that passed through this process's network in a second, since this was last asked."""
        now = time.perf_counter()
        rate = self._rows_since / max(now - self._asked_at, 1e-9)
        self._asked_at, self._rows_since = now, 0
        return rate

    def raise_if_not_finite(self, step: int, batches_per_step: int) -> None:
        """Names the first bad step of the window, which ``step`` is the last of. All processes ask together.

        Raises:
            FloatingPointError: a loss in the window is not finite, on any process.
        """
        if not self.window:
            return
        broken = int(largest(torch.as_tensor(self.window["broken"])))
        if broken:
            bad = step - (broken - 1) // batches_per_step
            raise FloatingPointError(
                f"the loss is not finite from step {bad} on: try a lower learning rate, warm-up, "
                "trainer.gradient_clip_val, or full precision"
            )

    def close_window(self) -> dict[str, float]:
        """The window's means over all processes. Its sums move on to the epoch's."""
        window, self.window = self.window, {}
        if not window:
            return {}
        self.epoch |= {k: self.epoch.get(k, 0) + v for k, v in window.items()}
        return _means(window)

    def close_epoch(self) -> dict[str, float]:
        """The epoch's means over all processes, and the exposures since training began."""
        epoch, self.epoch = self.epoch, {}
        means = _means(epoch)
        rows = torch.tensor(float(epoch["rows"]), dtype=torch.float64, device=_device_of(epoch))
        self.exposures += int(sum_over_processes(rows))
        return {f"epoch_{name}": value for name, value in means.items()} | {"exposures": self.exposures}

    def state_dict(self) -> dict[str, Any]:
        """The sums of this process."""
        return {"window": dict(self.window), "epoch": dict(self.epoch), "exposures": self.exposures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from them."""
        self.window, self.epoch, self.exposures = dict(state["window"]), dict(state["epoch"]), state["exposures"]


def shared_out(states: list[dict[str, Any]], rank: int, world: int) -> dict[str, Any]:
    """What a process holds where ``world`` of them go on from the sums of another number: the first has them all.

    Each process counts a step and its loss, so that an old step is to weigh as much as one of the new processes.
    """

    def of(part: str) -> Sums:
        sums = {k: sum(state[part][k] for state in states) * (rank == 0) for k in states[0][part]}
        return {k: v * world / len(states) if k == "steps" or k.startswith("loss") else v for k, v in sums.items()}

    return {"window": of("window"), "epoch": of("epoch"), "exposures": states[0]["exposures"]}


def right_answers(predicted: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Counts over the new samples.

    Args:
        predicted: (num_new,) int64.
        batch: with their labels.

    Returns:
        How many are ``right``. Where some labels are wrong on purpose, and pictures are not mixed: how many labels are
        ``flipped``, for how many of these the wrong label is predicted (``memorised``), and for how many the right one
        (``recovered``).
    """
    labels = batch.labels[: len(predicted)]
    if batch.label_probs is not None:  # of a mixture, the label that has the larger share
        return {"right": (predicted == batch.label_probs[: len(predicted)].argmax(1)).sum()}
    counts = {"right": (predicted == labels).sum()}
    if batch.clean_labels is not None:
        clean = batch.clean_labels[: len(predicted)]
        flipped = clean != labels
        counts["flipped"] = flipped.sum()
        counts["memorised"] = (flipped & (predicted == labels)).sum()
        counts["recovered"] = (flipped & (predicted == clean)).sum()
    return counts


def _device_of(sums: Sums) -> torch.device:
    return next(value.device for value in sums.values() if isinstance(value, Tensor))


def _means(sums: Sums) -> dict[str, float]:
    names, device = list(sums), _device_of(sums)
    summed = sum_over_processes(torch.stack([torch.as_tensor(sums[k], device=device).double() for k in names]))
    values: dict[str, float] = dict(zip(names, summed.tolist(), strict=True))
    means = {name: values[name] / values["steps"] for name in names if name.startswith("loss")}
    means["accuracy"] = values["right"] / values["fresh"]
    if "flipped" in values:
        flipped, kept = values["flipped"], values["fresh"] - values["flipped"]
        means |= {"accuracy_clean": (values["right"] - values["memorised"]) / kept} if kept else {}
        means |= {name: values[name] / flipped for name in ("memorised", "recovered")} if flipped else {}
    return means

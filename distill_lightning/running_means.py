"""Means of the loss and the training metrics: over an epoch, and over a window (the steps since the last log)."""

import functools
import math
import time
from typing import Any

import torch
from torch import Tensor

from distill_lightning.distributed import largest, sum_over_processes
from distill_lightning.values import Batch, StepOutput

Number = Tensor | float
Sums = dict[str, Any]
"""Numbers by their keys: on a CPU float, elsewhere tensors () in float64, so that adding does not wait for the device.
The arithmetic is the same, but of floats it takes a tenth of the time."""

SQUARES, WORST = "squares", "worst"
"""The keys of the sum of squared losses and of the largest loss: the only key whose values are not added."""
COUNTS = ("steps", "fresh", "rows", "compared")
"""The keys of what is counted without the device: int."""


class RunningMeans:
    """Running sums over the steps.

    The checkpoint contains the sums of each process, so that the mean over an epoch is the same after a resume.
    """

    def __init__(self) -> None:
        self.window: Sums = {}
        self.epoch: Sums = {}
        self.exposures = 0
        """The number of pictures that all processes have trained on since training began, up to the last full epoch."""
        self._asked_at = time.perf_counter()
        self._rows_since = 0

    def add(self, batch: Batch, output: StepOutput, loss: Tensor) -> None:
        """Adds one step: the terms of the loss, the correct predictions for new samples, those that agree with the
        teacher's, and the numbers of rows.
        """
        window, weight = self.window, batch.weight
        exact = _read(loss)
        terms = {f"loss_{name}": term for name, term in output.terms.items()} | {"loss": loss}
        values = {key: _read(term if weight == 1.0 else term.detach() * weight) for key, term in terms.items()}
        values[SQUARES] = exact * exact * weight
        counted = right_answers(output.logits.detach().argmax(1), batch)
        if output.agrees is not None:
            counted |= {"agreeing": output.agrees.sum()}
        values |= {name: _read(count) if weight else 0 * _read(count) for name, count in counted.items()}
        for key, value in values.items():
            window[key] = window.get(key, 0) + value
        if weight:
            window[WORST] = _larger(window[WORST], exact) if WORST in window else exact
        # the running sum is not finite from the first bad step on, so this counts the steps since then
        window["broken"] = window.get("broken", 0) + _is_broken(window["loss"])
        compared = 0 if output.agrees is None else len(output.agrees)
        counts = (1, batch.num_new, len(batch.index), compared) if weight else (1, 0, 0, 0)
        for key, count in zip(COUNTS, counts, strict=True):
            window[key] = window.get(key, 0) + count
        self._rows_since += counts[2]

    def mean_loss(self) -> float | None:
        """The mean loss of the epoch so far, on this process alone, for the progress bar. None before a step."""
        steps, loss = (self.epoch.get(k, 0) + self.window.get(k, 0) for k in ("steps", "loss"))
        return float(loss) / float(steps) if steps else None

    def samples_per_s(self) -> float:
        """Pictures per second that this process has trained on since the last call."""
        now = time.perf_counter()
        rate = self._rows_since / max(now - self._asked_at, 1e-9)
        self._asked_at, self._rows_since = now, 0
        return rate

    def raise_if_not_finite(self, step: int, batches_per_step: int) -> None:
        """Checks the losses of the window. All processes must call it.

        Args:
            step: the number of the last step in the window.
            batches_per_step: the number of batches whose gradients are accumulated for one optimizer step.

        Raises:
            FloatingPointError: a loss in the window is not finite, on any process. The error names the first such step.
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
        """The means of the window over all processes. Adds its sums to those of the epoch and starts a new window."""
        window, self.window = self.window, {}
        if not window:
            return {}
        self.epoch = _added(self.epoch, window)
        return _means(window)

    def close_epoch(self) -> dict[str, float]:
        """The means of the epoch over all processes, and ``exposures``. Starts a new epoch."""
        epoch, self.epoch = self.epoch, {}
        means = _means(epoch)
        rows = torch.tensor(float(epoch["rows"]), dtype=torch.float64, device=_device_of(epoch))
        self.exposures += int(sum_over_processes(rows))
        return {f"epoch_{name}": value for name, value in means.items()} | {"exposures": self.exposures}

    def state_dict(self) -> dict[str, Any]:
        """The sums of this process."""
        return {"window": _stored(self.window), "epoch": _stored(self.epoch), "exposures": self.exposures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the sums that ``state_dict`` returned."""
        self.window, self.epoch, self.exposures = _taken(state["window"]), _taken(state["epoch"]), state["exposures"]


def shared_out(states: list[dict[str, Any]], rank: int, world: int) -> dict[str, Any]:
    """Redistributes the sums of a run that is resumed with another number of processes.

    The first process gets all sums, the others get zeros. Each process counts every step and its loss; these sums are
    therefore scaled by the ratio of new to old processes, so that steps before and after the resume have equal weight.

    Args:
        states: the state of each old process, from ``RunningMeans.state_dict``.
        rank: the rank of the new process.
        world: the number of new processes.

    Returns:
        The state of the new process.
    """

    def merged(part: str) -> Sums:
        whole: Sums = functools.reduce(_added, (state[part] for state in states))
        sums = {k: v if k == WORST else v * (rank == 0) for k, v in whole.items()}
        each = {k for k in sums if k in ("steps", SQUARES) or k.startswith("loss")}
        return {k: v * world / len(states) if k in each else v for k, v in sums.items()}

    return {"window": merged("window"), "epoch": merged("epoch"), "exposures": states[0]["exposures"]}


def right_answers(predicted: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Counts correct predictions for the new samples of a batch.

    Args:
        predicted: (num_new,) int64, the predicted classes.
        batch: the batch, which has the labels.

    Returns:
        ``right``: the number of correct predictions. With label noise and without mixing also ``flipped``: the number
        of wrong labels; ``memorised``: how often the wrong label is predicted for these; and ``recovered``: how often
        their clean label is.
    """
    labels = batch.labels[: len(predicted)]
    if batch.label_probs is not None:  # the label with the larger share in the mixture
        return {"right": (predicted == batch.label_probs[: len(predicted)].argmax(1)).sum()}
    counts = {"right": (predicted == labels).sum()}
    if batch.clean_labels is not None:
        clean = batch.clean_labels[: len(predicted)]
        flipped = clean != labels
        counts["flipped"] = flipped.sum()
        counts["memorised"] = (flipped & (predicted == labels)).sum()
        counts["recovered"] = (flipped & (predicted == clean)).sum()
    return counts


def _read(value: Tensor) -> Number:
    value = value.detach()
    return float(value) if value.device.type == "cpu" else value.double()


def _larger(first: Any, second: Any) -> Number:
    """The larger number; nan if one is."""
    if isinstance(first, Tensor):
        return torch.maximum(first, second)
    larger: float = second if second > first or math.isnan(second) else first
    return larger


def _is_broken(value: Number) -> Number:
    return ~torch.isfinite(value) if isinstance(value, Tensor) else not math.isfinite(value)


def _stored(sums: Sums) -> Sums:
    """The sums as tensors, but for the counts: a run may be resumed on another device."""
    kinds = {float: torch.float64, int: torch.int64}
    numbers = {key: value for key, value in sums.items() if type(value) in kinds and key not in COUNTS}
    return sums | {key: torch.tensor(value, dtype=kinds[type(value)]) for key, value in numbers.items()}


def _taken(sums: Sums) -> Sums:
    return {k: v.item() if isinstance(v, Tensor) and v.device.type == "cpu" else v for k, v in sums.items()}


def _device_of(sums: Sums) -> torch.device:
    return next((value.device for value in sums.values() if isinstance(value, Tensor)), torch.device("cpu"))


def _added(first: Sums, second: Sums) -> Sums:
    """The sums of the steps of both, with the larger of their largest losses."""
    sums: Sums = first | {k: first.get(k, 0) + v for k, v in second.items()}
    if WORST in first and WORST in second:
        sums[WORST] = _larger(first[WORST], second[WORST])
    return sums


def _means(sums: Sums) -> dict[str, float]:
    names, device = [name for name in sums if name != WORST], _device_of(sums)
    exactly: Any = {"dtype": torch.float64, "device": device}
    summed = sum_over_processes(torch.stack([torch.as_tensor(sums[k], **exactly) for k in names]))
    worst = largest(torch.as_tensor(sums.get(WORST, -math.inf), **exactly))
    *added, most = torch.cat([summed, worst.reshape(1)]).tolist()
    values: dict[str, float] = dict(zip(names, added, strict=True))
    means = {name: values[name] / values["steps"] for name in names if name.startswith("loss")}
    if SQUARES in values and most > -torch.inf:
        variance = values[SQUARES] / values["steps"] - means["loss"] ** 2
        means |= {"loss_max": most, "loss_std": max(variance, 0.0) ** 0.5}
    if values["fresh"]:
        means["accuracy"] = values["right"] / values["fresh"]
    if values.get("compared"):
        means["agreement"] = values["agreeing"] / values["compared"]
    if "flipped" in values:
        flipped, kept = values["flipped"], values["fresh"] - values["flipped"]
        means |= {"accuracy_clean": (values["right"] - values["memorised"]) / kept} if kept else {}
        means |= {name: values[name] / flipped for name in ("memorised", "recovered")} if flipped else {}
    return means

"""Statistics of curves: one number for each question that a rule asks. Pure functions of `Curves`.

The unit of a loss is the loss of a network that knows nothing: 1 is ln K nats for K classes, 0 is the smallest loss
that is possible with the run's label smoothing.
"""

import math
from dataclasses import dataclass

import numpy as np

from distill_lightning.doctor.curves import Array, Curves, Series

UNKNOWN = math.nan
"""A statistic that the curves do not give. Every comparison with it is false."""

HIGHEST_START = 1.16
"""Initial weights may give a loss up to this; the mean of a first window far above it has risen."""
LEAST_LEARNED = 0.05
"""Of a training accuracy that is less above chance, no share is taken."""
WINDOW = 1.5
"""With more steps for each point, the points are taken for means over windows."""


@dataclass(frozen=True)
class Measures:
    """The statistics of one run. Each is NaN where the curves do not give it.

    Args:
        steps: n, the number of steps; of epochs, where the curves have no steps.
        updates: the number of optimizer steps.
        points: the number of points of the loss.
        broken_at: the first step at which the loss is not finite.
        chance: 1 / K.
        start: the loss at the beginning.
        end: mean loss of the last tenth.
        low: the smallest value of the smoothed loss (mean over n / 25 steps).
        spike: the largest loss after the first step, smoothed over 3 steps, over that at the start (at least 1).
        spike_at: its step.
        slope: fall of the loss from [.6 n, .8 n) to [.8 n, n), relative.
        fallen: (mean of the first tenth - mean of the last tenth) / its standard error.
        half_at: the share of the steps after which the smoothed loss has done half of its whole fall.
        width: the standard deviation of single steps around the smoothed loss, in the last third, relative.
        train: the last training accuracy.
        val: the last validation accuracy.
        gap: train - val.
        val_loss: the last validation loss.
        val_least: the lowest validation loss.
        val_rise: the last validation loss over the lowest, - 1.
        val_low_at: the step of the lowest validation loss.
        val_drop: the best validation accuracy - the last.
        below: val - train in the middle of the last two epochs.
        kept: the share of what it knows of the training pictures, above chance, that the network also knows of those of
            validation, at the end.
        kept_first: the same at the first validation.
        val_at: the step of the first validation.
        gain: how much faster the loss falls for a unit of the rate's sum in the last third than before; large where
            the loss only falls because the rate does. Only of a rate that falls to less than half.
        late: the share of its whole fall that the loss does in the last 30 % of the rate's sum.
        at_top: the share of steps with more than a tenth of the largest rate.
        jump: the smallest ratio of a rate to the one before it.
        dropped_at: the last step with more than a tenth of the largest rate.
        top_rate: the largest rate.
        doubt: how much larger the loss is than the training accuracy says: end - (the share of the training pictures
            that is wrong, over that of guessing). Large where a network is right without being certain. Not of mixed
            labels, of which no network can be certain.
    """

    steps: float = UNKNOWN
    updates: float = UNKNOWN
    points: float = 0
    broken_at: float = UNKNOWN
    chance: float = UNKNOWN
    start: float = UNKNOWN
    end: float = UNKNOWN
    low: float = UNKNOWN
    spike: float = UNKNOWN
    spike_at: float = UNKNOWN
    slope: float = UNKNOWN
    fallen: float = UNKNOWN
    half_at: float = UNKNOWN
    width: float = UNKNOWN
    train: float = UNKNOWN
    val: float = UNKNOWN
    gap: float = UNKNOWN
    val_loss: float = UNKNOWN
    val_least: float = UNKNOWN
    val_rise: float = UNKNOWN
    val_low_at: float = UNKNOWN
    val_drop: float = UNKNOWN
    below: float = UNKNOWN
    kept: float = UNKNOWN
    kept_first: float = UNKNOWN
    val_at: float = UNKNOWN
    gain: float = UNKNOWN
    late: float = UNKNOWN
    at_top: float = UNKNOWN
    jump: float = UNKNOWN
    dropped_at: float = UNKNOWN
    top_rate: float = UNKNOWN
    doubt: float = UNKNOWN


def measure(curves: Curves) -> Measures:
    """The statistics of a run."""
    if not len(curves.loss):
        return Measures(**_of_validation(curves))
    bad = ~np.isfinite(curves.loss.values)
    broken_at = float(curves.loss.steps[bad][0]) if bad.any() else UNKNOWN
    loss = curves.loss.finite()
    found: dict[str, float] = {"steps": float(curves.loss.steps[-1]), "broken_at": broken_at}
    if not curves.of_epochs:
        found["updates"] = found["steps"]
    if curves.num_classes:
        found["chance"] = 1 / curves.num_classes
    if len(loss):
        found |= _of_loss(curves, loss)
    found |= _of_validation(curves)
    if {"end", "train", "chance"} <= found.keys() and not curves.soft_labels:
        found["doubt"] = found["end"] - (1 - found["train"]) / (1 - found["chance"])
    return Measures(points=len(loss), **found)


def floor(smoothing: float, num_classes: int) -> float:
    """The smallest cross-entropy, in nats, with label smoothing: the entropy of the smoothed label."""
    shares = (1 - smoothing + smoothing / num_classes, *[smoothing / num_classes] * (num_classes - 1))
    return -sum(share * math.log(share) for share in shares if share > 0)


def scaled(nats: Array, curves: Curves) -> Array:
    """Losses in nats as shares of that of a network that knows nothing. NaN if the number of classes is unknown."""
    classes = curves.num_classes or 0
    if classes < 2:
        return np.full(len(nats), UNKNOWN)
    lowest = floor(curves.smoothing, classes)
    return (nats - lowest) / (math.log(classes) - lowest)


def scaled_width(curves: Curves) -> float:
    """A difference of one nat in the unit of `scaled`."""
    low, high = scaled(np.array([0.0, 1.0]), curves)
    return float(high - low)


def box(values: Array, width: int) -> Array:
    """The centred moving mean over ``width`` values, with shorter windows at both ends."""
    width = max(1, min(width, len(values)))
    if width == 1:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - width // 2, 0), np.minimum(places + (width + 1) // 2, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _of_loss(curves: Curves, loss: Series) -> dict[str, float]:
    level, steps = scaled(loss.values, curves), loss.steps
    points, n = len(level), float(steps[-1])
    window = n / points
    """The steps that a point stands for."""

    def over(share: float) -> int:
        return max(1, round(points * share))

    # the first step's loss is in a window's mean
    start = float(level[0]) if window < WINDOW or curves.goes_on else max(1.0, float(level[0]))
    smooth = box(level, over(1 / 25))
    tenth = over(0.1)
    spike, spike_at = _spike(curves, loss, level, window)
    found = {
        "start": start,
        "end": float(level[-tenth:].mean()),
        "low": float(smooth.min()),
        "spike": spike,
        "spike_at": spike_at,
        "slope": _fall(_part(level, steps, 0.6, 0.8), _part(level, steps, 0.8, 1.0)),
        "width": _width(curves, loss, level, over(1 / 15)),
    }
    if not curves.goes_on:  # most of the fall was before the first step
        found["half_at"] = _crossing(smooth, steps - (window - 1) / 2, start, (start + found["low"]) / 2) / n
    if points >= 4:
        first, last = slice(0, max(2, tenth)), slice(-max(2, tenth), None)
        error = math.hypot(*(_standard_error(curves, level, steps, part) for part in (first, last)))
        found["fallen"] = float(level[first].mean() - level[last].mean()) / max(error, 1e-4)
    return found | _of_rate(curves.rate.finite(), level, steps)


def _crossing(values: Array, steps: Array, start: float, level: float) -> float:
    """The first step at which a curve that begins with ``start`` at step 0 is as low as ``level``, interpolated."""
    reached = np.flatnonzero(values <= level)
    if not len(reached):
        return UNKNOWN
    place = int(reached[0])
    before, at = (float(values[place - 1]), float(steps[place - 1])) if place else (start, 0.0)
    share = (before - level) / max(before - float(values[place]), 1e-12)
    return at + (float(steps[place]) - at) * min(max(share, 0.0), 1.0)


def _standard_error(curves: Curves, level: Array, steps: Array, part: slice) -> float:
    """The standard error of the mean of a part of the losses."""
    values = level[part]
    within = 0.0
    if len(curves.deviation) and (window := steps[-1] / len(steps)) >= WINDOW:
        inner = curves.deviation.at(steps)[part] * scaled_width(curves)
        within = float((inner**2).mean()) / (window * len(values))
    return math.sqrt(float(values.var()) / len(values) + within)


def _spike(curves: Curves, loss: Series, level: Array, window: float) -> tuple[float, float]:
    """The largest loss after the first step over that at the start, and its step."""
    if len(level) < 2:
        return UNKNOWN, UNKNOWN
    if window >= WINDOW:
        most = scaled(curves.largest.at(loss.steps), curves) if len(curves.largest) else level
        peaks = level + (most - level) / 2  # the mean of three steps around the largest one is about half as high
        base = max(1.0, min(float(level[0]), HIGHEST_START))
        first = max(float(level[0]) / HIGHEST_START, float(most[0]) / (1.25 * HIGHEST_START))
        if first > 1.12:
            return first, float(loss.steps[0])
    else:
        peaks, base = box(level, 3), max(1.0, float(level[0]))
    place = 1 + int(peaks[1:].argmax())
    return float(peaks[place]) / base, float(loss.steps[place])


def _width(curves: Curves, loss: Series, level: Array, smoothing: int) -> float:
    third = max(1, len(level) // 3)
    mean = max(float(level[-third:].mean()), 0.02)
    if len(curves.deviation) and loss.steps[-1] >= WINDOW * len(loss):
        inner = curves.deviation.at(loss.steps)[-third:] * scaled_width(curves)
        return float(np.sqrt((inner**2).mean())) / mean
    rest = (level - box(level, smoothing))[-third:]
    return float(rest.std()) / mean


def _of_rate(rate: Series, level: Array, steps: Array) -> dict[str, float]:
    if not len(rate) or rate.values.max() <= 0:
        return {}
    rates = rate.at(steps)
    found = {"top_rate": float(rate.values.max())}
    found["at_top"] = float((rates > 0.1 * rates.max()).mean())
    if len(rate) > 1:
        found["jump"] = float((rate.values[1:] / np.maximum(rate.values[:-1], 1e-30)).min())
    found["dropped_at"] = float(steps[np.flatnonzero(rates > 0.1 * rates.max())[-1]])
    travelled = np.cumsum(rates)
    travelled = travelled / travelled[-1]
    first, middle = int(0.2 * len(level)), int(0.7 * len(level))
    tail = max(1, len(level) // 10)
    if len(level) >= 10:
        at = [float(level[max(0, i - tail // 2) : i + tail // 2 + 1].mean()) for i in (first, middle)]
        last = float(level[-tail:].mean())
        before = (at[0] - at[1]) / max(travelled[middle] - travelled[first], 1e-3)
        late = (at[1] - last) / max(1 - travelled[middle], 1e-3)
        if rates[-1] < rates.max() / 2:
            found["gain"] = late / max(before, 0.02)
        reached = float(np.interp(0.7, travelled, box(level, round(len(level) / 12))))
        found["late"] = (reached - last) / max(max(1.0, float(level[0])) - last, 0.01)
    return found


def _of_validation(curves: Curves) -> dict[str, float]:
    train, val, loss = curves.accuracy.finite(), curves.val_accuracy.finite(), curves.val_loss.finite()
    found: dict[str, float] = {}
    if len(train):
        found["train"] = float(train.values[-1])
    if len(val):
        found["val"] = float(val.values[-1])
        found["val_at"] = float(val.steps[0])
        found["val_drop"] = float(val.values.max() - val.values[-1])
    if len(train) and len(val):
        found["gap"] = found["train"] - found["val"]
        if curves.num_classes:
            found |= _kept(train.at(val.steps[[0, -1]]), val.values[[0, -1]], 1 / curves.num_classes)
    if len(train) > 1 and len(val):  # a mean over an epoch stands for the middle of it
        middles = (train.steps[1:] + train.steps[:-1]) / 2
        found["below"] = float((val.at(middles) - train.values[1:])[-2:].mean())
    if len(loss):
        levels = scaled(loss.values, curves)
        lowest = int(loss.values.argmin())
        found["val_loss"] = float(levels[-1])
        found["val_least"] = float(levels[lowest])
        found["val_rise"] = float(loss.values[-1] / max(loss.values[lowest], 1e-3)) - 1
        found["val_low_at"] = float(loss.steps[lowest])
    return found


def _kept(train: Array, val: Array, chance: float) -> dict[str, float]:
    """`Measures.kept_first` and `Measures.kept`, of the accuracies at the first validation and at the last."""
    names = ("kept_first", "kept")
    return {
        name: float((v - chance) / (t - chance))
        for name, t, v in zip(names, train, val, strict=True)
        if t - chance >= LEAST_LEARNED
    }


def _part(level: Array, steps: Array, first: float, last: float) -> Array:
    n = float(steps[-1])
    return level[(steps > first * n) & (steps <= last * n)]


def _fall(before: Array, after: Array) -> float:
    """The relative fall of a mean."""
    if not len(before) or not len(after):
        return UNKNOWN
    return float((before.mean() - after.mean()) / max(before.mean(), 1e-3))

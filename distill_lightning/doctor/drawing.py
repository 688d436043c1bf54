"""Draws the curve that a sentence is about, and marks the place."""

import math

from distill_lightning.doctor.curves import Array, Curves, Series
from distill_lightning.doctor.diagnosis import Diagnosis
from distill_lightning.doctor.measures import box
from distill_lightning.doctor.words import TITLES
from distill_lightning.plots import Line, Plot

MOST_POINTS = 300
HIGHEST = 3.0
"""Losses above this multiple of ln K are drawn there, so that the rest of a curve can still be seen."""


def picture(curves: Curves, diagnosis: Diagnosis) -> Plot:
    """The curves of a run, with a vertical line at the place that its diagnosis is about."""
    title = TITLES[diagnosis.verdict]
    if diagnosis.curve == "val_accuracy":
        lines = [_line("training", curves.accuracy), _line("validation", curves.val_accuracy)]
        label, top = "accuracy", 1.0
    else:
        label, top = "loss, nats", HIGHEST * math.log(curves.num_classes or 10)
        lines = [_line("training", curves.loss, top), _line("validation", curves.val_loss, top)]
        if curves.num_classes and len(curves.loss):
            ends, nothing = [float(step) for step in curves.loss.steps[[0, -1]]], math.log(curves.num_classes)
            lines.append(Line(f"ln {curves.num_classes}: knows nothing", ends, [nothing, nothing]))
    lines = [line for line in lines if len(line.x) > 0]
    if diagnosis.at is not None and lines:
        highest = max((y for line in lines for y in line.y), default=top)
        lines.append(Line("what the sentence is about", [diagnosis.at, diagnosis.at], [0.0, highest]))
    return Plot(title[:1].upper() + title[1:], lines, "step", label)


def _line(label: str, series: Series, top: float = math.inf) -> Line:
    """A smoothed line of at most MOST_POINTS points."""
    finite = series.finite()
    smooth: Array = box(finite.values.clip(max=top), len(finite) // 60)
    every = max(1, math.ceil(len(finite) / MOST_POINTS))
    return Line(label, finite.steps[::every].tolist(), smooth[::every].tolist())

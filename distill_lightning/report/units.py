"""Writes numbers as percent, counts or seconds, with their spread."""

import re
from collections.abc import Sequence

from distill_lightning.report.statistics import mean, std, t_interval

MINUS = "\N{MINUS SIGN}"
LABELS = {
    "test/accuracy": "accuracy, %", "test/nll": "NLL, nats", "test/ece": "ECE", "wall_time_s": "time, s",
    "test/disagreement": "disagreement, %", "val/accuracy": "validation accuracy, %",
    "val/nll": "validation NLL, nats", "val/ece": "validation ECE", "test/member_accuracy": "accuracy of a member, %",
    "test/error_correlation": "correlation of errors", "test/members_kl": "KL between members, nats",
    "test/members_needed": "members for 95 % of the gain", "test/temperature": "temperature",
    "test/nll_calibrated": "NLL at this temperature", "test/ece_calibrated": "ECE at this temperature",
}  # fmt: skip
"""Headings of columns, by metric."""


class Unit:
    """The unit of a metric.

    Args:
        metric: its tag or name.
        written_as: "percent", "errors of N", "count", "seconds", "number" or "scientific" (1.2e-05); by default the
            metric's name decides.

    Raises:
        ValueError: ``written_as`` has another value.
    """

    def __init__(self, metric: str, written_as: str | None = None) -> None:
        name = metric.rpartition("/")[2]
        if written_as is None:
            percent = "accuracy" in name or name in ("disagreement", "density")
            count = name in ("parameters", "steps", "exposures", "epochs", "members_needed") or name.endswith("_per_s")
            written_as = "percent" if percent else "count" if count else "seconds" if name.endswith("_s") else "number"
        errors = re.fullmatch(r"errors of (\d+)", written_as)
        if not errors and written_as not in ("percent", "count", "seconds", "number", "scientific"):
            raise ValueError(f"{written_as}: expected percent, errors of N, count, seconds, number or scientific")
        self.total = int(errors[1]) if errors else None
        self.words = {"percent": " %", "seconds": " s"}.get(written_as, "")
        """The text after the metric's name on an axis."""
        self.format = "e" if written_as == "scientific" else "f"
        self.digits = {"percent": 2, "number": 3, "seconds": 0, "count": 0}.get(written_as, 1)
        self.factor = 100 if written_as == "percent" else 1

    def __call__(self, value: float) -> float:
        """A value of the metric in this unit."""
        return self.total * (1 - value) if self.total is not None else self.factor * value

    def difference(self, value: float) -> float:
        """A difference between two values of the metric in this unit."""
        return -self.total * value if self.total is not None else self.factor * value

    def text(self, value: float) -> str:
        """A number in this unit as text."""
        return f"{value:,.{self.digits}{self.format}}".replace("-", MINUS)


def spread_text(values: Sequence[float], unit: Unit, interval: bool = False) -> str:
    """Writes "94.29 ± 0.42" with the standard deviation, or "0.50 [0.31, 0.69]" with the 95 % t-interval; "" for none.

    Args:
        values: the values, already in the unit.
        unit: the unit.
        interval: whether to give the t-interval instead of the standard deviation.
    """
    if not values:
        return ""
    centre, deviation, bounds = mean(values), std(values), t_interval(values)
    if deviation is None or bounds is None or (not interval and unit.text(deviation) == unit.text(0)):
        return unit.text(centre)
    if interval:
        return f"{unit.text(centre)} [{unit.text(bounds[0])}, {unit.text(bounds[1])}]"
    return f"{unit.text(centre)} ± {unit.text(deviation)}"

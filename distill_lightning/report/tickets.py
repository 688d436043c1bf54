"""Lottery tickets of several seeds: whether they keep the same weights."""

import itertools
from pathlib import Path

import numpy as np

from distill_lightning.plots import Line, plot
from distill_lightning.report import page
from distill_lightning.report.records import Group, Record
from distill_lightning.report.tables import Unit


def masks(record: Record, number: int) -> dict[str, np.ndarray]:
    """Of a round: packed masks, uint8, by the name of the weights. Empty where there are none."""
    path: Path = record.folder / "rounds" / "masks.npz"
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return {name.partition("/")[2]: file[name] for name in file.files if name.partition("/")[0] == str(number)}


def _count(packed: np.ndarray) -> int:
    return int(np.unpackbits(packed).sum())


def overlap(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """Jaccard's index: the weights that both keep, of those that either does."""
    both = sum(_count(first[name] & second[name]) for name in first)
    either = sum(_count(first[name] | second[name]) for name in first)
    return both / either if either else 1.0


def by_chance(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """What two random masks with as many weights in each layer come to, in expectation."""
    both = either = 0.0
    for name in first:
        a, b, size = _count(first[name]), _count(second[name]), 8 * len(first[name])
        both += a * b / size
        either += a + b - a * b / size
    return both / either if either else 1.0


def between_seeds(groups: list[Group]) -> str | None:
    """The overlap of every pair of seeds by density, beside that of chance; None where no group has two seeds."""
    lines: list[Line] = []
    for place, group in enumerate(groups):
        pairs = list(itertools.combinations([record for record in group.records if record.rounds], 2))
        found: list[list[tuple[float, float]]] = []
        chance: list[list[tuple[float, float]]] = []
        for one, other in pairs:
            points, random = [], []
            for row in one.rounds:
                a, b = masks(one, row["round"]), masks(other, row["round"])
                if a and a.keys() == b.keys():
                    points.append((100 * row["density"], overlap(a, b)))
                    random.append((100 * row["density"], by_chance(a, b)))
            found.append(points)
            chance.append(random)
        if any(found):
            unit = Unit("overlap")
            lines.append(page.spread_line(group.label, found, unit, place))
            lines.append(page.spread_line(f"{group.label}, by chance", chance, unit, place + 8))
    if not lines:
        return None
    return plot("Weights that two seeds both keep", lines, "weights left, %", "of those that either keeps", log_x=True)

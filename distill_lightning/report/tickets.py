"""Compares the lottery tickets of several seeds: whether they keep the same weights."""

import itertools
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from distill_lightning.errors import InputError
from distill_lightning.plots import Line, Plot
from distill_lightning.report.charts import Points, spread_line
from distill_lightning.report.groups import Group
from distill_lightning.report.records import Record
from distill_lightning.report.units import Unit

Masks = dict[str, npt.NDArray[np.uint8]]
"""Packed masks, 8 weights in each byte, by the name of the weights."""

LARGEST_BYTES = 2**30
"""The largest size of all masks of a run together."""
UNREADABLE = (ValueError, OSError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for damaged files."""


def masks(record: Record, number: int) -> Masks:
    """The masks of a round of a run; empty if there are none.

    Raises:
        InputError: the file is damaged.
    """
    path = record.folder / "rounds" / "masks.npz"
    if not path.is_file():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > LARGEST_BYTES:
                raise ValueError(f"it has more than {LARGEST_BYTES} bytes")
        with np.load(path, allow_pickle=False) as file:
            names = [name for name in file.files if name.partition("/")[0] == str(number)]
            found = {name.partition("/")[2]: file[name] for name in names}
    except UNREADABLE as error:
        raise InputError(f"{path} is damaged: {str(error)[:200]}: move the folder of the run away") from error
    if not all(mask.dtype == np.uint8 and mask.ndim == 1 for mask in found.values()):
        raise InputError(f"{path} is damaged: expected packed masks, uint8: move the folder of the run away")
    return found


def overlap(first: Masks, second: Masks) -> float:
    """Jaccard's index: the number of weights that both keep, divided by the number that at least one keeps."""
    both = sum(_count(first[name] & second[name]) for name in first)
    either = sum(_count(first[name] | second[name]) for name in first)
    return both / either if either else 1.0


def sizes(record: Record, like: Masks) -> dict[str, int]:
    """The number of weights of each mask, without the bits that fill its last byte.

    A round that keeps all weights tells the numbers. A run that starts from a ticket has no such round; then all bits
    count, at most 7 too many.

    Args:
        record: the run.
        like: masks of one of its rounds.
    """
    whole = next((row["round"] for row in record.rounds if row["density"] == 1), None)
    full = {} if whole is None else masks(record, whole)
    found = {name: _count(full[name]) if name in full else 8 * len(mask) for name, mask in like.items()}
    return {name: size for name, size in found.items() if size}


def by_chance(first: Masks, second: Masks, sizes: Mapping[str, int]) -> float:
    """The expected overlap of two random masks that keep as many weights in each layer as these two.

    Args:
        first: the masks of one run.
        second: those of another.
        sizes: the number of weights, by the name of the mask.
    """
    both = either = 0.0
    for name, size in sizes.items():
        a, b = _count(first[name]), _count(second[name])
        both += a * b / size
        either += a + b - a * b / size
    return both / either if either else 1.0


def between_seeds(groups: Sequence[Group]) -> Plot | None:
    """A plot of the overlap of all pairs of seeds against the density, with the overlap expected by chance.

    Returns:
        The plot; None if no group has two seeds with masks.
    """
    lines: list[Line] = []
    for place, group in enumerate(groups):
        pairs = list(itertools.combinations([record for record in group.records if record.rounds], 2))
        found: list[Points] = []
        chance: list[Points] = []
        for one, other in pairs:
            points: Points = []
            random: Points = []
            for row in one.rounds:
                a, b = masks(one, row["round"]), masks(other, row["round"])
                if a and _shapes(a) == _shapes(b):
                    points.append((100 * row["density"], overlap(a, b)))
                    random.append((100 * row["density"], by_chance(a, b, sizes(one, a))))
            found.append(points)
            chance.append(random)
        if any(found):
            unit = Unit("overlap")
            lines.append(spread_line(group.label, found, unit, place))
            lines.append(spread_line(f"{group.label}, by chance", chance, unit, place + 8))
    if not lines:
        return None
    return Plot("Weights that two seeds both keep", lines, "weights left, %", "of those that either keeps", log_x=True)


def _count(packed: npt.NDArray[np.uint8]) -> int:
    return int(np.unpackbits(packed).sum())


def _shapes(found: Masks) -> dict[str, tuple[int, ...]]:
    return {name: mask.shape for name, mask in found.items()}

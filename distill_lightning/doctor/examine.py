"""The diagnoses of files and folders."""

from collections.abc import Sequence
from pathlib import Path

from distill_lightning.doctor.curves import Curves
from distill_lightning.doctor.diagnosis import Diagnosis, diagnose, unsure
from distill_lightning.doctor.reading import find, read
from distill_lightning.doctor.siblings import compared

LONGEST_REASON = 120


def examine(
    places: Sequence[Path], num_classes: int | None = None, batch_size: int | None = None
) -> list[tuple[Curves, Diagnosis]]:
    """The curves and the diagnosis of each run in the places. A file that cannot be read has the verdict "unsure".

    Args:
        places: files and folders; see `reading.find`.
        num_classes: K, where no configuration says it.
        batch_size: the number of pictures of an optimizer step, where no configuration says it.

    Raises:
        InputError: a place does not exist or holds no curves.
    """
    found: list[tuple[Curves, Diagnosis]] = []
    for place in find(places):
        try:
            curves = read(place, num_classes, batch_size)
            found.append((curves, diagnose(curves)))
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:LONGEST_REASON]
            found.append((Curves(str(place)), unsure(str(place), f"No curves could be read: {reason}.")))
    curves_of = [curves for curves, _ in found]
    return list(zip(curves_of, compared(curves_of, [diagnosis for _, diagnosis in found]), strict=True))

"""Compares runs that differ in one option. That is surer than any single curve."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from distill_lightning.doctor.advice import advice
from distill_lightning.doctor.curves import Curves
from distill_lightning.doctor.diagnosis import Diagnosis
from distill_lightning.doctor.measures import Measures, measure
from distill_lightning.doctor.rules import SMALL_BATCH
from distill_lightning.doctor.words import MANY

RATE, BATCH = "model.optimizer.lr", "data.batch_size"
NOT_COMPARED = ("seed_everything",)
FACTOR = 2.0
"""Rates closer together than this are equal."""
WORSE = 0.1
"""A final training loss that is higher by this share of ln K is worse."""
FAR = 30.0
"""Between rates further apart than this, one in the middle is tried."""
AS_FAR = 0.9
"""A run that is this share of another's length, or more, is compared with it."""
SURE = 0.95


def compared(curves: Sequence[Curves], alone: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The diagnoses, changed where a sibling says more.

    Args:
        curves: the runs.
        alone: the diagnosis of each by its own curves.
    """
    measures = [measure(one) for one in curves]
    found = list(alone)
    for place, own in enumerate(curves):
        for option in (RATE, BATCH):
            family = [
                n
                for n, other in enumerate(curves)
                if n == place or (_only_difference(own, other) == option and _as_far(place, n, curves, measures))
            ]
            values = [_number(curves[n].settings.get(option)) for n in family]
            if len(family) > 1 and None not in values:
                by_value = dict(zip(family, values, strict=True))
                found[place] = _judged(found[place], place, by_value, measures, curves, option)  # type: ignore[arg-type]
    return found


def _judged(
    diagnosis: Diagnosis,
    place: int,
    values: dict[int, float],
    measures: Sequence[Measures],
    curves: Sequence[Curves],
    option: str,
) -> Diagnosis:
    """The diagnosis of a run in a family that differs in one option."""
    best = min(values, key=lambda n: _level(measures[n]))
    own, other = values[place], values[best]
    worse = _level(measures[place]) - _level(measures[best])
    if best == place:
        if option == RATE and diagnosis.verdict in ("lr_too_high", "lr_too_low") and _both_sides(place, values):
            words = f"Of {len(values)} runs that differ in {option} alone, this one has the lowest training loss."
            return dataclasses.replace(diagnosis, verdict="healthy", evidence=words, advice="", sure=SURE, at=None)
        return diagnosis
    if diagnosis.verdict in ("diverged", "eval_mismatch", "wrong_labels") or not worse > WORSE:
        return diagnosis
    if option == RATE and max(own, other) >= FACTOR * min(own, other):
        verdict, to = "lr_too_high" if own > other else "lr_too_low", other
        if max(own, other) > FAR * min(own, other):
            to = math.sqrt(own * other)
    elif option == BATCH and own < other and own <= SMALL_BATCH:
        verdict, to = "batch_too_small", other
    else:
        return diagnosis
    words = (
        f"{curves[best].file} differs in {option} alone. With {other:g} there, the training loss ends at "
        f"{_percent(measures[best])} of the loss of guessing; with {own:g} here, at {_percent(measures[place])} "
        f"(flagged above {100 * WORSE:.0f} points more)."
    )
    more = f"; {advice(verdict, curves[place])}" if verdict == "batch_too_small" else ""
    return Diagnosis(diagnosis.file, verdict, words, f"--{option} {to:.2g}{more}", SURE, "loss", measures[place].steps)


def _as_far(one: int, other: int, curves: Sequence[Curves], measures: Sequence[Measures]) -> bool:
    """Whether two runs are about as long, in steps or in pictures; one whose loss is not finite has nothing more to
    say.
    """
    if math.isinf(_level(measures[one])) or math.isinf(_level(measures[other])):
        return True
    steps = [measures[n].steps for n in (one, other)]
    pictures = [measures[n].steps * (curves[n].batch_size or 1) for n in (one, other)]
    return any(min(seen) >= AS_FAR * max(seen) for seen in (steps, pictures))


def _only_difference(one: Curves, other: Curves) -> str | None:
    """The option in which two runs differ; None if it is none or more than one, if their options are unknown, or if the
    labels have no part in their losses.
    """
    if not one.settings or not other.settings or not (one.of_labels and other.of_labels):
        return None
    names = (one.settings.keys() | other.settings.keys()) - {*NOT_COMPARED}
    differing = [name for name in names if one.settings.get(name) != other.settings.get(name)]
    return differing[0] if len(differing) == 1 else None


def _level(measures: Measures) -> float:
    """The final training loss; infinite if it is not finite."""
    return measures.end if math.isfinite(measures.end) and math.isnan(measures.broken_at) else math.inf


def _percent(measures: Measures) -> str:
    level = _level(measures)
    return f"{level:.0%}" if level < MANY else "many times"


def _both_sides(place: int, values: dict[int, float]) -> bool:
    return min(values.values()) < values[place] < max(values.values())


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None

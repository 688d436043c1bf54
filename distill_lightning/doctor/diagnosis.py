"""What the doctor says of a run: a verdict, its evidence, how sure it is, and what to change."""

import math
from dataclasses import dataclass

from distill_lightning.doctor.advice import advice
from distill_lightning.doctor.curves import Curves
from distill_lightning.doctor.measures import Measures, measure
from distill_lightning.doctor.rules import CHANCE, DIVERGED, decide, second
from distill_lightning.doctor.words import TITLES, evidence, undecided

FEWEST_POINTS = 5
SURE, LIKELY = 0.9, 0.7
"""The smallest `Diagnosis.sure` of a verdict that is called sure, and likely. Below, it is a guess."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says of one run.

    Args:
        file: the file or folder, as it was given.
        verdict: a key of `words.TITLES`.
        evidence: sentences with the statistics and their thresholds; at the end those of a second illness, if two hold.
        advice: what to change, most useful first, separated by "; ".
        sure: the share of the runs whose illness is known, with this sign, that had this illness, in [0, 1].
        curve: the curve that the sentence is about: "loss", "val_loss" or "val_accuracy".
        at: the step of this curve that it is about; None if there is none.
    """

    file: str
    verdict: str
    evidence: str
    advice: str
    sure: float = 0.0
    curve: str = "loss"
    at: float | None = None

    @property
    def words(self) -> str:
        """The verdict in words, and how sure it is."""
        if self.verdict == "unsure":
            return TITLES["unsure"]
        degree = "sure" if self.sure >= SURE else "likely" if self.sure >= LIKELY else "a guess"
        return f"{TITLES[self.verdict]} ({degree})"

    @property
    def line(self) -> str:
        """All in one line."""
        how = "Try in this order" if "; " in self.advice else "Try"
        ending = f" {how}: {self.advice}." if self.advice else ""
        return f"{self.words[:1].upper()}{self.words[1:]}. {self.evidence}{ending}"


def diagnose(curves: Curves) -> Diagnosis:
    """The diagnosis of one run by its curves alone."""
    measures = measure(curves)
    if missing := _missing(measures, curves):
        return unsure(curves.file, missing, curves)
    rule = decide(measures, curves)
    if rule is None or rule.verdict == "unsure":
        return unsure(curves.file, undecided(measures, curves), curves)
    words = evidence(rule.name, measures, curves)
    if (other := second(rule, measures, curves)) is not None:
        words += f" Besides, {TITLES[other.verdict]}. {evidence(other.name, measures, curves)}"
    return Diagnosis(
        curves.file,
        rule.verdict,
        words,
        advice(rule.verdict, curves, measures.end > CHANCE),
        rule.sure,
        rule.curve,
        step if math.isfinite(step := rule.at(measures)) else None,
    )


def unsure(file: str, why: str, curves: Curves | None = None) -> Diagnosis:
    """A diagnosis that says why there is none."""
    return Diagnosis(file, "unsure", why, advice("unsure", curves or Curves(file)))


def _missing(measures: Measures, curves: Curves) -> str:
    """Why the curves are too little for any rule; empty if they are not."""
    if not measures.points and math.isnan(measures.broken_at):
        return "No training loss was found."
    if not curves.of_labels:
        return "The labels have no part in the training loss, so it cannot be compared with that of guessing."
    if math.isnan(measures.chance):
        return "The number of classes is not known: give --num_classes."
    if measures.points < FEWEST_POINTS and math.isnan(measures.broken_at) and not measures.end > DIVERGED:
        return f"There are {measures.points} points of the training loss, and {FEWEST_POINTS} are needed."
    return ""

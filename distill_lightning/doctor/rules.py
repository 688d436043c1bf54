"""From statistics to a verdict: an ordered list of rules, of which the first that holds decides.

The thresholds were set on the calibration half of the runs in `docs/explanations/doctor.md`, which has the counts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from distill_lightning.doctor.curves import Curves
from distill_lightning.doctor.measures import Measures

SMALL_BATCH = 8
DIVERGED, CHANCE = 1.25, 0.97
"""Final losses above which a run diverged, or knows nothing."""
RISE = 1.12
"""No healthy run of the calibration half rose so far above its start."""


@dataclass(frozen=True)
class Case:
    """What a rule looks at."""

    m: Measures
    batch: int | None
    mixed: bool

    @property
    def small(self) -> bool:
        """Whether the batch is small."""
        return self.batch is not None and self.batch <= SMALL_BATCH


@dataclass(frozen=True)
class Rule:
    """One line of the list.

    Args:
        name: its name in the table of the documentation.
        verdict: what it says.
        holds: whether it holds.
        sure: the share of the runs of the calibration half with this rule that had this illness, in [0, 1].
        curve: the curve that it is about.
        at: the statistic that is the step of its sign; empty for the whole curve.
    """

    name: str
    verdict: str
    holds: Callable[[Case], bool]
    sure: float = 0.8
    curve: str = "loss"
    at: str = ""


def _was_lower(case: Case) -> bool:
    """Whether the network knew something, or its loss rose, before it ended at that of chance."""
    return case.m.spike > RISE or case.m.low < 0.93


def _validates_at_chance(case: Case) -> bool:
    return case.m.val_loss > 1.1 and case.m.val < max(1.6 * case.m.chance, 0.35 * case.m.train)


def _annealed(case: Case) -> bool:
    """Whether the loss falls because the rate does: the rate was not too low."""
    return case.m.gain > 1.8


RULES = (
    Rule("not finite", "diverged", lambda c: not math.isnan(c.m.broken_at), at="broken_at"),
    Rule("ends above", "diverged", lambda c: c.m.end > DIVERGED, at="spike_at"),
    Rule("collapsed, small batch", "batch_too_small", lambda c: c.m.end > CHANCE and c.small and _was_lower(c)),
    Rule("collapsed", "lr_too_high", lambda c: c.m.end > CHANCE and _was_lower(c), at="spike_at"),
    Rule("hardly falls", "lr_too_low", lambda c: c.m.end > CHANCE and c.m.fallen > 5),
    Rule("flat", "no_learning", lambda c: c.m.end > CHANCE),
    Rule("validation at chance", "eval_mismatch", _validates_at_chance, curve="val_accuracy"),
    Rule("validation never learned", "eval_mismatch", lambda c: c.m.val_least > 1.05 and c.m.end < 0.9, curve="val_loss"),
    Rule(
        "validation above training", "wrong_labels",
        lambda c: c.m.below > 0.1 and c.m.steps >= 50 and not c.mixed, curve="val_accuracy",
    ),
    Rule(
        "validation falls again", "wrong_labels",
        lambda c: c.m.val_drop > 0.05 and c.m.gap > 0.1 and c.m.val_rise > 0.1 and c.m.end < 0.3, curve="val_accuracy",
    ),
    Rule("rose, small batch", "batch_too_small", lambda c: c.small and c.m.end > 0.15 and c.m.spike > RISE, at="spike_at"),
    Rule("rose", "lr_too_high", lambda c: c.m.end > 0.15 and c.m.spike > RISE, at="spike_at"),
    Rule("rises", "lr_too_high", lambda c: c.m.end > 0.15 and c.m.slope < -0.1),
    Rule("wide, small batch", "batch_too_small", lambda c: c.small and c.m.width > 0.45 and c.m.end > 0.1),
    Rule(
        "gap", "overfits", lambda c: c.m.gap > 0.08 and (c.m.train > 0.97 or c.m.val_rise > 0.1),
        curve="val_loss", at="val_low_at",
    ),
    Rule("wide gap", "overfits", lambda c: c.m.gap > max(0.12, 0.25 * c.m.train), curve="val_accuracy"),
    Rule("dropped", "lr_dropped_early", lambda c: c.m.jump < 0.3 and c.m.at_top < 0.3 and c.m.end > 0.25, curve="rate"),
    Rule("still falls", "lr_too_low", lambda c: c.m.end > 0.1 and c.m.slope > 0.05 and c.m.half_at > 0.085 and not _annealed(c)),
    Rule("little fall", "lr_too_low", lambda c: c.m.end > 0.62 and c.m.half_at > 0.085 and not _annealed(c)),
    Rule("agree and flat", "underfits", lambda c: c.m.end > 0.25 and c.m.slope < 0.03 and c.m.gap < 0.08),
    Rule("nothing found", "healthy", lambda c: not math.isnan(c.m.end)),
)  # fmt: skip


def decide(measures: Measures, curves: Curves) -> Rule | None:
    """The first rule that holds; None if the curves are too short to tell."""
    case = Case(measures, curves.batch_size, curves.mixed)
    return next((rule for rule in RULES if rule.holds(case)), None)

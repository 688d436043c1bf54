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
TINY_RATE = 2e-4
"""A network that is at chance after a training with a lower rate may only have been trained too slowly."""
RISE = 1.12
"""No healthy run of the calibration half rose so far above its start."""


@dataclass(frozen=True)
class Rule:
    """One line of the list.

    Args:
        name: its name in the table of the documentation.
        verdict: what it says.
        sure: of n runs whose illness is known, for which it decides, r are right: (r + 1) / (n + 2), in [0, 1].
        holds: whether it holds for the statistics of these curves.
        curve: the curve that it is about.
        at: the step where its sign is.
    """

    name: str
    verdict: str
    sure: float
    holds: Callable[[Measures, Curves], bool]
    curve: str = "loss"
    at: Callable[[Measures], float] = lambda m: m.steps


def _last_fifth(m: Measures) -> float:
    return 0.8 * m.steps


def _small(curves: Curves) -> bool:
    return curves.batch_size is not None and curves.batch_size <= SMALL_BATCH


def _was_lower(m: Measures) -> bool:
    """Whether the network knew something, or its loss rose, before it ended at that of chance."""
    return m.spike > RISE or m.low < 0.93


def knows(m: Measures) -> bool:
    """Whether more pictures are right than by guessing."""
    return m.train > 1.35 * m.chance + 0.02 or m.val > 1.35 * m.chance + 0.02


def keeps_falling(m: Measures) -> bool:
    """Whether a loss near that of guessing falls by more than its noise, and until the end."""
    return m.fallen > 3.5 and m.late > 0.05


def _creeps(m: Measures) -> bool:
    """Whether a network at chance learns, or has a rate that changes nothing."""
    return knows(m) or keeps_falling(m) or m.top_rate < TINY_RATE


def _flat_at_a_fixed_rate(m: Measures) -> bool:
    """Whether the loss has stopped to fall although the rate has not."""
    return math.isnan(m.gain) and m.late < 0.11 and -0.02 < m.slope < 0.04


def _slow(m: Measures) -> bool:
    """Whether the fall of the loss took long, and not because it only came with the fall of the rate."""
    return m.half_at > 0.085 and not _annealed(m)


def _annealed(m: Measures) -> bool:
    """Whether the loss fell at the end because the rate did."""
    return m.gain > 1.8 and m.slope > 0.015


def _harder_to_learn(m: Measures) -> bool:
    """Whether the training pictures are harder than those of validation, by accuracy and by loss."""
    return m.below > 0.07 or (m.below > 0.03 and m.end - m.val_loss > 0.035 and m.end > 0.6)


def _doubts_its_labels(m: Measures) -> bool:
    """Whether the network is right more often than it is certain, and learns no more unless the rate falls."""
    return m.doubt > 0.1 and m.gain > 1.8 and m.width > 0.05 and m.train < 0.9


def _agrees_and_is_flat(m: Measures) -> bool:
    """Whether training and validation agree, and neither falls any more, nor fell because the rate did."""
    return m.slope < 0.045 and m.gap < 0.08 and not _annealed(m)


RULES = (
    Rule("not finite", "diverged", 0.99, lambda m, _: not math.isnan(m.broken_at), at=lambda m: m.broken_at),
    Rule("ends above", "diverged", 0.83, lambda m, _: m.end > DIVERGED, at=lambda m: m.spike_at),
    Rule("few steps", "lr_too_low", 0.83, lambda m, _: m.steps < 20 and m.end > 0.3 and not m.spike > RISE),
    Rule(
        "collapsed, small batch", "batch_too_small", 0.86,
        lambda m, c: m.end > CHANCE and _was_lower(m) and _small(c), at=lambda m: m.spike_at,
    ),
    Rule("collapsed", "lr_too_high", 0.94, lambda m, _: m.end > CHANCE and _was_lower(m), at=lambda m: m.spike_at),
    Rule("hardly falls", "lr_too_low", 0.71, lambda m, _: m.end > CHANCE and _creeps(m)),
    Rule("flat", "no_learning", 0.73, lambda m, _: m.end > CHANCE),
    Rule(
        "validation at chance", "eval_mismatch", 0.89,
        lambda m, _: m.val_loss > 1.1 and m.val < max(1.6 * m.chance, 0.35 * m.train), curve="val_accuracy",
    ),
    Rule(
        "validation never learned", "eval_mismatch", 0.83,
        lambda m, _: m.val_least > (1.5 if m.spike > RISE else 1.05) and m.end < 0.9, curve="val_loss",
    ),
    Rule(
        "validation above training", "wrong_labels", 0.91,
        lambda m, c: _harder_to_learn(m) and m.steps >= 50 and not c.mixed, curve="val_accuracy",
    ),
    Rule(
        "right but not certain", "wrong_labels", 0.83,
        lambda m, c: _doubts_its_labels(m) and not c.mixed and not c.smoothing, at=_last_fifth,
    ),
    Rule(
        "validation falls again", "wrong_labels", 0.6,
        lambda m, _: m.val_drop > 0.05 and m.gap > 0.1 and m.val_rise > 0.1 and m.end < 0.3, curve="val_accuracy",
    ),
    Rule(
        "rose, small batch", "batch_too_small", 0.75,
        lambda m, c: m.end > 0.15 and m.spike > RISE and _small(c), at=lambda m: m.spike_at,
    ),
    Rule("rose", "lr_too_high", 0.79, lambda m, _: m.end > 0.15 and m.spike > RISE, at=lambda m: m.spike_at),
    Rule(
        "falls with its rate", "lr_too_high", 0.5,
        lambda m, _: 0.15 < m.end < 0.7 and m.half_at > 0.3 and m.gain > 1.8 and m.spike > 1.05,
        at=lambda m: m.half_at * m.steps,
    ),
    Rule("rises", "lr_too_high", 0.67, lambda m, _: m.end > 0.15 and m.slope < -0.1, at=_last_fifth),
    Rule("wide, small batch", "batch_too_small", 0.5, lambda m, c: m.width > 0.45 and m.end > 0.1 and _small(c)),
    Rule(
        "gap", "overfits", 0.83,
        lambda m, _: m.gap > 0.08 and (m.train > 0.97 or m.val_rise > 0.1), curve="val_loss", at=lambda m: m.val_low_at,
    ),
    Rule(
        "wide gap", "overfits", 0.83,
        lambda m, _: m.gap > max(0.12, 0.15 * m.train) or (m.gap > 0.08 and m.val_loss - m.end > 0.09),
        curve="val_accuracy",
    ),
    Rule(
        "dropped", "lr_dropped_early", 0.93,
        lambda m, _: m.jump < 0.3 and m.at_top < 0.3 and m.end > 0.25, at=lambda m: m.dropped_at,
    ),
    Rule("still falls", "lr_too_low", 0.71, lambda m, _: m.end > 0.1 and m.slope > 0.05 and _slow(m), at=_last_fifth),
    Rule(
        "flat and high", "underfits", 0.67,
        lambda m, _: m.end > 0.65 and m.gap < 0.1 and _flat_at_a_fixed_rate(m), at=_last_fifth,
    ),
    Rule(
        "little fall", "lr_too_low", 0.86,
        lambda m, _: m.end > 0.62 and _slow(m) and (m.steps < 800 or m.slope > 0.03), at=_last_fifth,
    ),
    Rule(
        "slowed by its rate", "lr_too_low", 0.5,
        lambda m, _: 0.3 < m.end < 0.62 and m.half_at > 0.2 and m.gain < 1.4, at=_last_fifth,
    ),
    Rule(
        "hesitates", "lr_too_low", 0.67,
        lambda m, c: m.doubt > 0.25 and m.width < 0.1 and not c.mixed, at=_last_fifth,
    ),
    Rule(
        "agree and flat", "underfits", 0.62,
        lambda m, _: 0.25 < m.end < 0.5 and _agrees_and_is_flat(m), at=_last_fifth,
    ),
    Rule("nothing found", "healthy", 0.89, lambda m, _: m.end < 0.65 and not (m.end >= 0.5 and _agrees_and_is_flat(m))),
)  # fmt: skip


SECOND = {
    "lr_too_high": "overfits", "batch_too_small": "overfits", "wrong_labels": "overfits",
    "lr_dropped_early": "overfits", "wide gap": "lr_too_low",
}  # fmt: skip
"""Which illness may be named beside that of a verdict or rule."""


def decide(measures: Measures, curves: Curves) -> Rule | None:
    """The first rule that holds; None if none does."""
    return next((rule for rule in RULES if rule.holds(measures, curves)), None)


def second(first: Rule, measures: Measures, curves: Curves) -> Rule | None:
    """The first rule that holds for the illness that may be named beside that of ``first``; None if there is none."""
    wanted = SECOND.get(first.name, SECOND.get(first.verdict))
    return next((rule for rule in RULES if rule.verdict == wanted and rule.holds(measures, curves)), None)

"""From statistics to a verdict: an ordered list of rules, of which the first that holds decides.

The thresholds were set on the calibration runs of `docs/explanations/doctor.md`, which has the counts.
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
HESITATION = 0.125
"""The largest `Measures.doubt` of a network that has begun to learn long ago."""
FALLS_BACK = 0.12
"""How much higher than before a loss ends that rises, as a share."""
LOW_RATE = 5e-3
"""Too low for a network that has not even come down to the loss of guessing."""
RISE, HIGH_RISE = 1.12, 1.21
"""How far above its start a loss rises that ends at chance, or of a small batch; and any other, at too high a rate."""


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


def small(curves: Curves) -> bool:
    """Whether the batch is so small that it is suspected first."""
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
    return knows(m) or keeps_falling(m) or m.top_rate < TINY_RATE or above_its_start(m)


def above_its_start(m: Measures) -> bool:
    """Whether the loss stays above that of guessing, to which the first steps of any learning bring it."""
    return m.end > 1.004 and m.top_rate < LOW_RATE


def _annealed(m: Measures) -> bool:
    """Whether the loss fell at the end because the rate did: it had met the noise of its rate."""
    return m.gain > 1.8 and m.slope > 0.015


def _jumped(m: Measures) -> bool:
    """Whether the loss of the first steps was above that of guessing, and then at once as high as it."""
    return m.start > 1.05 and m.half_at < 0.07


def _harder_to_learn(m: Measures, curves: Curves) -> bool:
    """Whether the training pictures are harder than those of validation, by more than augmentation makes them."""
    if curves.augmented and not curves.mixed:
        return m.below > 0.16 or (m.below > 0.07 and m.end > 0.94)
    if m.end > 0.9 and m.end - m.val_loss > 0.03:
        return True
    if curves.mixed:
        return m.below > 0.3 and m.end > 0.65
    if m.below > 0.07:
        return m.below > 0.15 or m.doubt > 0.1 or m.end > 0.9
    return m.below > 0.03 and m.end - m.val_loss > 0.035 and 0.6 < m.end < CHANCE


def _doubts_its_labels(m: Measures) -> bool:
    """Whether the network is right more often than it is certain, and learns no more unless the rate falls."""
    return m.gap > 0.07 and m.doubt > 0.1 and m.gain > 1.8 and m.width > 0.05 and m.train < 0.9


def _at_guessing(m: Measures) -> bool:
    """Whether validation is at chance, or its loss above guessing though the training loss is not small."""
    early = m.end > 0.055 and (m.kept_first < 0.7 or m.val_loss > 2.5)
    return m.val_loss > 1.1 and (m.val < 1.6 * m.chance or early or 0.33 < m.end < 0.9)


def _behind_from_the_start(m: Measures) -> bool:
    """Whether validation was behind training at the first validation already, and fell behind no further."""
    return m.gap > 0.2 and m.end > 0.02 and m.kept < 0.55 and m.kept_first < 0.7 and m.val_rise < 0.17


def by_heart(m: Measures) -> bool:
    """Whether a network knows its training pictures by heart, and others less well."""
    return m.gap > 0.1 and m.train > 0.97


def _falls_behind(m: Measures) -> bool:
    """Whether validation is behind training, and its loss above its lowest."""
    return m.gap > 0.08 and m.val_rise > 0.1


def _still_falls(m: Measures) -> bool:
    """Whether the loss fell slowly, and falls until the end, in a network that is less certain than it is right."""
    falls = 0.15 < m.end < 0.5 and m.slope > 0.05 and not _annealed(m)
    return falls and m.half_at > 0.15 and not m.doubt < 0.08


def _little_fall(m: Measures) -> bool:
    """Whether the loss fell slowly, and little, in a network that is less certain than it is right."""
    if m.doubt < 0.025 and m.end < 0.95:
        return False
    slower = m.half_at > 0.3 and m.doubt > 0.055 and 0.5 < m.end < CHANCE and m.updates < 800
    little = 0.8 < m.end < CHANCE and (m.updates < 800 or m.slope > 0.03)
    flat = 0.7 < m.end < 0.8 and m.gain < 1.8 and m.slope < 0.03
    return slower or (m.half_at > 0.085 and not _annealed(m) and (little or flat))


def _stopped(m: Measures) -> bool:
    """Whether training and validation agree, and the loss fell at once and stopped, or is flat at any rate."""
    return m.gap < 0.1 and (m.half_at < 0.1 or (m.half_at < 0.2 and m.slope < 0.045 and not _annealed(m)))


def _learned_soon(m: Measures) -> bool:
    """Whether a network of a loss that is still high knows much, and learned it in time."""
    nats = (m.end - 1) * math.log(m.chance)
    much = nats > (0.9 if m.chance > 0.05 else 0.6)
    return m.end > 0.5 and much and m.half_at < 0.3 and not m.doubt > 0.1


def _learns(m: Measures) -> bool:
    """Whether a loss that is not low falls as that of a good rate: soon, and further because the rate falls."""
    return m.end < 0.5 and m.half_at < 0.31 and m.doubt < 0.09 and m.gain > 1.8 and m.slope > 0.06


def _stalled(m: Measures) -> bool:
    """Whether the loss fell at once, and stopped far up."""
    return (m.half_at < 0.07 and 0.7 < m.end < 0.93) or (m.half_at < 0.055 and 0.3 < m.end < 0.5)


RULES = (
    Rule("not finite", "diverged", 0.99, lambda m, _: not math.isnan(m.broken_at), at=lambda m: m.broken_at),
    Rule("ends above", "diverged", 0.97, lambda m, _: m.end > DIVERGED, at=lambda m: m.spike_at),
    Rule("few steps", "lr_too_low", 0.71, lambda m, _: m.updates < 20 and m.end > 0.3 and not m.spike > RISE),
    Rule(
        "collapsed, small batch", "batch_too_small", 0.97,
        lambda m, c: m.end > CHANCE and _was_lower(m) and small(c), at=lambda m: m.spike_at,
    ),
    Rule("collapsed", "lr_too_high", 0.96, lambda m, _: m.end > CHANCE and _was_lower(m), at=lambda m: m.spike_at),
    Rule(
        "rose, small batch", "batch_too_small", 0.98,
        lambda m, c: m.end > 0.15 and m.spike > RISE and small(c), at=lambda m: m.spike_at,
    ),
    Rule("rose", "lr_too_high", 0.84, lambda m, _: m.end > 0.15 and m.spike > HIGH_RISE, at=lambda m: m.spike_at),
    Rule(
        "harder, small batch", "batch_too_small", 0.75,
        lambda m, c: _harder_to_learn(m, c) and small(c), curve="val_accuracy",
    ),
    Rule(
        "validation above training", "wrong_labels", 0.93,
        lambda m, c: _harder_to_learn(m, c) and not m.updates < 50, curve="val_accuracy",
    ),
    Rule(
        "jumped", "lr_too_high", 0.90,
        lambda m, c: m.end > CHANCE and _jumped(m) and not small(c), at=lambda m: m.steps * m.half_at,
    ),
    Rule("hardly falls", "lr_too_low", 0.87, lambda m, _: m.end > CHANCE and _creeps(m)),
    Rule("flat", "no_learning", 0.79, lambda m, c: m.end > CHANCE and not small(c)),
    Rule("validation at chance", "eval_mismatch", 0.97, lambda m, _: _at_guessing(m), curve="val_loss"),
    Rule(
        "validation never learned", "eval_mismatch", 0.80,
        lambda m, _: m.val_least > 1.5 and m.end < 0.9, curve="val_loss",
    ),
    Rule(
        "validation behind", "eval_mismatch", 0.84,
        lambda m, _: _behind_from_the_start(m), curve="val_accuracy", at=lambda m: m.val_at,
    ),
    Rule(
        "right but not certain", "wrong_labels", 0.83,
        lambda m, c: _doubts_its_labels(m) and not c.mixed and not c.smoothing, at=_last_fifth,
    ),
    Rule(
        "rises", "lr_too_high", 0.75,
        lambda m, c: m.end > 0.15 and m.slope < -FALLS_BACK and not c.mixed, at=_last_fifth,
    ),
    Rule("wide, small batch", "batch_too_small", 0.75, lambda m, c: m.width > 0.45 and m.end > 0.1 and small(c)),
    Rule(
        "gap", "overfits", 0.86,
        lambda m, _: by_heart(m) or _falls_behind(m), curve="val_loss", at=lambda m: m.val_low_at,
    ),
    Rule(
        "wide gap", "overfits", 0.71,
        lambda m, _: m.gap > max(0.12, 0.15 * m.train) or (m.gap > 0.08 and m.val_loss - m.end > 0.09),
        curve="val_accuracy",
    ),
    Rule(
        "dropped", "lr_dropped_early", 0.98,
        lambda m, _: m.jump < 0.3 and m.at_top < 0.3 and m.end > 0.14, at=lambda m: m.dropped_at,
    ),
    Rule("harder by design", "unsure", 0.0, lambda m, c: c.mixed and m.below > 0.07 and m.val_loss > 0.15),
    Rule("certain", "healthy", 0.86, lambda m, _: m.end < 0.95 and m.doubt < -0.03),
    Rule("stalled", "lr_too_high", 0.73, lambda m, _: _stalled(m), at=lambda m: m.half_at * m.steps),
    Rule("hesitates", "lr_too_low", 0.89, lambda m, _: m.doubt > HESITATION and m.half_at > 0.1, at=_last_fifth),
    Rule("still falls", "lr_too_low", 0.75, lambda m, _: _still_falls(m), at=_last_fifth),
    Rule("little fall", "lr_too_low", 0.81, lambda m, _: _little_fall(m), at=_last_fifth),
    Rule("agree and flat", "underfits", 0.82, lambda m, _: 0.3 < m.end < 0.5 and _stopped(m), at=_last_fifth),
    Rule("nothing found", "healthy", 0.92, lambda m, _: m.end < 0.3),
    Rule("learned soon", "healthy", 0.86, lambda m, _: _learned_soon(m)),
    Rule("learns", "healthy", 0.71, lambda m, _: _learns(m)),
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

"""What a verdict says in words: the evidence with its threshold."""

import math

import numpy as np

from distill_lightning.doctor.curves import Curves
from distill_lightning.doctor.measures import Measures, floor
from distill_lightning.doctor.rules import (
    CHANCE,
    FALLS_BACK,
    HESITATION,
    HIGH_RISE,
    LOW_RATE,
    RISE,
    TINY_RATE,
    above_its_start,
    by_heart,
    keeps_falling,
    knows,
    small,
)

MANY = 10.0
"""A loss of more times ln K is not written in percent."""
TITLES = {
    "diverged": "the training diverged",
    "lr_too_high": "the learning rate is too high",
    "lr_too_low": "the learning rate is too low, or the training too short",
    "batch_too_small": "the batch is too small for this learning rate",
    "overfits": "the network overfits",
    "underfits": "the network is too small for the data, or its rate too low",
    "no_learning": "the network does not learn",
    "eval_mismatch": "the evaluation does not match the training",
    "wrong_labels": "a part of the training labels is wrong",
    "lr_dropped_early": "the learning rate was lowered too early",
    "healthy": "nothing wrong was found",
    "unsure": "the curves do not tell what is wrong, if anything",
}
"""Every verdict, and what it means."""


def evidence(rule: str, m: Measures, curves: Curves) -> str:
    """The sentences with the statistics of a rule and its thresholds. ``rule`` is the name of one in `rules`."""
    ends, percent = _ends(m, curves), f"{m.end:.0%}"
    chance, batch = f"guessing gives {m.chance:.1%}", f"Each step sees only {curves.batch_size} pictures"
    right = f"The network is right on {_percent(m.train)} of the training pictures"
    both = f"{right} and on {_percent(m.val)} of the validation pictures"
    rose = (
        f"At step {m.spike_at:.0f} it was {m.spike:.3g} times its start; hardly a healthy training goes above "
        f"{HIGH_RISE if m.end < CHANCE and not small(curves) else RISE}"
    )
    was_lower = f"Before, it was down to {m.low:.0%}: the network has lost what it knew"
    before = rose if m.spike > RISE else was_lower
    nothing = "Above 97%, a loss is hardly better than guessing"
    half = f"Half of its fall took {m.half_at:.0%} of the steps"
    fell = f"In the last fifth of the training it fell by {m.slope:.1%}"
    fewer = f"{both}, {100 * m.gap:.1f} points fewer"
    certain = f"{right}, but the training loss ends at {percent} of the loss of guessing"
    ahead = (
        "The training accuracy is a mean over an epoch, so the two are compared in the middle of epochs: there "
        f"validation is ahead by {100 * m.below:.1f} points"
    )
    overfitting = "a network that overfits is better on validation at first, and falls behind later"
    nothing_wrong = "No sign of an illness was found, " + (
        f"and the network is right on {_percent(m.val)} of the validation pictures, on {_percent(m.train)} in training"
        if m.gap == m.gap
        else "but without the accuracy of training and validation overfitting cannot be seen"
    )
    measured = [f"{both}, where {chance}"] if m.gap == m.gap else []
    lower = (
        [f"There its loss is lower, by {m.end - m.val_loss:.1%} of the loss of guessing"]
        if m.val_loss == m.val_loss
        else []
    )
    higher = [f"Here it is higher by {m.val_loss - m.end:.0%}"] if m.val_loss == m.val_loss else []
    sentences = {
        "not finite": [
            f"From step {m.broken_at:.0f} on, the training loss is not a finite number",
            *([f"Before that, it had risen to {m.spike:.3g} times its start"] if m.spike > 1 else []),
        ],
        "ends above": [ends, "A training that ends above 125% has diverged"],
        "few steps": [f"The training has only {m.steps:.0f} steps (flagged below 20)", ends],
        "collapsed, small batch": [ends, nothing, before, f"{batch} (flagged at 8 or fewer)"],
        "collapsed": [ends, nothing, before],
        "jumped": [
            ends, nothing,
            f"Over the first steps it was {m.start:.2f} times that of guessing (flagged above 1.05), and then at once "
            "where it has stayed: the first steps were so large that they ended all learning",
        ],
        "hardly falls": [ends, f"{nothing}, or next to nothing", _creeping(m)],
        "flat": [ends, nothing, "At the end of the training it does not fall any more", *measured],
        "validation at chance": [
            f"{both}, where {chance}",
            f"The validation loss is {m.val_loss:.2f} times the loss of guessing (flagged above 1.1), while that of "
            f"training ends at {percent} of it",
            *([f"Validation was behind at step {m.val_at:.0f} already; {overfitting}"] if m.kept_first < 0.7 else []),
        ],
        "validation never learned": [
            f"The validation loss was never below {m.val_least:.2f} times the loss of guessing (flagged above 1.5), "
            f"though the training loss ends at {percent} of it; {overfitting}",
        ],
        "validation behind": [
            fewer,
            f"Validation was behind at step {m.val_at:.0f} already; {overfitting}",
            f"Its loss ends only {m.val_rise:.0%} above its lowest (flagged below 17%)",
        ],
        "harder, small batch": [both, ahead, f"{batch} (flagged at 8 or fewer): too few for batch norm to measure"],
        "validation above training": [
            both,
            f"{ahead} ({_flagged_ahead(m, curves)})",
            *lower,
            "Where training labels are wrong, correct predictions count as errors in training",
        ],
        "right but not certain": [
            f"{certain}, {m.doubt:.0%} more than expected at this accuracy (flagged above 10%)",
            f"The loss fell {m.gain:.1f} times as fast after the rate was lowered (flagged above 1.8)",
            "A network is that uncertain if similar pictures have different labels",
        ],
        "rose, small batch": [ends, rose, f"{batch} (flagged at 8 or fewer)"],
        "rose": [ends, rose],
        "rises": [
            ends,
            f"In the last fifth of the training it is {-m.slope:.0%} higher than before "
            f"(flagged above {FALLS_BACK:.0%})",
        ],
        "wide, small batch": [
            ends,
            f"From step to step it varies by {m.width:.0%} of its mean (flagged above 45%)",
            f"{batch} (flagged at 8 or fewer)",
        ],
        "gap": [
            f"{fewer} (flagged above {10 if by_heart(m) else 8})",
            "It is right on 97% or more of the training pictures: it knows them by heart" if by_heart(m) else
            f"The validation loss is {m.val_rise:.0%} above its lowest, at step {m.val_low_at:.0f} (flagged above 10%)",
        ],
        "wide gap": [
            f"{fewer} (flagged above {max(12, 15 * m.train):.1f}, or above 8 if the validation loss is higher than the "
            "training loss by 9% of the loss of guessing)",
            *higher,
        ],
        "dropped": [
            f"In {1 - m.at_top:.0%} of the steps the rate was a tenth of the largest or less (flagged above 70%)", ends,
        ],
        "still falls": [ends, f"{fell} (flagged above 5%)", f"{half} (flagged above 15%)"],
        "little fall": [f"{ends} (flagged above {_flagged_end(m)}%)", f"{half} (flagged above {_flagged_half(m)}%)"],
        "stalled": [
            f"{ends} (flagged between {'70% and 93' if m.end > 0.7 else '30% and 50'}%)",
            f"{half} (flagged below {7 if m.end > 0.7 else 5.5}%): it fell at once, and stopped far up",
        ],
        "hesitates": [
            f"{certain}, {m.doubt:.0%} more than expected at this accuracy (flagged above {HESITATION:.1%})",
            "The network gives nearly the same probability to all classes, as one that has just begun to learn",
        ],
        "agree and flat": [
            f"{ends} (flagged between 30% and 50%)",
            f"{half} (flagged below 10%), so it fell at once, and stopped" if m.half_at < 0.1 else
            f"{fell} (flagged below 4.5%)",
            *([both] if m.gap == m.gap else []),
        ],
        "certain": [ends, "That is less than expected at this accuracy: the network is certain enough", nothing_wrong],
        "nothing found": [ends, nothing_wrong],
        "learned soon": [ends, f"{half}, which is soon", nothing_wrong],
        "learns": [
            ends,
            f"For the same rate it fell {m.gain:.1f} times as fast at the end as before: it fell because the rate did, "
            "so the rate had not been too low",
            nothing_wrong,
        ],
    }  # fmt: skip
    return ". ".join(sentences[rule]) + "."


def _flagged_end(m: Measures) -> int:
    """The share of the loss of guessing, in percent, above which a loss that fell slowly is little fallen."""
    return 80 if m.end > 0.8 else 70 if m.end > 0.7 and m.gain < 1.8 and m.slope < 0.03 else 50


def _flagged_half(m: Measures) -> float:
    """The share of the steps, in percent, above which the first half of the fall took long."""
    return 30 if _flagged_end(m) == 50 else 8.5


def _flagged_ahead(m: Measures, curves: Curves) -> str:
    """From how many points on validation is too far ahead."""
    if curves.augmented and not curves.mixed:
        return f"flagged above {16 if m.below > 0.16 else 7}, since augmentation makes training harder too"
    if m.end > 0.9 and m.end - m.val_loss > 0.03:
        return "flagged where its loss is lower by 3% of that of guessing, and training ends above 90%"
    if curves.mixed:
        return "flagged above 30, since training is harder by design"
    return "flagged above 7" if m.below > 0.07 else "flagged above 3 if its loss is lower by 3.5% of that of guessing"


def undecided(m: Measures, curves: Curves) -> str:
    """Why no rule decides."""
    ends = f"{_ends(m, curves)}, and in the last fifth of the training it fell by {m.slope:.1%}."
    if curves.mixed and m.below > 0:
        return (
            f"{ends} Mixing, dropout or strong augmentation make training pictures harder than those of validation: "
            f"the network is right on {100 * m.below:.0f} points fewer of them, so the training loss tells little."
        )
    return (
        f"{ends} A network that is too small, a rate that is too low or too high, and data that are hard to learn all "
        "look like this."
    )


def _ends(m: Measures, curves: Curves) -> str:
    """Where the training loss ends."""
    if not curves.num_classes or math.isnan(m.end):
        return "The training loss is not known"
    guessing = math.log(curves.num_classes)
    least = floor(curves.smoothing, curves.num_classes)
    nats, share = least + m.end * (guessing - least), f"{m.end:.0%} of" if m.end < MANY else f"{m.end:.2g} times"
    guess = f"the loss of guessing (ln {curves.num_classes} = {guessing:.2f})"
    if least > 0:
        return (
            f"The training loss ends at {nats:.3g}. Label smoothing puts {least:.2f} into it and into {guess}; without "
            f"this part it ends at {share} guessing"
        )
    return f"The training loss ends at {nats:.3g}, which is {share} {guess}"


def _creeping(m: Measures) -> str:
    """Why a loss of guessing does not mean that the network can not learn."""
    if knows(m):
        right = f"{np.fmax(m.train, m.val):.1%} of the pictures, where guessing gives {m.chance:.1%}"
        return f"But the network is right on {right}: it learns, but slowly"
    if keeps_falling(m):
        return f"But it falls until the end, by {m.fallen:.1f} standard errors in all (flagged above 3.5)"
    if above_its_start(m):
        return (
            "It is still above that of guessing, to which the first steps of any learning bring it, and the largest "
            f"rate is only {m.top_rate:.2g} (flagged below {LOW_RATE:.0e})"
        )
    return f"The largest rate is {m.top_rate:.2g}; with less than {TINY_RATE:.0e}, weights hardly change"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share == share else "unknown"

"""Which curve a tag stands for, in the spellings of several programs."""

import re
from collections.abc import Mapping

from distill_lightning.doctor.curves import NOTHING, Series

LOSS, ACCURACY = r"(?:loss|cross_?entropy|nll|ce)", r"(?:accuracy|acc|top_?1|acc(?:uracy)?_?top_?1|acc_?1)"
TRAIN, VAL = r"(?:train|training|tr)", r"(?:val|valid|validation|eval|dev)"
STEP, EPOCH = r"(?:_step|/step)?", r"(?:_epoch|/epoch)?"
SPELLINGS = {
    "loss": [rf"{TRAIN}_{LOSS}{STEP}", rf"{LOSS}_{TRAIN}{STEP}", rf"(?:batch_|running_)?{LOSS}{STEP}"],
    "epoch_loss": [rf"{TRAIN}_epoch_{LOSS}", rf"{TRAIN}_{LOSS}_epoch", rf"{LOSS}_epoch", rf"epoch_{LOSS}"],
    "largest": [rf"{TRAIN}_{LOSS}_max"],
    "deviation": [rf"{TRAIN}_{LOSS}_std"],
    "accuracy": [
        rf"{TRAIN}_epoch_{ACCURACY}", rf"{TRAIN}_{ACCURACY}_epoch", rf"{TRAIN}_{ACCURACY}{STEP}",
        rf"{ACCURACY}_{TRAIN}{STEP}", rf"(?:epoch_)?{ACCURACY}(?:_epoch|_step)?",
    ],
    "val_loss": [rf"{VAL}_{LOSS}(?:_epoch)?", rf"{LOSS}_{VAL}(?:_epoch)?", rf"test_{LOSS}(?:_epoch)?"],
    "val_accuracy": [rf"{VAL}_{ACCURACY}(?:_epoch)?", rf"{ACCURACY}_{VAL}(?:_epoch)?", rf"test_{ACCURACY}(?:_epoch)?"],
    "rate": [rf"(?:{TRAIN}_|optimizer_|hp_)?(?:lr|learning_?rate)(?:_?(?:sgd|adam|adamw|rmsprop))?(?:_pg1)?(?:_0|0)?"],
}  # fmt: skip
"""Patterns for tags in small letters, with "_" for every other sign. The first that is there counts."""
FEWEST = 8
"""With fewer points of steps or windows, the means of epochs are used instead, if there are more."""


def curves_of(series: Mapping[str, Series]) -> dict[str, Series]:
    """The curves that tags stand for.

    Args:
        series: the values by tag.

    Returns:
        Fields of `Curves` by name. Accuracies in percent are divided by 100.
    """
    by_name: dict[str, Series] = {}
    for tag, values in series.items():
        if len(values):
            by_name.setdefault(re.sub(r"[^a-z0-9]+", "_", tag.lower()).strip("_"), values)
    found = {curve: _first(patterns, by_name) for curve, patterns in SPELLINGS.items()}
    epochs = found.pop("epoch_loss")
    if len(found["loss"]) < FEWEST and len(epochs) > len(found["loss"]):
        found["loss"] = epochs
    for name in ("accuracy", "val_accuracy"):
        finite = found[name].finite().values
        if len(finite) and finite.max() > 1.5:
            found[name] = Series(found[name].steps, found[name].values / 100)
    return found


def _first(patterns: list[str], by_name: Mapping[str, Series]) -> Series:
    for pattern in patterns:
        for name, values in by_name.items():
            if re.fullmatch(pattern, name):
                return values
    return NOTHING

"""Checks of a checkpoint against the data: were its data the same, and was it trained on validation pictures?"""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from distill_lightning.distributed import is_first
from distill_lightning.errors import InputError
from distill_lightning.values import DataInfo, TrainedOn


def refuse_other(data: DataInfo, trained_on: TrainedOn) -> None:
    """Refuses to resume a run if the data have changed.

    Args:
        data: the current data.
        trained_on: the data that the run was started with.

    Raises:
        InputError: labels, pictures, unlabelled pictures or label noise differ.
    """
    if trained_on.info.fingerprint != data.fingerprint:
        raise InputError(
            f"the labels or pictures of {data.name} are not those that this run was trained on: "
            "restore the old data, or start a new run"
        )
    if trained_on.info.unlabelled != data.unlabelled:
        raise InputError(
            "the pictures of data.unlabelled are not those that this run was trained on: restore them, or "
            "start a new run"
        )
    if trained_on.info.noise != data.noise:
        raise InputError(
            f"label_noise, noise_map and noise_seed were {trained_on.info.noise} in this run: resume it with these"
        )


def refuse_seen(data: DataInfo, held_out: Tensor, trained_on: TrainedOn, who: str) -> None:
    """Refuses a checkpoint that was trained on pictures of the validation split.

    If the checkpoint was trained on another version of the data set, this cannot be determined: it prints a warning.

    Args:
        data: the current data.
        held_out: (n,) integer, the positions of the samples that are held out of its training part for validation;
            empty if there are none.
        trained_on: the data that the checkpoint was trained on.
        who: the name of the checkpoint in messages.

    Raises:
        InputError: the checkpoint was trained on some of these samples.
    """
    if not len(held_out):
        return
    theirs = trained_on.info
    if theirs.fingerprint != data.fingerprint:
        if (theirs.name, theirs.class_names) == (data.name, data.class_names) and is_first():
            print(
                f"{who} was trained on other pictures of {data.name}, or at another size: it is unknown whether it has "
                "seen the validation pictures of this run",
                file=sys.stderr,
            )
        return
    seen = int((~torch.isin(held_out.long(), trained_on.held_out.long())).sum())
    if seen:
        raise InputError(
            f"{who} was trained on {seen} of the {len(held_out)} validation pictures of this run: "
            "use the data.val_size and data.split_seed that it was trained with"
        )


def differ(trained: Sequence[str], own: Sequence[str]) -> str:
    """Which of two lists of names differ, in words that name the first of them."""

    def some(names: list[str]) -> str:
        return ", ".join(names[:3])[:40] + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    lacking, new = sorted(set(trained) - set(own)), sorted(set(own) - set(trained))
    words = [f"it lacks {some(lacking)}"] if lacking else []
    words += [f"it also has {some(new)}"] if new else []
    return "; ".join(words) or "they are the same in another order"

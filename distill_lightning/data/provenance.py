"""Whether a checkpoint and data go together: what it was trained on, and which pictures it has seen."""

import sys

import torch
from torch import Tensor

from distill_lightning.distributed import is_first
from distill_lightning.errors import InputError
from distill_lightning.values import DataInfo, TrainedOn


def refuse_other(data: DataInfo, trained_on: TrainedOn) -> None:
    """Refuses to go on with a run that was started on other data.

    Args:
        data: that is there now.
        trained_on: the data of the run.

    Raises:
        InputError: labels, pictures or noise differ.
    """
    if trained_on.info.fingerprint != data.fingerprint:
        raise InputError(
            f"the data of {data.name} is not what this run was trained on (its labels or pictures differ): "
            "put the old data back, or start a new run"
        )
    if trained_on.info.noise != data.noise:
        raise InputError(
            f"label_noise, noise_map and noise_seed were {trained_on.info.noise} in this run: resume it with these"
        )


def refuse_seen(data: DataInfo, held_out: Tensor, trained_on: TrainedOn, who: str) -> None:
    """Refuses a checkpoint that was trained on pictures of the validation split.

    Args:
        data: that is there now.
        held_out: (n,), the samples of its training part that are validated on; none where they have a part of their own.
        trained_on: the data of the checkpoint.
        who: the checkpoint, for the error.

    Raises:
        InputError: it has seen some.
    """
    if not len(held_out):
        return
    theirs = trained_on.info
    if theirs.fingerprint != data.fingerprint:
        if (theirs.name, theirs.class_names) == (data.name, data.class_names) and is_first():
            print(
                f"{who} was trained on other pictures of {data.name}, or at another size: whether it has seen the "
                "validation pictures of this run cannot be told",
                file=sys.stderr,
            )
        return
    seen = int((~torch.isin(held_out.long(), trained_on.held_out.long())).sum())
    if seen:
        raise InputError(
            f"{who} was trained on {seen} of the {len(held_out)} validation pictures of this run: "
            "use the data.val_size and data.split_seed that it was trained with"
        )

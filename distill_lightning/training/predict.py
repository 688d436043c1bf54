"""Writes a checkpoint's predictions as a CSV file."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_lightning.data.bad_pictures import counts_of, lines_of_bad
from distill_lightning.distributed import gather_objects
from distill_lightning.errors import InputError
from distill_lightning.files import atomic_write
from distill_lightning.predictions import Predictions
from distill_lightning.runs.config import CONFIG
from distill_lightning.training.evaluate import open_checkpoint, refuse_left_out
from distill_lightning.training.parts import Parts
from distill_lightning.training.processes import children


def predict(parts: Parts, ckpt_path: str | None, given: dict[str, Any] | None, use_ema: bool = False) -> Path | None:
    """Writes predictions.csv for the test split, or predictions-<folder>.csv for a folder of pictures. With
    ``use_ema`` the name ends with "-ema".

    The columns are the index or the file name, the label, the predicted class, and the probabilities. The file is
    written into the folder of the checkpoint's run, or into the current folder if the checkpoint lies in no run.

    Args:
        parts: the parts of the run.
        ckpt_path: a file, "last" or "best".
        given: the content of the checkpoint, if it has been read already.
        use_ema: whether the network gets the weights that the callback EMA has averaged.

    Returns:
        The file; None in other processes than the first.
    """
    data, trainer = parts.data, parts.trainer
    refuse_left_out(trainer, "predict")
    folder = open_checkpoint(parts, "predict", ckpt_path, given, use_ema)
    with children(trainer):
        mine = trainer.predict(parts.method, datamodule=data) or []
    everyones = gather_objects(mine)
    if data.predicted is not None:
        for bad in gather_objects(dict(data.predicted.source.bad)):
            data.predicted.source.bad.update(bad)
    if not trainer.is_global_zero:
        return None
    found: list[dict[str, Tensor]] = [part for one in everyones for part in one if part]  # type: ignore[misc]
    unread = {} if data.predicted is None else data.predicted.unread()
    for line in lines_of_bad(unread):
        print(line, file=sys.stderr)
    if not found:
        raise InputError(f"none of the {len(unread):,} pictures can be read ({counts_of(unread)[:80]}): give others")
    rows = {k: torch.cat([part[k] for part in found]) for k in found[0]}
    names = None if data.predicted is None else data.predicted.names
    of_pictures = "" if data.pictures is None else f"-{_name_of(data.pictures)}"
    name = f"predictions{of_pictures}{'-ema' if use_ema else ''}.csv"
    target = (folder if (folder / CONFIG).is_file() else Path()) / name
    order = rows["index"].argsort()
    index = rows["index"][order].tolist()
    labels = [data.class_names[k] for k in rows["label"][order].tolist()] if "label" in rows else None
    files = None if names is None else [names[k] for k in index]
    text = Predictions(rows["probs"][order].cpu().numpy(), list(data.class_names), files).as_csv(index, labels)
    atomic_write(target, lambda file: file.write(text.encode(errors="surrogateescape")))
    return target


def _name_of(pictures: str | list[str]) -> str:
    """The name of the first folder or file, and how many others there are."""
    first, *others = [pictures] if isinstance(pictures, str) else pictures
    return Path(first).resolve().name + (f"-and-{len(others)}-more" if others else "")

"""Validation and test of a checkpoint."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from distill_lightning import checkpoints
from distill_lightning.errors import InputError
from distill_lightning.runs import find
from distill_lightning.training.parts import Parts
from distill_lightning.training.processes import children
from distill_lightning.weights import load_weights


def evaluate(
    parts: Parts, verb: str, ckpt_path: str | None, given: dict[str, Any] | None, use_ema: bool = False
) -> dict[str, float]:
    """Computes the metrics of a checkpoint on a split.

    Args:
        parts: the parts of the run.
        verb: "validate" or "test".
        ckpt_path: a file, "last" or "best".
        given: the content of the checkpoint, if it has been read already.
        use_ema: whether the network gets the weights that the callback EMA has averaged.

    Returns:
        The metrics by tag.

    Raises:
        InputError: see ``open_checkpoint``; or the data have no such split.
    """
    refuse_left_out(parts.trainer, verb)
    open_checkpoint(parts, verb, ckpt_path, given, use_ema)
    run = parts.trainer.validate if verb == "validate" else parts.trainer.test
    with children(parts.trainer):
        run(parts.method, datamodule=parts.data, verbose=False)
    results = {name: float(value) for name, value in parts.trainer.callback_metrics.items()}
    if not results:
        raise InputError(f"{parts.data.name} has no validation split: give data.val_size")
    return results


def refuse_left_out(trainer: pl.Trainer, verb: str) -> None:
    """Refuses a limit of the trainer that leaves out what a verb ("validate", "test" or "predict") does.

    Raises:
        InputError: the limit is 0.
    """
    option = f"limit_{'val' if verb == 'validate' else verb}_batches"
    if getattr(trainer, option) == 0:
        raise InputError(f"trainer.{option} is 0: leave it out, or give more")


def open_checkpoint(
    parts: Parts, verb: str, ckpt_path: str | None, given: dict[str, Any] | None, use_ema: bool = False
) -> Path:
    """Loads a checkpoint's weights into the network, and its normalisation into the data.

    Args:
        parts: the parts of the run.
        verb: the verb of the command, for the error.
        ckpt_path: a file, "last" or "best"; None for a method without a checkpoint.
        given: the content of the checkpoint, if it has been read already.
        use_ema: whether the network gets the weights that the callback EMA has averaged.

    Returns:
        The folder of the checkpoint's run.

    Raises:
        InputError: there is no such checkpoint, or it was trained with another network or with other classes.
    """
    method, data, options = parts.method, parts.data, parts.config.options
    if not method.leaves_checkpoint:
        if ckpt_path is not None:
            raise InputError(
                f"{type(method).__name__} has no checkpoint: leave --ckpt_path out, and give --model.members"
            )
        if use_ema:
            raise InputError(f"{type(method).__name__} has no averaged weights of its own: leave --use_ema out")
        return parts.stem / (options.get("name") or parts.usual_name)
    if ckpt_path is None:
        raise InputError(f"distill {verb} needs --ckpt_path: a file, last or best")
    path = Path(ckpt_path)
    if ckpt_path in ("last", "best"):
        path = find(parts.stem, options.get("name")) / "checkpoints" / f"{ckpt_path}.ckpt"
    checkpoint = checkpoints.read(path) if given is None else given
    if use_ema:
        checkpoint = checkpoints.with_averaged_weights(checkpoint, str(path))
    trained_on = checkpoints.trained_on(checkpoint, str(path))
    if trained_on is not None and not (verb == "predict" and data.pictures is not None):
        data.refuse_other_classes(trained_on.info.class_names, str(path))
    if method.trains:
        method.match_network(checkpoint, str(path))
        load_weights(method.model, checkpoints.network_weights(checkpoint, method.model), str(path))
    else:  # the method has not made its network yet
        method.set_network(checkpoints.open_network(path, checkpoint))
    data.trained_on = trained_on
    callbacks = parts.trainer.callbacks  # type: ignore[attr-defined]
    if checkpoint.get("config") and not any(type(one).__name__ == checkpoints.REESTIMATE for one in callbacks):
        checkpoints.say_if_reestimated(checkpoints.config_of(checkpoint, str(path)), str(path))
    return path.parent.parent

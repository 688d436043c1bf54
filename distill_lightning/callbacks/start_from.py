"""Starts a run from the weights of another one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from distill_lightning.checkpoints import network_weights, read, read_weights
from distill_lightning.digests import tensors_digest
from distill_lightning.distributed import say
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.tensor_files import read_tensors
from distill_lightning.weights import Source, checkpoint_of, must_fit, put_weights, read_source

OF_SCHEDULES = {"params", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"}
OF_SCHEDULES |= {"lr_mult", "decay_mult", "from_epoch"}
"""Entries of a parameter group that are no options of the optimizer."""


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Args:
        path: a checkpoint of this program or a file of weights.
        weights: the digest of the network's weights in it.
        checkpoint: the content, if it is a checkpoint.
    """

    path: Path
    weights: str
    checkpoint: Mapping[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> "Start":
        """Reads a checkpoint or a file of weights.

        Raises:
            InputError: there is no such file, or it holds no weights.
        """
        path = checkpoint_of(path)
        content = read_tensors(path, "checkpoint or file of weights", foreign=True)
        if isinstance(content, dict) and {"state_dict", "hyper_parameters", "method"} <= content.keys():
            checkpoint = read(path)
            return cls(path, tensors_digest(network_weights(checkpoint)), checkpoint)
        return cls(path, tensors_digest(next(iter(read_source(path).entries.values()))), None)


class StartFrom(Callback):
    """Puts the weights of another run into the network before training begins.

    If the other run has trained the same method with the same modules beside the network (heads, peers), they are taken
    along too; otherwise only the network is.

    Args:
        start: what the run starts from.
        optimizer: whether the state of the optimizer (momentum, moments) is taken along. The options of the optimizer,
            such as its rate, are those of this run.
    """

    def __init__(self, start: Start, optimizer: bool) -> None:
        self.start, self.optimizer = start, optimizer

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loads the weights.

        Raises:
            InputError: they do not fit the network, or there is no state of an optimizer to take along.
        """
        assert isinstance(pl_module, Method)
        path, checkpoint = str(self.start.path), self.start.checkpoint
        if self.optimizer and not (checkpoint or {}).get("optimizer_states"):
            raise InputError(f"{path} holds no state of an optimizer: leave start_optimizer out")
        if checkpoint is None:
            say(put_weights(pl_module.model, read_weights(path, pl_module.model)).line())
        elif _fits(pl_module, checkpoint["state_dict"]):
            pl_module.load_state_dict(checkpoint["state_dict"])
        else:
            weights = network_weights(dict(checkpoint), pl_module.model)
            say(put_weights(pl_module.model, Source(path, {"": weights})).line())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes up the state of the optimizer.

        Raises:
            InputError: it is the state of another optimizer, or of other parameters.
        """
        if self.optimizer:
            assert self.start.checkpoint is not None
            take_up(trainer.optimizers[0], self.start.checkpoint["optimizer_states"][0], str(self.start.path))


def _fits(method: Method, weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are those of a method with all its modules."""
    try:
        must_fit(method, weights, "")
    except InputError:
        return False
    return True


def take_up(optimizer: Optimizer, saved: Mapping[str, Any], where: str) -> None:
    """Takes up what an optimizer remembers of each parameter. Its options stay as they are.

    Args:
        optimizer: the optimizer.
        saved: the state dict of an optimizer of the same class, for parameters of the same shapes.
        where: the file, for errors.

    Raises:
        InputError: the state is that of another optimizer, or of other parameters.
    """
    mine, end = optimizer.state_dict(), "leave start_optimizer out"
    theirs = saved["param_groups"]
    counts = [[len(group["params"]) for group in groups] for groups in (theirs, mine["param_groups"])]
    if counts[0] != counts[1]:
        raise InputError(f"{where} has an optimizer of {counts[0]} parameters, this run has {counts[1]}: {end}")
    if odd := sorted((optimizer.defaults.keys() ^ theirs[0].keys()) - OF_SCHEDULES):
        raise InputError(
            f"{where} has another optimizer than {type(optimizer).__name__} ({odd[0]} is of only one): {end}"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in theirs for number in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, value in saved["state"].get(number, {}).items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise InputError(f"{where} has {name} of shape {tuple(value.shape)} in its optimizer: {end}")
    optimizer.load_state_dict({"state": saved["state"], "param_groups": mine["param_groups"]})

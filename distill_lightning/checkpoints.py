"""Reads checkpoints of this program, and builds the network of a checkpoint without its method.

A checkpoint is read as plain data (``tensor_files``), and may use only some classes (``specs``).
"""

import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from distill_lightning.digests import tensors_digest
from distill_lightning.distributed import say
from distill_lightning.errors import InputError
from distill_lightning.files import parse_yaml, printable
from distill_lightning.models.activations import replace_activations
from distill_lightning.preprocessing.steps import Fitted
from distill_lightning.ranges import Count, Finite, Positive
from distill_lightning.recorded import Recorded
from distill_lightning.specs import NetworkSpec, count_numbers
from distill_lightning.tensor_files import is_old, read_tensors, write_tensors
from distill_lightning.values import DataInfo, TrainedOn
from distill_lightning.weights import Source, checkpoint_of, load_weights, of_model, put_weights, read_source

PARTS: dict[str, tuple[type, ...]] = {
    "state_dict": (dict, OrderedDict),
    "hyper_parameters": (dict, OrderedDict),
    "config": (str,),
    "callbacks": (dict, OrderedDict),
    "loops": (dict, OrderedDict),
    "optimizer_states": (list,),
    "lr_schedulers": (list,),
    "epoch": (int,),
    "global_step": (int,),
    "pytorch-lightning_version": (str,),
}
"""The types of the parts of a checkpoint. Each part may be missing."""
REESTIMATE = "ReestimateBatchNorm"
"""The callback that tests with other statistics of batch norm than those of the checkpoint."""
AVERAGED = "averaged"
"""The part that ``with_averaged_weights`` adds."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint as a whole or not at all, and reads checkpoints as plain data."""

    def __init__(self) -> None:
        self._held: tuple[Path, dict[str, Any]] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write_tensors(path, checkpoint)

    def hold(self, path: str | Path, checkpoint: dict[str, Any]) -> None:
        """Keeps a checkpoint that was read from ``path`` until the trainer loads it."""
        self._held = Path(path).resolve(), checkpoint

    def read_ahead(self, path: str | Path) -> dict[str, Any]:
        """Reads the checkpoint that the trainer will load, and keeps it, so that it is read once.

        Raises:
            InputError: see ``read``.
        """
        if self._held is None or self._held[0] != Path(path).resolve():
            self.hold(path, read(path))
        assert self._held is not None
        return self._held[1]

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        checkpoint = self.read_ahead(path)
        self._held = None
        return checkpoint


def read(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint that this program wrote. For the folder of a run, it reads the last checkpoint.

    Raises:
        InputError: the file does not exist, is damaged, was written by another program, or has parts of wrong types.
    """
    path = checkpoint_of(path)
    checkpoint = read_tensors(path, "checkpoint")
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "method"} <= checkpoint.keys():
        raise InputError(f"{path} is not a checkpoint of this program: give one that `distill fit` wrote")
    _check_parts(checkpoint, path)
    if is_old(checkpoint):
        where = printable(path)
        print(
            f"{where} was written by version 0.1, without a digest: it cannot be checked for damage",
            file=sys.stderr,
        )
    return checkpoint


def _check_parts(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuses parts with other types than `distill fit` writes. Later they would cause errors that are less clear."""
    for name, kind in PARTS.items():
        if name in checkpoint and type(checkpoint[name]) not in kind:
            raise InputError(
                f"{path} holds a {type(checkpoint[name]).__name__} as {name}: it is damaged, or of another program"
            )
    if not _are_weights(checkpoint["state_dict"]):
        raise InputError(f"{path} holds no weights as state_dict: it is damaged, or of another program")
    trained_on(checkpoint, str(path))


def _is_said(name: str, value: Any) -> bool:
    """Whether a value that a data module of version 0.1 wrote under ``name`` has the right type."""
    if name == "class_names":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if name in ("mean", "std"):
        return isinstance(value, Tensor) and value.ndim == 1 and value.is_floating_point()
    if name == "held_out":
        return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()
    return name not in ("name", "fingerprint") or isinstance(value, str)


def _are_weights(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def config_of(checkpoint: dict[str, Any], where: str) -> dict[str, Any]:
    """The configuration of the run in a checkpoint, as plain data that are not checked.

    Args:
        checkpoint: the content of the checkpoint.
        where: the checkpoint's file, for the error.

    Raises:
        InputError: the checkpoint has no configuration, or its options have no names.
    """
    config = parse_yaml(str(checkpoint.get("config") or ""), where)
    if not isinstance(config, dict):
        raise InputError(f"{where} was not written by `distill fit`, and does not say how it was made: give a --config")
    if not all(isinstance(key, str) for key in config):
        raise InputError(f"{where} has options without a name in its configuration: give a --config")
    return config


def say_if_reestimated(config: dict[str, Any], where: str) -> None:
    """Says that the test of a run was not made with the network of its checkpoint, if the callback ReestimateBatchNorm
    estimated the statistics of batch norm anew for it. The checkpoint has the running ones.

    Args:
        config: the configuration of the run, as plain data that are not checked; empty if there is none.
        where: the file of the checkpoint.
    """
    trainer = config.get("trainer")
    callbacks = trainer.get("callbacks") if isinstance(trainer, dict) else None
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, dict) and str(callback.get("class_path")).endswith(f".{REESTIMATE}"):
            say(
                f"{where} has the running statistics of batch norm. The test of its run estimated them anew "
                f"({REESTIMATE}), which is not in the checkpoint: expect other numbers"
            )


def network_weights(checkpoint: dict[str, Any], network: nn.Module | None = None) -> dict[str, Tensor]:
    """The state dict of a checkpoint's network, without the method.

    Args:
        checkpoint: the content of the checkpoint.
        network: the network to load. If it has a method ``weights_in``, that finds the weights; otherwise they are
            those under ``model.``.

    Raises:
        InputError: the weights are averaged, and the network has parts that are not.
    """
    weights = checkpoint["state_dict"]
    weights_in: Any = getattr(network, "weights_in", None)
    if weights_in is not None:
        found: dict[str, Tensor] = weights_in(weights)
        if checkpoint.get(AVERAGED) and network is not None and found.keys() != network.state_dict().keys():
            raise InputError(
                f"the callback EMA averages the deployed network alone, and {type(network).__name__} has other parts, "
                "too: leave use_ema out"
            )
        return found
    return of_model(weights)


def with_averaged_weights(checkpoint: dict[str, Any], where: str) -> dict[str, Any]:
    """A checkpoint in which the network has the weights that the callback EMA has averaged. It has no other weights.

    Args:
        checkpoint: the content of the checkpoint. It is not changed.
        where: the checkpoint's file, for the error.

    Raises:
        InputError: the run has no EMA, or the average is of other weights.
    """
    state = (checkpoint.get("callbacks") or {}).get("EMA")
    averaged = state.get("weights") if isinstance(state, dict) else None
    if not averaged:
        raise InputError(
            f"{where} has no averaged weights: its run had no callback EMA (--trainer.callbacks EMA); leave use_ema out"
        )
    own = {name: value.shape for name, value in checkpoint["state_dict"].items() if name.startswith("model.")}
    if not _are_weights(averaged) or {f"model.{name}": value.shape for name, value in averaged.items()} != own:
        raise InputError(f"{where} has averaged weights of another network: it is damaged")
    return checkpoint | {"state_dict": {f"model.{name}": value for name, value in averaged.items()}, AVERAGED: True}


def open_network(path: str | Path, checkpoint: dict[str, Any] | None = None) -> nn.Module:
    """Builds the network of a checkpoint with its weights, in eval mode, on the CPU.

    Args:
        path: the checkpoint's file.
        checkpoint: the content of the checkpoint, if it has been read already.

    Raises:
        InputError: see ``read``; or the checkpoint does not describe its network, the network cannot be built, or a
            file may not use its class.
    """
    checkpoint = read(path) if checkpoint is None else checkpoint
    config = checkpoint["hyper_parameters"].get("network")
    if config is None:
        raise InputError(
            f"{path} does not say how to build its network, which was given ready-made in Python: give it by network=, "
            "by --model.network, or as the network of a PlainNetwork with these weights"
        )
    network = build_network(config, str(path), count_numbers(checkpoint["state_dict"], str(path)))
    put_activation(network, checkpoint, str(path))
    load_weights(network, network_weights(checkpoint, network), str(path))
    return network.eval()


def put_activation(network: nn.Module, checkpoint: dict[str, Any], where: str) -> None:
    """Puts the activation that a checkpoint names into its network, if it names one.

    Args:
        network: the network, which is changed.
        checkpoint: the content of the checkpoint.
        where: the checkpoint's file, for errors.

    Raises:
        InputError: see ``build_network`` and ``replace_activations``.
    """
    activation = checkpoint["hyper_parameters"].get("activation")
    if activation is not None:
        replace_activations(network, lambda: build_network(activation, where))


def build_network(config: Any, where: str, weights: int | None = None) -> nn.Module:
    """Builds the network that a file's ``{"class_path": ..., "init_args": ...}`` describes.

    Args:
        config: the specification, as plain data.
        where: the file, for errors.
        weights: the count of numbers in the file's weights, which limits the network's memory; None for no limit.

    Raises:
        InputError: see ``NetworkSpec.of`` and ``NetworkSpec.build``.
    """
    return NetworkSpec.of(config, where).build(where, weights)


def read_weights(path: str | Path, network: nn.Module) -> Source:
    """Reads the weights for a network from any file, see ``read_source``.

    Args:
        path: the file, or the folder of a run.
        network: the network to load, see ``network_weights``. It decides which weights of a checkpoint of this program
            are taken.

    Raises:
        InputError: see ``read_source``.
    """
    source = read_source(path)
    weights = source.entries.get("state_dict")
    if weights is None or not hasattr(network, "weights_in"):
        return source
    return Source(source.name, {"state_dict": network_weights({"state_dict": weights}, network)})


def trained_on(checkpoint: dict[str, Any], where: str) -> TrainedOn | None:
    """The data that a checkpoint was trained on; None if the checkpoint does not contain them.

    Args:
        checkpoint: the content of the checkpoint.
        where: the checkpoint's file, for the error.

    Raises:
        InputError: this part of the checkpoint is damaged.
    """
    content = checkpoint.get("data")
    if content is None:  # version 0.1 wrote these under the name of the data module's class
        old = next(
            (v for v in checkpoint.values() if isinstance(v, dict) and {"fingerprint", "held_out"} <= v.keys()), {}
        )
        if not old:
            return None
        content = _in_todays_form(old) if all(_is_said(name, value) for name, value in old.items()) else None
    held_out = content.get("held_out") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(held_out, Tensor) or not isinstance(content.get("info"), dict):
        raise InputError(f"{where} does not say what data it was trained on: it is damaged, or of another program")
    if held_out.ndim != 1 or held_out.is_floating_point() or held_out.is_complex():
        raise InputError(f"{where} does not say what data it was trained on: it is damaged, or of another program")
    info, fitted = DataInfo.from_dict(content["info"], where), content.get("preprocessing")
    preprocessing = None if fitted is None else Fitted.from_dict(fitted, info.shape, where)
    return TrainedOn(info, held_out, preprocessing, _root(checkpoint, where))


def _root(checkpoint: dict[str, Any], where: str) -> str | None:
    """The option data.root in the configuration of a checkpoint's run; None if it is not there."""
    config: Any = config_of(checkpoint, where) if checkpoint.get("config") else None
    for name in ("data", "init_args", "root"):
        config = config.get(name) if isinstance(config, dict) else None
    return config if isinstance(config, str) else None


def _in_todays_form(old: dict[str, Any]) -> dict[str, Any]:
    """Converts the values of version 0.1, whose types are already checked, to the form of today."""
    held_out, noise = old["held_out"], old.get("noise")
    share, mistaken, seed = noise if isinstance(noise, list | tuple) and len(noise) == 3 else (None, None, 0)
    info = old | {
        "mean": old["mean"].tolist() if "mean" in old else None,
        "std": old["std"].tolist() if "std" in old else None,
        "num_samples": 0,
        "noise": (share, list(mistaken.items()) if isinstance(mistaken, dict) else None, seed),
        "held_out": tensors_digest({"held_out": held_out}) if len(held_out) else "",
    }
    return {"info": info, "held_out": held_out}


class PlainNetwork(Recorded):
    """A network that another program trained, for use as a teacher.

    Args:
        network: the network. It must have as many classes as the data.
        weights: a file of weights, of any program (see the package ``weights``), or the folder of a run; None keeps the
            weights that the network has.
        mean: the mean of the pictures that it was trained on, for each channel, with pixels in [0, 1]; by default the
            mean of the data.
        std: their standard deviation, likewise.
        image_size: the side of the pictures that it was trained on, in pixels. Pictures of another size are resized to
            it. By default it gets the pictures in their size.

    Raises:
        InputError: the file of weights cannot be read, or does not fit the network.
    """

    later_options: ClassVar[Mapping[str, Any]] = {"image_size": None}

    def __init__(
        self,
        network: nn.Module,
        weights: str | None = None,
        mean: list[Finite] | None = None,
        std: list[Positive] | None = None,
        image_size: Count | None = None,
    ) -> None:
        if weights is not None:
            say(put_weights(network, read_weights(weights, network), complete=True).line())
        self.network = network.eval()
        self.mean = None if mean is None else torch.tensor(mean)
        self.std = None if std is None else torch.tensor(std)
        self.image_size = image_size

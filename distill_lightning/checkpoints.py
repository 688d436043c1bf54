"""Opens a checkpoint of ours and gives the plain network, without its method.

Nothing in a file is executed: it is read with ``weights_only=True``. The classes that it names are imported from what
is installed here, never from Python's own library, and what it names for its network must be a torch module, or a
function that is annotated to return one.
"""

import importlib
import inspect
import pickle
import sys
import typing
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.files import write_whole


class WholeFileIO(TorchCheckpointIO):
    """Writes checkpoints so that a cut never leaves half of one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        write_whole(path, lambda file: torch.save(checkpoint, file))


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint that this program wrote.

    Raises:
        InputError: no such file, torn, or another program's.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    checkpoint = _load(path)
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "method"} <= checkpoint.keys():
        raise InputError(f"{path} is not a checkpoint of this program: give one that `distill fit` wrote")
    return checkpoint


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise InputError(f"{path} is torn, or no file of weights: give another, or train anew") from error


def read_config(path: str | Path) -> dict[str, Any]:
    """The run's configuration, as it stands in a checkpoint. May raise as ``read``."""
    config = yaml.safe_load(read(path).get("config") or "")
    if not isinstance(config, dict):
        raise InputError(f"{path} was not written by `distill fit`, and does not say how it was made: give a --config")
    _refuse_standard_library(config, str(path))
    network = (config.get("model") or {}).get("init_args", {}).get("network")
    _refuse_foreign(network, str(path))
    return config


def _refuse_standard_library(config: Any, where: str) -> None:
    """Refuses a class path into Python's own library, at any depth, before anything is imported for it."""
    values = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    if isinstance(config, dict) and str(config.get("class_path", "")).partition(".")[0] in sys.stdlib_module_names:
        raise InputError(f"{where} names {config['class_path']} as a class: refused")
    for value in values:
        _refuse_standard_library(value, where)


def network_weights(checkpoint: dict[str, Any], network: nn.Module | None = None) -> dict[str, Tensor]:
    """The plain network's state: what lies under ``model.``, or what a network that has ``weights_in`` says."""
    weights = checkpoint["state_dict"]
    if hasattr(network, "weights_in"):
        return network.weights_in(weights)
    return {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}


def open_network(path: str | Path, checkpoint: dict[str, Any] | None = None) -> nn.Module:
    """The plain network of a checkpoint, with its weights, in eval mode, on the CPU.

    Raises:
        InputError: see ``read``; or the network's class cannot be had, or may not be named by a file.
    """
    checkpoint = read(path) if checkpoint is None else checkpoint
    config = checkpoint["hyper_parameters"].get("network")
    if not isinstance(config, dict):
        raise InputError(
            f"{path} does not say how to build its network (it was made in Python, not by the command): "
            "give the network by class_path and the file as its weights"
        )
    network = build_network(config, str(path))
    load_weights(network, network_weights(checkpoint, network), str(path))
    return network.eval()


def build_network(config: dict[str, Any], where: str) -> nn.Module:
    """The network that a file's ``{"class_path": ..., "init_args": ...}`` describes."""
    _refuse_standard_library(config, where)
    _refuse_foreign(config, where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "network")
    try:
        return parser.instantiate_classes(parser.parse_object({"network": config})).network
    except Exception as error:
        raise InputError(f"{where} names a network that cannot be built here: {config['class_path']}") from error


def _refuse_foreign(config: Any, where: str) -> None:
    """Refuses a class path, at any depth, that is not a module or a function that gives one."""
    if isinstance(config, list):
        for item in config:
            _refuse_foreign(item, where)
    if not isinstance(config, dict):
        return
    if "class_path" in config:
        path = str(config["class_path"])
        module, _, name = path.rpartition(".")
        try:
            target = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"{where} was made with {path}, which cannot be imported: run where it can, or give PYTHONPATH"
            ) from error
        made = target if inspect.isclass(target) else _return_type(target)
        if not (inspect.isclass(made) and issubclass(made, nn.Module)):
            raise InputError(f"{where} names {path} as a network, which is no torch module: refused")
    for value in config.values():
        _refuse_foreign(value, where)


def _return_type(function: Any) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except Exception:
        return None


def load_weights(network: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Strict, with an error that says what differs in one line."""
    mine = network.state_dict()
    for name, value in weights.items():
        if name in mine and mine[name].shape != value.shape:
            raise InputError(
                f"{where} does not fit {type(network).__name__}: its {name} is {tuple(value.shape)}, "
                f"expected {tuple(mine[name].shape)}: it is of another network, or of other classes"
            )
    if mine.keys() != weights.keys():
        odd = sorted(mine.keys() ^ weights.keys())
        raise InputError(
            f"{where} does not fit {type(network).__name__}: {odd[0]} is in only one of them "
            f"({len(odd)} such): it is of another network"
        )
    network.load_state_dict(weights)


def read_weights(path: str | Path, network: nn.Module | None = None) -> dict[str, Tensor]:
    """Weights of a plain network: from a checkpoint of ours, or a state dict as ``torch.save`` writes it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file of weights {path}")
    content = _load(path)
    if isinstance(content, dict) and {"state_dict", "hyper_parameters"} <= content.keys():
        return network_weights(content, network)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path} holds no weights: give a checkpoint of ours or a saved state dict")
    return content


def data_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What the data module said of itself when the checkpoint was written; empty where it said nothing."""
    said = (v for v in checkpoint.values() if isinstance(v, dict) and {"fingerprint", "held_out"} <= v.keys())
    return next(said, {})


class PlainNetwork:
    """A network with weights that another program trained.

    Args:
        network: by class_path, with as many classes as the data.
        weights: a state dict as ``torch.save`` writes it, or a checkpoint of ours; None for those it is made with.
        mean, std: by channel, in units of full scale, of the pictures it was trained on; the data's by default.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: str | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        if weights is not None:
            load_weights(network, read_weights(weights, network), weights)
        self.network = network.eval()
        self.mean = None if mean is None else torch.tensor(mean)
        self.std = None if std is None else torch.tensor(std)

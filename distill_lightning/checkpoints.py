"""Opens a checkpoint of ours and gives the plain network, without its method.

A checkpoint is data: see ``tensor_files`` for how it is read, and ``specs`` for what it may ask to have built.
"""

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError
from distill_lightning.files import parse_yaml, printable
from distill_lightning.specs import NetworkSpec, count_numbers
from distill_lightning.tensor_files import is_old, read_tensors, write_tensors
from distill_lightning.values import DataInfo, TrainedOn
from distill_lightning.weights import load_weights

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
"""What the parts of a checkpoint are, where it has them."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that a cut never leaves half of one, and reads them as data."""

    def __init__(self) -> None:
        self._held: tuple[Path, dict[str, Any]] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write_tensors(path, checkpoint)

    def hold(self, path: str | Path, checkpoint: dict[str, Any]) -> None:
        """Keeps what was read from a file until the trainer loads it."""
        self._held = Path(path).resolve(), checkpoint

    def read_ahead(self, path: str | Path) -> dict[str, Any]:
        """The checkpoint that the trainer is going to load: it is read once. May raise as ``read``."""
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
    """A checkpoint that this program wrote.

    Raises:
        InputError: no such file, torn, another program's, or with parts that are not what they should be.
    """
    checkpoint = read_tensors(path, "checkpoint")
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "method"} <= checkpoint.keys():
        raise InputError(f"{path} is not a checkpoint of this program: give one that `distill fit` wrote")
    _check_parts(checkpoint, path)
    if is_old(checkpoint):
        where = printable(path)
        print(
            f"{where} was written by version 0.1, without a digest: whether it is damaged cannot be told",
            file=sys.stderr,
        )
    return checkpoint


def _check_parts(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuses parts of other kinds than `distill fit` writes, which would fail later and less clearly."""
    for name, kind in PARTS.items():
        if name in checkpoint and type(checkpoint[name]) not in kind:
            raise InputError(f"{path} holds a {type(checkpoint[name]).__name__} as {name}: it is damaged, or not ours")
    if not _are_weights(checkpoint["state_dict"]):
        raise InputError(f"{path} holds something else than weights as state_dict: it is damaged, or not ours")
    trained_on(checkpoint, str(path))


def _is_said(name: str, value: Any) -> bool:
    """Whether what a data module of version 0.1 wrote is of the right kind."""
    if name == "class_names":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if name in ("mean", "std"):
        return isinstance(value, Tensor) and value.ndim == 1 and value.is_floating_point()
    if name == "held_out":
        return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()
    return name not in ("name", "fingerprint") or isinstance(value, str)


def _are_weights(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def read_config(path: str | Path) -> dict[str, Any]:
    """The run's configuration, as it stands in a checkpoint: plain data, not checked. May raise as ``read``."""
    return config_of(read(path), str(path))


def config_of(checkpoint: dict[str, Any], where: str) -> dict[str, Any]:
    """The run's configuration in a checkpoint: plain data, not checked.

    Raises:
        InputError: it has none.
    """
    config = parse_yaml(str(checkpoint.get("config") or ""), where)
    if not isinstance(config, dict):
        raise InputError(f"{where} was not written by `distill fit`, and does not say how it was made: give a --config")
    if not all(isinstance(key, str) for key in config):
        raise InputError(f"{where} has options without a name in its configuration: give a --config")
    return config


def network_weights(checkpoint: dict[str, Any], network: nn.Module | None = None) -> dict[str, Tensor]:
    """The plain network's state: what lies under ``model.``, or what a network that has ``weights_in`` says."""
    weights = checkpoint["state_dict"]
    weights_in: Any = getattr(network, "weights_in", None)
    if weights_in is not None:
        found: dict[str, Tensor] = weights_in(weights)
        return found
    return {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}


def open_network(path: str | Path, checkpoint: dict[str, Any] | None = None) -> nn.Module:
    """The plain network of a checkpoint, with its weights, in eval mode, on the CPU.

    Raises:
        InputError: see ``read``; or the network's class cannot be had, or may not be named by a file.
    """
    checkpoint = read(path) if checkpoint is None else checkpoint
    config = checkpoint["hyper_parameters"].get("network")
    if config is None:
        raise InputError(
            f"{path} does not say how to build its network (it was made in Python, not by the command): "
            "give the network by class_path and the file as its weights"
        )
    network = build_network(config, str(path), count_numbers(checkpoint["state_dict"], str(path)))
    load_weights(network, network_weights(checkpoint, network), str(path))
    return network.eval()


def build_network(config: Any, where: str, weights: int | None = None) -> nn.Module:
    """The network that a file's ``{"class_path": ..., "init_args": ...}`` describes. May raise as ``NetworkSpec.build``."""
    return NetworkSpec.of(config, where).build(where, weights)


def read_weights(path: str | Path, network: nn.Module | None = None) -> dict[str, Tensor]:
    """Weights of a plain network: from a checkpoint of ours, or a state dict as ``torch.save`` writes it.

    Raises:
        InputError: see ``read_tensors``; or the file holds something else.
    """
    content = read_tensors(path, "file of weights")
    if isinstance(content, dict) and {"state_dict", "hyper_parameters"} <= content.keys():
        _check_parts(content, path)
        return network_weights(content, network)
    if not _are_weights(content):
        raise InputError(f"{path} holds no weights: give a checkpoint of ours or a saved state dict")
    return dict(content)


def trained_on(checkpoint: dict[str, Any], where: str) -> TrainedOn | None:
    """The data that a checkpoint was trained on; None where it does not say.

    Raises:
        InputError: what it says is damaged.
    """
    content = checkpoint.get("data")
    if content is None:  # version 0.1 wrote what its data module said, under the name of its class
        old = next((v for v in checkpoint.values() if isinstance(v, dict) and {"fingerprint", "held_out"} <= v.keys()), {})
        if not old:
            return None
        content = _in_todays_form(old) if all(_is_said(name, value) for name, value in old.items()) else None
    held_out = content.get("held_out") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(held_out, Tensor) or not isinstance(content.get("info"), dict):
        raise InputError(f"{where} does not say what data it was trained on: it is damaged, or not ours")
    if held_out.ndim != 1 or held_out.is_floating_point() or held_out.is_complex():
        raise InputError(f"{where} does not say what data it was trained on: it is damaged, or not ours")
    return TrainedOn(DataInfo.from_dict(content["info"], where), held_out)


def _in_todays_form(old: dict[str, Any]) -> dict[str, Any]:
    """What version 0.1 wrote, of which each part is of the right kind."""
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

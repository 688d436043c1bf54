"""Opens a checkpoint of ours and gives the plain network, without its method.

A checkpoint is data: see ``tensor_files`` for how it is read, and ``specs`` for what it may ask to have built.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError
from distill_lightning.files import parse_yaml
from distill_lightning.specs import NetworkSpec, count_numbers
from distill_lightning.tensor_files import is_old, read_tensors, write_tensors
from distill_lightning.values import DataInfo, TrainedOn
from distill_lightning.weights import load_weights


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
        InputError: no such file, torn, or another program's.
    """
    checkpoint = read_tensors(path, "checkpoint")
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "method"} <= checkpoint.keys():
        raise InputError(f"{path} is not a checkpoint of this program: give one that `distill fit` wrote")
    if is_old(checkpoint):
        print(f"{path} was written by version 0.1, without a digest: whether it is damaged cannot be told", file=sys.stderr)
    return checkpoint


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
    return config


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
        return network_weights(content, network)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path} holds no weights: give a checkpoint of ours or a saved state dict")
    return content


def trained_on(checkpoint: dict[str, Any], where: str) -> TrainedOn | None:
    """The data that a checkpoint was trained on; None where it does not say.

    Raises:
        InputError: what it says is damaged.
    """
    if "data" in checkpoint:
        content, held_out = checkpoint["data"]["info"], checkpoint["data"]["held_out"]
    else:  # version 0.1 wrote what its data module said, under the name of its class
        old = next((v for v in checkpoint.values() if isinstance(v, dict) and {"fingerprint", "held_out"} <= v.keys()), {})
        if not old:
            return None
        held_out = old["held_out"]
        content = _in_todays_form(old)
    return TrainedOn(DataInfo.from_dict(content, where), held_out)


def _in_todays_form(old: dict[str, Any]) -> dict[str, Any]:
    share, mistaken, seed = old["noise"]
    digest = tensors_digest({"held_out": old["held_out"]}) if len(old["held_out"]) else ""
    return old | {
        "mean": old["mean"].tolist(),
        "std": old["std"].tolist(),
        "num_samples": 0,
        "noise": (share, list(mistaken.items()) if mistaken else None, seed),
        "held_out": digest,
    }


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

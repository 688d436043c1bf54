"""Opens what is exported: a run, a checkpoint or an ensemble, with the data that it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from distill_lightning import checkpoints
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.base import ImageData
from distill_lightning.data.rendering import Normaliser
from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError
from distill_lightning.methods.ensemble import Ensemble, Members
from distill_lightning.preprocessing.steps import Fitted
from distill_lightning.runs import RunConfig
from distill_lightning.runs.config import CONFIG
from distill_lightning.specs import lookup, offer, refuse_untrusted
from distill_lightning.teachers import FrozenNetwork
from distill_lightning.values import DataInfo, TrainedOn
from distill_lightning.weights import load_weights

offer(ImageData, "distill_lightning.data")
ENSEMBLE = f"{Ensemble.__module__}.{Ensemble.__name__}"
NOT_FOR_EVALUATION = ("augment", "mix", "seed", "pictures", "preprocess")
"""Options of the data that evaluation does not need."""


class PictureClassifier(nn.Module):
    """A network with the normalisation of its pictures before it, and the probabilities after it.

    Args:
        network: a network that returns logits (B, K) for normalised pictures.
        normaliser: the normalisation that it was trained with.
        preprocessing: the preprocessing that it was trained with, in the place of ``normaliser``; None for none.
        bias: (K,), added to the logits; None for no bias.
    """

    scale: Tensor
    shift: Tensor
    bias: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        normaliser: Normaliser,
        bias: Tensor | None = None,
        preprocessing: Fitted | None = None,
    ) -> None:
        super().__init__()
        self.network, self.preprocessing = network, preprocessing
        mean, std = normaliser.mean[:, None, None], normaliser.std[:, None, None]
        if preprocessing is not None:
            mean, std = torch.zeros_like(mean), torch.ones_like(std)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.register_buffer("bias", bias)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities, (B, K) float32 each, for uint8 pictures (B, C, H, W)."""
        pictures = torch.addcmul(self.shift, images.float(), self.scale)
        if self.preprocessing is not None:
            pictures = self.preprocessing(pictures)
        logits = self.network(pictures).float()
        if self.bias is not None:
            logits = logits + self.bias
        return logits, logits.softmax(1)


@dataclass(frozen=True, eq=False)
class Opened:
    """What is exported.

    Args:
        classifier: the classifier, in eval mode, on the CPU.
        info: the description of the data that it was trained on.
        trained_on: the same with the held-out samples; None for an ensemble.
        lineage: where it comes from, as plain data: run, run id, checkpoint, method, data, network.
        spec: the specification of the network; None for an ensemble, or for a network that was made in Python.
        config: the configuration of the run, as plain data that are not checked; empty if there is none.
        folder: the folder of the run; None if the checkpoint lies in no run.
        where: the run or the checkpoint, for errors.
    """

    classifier: PictureClassifier
    info: DataInfo
    trained_on: TrainedOn | None
    lineage: dict[str, Any]
    spec: dict[str, Any] | None
    config: dict[str, Any]
    folder: Path | None
    where: str

    @property
    def weights_digest(self) -> str:
        """The digest of the network's weights; of all members of an ensemble."""
        return tensors_digest(self.classifier.network.state_dict())


def open_source(path: str | Path, network: nn.Module | None = None) -> Opened:
    """Opens a run's folder (its ``last.ckpt``, or the members of an ensemble) or a checkpoint.

    Args:
        path: the folder or the file.
        network: the network, if the checkpoint does not describe it. Its weights are replaced.

    Raises:
        InputError: there is nothing that can be opened, or a file may not be built.
    """
    path = Path(path)
    if not path.is_dir():
        folder = path.resolve().parent.parent
        return _of_checkpoint(path, folder if (folder / CONFIG).is_file() else None, network)
    if not (path / CONFIG).is_file():
        raise InputError(f"{path} is no run: it has no {CONFIG}; give a run's folder or a checkpoint")
    config = RunConfig.read(path)
    if config.options["model"].get("class_path") == ENSEMBLE:
        return _of_ensemble(path, config)
    checkpoint = path / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        raise InputError(f"{path} has no weights: there is no {checkpoint.relative_to(path)}")
    return _of_checkpoint(checkpoint, path, network)


def _of_checkpoint(path: Path, folder: Path | None, network: nn.Module | None) -> Opened:
    checkpoint = checkpoints.read(path)
    trained_on = checkpoints.trained_on(checkpoint, str(path))
    if trained_on is None:
        raise InputError(f"{path} does not say what data it was trained on: the graph needs its mean and std")
    if network is None:
        network = checkpoints.open_network(path, checkpoint)
    else:
        checkpoints.put_activation(network, checkpoint, str(path))
        load_weights(network, checkpoints.network_weights(checkpoint, network), str(path))
    config = checkpoints.config_of(checkpoint, str(path)) if checkpoint.get("config") else {}
    info, spec = trained_on.info, checkpoint["hyper_parameters"].get("network")
    lineage = _lineage(config, info, folder, path.name, type(network).__name__)
    lineage |= {"epoch": checkpoint.get("epoch"), "step": checkpoint.get("global_step")}
    if activation := checkpoint["hyper_parameters"].get("activation"):
        lineage["activation"] = activation
    classifier = PictureClassifier(
        network, normaliser_of(info), _bias(config, info, str(path)), trained_on.preprocessing
    )
    return Opened(classifier, info, trained_on, lineage, spec, config, folder, str(path))


def _of_ensemble(folder: Path, config: RunConfig) -> Opened:
    """The graph of an ensemble. Each member gets the normalisation that it was trained with, as in the method."""
    arguments = config.options["model"].get("init_args") or {}
    refuse_untrusted({"members": arguments.get("members")}, {"members": list[str | PlainNetwork]}, str(folder / CONFIG))
    paths = arguments.get("members")
    if not isinstance(paths, list) or not paths or not all(isinstance(one, str) for one in paths):
        raise InputError(f"{folder} has members that are no checkpoints of this program: only these can be exported")
    opened = [_of_checkpoint(Path(one), None, None) for one in paths]
    info = opened[0].info
    for one in opened[1:]:
        if (one.info.class_names, one.info.shape) != (info.class_names, info.shape):
            raise InputError(f"{one.where} has other classes or pictures than {opened[0].where}: they must be the same")
    given = normaliser_of(info)
    frozen = [
        FrozenNetwork(one.classifier.network, given, normaliser_of(one.info), one.classifier.preprocessing)
        for one in opened
    ]
    members = Members(list(frozen), "probs" if arguments.get("average") == "probs" else "logits")
    names = {type(one.classifier.network).__name__ for one in opened}
    lineage = _lineage(config.options, info, folder, None, f"{len(opened)} x {' + '.join(sorted(names))}")
    lineage["members"] = [
        {"run": Path(one).resolve().parent.parent.name, "checkpoint": Path(one).name, "weights_digest": member.digest}
        for one, member in zip(paths, frozen, strict=True)
    ]
    classifier = PictureClassifier(members, given, _bias(config.options, info, str(folder)))
    return Opened(classifier, info, None, lineage, None, config.options, folder, str(folder))


def normaliser_of(info: DataInfo) -> Normaliser:
    """The normalisation of the data."""
    return Normaliser(torch.tensor(info.mean), torch.tensor(info.std))


def _lineage(
    config: Mapping[str, Any], info: DataInfo, folder: Path | None, checkpoint: str | None, network: str
) -> dict[str, Any]:
    method = str((config.get("model") or {}).get("class_path") or "").rpartition(".")[2]
    run_id = RunConfig.read(folder).id() if folder is not None else None
    return {
        "run": None if folder is None else folder.resolve().name,
        "run_id": run_id,
        "checkpoint": checkpoint,
        "method": method or None,
        "data": info.name,
        "network": network,
        "seed": config.get("seed_everything"),
    }


def _bias(config: Mapping[str, Any], info: DataInfo, where: str) -> Tensor | None:
    """The run's ``class_bias``, (K,), which evaluation and prediction add to the logits; None if it has none."""
    given = ((config.get("model") or {}).get("init_args") or {}).get("class_bias")
    if not given:
        return None
    bias = torch.zeros(info.num_classes)
    for name, value in given.items():
        if str(name) not in info.class_names or not isinstance(value, int | float):
            raise InputError(f"{where} has a class_bias for {name!r}, which is no class of {info.name}")
        bias[info.class_names.index(str(name))] = value
    return bias


def open_data(opened: Opened, root: str | None = None) -> ImageData:
    """The data of a run, read: the parts for training, validation and test.

    Args:
        opened: what is exported.
        root: the folder of the data, if it is not the one in the run's configuration.

    Raises:
        InputError: the configuration names no data that a file may use, or they cannot be read.
    """
    spec, where = opened.config.get("data"), opened.where
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        raise InputError(f"{where} does not say which data it was trained on: export it in Python, with data=...")
    found = lookup(spec["class_path"], ImageData)
    left_out = {*NOT_FOR_EVALUATION, *getattr(found, "writes_to", ())}
    arguments = {k: v for k, v in (spec.get("init_args") or {}).items() if k not in left_out}
    spec = {"class_path": spec["class_path"], "init_args": arguments}
    refuse_untrusted({"data": spec}, {"data": ImageData}, where)
    if root is not None:
        arguments["root"] = root
    given = arguments.get("root")
    if given and hasattr(found, "dataset") and not Path(given).exists():  # it would be downloaded to that folder
        raise InputError(f"{given}, the folder of the run's pictures, does not exist: give --root")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    config = parser.parse_object({"data": spec})
    data: ImageData = parser.instantiate_classes(config).data
    check_shape(data, opened)
    data.trained_on = opened.trained_on
    data.setup("test")
    if data.test is None:
        data.setup("fit")
    return data


def check_shape(data: ImageData, opened: Opened) -> None:
    """Checks that pictures and classes are those that the network was trained on.

    Raises:
        InputError: they are not.
    """
    shape = (data.channels, data.image_size, data.image_size)
    if shape != opened.info.shape or tuple(data.class_names) != opened.info.class_names:
        raise InputError(f"{data.name} has other classes or pictures than {opened.where} was trained on: give its data")

"""Opens what is exported: a run, a checkpoint or an ensemble, with the data that it was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning import checkpoints
from distill_lightning.data.base import ImageData
from distill_lightning.data.rendering import Normaliser
from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError
from distill_lightning.exporting.members import members_of, plain_network
from distill_lightning.exporting.run_data import Evaluation, evaluation_of, found_from, home_of, read_data
from distill_lightning.methods.ensemble import Ensemble, Members
from distill_lightning.models.outputs import main_output
from distill_lightning.preprocessing.steps import Fitted
from distill_lightning.runs import RunConfig
from distill_lightning.runs.config import CONFIG, MADE_IN_PYTHON
from distill_lightning.teachers import FrozenNetwork
from distill_lightning.values import DataInfo, TrainedOn
from distill_lightning.weights import load_weights

ENSEMBLE = f"{Ensemble.__module__}.{Ensemble.__name__}"
MEAN_AND_STD = (
    "it says how the members' pictures are normalised: go to the folder of the run, or give them mean and std"
)
Networks = nn.Module | Sequence[nn.Module] | None
"""Networks that were made in Python: one or, for the members of an ensemble, several."""


class PictureClassifier(nn.Module):
    """A network with the normalisation of its pictures before it, and the probabilities after it.

    Args:
        network: a network that returns logits (B, K) for normalised pictures.
        normaliser: the normalisation that it was trained with.
        bias: (K,), added to the logits; None for no bias.
        preprocessing: the preprocessing that it was trained with; None for none.
        evaluation: what evaluation does with a picture before the network gets it.
    """

    scale: Tensor
    shift: Tensor
    bias: Tensor | None
    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        normaliser: Normaliser,
        bias: Tensor | None = None,
        preprocessing: Fitted | None = None,
        evaluation: Evaluation | None = None,
    ) -> None:
        super().__init__()
        self.network, self.evaluation = network, evaluation or Evaluation()
        self.preprocessing = preprocessing
        mean, std = normaliser.mean[:, None, None], normaliser.std[:, None, None]
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.register_buffer("bias", bias)
        self.register_buffer("mean", None if preprocessing is None else mean)
        self.register_buffer("std", None if preprocessing is None else std)
        self.eval().requires_grad_(False)

    @property
    def name(self) -> str:
        """The class of the network, or of the members of an ensemble, for errors."""
        if isinstance(self.network, Members):
            names = {type(getattr(member, "network", member)).__name__ for member in self.network.members}
            return f"the ensemble of {' + '.join(sorted(names))}"
        return type(self.network).__name__

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities, (B, K) float32 each, for uint8 pictures (B, C, H, W)."""
        crop, views = self.evaluation.crop, self.evaluation.views
        if crop is not None:
            images = crop.cropped(images)
        normalised = torch.addcmul(self.shift, images.float(), self.scale)
        if views is None:
            logits = self._logits(normalised)
        elif isinstance(self.network, Members):  # in this order, because probabilities may be averaged
            each = [self.network.each(self._preprocessed(view)) for view in views(normalised)]
            logits = self.network.of_first(torch.stack(each).mean(0))[-1].float()
        else:
            logits = torch.stack([self._logits(view) for view in views(normalised)]).mean(0)
        if self.bias is not None:
            logits = logits + self.bias
        return logits, logits.softmax(1)

    def shown(self, images: Tensor) -> Tensor:
        """The part of uint8 pictures (B, C, H, W) that evaluation shows to the network, as uint8 (B, C, H', W')."""
        return images if self.evaluation.crop is None else self.evaluation.crop.cropped(images)

    def input_of(self, shown: Tensor) -> Tensor:
        """What the network gets for pictures of ``shown``: normalised and preprocessed, as float32, without views."""
        return self._preprocessed(torch.addcmul(self.shift, shown.float(), self.scale))

    def _preprocessed(self, normalised: Tensor) -> Tensor:
        if self.preprocessing is not None and self.mean is not None and self.std is not None:
            normalised = self.preprocessing(torch.addcmul(self.mean, normalised, self.std))
        return normalised

    def _logits(self, normalised: Tensor) -> Tensor:
        logits: Tensor = main_output(self.network(self._preprocessed(normalised))).float()
        return logits


@dataclass(frozen=True, eq=False)
class Opened:
    """What is exported.

    Args:
        classifier: the classifier, in eval mode, on the CPU.
        info: the description of the data that it was trained on.
        trained_on: the same with the held-out samples; None for an ensemble.
        lineage: where it comes from, as plain data: run, run id, checkpoint, method, data, network, use_ema.
        spec: the specification of the network; None for an ensemble, or for a network that was made in Python.
        config: the configuration of the run, as plain data that are not checked; empty if there is none.
        folder: the folder of the run; None if the checkpoint lies in no run.
        home: the folder that the relative paths of the run begin in.
        where: the run or the checkpoint, for errors.
    """

    classifier: PictureClassifier
    info: DataInfo
    trained_on: TrainedOn | None
    lineage: dict[str, Any]
    spec: dict[str, Any] | None
    config: dict[str, Any]
    folder: Path | None
    home: Path
    where: str

    @property
    def weights_digest(self) -> str:
        """The digest of the network's weights; of all members of an ensemble."""
        return tensors_digest(self.classifier.network.state_dict())


def open_source(path: str | Path, network: Networks = None, use_ema: bool = False, root: str | None = None) -> Opened:
    """Opens a run's folder (its ``last.ckpt``, or the members of an ensemble) or a checkpoint.

    Args:
        path: the folder or the file.
        network: the network, if the checkpoint does not describe it. Its weights are replaced. For an ensemble, the
            networks of the members that were made in Python, in their order.
        use_ema: whether the network gets the weights that the callback EMA has averaged.
        root: the folder of the data of an ensemble, if it is not the one in its configuration. They are read only if
            the members do not say how their pictures are normalised.

    Raises:
        InputError: there is nothing that can be opened, or a file may not be built.
    """
    path = Path(path)
    if not path.is_dir():
        folder = path.resolve().parent.parent
        return _of_checkpoint(path, folder if (folder / CONFIG).is_file() else None, _single(network, path), use_ema)
    if not (path / CONFIG).is_file():
        raise InputError(f"{path} is no run: it has no {CONFIG}; give a run's folder or a checkpoint")
    config = RunConfig.read(path)
    if config.options["model"].get("class_path") == ENSEMBLE:
        if use_ema:
            raise InputError(f"{path} is an ensemble, which has no averaged weights of its own: leave use_ema out")
        several = [] if network is None else [network] if isinstance(network, nn.Module) else [*network]
        return _of_ensemble(path, config, several, root)
    checkpoint = path / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        raise InputError(f"{path} has no weights: there is no {checkpoint.relative_to(path)}")
    return _of_checkpoint(checkpoint, path, _single(network, path), use_ema)


def _single(network: Networks, path: Path) -> nn.Module | None:
    if network is None or isinstance(network, nn.Module):
        return network
    raise InputError(f"{path} is no ensemble: give one network, not {len(network)}")


def _of_checkpoint(path: Path, folder: Path | None, network: nn.Module | None, use_ema: bool = False) -> Opened:
    checkpoint = checkpoints.read(path)
    if use_ema:
        checkpoint = checkpoints.with_averaged_weights(checkpoint, str(path))
    trained_on = checkpoints.trained_on(checkpoint, str(path))
    if trained_on is None:
        raise InputError(f"{path} does not say what data it was trained on: the graph needs its mean and std")
    if network is None:
        network = checkpoints.open_network(path, checkpoint)
    else:
        checkpoints.put_activation(network, checkpoint, str(path))
        load_weights(network, checkpoints.network_weights(checkpoint, network), str(path))
    config = checkpoints.config_of(checkpoint, str(path)) if checkpoint.get("config") else {}
    checkpoints.say_if_reestimated(config, str(path))
    info, spec = trained_on.info, checkpoint["hyper_parameters"].get("network")
    lineage = _lineage(config, info, folder, path.name, type(network).__name__)
    lineage |= {"epoch": checkpoint.get("epoch"), "step": checkpoint.get("global_step"), "use_ema": use_ema}
    if activation := checkpoint["hyper_parameters"].get("activation"):
        lineage["activation"] = activation
    bias, evaluation = _bias(config, info, str(path)), evaluation_of(config, str(path))
    classifier = PictureClassifier(network, normaliser_of(info), bias, trained_on.preprocessing, evaluation)
    return Opened(classifier, info, trained_on, lineage, spec, config, folder, home_of(folder, config), str(path))


def _of_ensemble(folder: Path, config: RunConfig, made: Sequence[nn.Module], root: str | None) -> Opened:
    """The graph of an ensemble. Each member gets the normalisation that it was trained with, as in the method."""
    options, where = config.options, str(folder)
    arguments, home = options["model"].get("init_args") or {}, home_of(folder, config.options)
    members = members_of(arguments.get("members"), options.get(MADE_IN_PYTHON) or {}, made, where)
    opened = [
        _of_checkpoint(Path(found_from(home, one)), None, None)
        if isinstance(one, str)
        else plain_network(one, where, home)
        for one in members
    ]
    of_checkpoints = [one for one in opened if isinstance(one, Opened)]
    is_known = of_checkpoints and all(isinstance(one, Opened) or None not in (one.mean, one.std) for one in opened)
    info = of_checkpoints[0].info if is_known else read_data(options, where, home, None, root, MEAN_AND_STD).info
    for other in of_checkpoints:
        if (other.info.class_names, other.info.shape) != (info.class_names, info.shape):
            raise InputError(f"{other.where} has other classes or pictures than {where}: they must be the same")
    given = normaliser_of(info)
    frozen = [
        FrozenNetwork(one.classifier.network, given, normaliser_of(one.info), one.classifier.preprocessing)
        if isinstance(one, Opened)
        else FrozenNetwork.of_plain(one, given)
        for one in opened
    ]
    together = Members(list(frozen), "probs" if arguments.get("average") == "probs" else "logits")
    names = {type(member.network).__name__ for member in frozen}
    lineage = _lineage(options, info, folder, None, f"{len(opened)} x {' + '.join(sorted(names))}")
    lineage["members"] = [
        (_place_of(one) if isinstance(one, str) else {"network": type(member.network).__name__})
        | {"weights_digest": member.digest}
        for one, member in zip(members, frozen, strict=True)
    ]
    evaluation = evaluation_of(options, where)
    classifier = PictureClassifier(together, given, _bias(options, info, where), evaluation=evaluation)
    return Opened(classifier, info, None, lineage, None, options, folder, home, where)


def _place_of(checkpoint: str) -> dict[str, str]:
    return {"run": Path(checkpoint).resolve().parent.parent.name, "checkpoint": Path(checkpoint).name}


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
    """The data of what is exported, see ``read_data``."""
    return read_data(opened.config, opened.where, opened.home, opened.trained_on, root)


def check_shape(data: ImageData, opened: Opened) -> None:
    """Checks that pictures and classes are those that the network was trained on.

    Raises:
        InputError: they are not.
    """
    shape = (data.channels, data.image_size, data.image_size)
    if shape != opened.info.shape or tuple(data.class_names) != opened.info.class_names:
        raise InputError(f"{data.name} has other classes or pictures than {opened.where} was trained on: give its data")

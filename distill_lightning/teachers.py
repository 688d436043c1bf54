"""Trained networks without training: teachers, and the members of an ensemble."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning import checkpoints
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.base import ImageData
from distill_lightning.data.provenance import refuse_seen
from distill_lightning.data.rendering import Normaliser
from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError
from distill_lightning.features import ALL_STAGES, Features, layer_shapes, layers_of
from distill_lightning.models.outputs import input_type, main_output
from distill_lightning.preprocessing.steps import Fitted
from distill_lightning.values import Reading, TeacherOutput, TrainedOn

if TYPE_CHECKING:
    TrainedNetwork = str | Path | PlainNetwork | nn.Module
else:
    # the parser of the command would turn each path of a YAML into a Path, which config.yaml cannot hold
    TrainedNetwork = str | PlainNetwork | nn.Module
"""A trained network: the path of a run's folder or of a checkpoint, or a network that has its weights."""


OPTIONS = {
    "teacher": "--trainer.callbacks.teacher",
    "member": "--model.members",
    "generalist": "--model.generalist",
    "specialist": "--model.specialists",
}
"""The option that gives a network, by its role."""


def as_list(given: TrainedNetwork | list[TrainedNetwork] | None) -> list[str | PlainNetwork | nn.Module]:
    """Trained networks as a list, with paths as texts; empty for None."""
    many = given if isinstance(given, list) else [] if given is None else [given]
    return [str(one) if isinstance(one, Path) else one for one in many]


class FrozenNetwork(nn.Module):
    """A network in eval mode that converts its input to the normalisation that it was trained with.

    Args:
        network: a network that returns logits (B, K).
        given: the normalisation of its input pictures.
        own: the normalisation that it was trained with. If it or ``given`` is None, the input is not converted.
        preprocessing: the preprocessing that it was trained with, in the place of ``own``; None for none.
        image_size: the side of the pictures that it was trained on, in pixels, if it differs from that of ``given``.
            Pictures are resized to it: bilinear, with antialiasing where they get smaller.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        given: Normaliser | None = None,
        own: Normaliser | None = None,
        preprocessing: Fitted | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.digest = tensors_digest(self.network.state_dict())
        self.preprocessing, self.image_size = preprocessing, image_size
        self.trained_on: TrainedOn | None = None
        """What its checkpoint says of the data that it was trained on; None if it says nothing, or there is none."""
        if image_size is not None:
            self.digest += f" at {image_size}x{image_size}"
        scale = shift = None
        if preprocessing is not None and given is not None:
            self.digest += f" {preprocessing.digest}"
            scale, shift = given.std[:, None, None], given.mean[:, None, None]
        elif own and given and not (torch.equal(own.mean, given.mean) and torch.equal(own.std, given.std)):
            scale = (given.std / own.std)[:, None, None]
            shift = ((given.mean - own.mean) / own.std)[:, None, None]
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    @classmethod
    def open(
        cls,
        given: str | PlainNetwork | nn.Module,
        data: ImageData,
        role: Literal["teacher", "member", "generalist", "specialist"],
        same_classes: bool = True,
    ) -> "FrozenNetwork":
        """Opens the checkpoint of any method, or uses a network that has its weights already.

        Args:
            given: the path of a checkpoint, or a network. A network without a normalisation of its own gets the
                pictures as they are.
            data: the data that the network is used on; after ``setup``.
            role: the word for the network in error messages.
            same_classes: whether the network must have the classes of the data.

        Raises:
            InputError: the file cannot be opened, the network has other channels or classes than ``data``, it cannot
                take the pictures, or it was trained on validation pictures of ``data``.
        """
        if isinstance(given, nn.Module):
            given = PlainNetwork(given)
        who = f"the {role} {given if isinstance(given, str) else type(given.network).__name__}"
        normaliser = data.normaliser
        assert normaliser is not None
        preprocessing = image_size = trained_on = None
        if isinstance(given, str):
            network, trained_on = _open_checkpoint(given, role)
            own = None
            if trained_on is not None:
                own = Normaliser(torch.tensor(trained_on.info.mean), torch.tensor(trained_on.info.std))
                preprocessing = trained_on.preprocessing
                _check_data(trained_on, data, who, same_classes)
                if role == "teacher":
                    image_size = trained_on.info.image_size
        else:
            network, own, image_size = _copied(given.network), _normaliser_of(given, normaliser), given.image_size
        if image_size == data.image_size:
            image_size = None
        if own is not None and not len(own.mean) == len(own.std) == data.channels:
            raise InputError(f"{who} was trained on {len(own.mean)} channels, {data.name} has {data.channels}")
        _check_classes(network, data, image_size or data.image_size, who, same_classes)
        opened = cls(network, normaliser, own, preprocessing, image_size)
        opened.trained_on = trained_on
        return opened

    @classmethod
    def of_plain(cls, plain: PlainNetwork, given: Normaliser) -> "FrozenNetwork":
        """A network that has its weights. What it does not say of its normalisation is that of ``given``."""
        return cls(plain.network, given, _normaliser_of(plain, given), image_size=plain.image_size)

    def shape_of(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape (C, H, W) that the network gets a picture of this shape in."""
        return shape if self.image_size is None else (shape[0], self.image_size, self.image_size)

    def train(self, mode: bool = True) -> "FrozenNetwork":
        """Keeps eval mode, also when a module that contains this one is set to training mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) float32 for pictures (B, C, H, W) that are normalised with ``given``."""
        if self.image_size is not None:  # normalised or not: resizing and normalising commute
            size = (self.image_size, self.image_size)
            resized = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
            images = resized.to(images.dtype)
        if self.scale is not None and self.shift is not None:
            converted = torch.addcmul(self.shift, images.float(), self.scale)
            if self.preprocessing is not None:
                converted = self.preprocessing(converted)
            images = converted.to(images.dtype)
        logits: Tensor = main_output(self.network(images)).float()
        return logits


class Teachers:
    """Teachers whose answer is the mean of their logits.

    Args:
        members: the teachers, 1 or more.
    """

    def __init__(self, members: list[FrozenNetwork]) -> None:
        self.members = members
        self._features: Features | None = None
        self._watched: FrozenNetwork | None = None
        self._reading: Reading | None = None

    @classmethod
    def of_plain(cls, given: list[str | PlainNetwork | nn.Module]) -> "Teachers":
        """Teachers for pictures whose normalisation is not known: each gets the pictures as they are.

        Raises:
            InputError: a file cannot be opened, or a teacher has a normalisation of its own.
        """
        members = []
        for one in given:
            if isinstance(one, PlainNetwork) and (one.mean is not None or one.std is not None):
                raise InputError(
                    "the teacher has a mean or std of its own, but how plain batches are normalised is not known: "
                    "leave mean and std out, and normalise for the teacher"
                )
            plain = one.network if isinstance(one, PlainNetwork) else one
            network, trained_on = (
                _open_checkpoint(plain, "teacher") if isinstance(plain, str) else (_copied(plain), None)
            )
            if trained_on is not None and trained_on.preprocessing is not None:
                raise InputError(
                    f"the teacher {one} needs {trained_on.preprocessing.words}, but how plain batches are normalised "
                    "is not known: use a data module of distill_lightning"
                )
            members.append(FrozenNetwork(network))
        return cls(members)

    def prepare(self, trainer: pl.Trainer) -> None:
        """Moves the teachers to the trainer's device, in its precision."""
        self.precision = trainer.precision_plugin
        watched = [] if self._watched is None or self._watched in self.members else [self._watched]
        for member in [*self.members, *watched]:
            member.to(trainer.strategy.root_device)
            member.network = self.precision.convert_module(member.network)

    def watch(
        self, layers: Sequence[str] | None, shape: tuple[int, int, int], batch_statistics: bool = False
    ) -> list[tuple[int, ...]]:
        """From now on, ``answer`` also gives features; see ``TeacherGiver.watch``.

        Raises:
            InputError: there are several teachers, or the teacher has no such layers.
        """
        self.unwatch()
        watched = self._single()
        if batch_statistics:  # a copy: the teacher itself may be asked elsewhere
            watched = copy.deepcopy(watched)
        network, shape = watched.network, watched.shape_of(shape)
        layers = layers_of(network, [ALL_STAGES] if layers is None else layers)
        shapes = layer_shapes(network, layers, shape)
        self._features, self._watched = Features(network, layers, True, shape), watched
        if batch_statistics:  # after the passes of a single picture, whose statistics may not exist
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.running_mean = module.running_var = None
        return shapes

    def read(self, reading: Reading | None) -> None:
        """From now on, ``answer`` gives what is read of the features; see ``TeacherGiver.read``."""
        self._reading = reading

    def copied(self, shape: tuple[int, int, int]) -> tuple[nn.Module, tuple[int, int, int]]:
        """See ``TeacherGiver.copy_of_teacher``."""
        teacher = self._single()
        return copy.deepcopy(teacher.network).cpu(), teacher.shape_of(shape)

    def _single(self) -> FrozenNetwork:
        if len(self.members) != 1:
            raise InputError(f"features are those of one teacher, and there are {len(self.members)}: give one")
        return self.members[0]

    def unwatch(self) -> None:
        """Takes the hooks off the teacher."""
        if self._features is not None:
            self._features.remove()
        self._features = self._watched = self._reading = None

    @torch.no_grad()
    def answer(self, images: Tensor) -> TeacherOutput:
        """Logits for pictures (B, C, H, W) and, if some are watched, features or what is read of them. It takes one
        forward pass, without gradient. Needs ``prepare``.
        """
        # no_grad, not inference_mode: losses save what they multiply with it
        if self._features is None or self._watched is None:
            return TeacherOutput(self.logits(images))
        logits, features = self._logits([self._watched], images).mean(0), self._features.take()
        return TeacherOutput(logits, features if self._reading is None else tuple(self._reading.read(features)))

    def of_each(self, images: Tensor) -> TeacherOutput:
        """The logits of each teacher, and their mean, for pictures (B, C, H, W). Needs ``prepare``."""
        members = self._logits(self.members, images)
        return TeacherOutput(members.mean(0), members=members)

    def logits(self, images: Tensor) -> Tensor:
        """The mean of the logits, (B, K) float32, for pictures (B, C, H, W). Needs ``prepare``."""
        return self._logits(self.members, images).mean(0)

    @torch.no_grad()
    def _logits(self, members: Sequence[FrozenNetwork], images: Tensor) -> Tensor:
        images = self.precision.convert_input(images)
        with self.precision.forward_context():
            return torch.stack([member(images) for member in members])


def _normaliser_of(plain: PlainNetwork, given: Normaliser) -> Normaliser:
    return Normaliser(given.mean if plain.mean is None else plain.mean, given.std if plain.std is None else plain.std)


def _copied(network: nn.Module) -> nn.Module:
    """A copy of a user's network. A frozen network is frozen, and may be moved or rounded to the precision of a run."""
    try:
        return copy.deepcopy(network)
    except (RuntimeError, TypeError):  # torch's old weight_norm keeps a tensor that cannot be copied
        return network


def _open_checkpoint(path: str, role: str) -> tuple[nn.Module, TrainedOn | None]:
    if not Path(path).exists():
        raise InputError(
            f"there is no {role} {path}: train it first (the first line of its YAML says how), "
            f"or give another one with {OPTIONS[role]}"
        )
    checkpoint = checkpoints.read(path)
    return checkpoints.open_network(path, checkpoint), checkpoints.trained_on(checkpoint, path)


def _check_data(trained_on: TrainedOn, data: ImageData, who: str, same_classes: bool) -> None:
    theirs, ours = trained_on.info.class_names, tuple(data.class_names)
    if same_classes and theirs != ours:
        odd = [a for a, b in zip(theirs, ours, strict=False) if a != b] or [*theirs[len(ours) :], "none more"]
        raise InputError(
            f"{who} was trained on other classes: {trained_on.info.name} has {len(theirs)}, {data.name} has "
            f"{len(ours)}, and the first difference is {odd[0]}: the classes must be the same"
        )
    refuse_seen(data.info, data.held_out, trained_on, who)


@torch.no_grad()
def _check_classes(network: nn.Module, data: ImageData, image_size: int, who: str, same_classes: bool) -> None:
    blank = torch.zeros(1, data.channels, image_size, image_size).to(*input_type(network))
    try:
        logits = main_output(network.eval()(blank))
    except Exception as error:
        size = f"{data.channels}x{image_size}x{image_size}"
        raise InputError(f"{who} cannot take pictures of {size}: use one that was trained on this data") from error
    if same_classes and logits.shape != (1, data.num_classes):
        raise InputError(
            f"{who} has {logits.shape[-1]} classes, {data.name} has {data.num_classes}: they must be the same"
        )
    if not bool(logits.isfinite().all()):
        raise InputError(f"{who} gives logits that are not finite: train it again, with a smaller learning rate")

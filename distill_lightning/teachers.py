"""Trained networks, opened for use on some data: teachers, and the members of an ensemble."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from distill_lightning import checkpoints
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.base import ImageData
from distill_lightning.data.provenance import refuse_seen
from distill_lightning.data.rendering import Normaliser
from distill_lightning.digests import tensors_digest
from distill_lightning.errors import InputError
from distill_lightning.values import TrainedOn


class FrozenNetwork(nn.Module):
    """A network that stays in eval mode, with the normalisation that it was trained with.

    Args:
        network: gives logits (B, K).
        given: the normalisation of the pictures that it will be given.
        own: the one that it was trained with; None for the same.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, network: nn.Module, given: Normaliser, own: Normaliser | None = None) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.digest = tensors_digest(self.network.state_dict())
        same = own is None or (torch.equal(own.mean, given.mean) and torch.equal(own.std, given.std))
        self.register_buffer("scale", None if same or own is None else (given.std / own.std)[:, None, None])
        self.register_buffer(
            "shift", None if same or own is None else ((given.mean - own.mean) / own.std)[:, None, None]
        )

    @classmethod
    def open(cls, given: str | PlainNetwork, data: ImageData, role: Literal["teacher", "member"]) -> "FrozenNetwork":
        """Opens a checkpoint of any method here, or takes a network with weights.

        Args:
            given: which.
            data: what it is to be used on.
            role: what the errors call it.

        Raises:
            InputError: it cannot be opened, has other classes, or has seen the validation pictures of ``data``.
        """
        who = f"the {role} {given if isinstance(given, str) else type(given.network).__name__}"
        normaliser = data.normaliser
        assert normaliser is not None
        if isinstance(given, str):
            network, trained_on = _open_checkpoint(given, role)
            own = None
            if trained_on is not None:
                own = Normaliser(torch.tensor(trained_on.info.mean), torch.tensor(trained_on.info.std))
                _check_data(trained_on, data, who)
        else:
            network = given.network
            mean = normaliser.mean if given.mean is None else given.mean
            own = Normaliser(mean, normaliser.std if given.std is None else given.std)
        if own is not None and not len(own.mean) == len(own.std) == data.channels:
            raise InputError(f"{who} was trained on {len(own.mean)} channels, {data.name} has {data.channels}")
        _check_classes(network, data, who)
        return cls(network, normaliser, own)

    def train(self, mode: bool = True) -> "FrozenNetwork":
        """Stays in eval mode, whatever it is part of."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), float32, for pictures (B, C, H, W) in the given normalisation."""
        if self.scale is not None and self.shift is not None:
            images = torch.addcmul(self.shift, images.float(), self.scale).to(images.dtype)
        logits: Tensor = self.network(images)
        return logits.float()


def _open_checkpoint(path: str, role: str) -> tuple[nn.Module, TrainedOn | None]:
    if not Path(path).is_file():
        option = "--trainer.callbacks.teacher" if role == "teacher" else "--model.members"
        raise InputError(
            f"there is no {role} {path}: train it first, as the first line of a YAML that needs one says, or give "
            f"another with {option}"
        )
    checkpoint = checkpoints.read(path)
    return checkpoints.open_network(path, checkpoint), checkpoints.trained_on(checkpoint, path)


def _check_data(trained_on: TrainedOn, data: ImageData, who: str) -> None:
    theirs, ours = trained_on.info.class_names, tuple(data.class_names)
    if theirs != ours:
        odd = [a for a, b in zip(theirs, ours, strict=False) if a != b] or [*theirs[len(ours) :], "none more"]
        raise InputError(
            f"{who} was trained on other classes: {len(theirs)} of {trained_on.info.name}, with {odd[0]} where "
            f"{data.name} has another of its {len(ours)}: the classes must be the same"
        )
    refuse_seen(data.info, data.held_out, trained_on, who)


@torch.no_grad()
def _check_classes(network: nn.Module, data: ImageData, who: str) -> None:
    blank = torch.zeros(1, data.channels, data.image_size, data.image_size)
    try:
        logits = network.eval()(blank)
    except RuntimeError as error:
        size = f"{data.channels}x{data.image_size}x{data.image_size}"
        raise InputError(f"{who} cannot take pictures of {size}: use one for this data") from error
    if logits.shape != (1, data.num_classes):
        raise InputError(f"{who} has {logits.shape[-1]} classes, {data.name} has {data.num_classes}: they must be the same")

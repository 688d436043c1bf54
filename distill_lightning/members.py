"""Trained networks, opened for use on some data: teachers, and the members of an ensemble."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill_lightning import checkpoints
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.soft_targets import weights_digest


class Member(nn.Module):
    """A frozen network in eval mode, with the normalisation that it was trained with.

    Args:
        given: a checkpoint of any method here, or a network with weights.
        data: what it is to be used on.
        role: what the errors call it.

    Raises:
        InputError: it cannot be opened, has other classes, or has seen the validation pictures of ``data``.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, given: str | PlainNetwork, data: ImageData, role: Literal["teacher", "member"]) -> None:
        super().__init__()
        self.who = f"the {role} {given if isinstance(given, str) else type(given.network).__name__}"
        mean, std = None, None
        if isinstance(given, str):
            if not Path(given).is_file():
                how = "as the first line of a YAML that needs one says, or give another with "
                how += "--trainer.callbacks.teacher" if role == "teacher" else "--model.members"
                raise InputError(f"there is no {role} {given}: train it first, {how}")
            checkpoint = checkpoints.read(given)
            self.network = checkpoints.open_network(given, checkpoint)
            said = checkpoints.data_of(checkpoint)
            mean, std = said.get("mean"), said.get("std")
            self._check_data(said, data)
        else:
            self.network, mean, std = given.network, given.mean, given.std
        self.network.eval().requires_grad_(False)
        self.digest = weights_digest(self.network.state_dict())
        mean = data.mean if mean is None else mean
        std = data.std if std is None else std
        if len(mean) != data.channels or len(std) != data.channels:
            raise InputError(f"{self.who} was trained on {len(mean)} channels, {data.name} has {data.channels}")
        same = torch.equal(mean, data.mean) and torch.equal(std, data.std)
        self.register_buffer("scale", None if same else (data.std / std)[:, None, None])
        self.register_buffer("shift", None if same else ((data.mean - mean) / std)[:, None, None])
        self._check_classes(data)

    def _check_data(self, said: dict[str, Any], data: ImageData) -> None:
        theirs, ours = said.get("class_names", data.class_names), data.class_names
        if theirs != ours:
            odd = [a for a, b in zip(theirs, ours, strict=False) if a != b] or theirs[len(ours) :] or ["none more"]
            raise InputError(
                f"{self.who} was trained on other classes: {len(theirs)} of {said['name']}, with "
                f"{odd[0]} where {data.name} has another of its {len(ours)}: the classes must be the same"
            )
        data.refuse_seen(said, self.who)

    @torch.no_grad()
    def _check_classes(self, data: ImageData) -> None:
        blank = torch.zeros(1, data.channels, data.image_size, data.image_size)
        try:
            logits = self.network(blank)
        except RuntimeError as error:
            size = f"{data.channels}x{data.image_size}x{data.image_size}"
            raise InputError(f"{self.who} cannot take pictures of {size}: use one for this data") from error
        if logits.shape != (1, data.num_classes):
            raise InputError(
                f"{self.who} has {logits.shape[-1]} classes, {data.name} has {data.num_classes}: they must be the same"
            )

    def train(self, mode: bool = True) -> "Member":
        """Stays in eval mode, whatever it is part of."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), float32, for pictures (B, C, H, W) that ``data`` normalised."""
        if self.scale is not None:
            images = torch.addcmul(self.shift, images.float(), self.scale).to(images.dtype)
        return self.network(images).float()

"""Makes the input of the network from stored pictures: augmentation, mixing, normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill_lightning.data.augment import Draws, Transform, augment
from distill_lightning.data.mixing import Mixing
from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.random_crops import RandomResizedCrop
from distill_lightning.pillow_decoding import ChooseBox
from distill_lightning.seeds import MIX


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Normalises pictures: (x / 255 - mean) / std for each channel.

    Args:
        mean, std: (C,) float32, in units of full scale (255).
    """

    mean: Tensor
    std: Tensor
    _on_device: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to float32 (B, C, H, W)."""
        if images.device not in self._on_device:
            mean, std = (x.to(images.device)[:, None, None] for x in (self.mean, self.std))
            self._on_device[images.device] = 1 / (255 * std), -mean / std
        scale, shift = self._on_device[images.device]
        return torch.addcmul(shift, images.float(), scale)

    def undone(self, images: Tensor) -> Tensor:
        """Normalised pictures in units of full scale: float32 (B, C, H, W), from 0 for black to 1 for white."""
        mean, std = (x.to(images.device)[:, None, None] for x in (self.mean, self.std))
        return torch.addcmul(mean, images.float(), std)


@dataclass(frozen=True, eq=False)
class Renderer:
    """Makes the training pictures of a plan. The result for a picture is a function of (seed, view, index).

    Args:
        normaliser: normalises the pictures.
        transforms: the transforms of augmentation, in order.
        mixing: mixes pictures after augmentation; None for no mixing.
        seed: the seed of all random numbers.
        views_per_epoch: the number of views of a sample in an epoch; all of them have the same partner and share.
        taken: (n,) int64, the positions of the training samples, from which partners are drawn.
        from_files: whether the pictures are decoded when they are needed. If RandomResizedCrop is the first transform,
            its part is then cut out by the decoder, and not again.
    """

    normaliser: Normaliser
    transforms: Sequence[Transform]
    mixing: Mixing | None
    seed: int
    views_per_epoch: int
    taken: Tensor
    from_files: bool = False

    @property
    def first_crop(self) -> RandomResizedCrop | None:
        """The transform that the decoder does; None if there is none."""
        first = self.transforms[0] if self.transforms and self.from_files else None
        return first if isinstance(first, RandomResizedCrop) else None

    def boxes(self, plan: BatchPlan) -> list[ChooseBox]:
        """What chooses the part of each picture at ``plan.fetched``, if ``first_crop`` is not None."""
        assert self.first_crop is not None
        view = plan.view if plan.partner is None else torch.cat([plan.view, plan.view])
        return [*self.first_crop.choices(Draws(self.seed, view, plan.fetched))]

    def plan(
        self, index: Tensor, view: Tensor, num_new: int | None = None, weight: float = 1.0, num_unlabelled: int = 0
    ) -> BatchPlan:
        """Plans a batch and draws the partners for mixing.

        Args:
            index: (B,) int64, the position of the sample in each row.
            view: (B,) int64, the number of its view.
            num_new: the number of rows with new samples; all by default.
            weight: see `Batch`.
            num_unlabelled: see `Batch`.
        """
        partner = None
        if self.mixing is not None:
            partner = self.mixing.partners(self._mixture(view, index), self.taken.to(index.device))
        return BatchPlan(index, view, len(index) if num_new is None else num_new, weight, partner, num_unlabelled)

    def render(self, images: Tensor, plan: BatchPlan) -> tuple[Tensor, Tensor | None]:
        """Makes the pictures of a batch for the network.

        Args:
            images: uint8 (B, C, H, W), or (2B, C, H, W) with mixing: the pictures at ``plan.fetched``.
            plan: a plan that was made by ``plan``.

        Returns:
            float32 (B, C, H, W), and the share of each picture's own label, (B,); None without mixing.
        """
        index, view = plan.index.to(images.device), plan.view.to(images.device)
        if plan.partner is None or self.mixing is None:
            return self._augmented(images, view, index), None
        own, others = images.split(len(index))
        others = self._augmented(others, view, plan.partner.to(images.device))
        draws = self._mixture(view, index)
        draws.asked = 1  # the first draw of this mixture was the partner, in plan()
        return self.mixing(self._augmented(own, view, index), others, draws)

    def _augmented(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        if self.first_crop is not None:
            images = augment(images, self.transforms[1:], self.seed, view, index, asked=self.first_crop.DRAWN)
        elif self.transforms:
            images = augment(images, self.transforms, self.seed, view, index)
        return self.normaliser(images)

    def _mixture(self, view: Tensor, index: Tensor) -> Draws:
        """The random numbers for mixing. They are the same for all views of a sample in an epoch."""
        return Draws(self.seed, view // self.views_per_epoch, index, MIX)

"""From stored pictures to those that the network sees: augmented, mixed, normalised."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill_lightning.data.augment import Draws, Transform, augment
from distill_lightning.data.mixing import Mixing
from distill_lightning.data.plans import BatchPlan
from distill_lightning.seeds import MIX


@dataclass(frozen=True, eq=False)
class Normaliser:
    """(x / 255 - mean) / std, by channel.

    Args:
        mean, std: (C,) float32, in units of full scale.
    """

    mean: Tensor
    std: Tensor
    _on_device: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to float32."""
        if images.device not in self._on_device:
            mean, std = (x.to(images.device)[:, None, None] for x in (self.mean, self.std))
            self._on_device[images.device] = 1 / (255 * std), -mean / std
        scale, shift = self._on_device[images.device]
        return torch.addcmul(shift, images.float(), scale)


@dataclass(frozen=True, eq=False)
class Renderer:
    """Makes the training pictures of a plan. What a picture looks like is a function of (seed, view, index).

    Args:
        normaliser: of the pictures.
        transforms: of augmentation, in order.
        mixing: mixes pictures after that, where there is one.
        seed: of all draws.
        views_per_epoch: all views of one epoch are of the same mixture.
        taken: (n,) int64, the training samples, which partners of a mixture are drawn from.
    """

    normaliser: Normaliser
    transforms: Sequence[Transform]
    mixing: Mixing | None
    seed: int
    views_per_epoch: int
    taken: Tensor

    def plan(self, index: Tensor, view: Tensor, num_new: int | None = None, weight: float = 1.0) -> BatchPlan:
        """Which pictures to fetch for these views of samples, (B,) int64 each."""
        partner = None
        if self.mixing is not None:
            partner = self.mixing.partners(self._mixture(view, index), self.taken.to(index.device))
        return BatchPlan(index, view, len(index) if num_new is None else num_new, weight, partner)

    def render(self, images: Tensor, plan: BatchPlan) -> tuple[Tensor, Tensor | None]:
        """Training pictures as the network sees them.

        Args:
            images: uint8, those of ``plan.fetched``.
            plan: as ``plan`` made it.

        Returns:
            float32 (B, C, H, W), and, where they are mixed, the share of each one's own label, (B,).
        """
        index, view = plan.index.to(images.device), plan.view.to(images.device)
        if plan.partner is None or self.mixing is None:
            return self._augmented(images, view, index), None
        own, others = images.split(len(index))
        others = self._augmented(others, view, plan.partner.to(images.device))
        draws = self._mixture(view, index)
        draws.asked = 1  # the first draw was the partner
        return self.mixing(self._augmented(own, view, index), others, draws)

    def _augmented(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        if self.transforms:
            images = augment(images, self.transforms, self.seed, view, index)
        return self.normaliser(images)

    def _mixture(self, view: Tensor, index: Tensor) -> Draws:
        """The draws of a mixture: the same for all views that an epoch has of a sample."""
        return Draws(self.seed, view // self.views_per_epoch, index, MIX)

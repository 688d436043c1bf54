"""Batches, as pure functions of where training stands.

The global batch b of epoch e is rows [b * batch_size, (b + 1) * batch_size) of ``epoch_order(seed, e)``; process r of W
takes every W-th of them, from the r-th on. The rows of a batch are new samples first, then each further view of them,
then another sample of its class for each, then the last batch's new samples, as far as the method needs them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.rendering import Normaliser, Renderer
from distill_lightning.data.splits import Split
from distill_lightning.errors import InputError
from distill_lightning.seeds import PAIR, epoch_order, seed_of_order, uniform
from distill_lightning.values import NO_LABEL, Batch, BatchNeeds, Timeline


@dataclass(frozen=True)
class Share:
    """Which part of each global batch a process takes, and where it puts it.

    Args:
        rank, world: which of how many processes.
        device: of the batches.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class TrainingSamples:
    """What is trained on.

    Args:
        split: the pictures, with the labels that are trained on.
        num_classes: K.
        batch_size: new samples in a global batch.
        keep_last: whether the last partial batch of an epoch is kept.
        seed: of the order of samples.
        clean_labels: (N,) int64, where some labels are wrong on purpose.
    """

    split: Split
    num_classes: int
    batch_size: int
    keep_last: bool
    seed: int
    clean_labels: Tensor | None = None

    @property
    def batches(self) -> int:
        """In an epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full + bool(rest and self.keep_last)

    def check_batches(self, world: int, repeats_last_batch: bool) -> None:
        """
        Raises:
            InputError: the batches cannot be shared out evenly over ``world`` processes, or there is no whole one.
        """
        size, count = self.batch_size, len(self.split)
        if size % world:
            raise InputError(
                f"batch_size {size} cannot be shared out evenly over {world} processes: "
                f"use {max(1, size // world) * world}"
            )
        if size > count:
            raise InputError(
                f"batch_size {size} is larger than the training split of {count} samples: make it smaller"
            )
        if self.keep_last and repeats_last_batch and count % size % world:
            raise InputError(
                f"keep_last with a method that repeats the last batch needs a last batch ({count % size} samples) that "
                f"{world} processes can share evenly: drop it"
            )


class TrainLoader:
    """Training batches, from wherever training stands.

    Args:
        samples: what is trained on.
        renderer: makes the pictures.
        needs: what the method asks of a batch.
        timeline: tells which batch belongs where the trainer stands.
        share: of this process.
        next_batch: tells the trainer's epoch and batch to go on from. It is asked when the first batch is.
        view_cycle: views are taken modulo this number; None for as many as there are epochs.
    """

    def __init__(
        self,
        samples: TrainingSamples,
        renderer: Renderer,
        needs: BatchNeeds,
        timeline: Timeline,
        share: Share,
        next_batch: Callable[[], tuple[int, int]],
        view_cycle: int | None = None,
    ) -> None:
        self.samples, self.renderer, self.needs, self.timeline = samples, renderer, needs, timeline
        self.share, self.next_batch, self.view_cycle = share, next_batch, view_cycle
        self.images = samples.split.source.on(share.device)
        assert samples.split.labels is not None
        self.labels = samples.split.labels.to(share.device)
        clean = samples.clean_labels
        self.clean_labels = None if clean is None else clean.to(share.device)
        self._orders: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return self.samples.batches

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.next_batch()  # asked late: the trainer sets its counters after it has called iter()
        for images, plan in self.images.stream(self._plans(epoch, first)):
            yield self.build(images.to(self.share.device, non_blocking=True), plan)

    def _plans(self, epoch: int, first: int) -> Iterator[BatchPlan]:
        for batch in range(first, len(self)):
            position = self.timeline.position(epoch, batch)
            if position is None:
                return
            yield self.plan(position.epoch, position.batch, position.order)

    def plan(self, epoch: int, batch: int, order: int = 0) -> BatchPlan:
        """The rows of batch b of epoch e: a function of (seed, e, b) and of the share."""
        needs = self.needs
        new, weight = self._new(epoch, batch, order)
        index = [new] * needs.views
        view = [torch.full_like(new, self._view(epoch, copy)) for copy in range(needs.views)]
        if needs.pairs_classes:
            partner = self.partners(new, epoch)
            index.append(partner)
            view.append(torch.full_like(partner, self._view(epoch, needs.views)))
        before = (epoch, batch - 1) if batch else (epoch - 1, self.timeline.batches_per_epoch - 1)
        if needs.repeats_last_batch and before[0] >= 0:
            repeated, _ = self._new(*before, order)
            index.append(repeated)
            view.append(torch.full_like(repeated, self._view(before[0], needs.views_per_epoch - 1)))
        return self.renderer.plan(torch.cat(index), torch.cat(view), len(new), weight)

    def _order(self, epoch: int, order: int) -> Tensor:
        if (epoch, order) not in self._orders:
            while len(self._orders) > 1:  # this epoch's, and the last one's for the batch that is repeated
                del self._orders[next(iter(self._orders))]
            taken = self.samples.split.taken
            drawn = epoch_order(len(taken), seed_of_order(self.samples.seed, order), epoch)
            self._orders[epoch, order] = taken[drawn].to(self.images.device)
        return self._orders[epoch, order]

    def _new(self, epoch: int, batch: int, order: int) -> tuple[Tensor, float]:
        size, share = self.samples.batch_size, self.share
        rows = self._order(epoch, order)[batch * size : (batch + 1) * size]
        mine = rows[share.rank :: share.world]
        weight = len(mine) * share.world / len(rows)
        return (mine, weight) if len(mine) else (rows[:1], 0.0)  # a process with nothing to do still takes the step

    def _view(self, epoch: int, copy: int) -> int:
        """The number of a view: the epoch, unless several views belong to an epoch or views come round again."""
        view = epoch * self.needs.views_per_epoch + copy
        return view if self.view_cycle is None else view % self.view_cycle

    def partners(self, new: Tensor, epoch: int) -> Tensor:
        """For each sample one of its class, perhaps itself: a function of (seed, epoch, index). int64 (B,)."""
        labels, by_class, counts = self._classes
        mine = labels[new]
        place = (uniform(PAIR, self.samples.seed, epoch, new).double() * counts[mine]).long()
        return by_class[(counts.cumsum(0) - counts)[mine] + place]

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor, Tensor]:
        """All labels, (N,), the training samples, class by class, (n,), and how many there are of each, (K,); int64,
        where the pictures are."""
        taken, labels = self.samples.split.taken, self.samples.split.labels
        assert labels is not None
        by_class = taken[labels[taken].argsort(stable=True)]
        counts = labels[taken].bincount(minlength=self.samples.num_classes)
        device = self.images.device
        return labels.to(device), by_class.to(device), counts.to(device)

    def build(self, images: Tensor, plan: BatchPlan) -> Batch:
        """The batch of a plan, from its pictures."""
        device = self.share.device
        index = plan.index.to(device)
        rendered, own_share = self.renderer.render(images, plan)
        label_probs = None
        if own_share is not None and plan.partner is not None:
            own, other = (
                F.one_hot(self.labels[rows], self.samples.num_classes).float()
                for rows in (index, plan.partner.to(device))
            )
            label_probs = torch.lerp(other, own, own_share[:, None])
        return Batch(
            images=rendered,
            labels=self.labels[index],
            index=index,
            num_new=plan.num_new,
            view=plan.view.to(device),
            weight=plan.weight,
            label_probs=label_probs,
            clean_labels=None if self.clean_labels is None else self.clean_labels[index],
        )


class EvalLoader:
    """Every sample of a split once, over all processes together. A process may get empty batches at the end, so that
    all take as many steps.

    Args:
        split: the pictures.
        batch_size: samples in a batch of a process.
        normaliser: of the pictures.
        share: of this process.
    """

    def __init__(self, split: Split, batch_size: int, normaliser: Normaliser, share: Share) -> None:
        self.size, self.normaliser, self.device = batch_size, normaliser, share.device
        self.images = split.source.on(share.device)
        self.labels = None if split.labels is None else split.labels.to(share.device)
        self.taken = split.taken[share.rank :: share.world].to(self.images.device)
        self.largest_share = -(-len(split) // share.world)

    def __len__(self) -> int:
        return -(-self.largest_share // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for images, plan in self.images.stream(map(BatchPlan.of_rows, self._rows())):
            index = plan.index.to(self.device)
            labels = torch.full_like(index, NO_LABEL) if self.labels is None else self.labels[index]
            yield Batch(self.normaliser(images.to(self.device, non_blocking=True)), labels, index, len(index))

    def _rows(self) -> Iterable[Tensor]:
        return (self.taken[b * self.size : (b + 1) * self.size] for b in range(len(self)))

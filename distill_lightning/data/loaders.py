"""Batches as pure functions of the position of training.

The new samples of the global batch b of epoch e are the entries [b * batch_size, (b + 1) * batch_size) of the epoch's
order, ``TrainingSamples.order``. Process r of W gets every W-th of them, starting with the r-th. `Batch` describes the
order of the rows in a batch.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data.augment import Transform, augment
from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.rendering import Normaliser, Renderer
from distill_lightning.data.splits import Split
from distill_lightning.data.training_samples import Share, TrainingSamples
from distill_lightning.errors import InputError
from distill_lightning.orders import Order
from distill_lightning.seeds import PAIR, seed_of_order, uniform
from distill_lightning.values import NO_LABEL, Batch, BatchNeeds, Timeline


class TrainLoader:
    """The training batches of an epoch, starting with the next one.

    Args:
        samples: the training samples.
        renderer: makes the pictures.
        needs: the requirements of the method for a batch.
        timeline: computes the position of training from the trainer's epoch and batch.
        share: the share of this process.
        next_batch: returns the trainer's (epoch, batch) to start with. It is called when the first batch is requested.
        view_cycle: view numbers are taken modulo this number; None for no limit.
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
        self.images = samples.source.on(share.device)
        assert samples.split.labels is not None
        self.labels = samples.split.labels.to(share.device)
        clean = samples.clean_labels
        self.clean_labels = None if clean is None else clean.to(share.device)
        weights = samples.class_weights
        self.class_weights = None if weights is None else weights.to(share.device)
        self._orders: dict[tuple[int, int], tuple[Order, Tensor]] = {}

    def __len__(self) -> int:
        return self.samples.batches

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.next_batch()  # not earlier: the trainer sets its counters after it has called iter()
        boxes = None if self.renderer.first_crop is None else self.renderer.boxes
        for images, plan in self.images.stream(self._plans(epoch, first), self.samples.groups, boxes):
            yield self.build(images.to(self.share.device, non_blocking=True), plan)

    def _plans(self, epoch: int, first: int) -> Iterator[BatchPlan]:
        for batch in range(first, len(self)):
            position = self.timeline.position(epoch, batch)
            if position is None:
                return
            yield self.plan(position.epoch, position.batch, position.order)

    def plan(self, epoch: int, batch: int, order: int = 0) -> BatchPlan:
        """The rows of a batch, as a function of the seed, the arguments and the share.

        Args:
            epoch: the number of the epoch.
            batch: the number of the batch in it.
            order: the number of the sample order.
        """
        needs = self.needs
        new, shown, weight = self._new(epoch, batch, order)
        index = [new] * needs.views
        view = [self._view(shown, copy) for copy in range(needs.views)]
        if needs.pairs_classes:
            partner = self.partners(new, epoch)
            index.append(partner)
            view.append(self._view(shown, needs.views))
        before = (epoch, batch - 1) if batch else (epoch - 1, self.timeline.batches_per_epoch - 1)
        if needs.repeats_last_batch and before[0] >= 0:
            repeated, shown, _ = self._new(*before, order)
            index.append(repeated)
            view.append(self._view(shown, needs.views_per_epoch - 1))
        without = new[:0]
        if (unlabelled := self.samples.unlabelled) is not None:
            number = epoch * self.timeline.batches_per_epoch + batch
            mine = slice(self.share.rank, None, self.share.world)
            without, shown = (
                column[mine].to(new.device)
                for column in unlabelled.drawn(seed_of_order(self.samples.seed, order), number)
            )
            index.append(without)
            view.append(self._view(shown, 0))
        return self.renderer.plan(torch.cat(index), torch.cat(view), len(new), weight, len(without))

    def _order(self, epoch: int, order: int) -> tuple[Order, Tensor]:
        """The positions of the samples in an epoch, and how often each was shown before; see TrainingSamples."""
        if (epoch, order) not in self._orders:
            while len(self._orders) > 1:  # keeps two: of this epoch, and of the last epoch for the repeated batch
                del self._orders[next(iter(self._orders))]
            rows, shown = self.samples.order(seed_of_order(self.samples.seed, order), epoch)
            if isinstance(rows, Tensor):  # short enough to lie on the device as a whole
                rows, shown = rows.to(self.images.device), shown.to(self.images.device)
            self._orders[epoch, order] = rows, shown
        return self._orders[epoch, order]

    def _new(self, epoch: int, batch: int, order: int) -> tuple[Tensor, Tensor, float]:
        """The new samples of this process, how often each was shown before, and the weight of the batch."""
        size, share = self.samples.batch_size, self.share
        first, end = batch * size, min((batch + 1) * size, self.samples.length)
        mine = range(first + share.rank, end, share.world)
        weight = len(mine) * share.world / (end - first)
        # a process without samples repeats one with weight 0, because every process must take part in the step
        places = slice(mine.start, mine.stop, mine.step) if mine else slice(first, first + 1)
        rows, shown = (column[places].to(self.images.device) for column in self._order(epoch, order))
        return rows, shown, weight

    def _view(self, shown: Tensor, copy: int) -> Tensor:
        """The view number of a copy. With one view per epoch and no cycle it is the number of earlier showings."""
        view = shown * self.needs.views_per_epoch + copy
        return view if self.view_cycle is None else view % self.view_cycle

    def partners(self, new: Tensor, epoch: int) -> Tensor:
        """For each new sample a random sample of the same class, which may be itself.

        Args:
            new: (B,) int64, the positions of the new samples.
            epoch: the epoch; the result is a function of (seed, epoch, position).

        Returns:
            int64 (B,), positions.
        """
        labels, by_class, counts = self._classes
        mine = labels[new]
        place = (uniform(PAIR, self.samples.seed, epoch, new).double() * counts[mine]).long()
        return by_class[(counts.cumsum(0) - counts)[mine] + place]

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor, Tensor]:
        """All labels (N,), the positions of the training samples sorted by class (n,), and the size of each class (K,).
        All are int64 on the device of the pictures.
        """
        taken, labels = self.samples.split.taken, self.samples.split.labels
        assert labels is not None
        by_class = taken[labels[taken].argsort(stable=True)]
        counts = labels[taken].bincount(minlength=self.samples.num_classes)
        device = self.images.device
        return labels.to(device), by_class.to(device), counts.to(device)

    def build(self, images: Tensor, plan: BatchPlan) -> Batch:
        """Makes a batch.

        Args:
            images: uint8 pictures on the device of the share: those at ``plan.fetched``.
            plan: the plan of the batch.
        """
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
        labelled = index[: len(index) - plan.num_unlabelled]

        def of_each(labels: Tensor) -> Tensor:
            known = labels[labelled]
            return F.pad(known, (0, plan.num_unlabelled), value=NO_LABEL) if plan.num_unlabelled else known

        return Batch(
            images=rendered,
            labels=of_each(self.labels),
            index=index,
            num_new=plan.num_new,
            view=plan.view.to(device),
            weight=plan.weight,
            label_probs=label_probs,
            clean_labels=None if self.clean_labels is None else of_each(self.clean_labels),
            class_weights=self.class_weights,
            num_unlabelled=plan.num_unlabelled,
        )


class EvalLoader:
    """The batches of a split. All processes together get every sample once. A process may get empty batches at the end,
    so that all processes have the same number of batches.

    Args:
        split: the pictures.
        batch_size: the number of samples per batch and process.
        normaliser: normalises the pictures.
        share: the share of this process.
        transforms: what is done with each picture before normalisation. Random numbers depend on its index alone.
    """

    def __init__(
        self, split: Split, batch_size: int, normaliser: Normaliser, share: Share, transforms: Sequence[Transform] = ()
    ) -> None:
        self.transforms = transforms
        self.size, self.normaliser, self.device = batch_size, normaliser, share.device
        self.images = split.source.on(share.device)
        self.labels = None if split.labels is None else split.labels.to(share.device)
        self.taken = split.taken[share.rank :: share.world].to(self.images.device)
        self.batches = eval_batches(len(split), batch_size, share.world)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        for images, plan in self.images.stream(map(BatchPlan.of_rows, self._rows())):
            index = plan.index.to(self.device)
            labels = torch.full_like(index, NO_LABEL) if self.labels is None else self.labels[index]
            images = images.to(self.device, non_blocking=True)
            if self.transforms and len(index):
                images = augment(images, self.transforms, 0, torch.zeros_like(index), index)
            yield Batch(self.normaliser(images), labels, index, len(index))

    def _rows(self) -> Iterable[Tensor]:
        return (self.taken[b * self.size : (b + 1) * self.size] for b in range(len(self)))


def eval_batches(samples: int, batch_size: int, world: int) -> int:
    """The number of batches in which each of ``world`` processes evaluates its share of the samples."""
    return math.ceil(math.ceil(samples / world) / batch_size)


def limited(batches: int, limit: float | None) -> int:
    """The number of batches under a limit of the trainer.

    Args:
        batches: the number of batches of a loader.
        limit: a number of batches (int), or a share of them (float); None for all.
    """
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def refuse_none_left(batches: int, limit: float | None, option: str) -> None:
    """Refuses a limit of the trainer that is too small a share. 0 is allowed: it leaves a stage out.

    Args:
        batches: the number of batches of a loader.
        limit: see ``limited``.
        option: the option that sets the limit, for the error.

    Raises:
        InputError: there are batches, and the limit leaves none of them.
    """
    if batches and limit and not limited(batches, limit):
        raise InputError(f"{option} is {limit}: it leaves none of {batches} batch{'es' if batches > 1 else ''}")

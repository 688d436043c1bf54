"""The training samples, and how they are divided into batches and shared by the processes."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from distill_lightning.data.imbalance import balanced_order
from distill_lightning.data.sources import Streamed
from distill_lightning.data.special_order import special_count, special_order
from distill_lightning.data.splits import Split
from distill_lightning.data.unlabelled import JoinedSource, Unlabelled
from distill_lightning.errors import InputError
from distill_lightning.orders import Order, put_in_order

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Share:
    """The share of a process in each global batch, and the device of its batches.

    Args:
        rank: the rank of the process.
        world: the number of processes.
        device: the device of the batches.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = CPU


@dataclass(frozen=True, eq=False)
class TrainingSamples:
    """The training samples, and how they are divided into batches.

    Args:
        split: the pictures, with the labels for training.
        num_classes: K.
        batch_size: the number of new samples in a global batch, without unlabelled pictures.
        keep_last: whether the last partial batch of an epoch is kept.
        seed: the seed of the sample order.
        clean_labels: (N,) int64, the correct labels; None without label noise.
        class_weights: (K,) float32, see `Batch`; None for equal weights.
        balanced: whether all classes occur equally often in an epoch.
        unlabelled: the pictures without labels; None if there are none.
        special_classes: see BatchNeeds.
    """

    split: Split
    num_classes: int
    batch_size: int
    keep_last: bool
    seed: int
    clean_labels: Tensor | None = None
    class_weights: Tensor | None = None
    balanced: bool = False
    unlabelled: Unlabelled | None = None
    special_classes: tuple[int, ...] = ()

    @property
    def source(self) -> Streamed:
        """The pictures with and without labels."""
        extra = None if self.unlabelled is None else self.unlabelled.source
        return self.split.source if extra is None else JoinedSource(self.split.source, extra)

    @property
    def groups(self) -> list[Tensor]:
        """The positions of the pictures with labels and, if there are any, of those without."""
        return [self.split.taken] if self.unlabelled is None else [self.split.taken, self.unlabelled.index]

    @property
    def index(self) -> Tensor:
        """The positions of all pictures, int64, in ascending order."""
        return torch.cat(self.groups).sort().values

    @property
    def labels(self) -> Tensor:
        """The labels of the samples that are trained on, (n,) int64."""
        assert self.split.labels is not None
        return self.split.labels[self.split.taken]

    @cached_property
    def length(self) -> int:
        """The number of new samples in an epoch. With special classes it is twice the number of their samples."""
        if self.special_classes:
            return 2 * special_count(self.labels, self.special_classes)
        return len(self.split)

    def order(self, seed: int, epoch: int) -> tuple[Order, Tensor]:
        """The order of an epoch.

        Args:
            seed: the seed of the order.
            epoch: the number of the epoch.

        Returns:
            The positions of samples, (length,) int64, and how often each was shown before, (length,) int64: the epoch,
            unless the classes are balanced or some are special.
        """
        taken = self.split.taken
        if self.special_classes:
            drawn, shown = special_order(self.labels, self.special_classes, seed, epoch, self.batch_size)
            return taken[drawn], shown
        if self.balanced:
            drawn, shown = balanced_order(self.labels, seed, epoch)
            return taken[drawn], shown
        return put_in_order(taken, seed, epoch), torch.tensor(epoch).expand(len(taken))

    @property
    def batches(self) -> int:
        """The number of batches in an epoch."""
        full, rest = divmod(self.length, self.batch_size)
        return full + bool(rest and self.keep_last)

    def check_batches(self, world: int, repeats_last_batch: bool) -> None:
        """Checks the batch size.

        Args:
            world: the number of processes.
            repeats_last_batch: whether the method repeats the new samples of the last batch.

        Raises:
            InputError: a batch cannot be split evenly over the processes, or is larger than the training split.
        """
        size, count = self.batch_size, self.length
        name = f"batch_size {size}" if self.unlabelled is None else f"batch_size less unlabelled pictures, {size},"
        if size % world:
            raise InputError(
                f"{name} cannot be shared out evenly over {world} processes: use {max(1, size // world) * world}"
            )
        if self.unlabelled is not None:
            self._check_unlabelled(self.unlabelled, world)
        if size > count and self.special_classes:
            raise InputError(f"{name} is larger than the specialist's epoch of {count} samples: make it smaller")
        if size > count:
            raise InputError(f"{name} is larger than the training split of {count} samples: make it smaller")
        if self.keep_last and repeats_last_batch and count % size % world:
            raise InputError(
                f"keep_last with a method that repeats the last batch needs a last batch ({count % size} samples) that "
                f"{world} processes can share evenly: leave keep_last out"
            )

    def _check_unlabelled(self, unlabelled: Unlabelled, world: int) -> None:
        if unlabelled.rows % world:
            raise InputError(
                f"the {unlabelled.rows} unlabelled pictures of a batch cannot be shared out evenly over {world} "
                "processes: change batch_size or unlabelled_share"
            )
        if unlabelled.rows > len(unlabelled.index):
            raise InputError(
                f"a batch takes {unlabelled.rows} unlabelled pictures, there are only {len(unlabelled.index)}: make "
                "unlabelled_share smaller"
            )

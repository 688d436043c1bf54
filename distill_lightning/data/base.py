"""What every data module does: split, order, augment, share out over the processes.

A batch is a dict. Rows are fresh samples first, then each further view of them, then another of its class for
each, then the last batch's fresh samples, as far as the method asks for them:

    image   (B, C, H, W) float32, normalised by the mean and standard deviation of the training pictures
    label   (B,) int64
    index   (B,) int64, the sample's position in the full training part (or in the evaluated split)
    view    (B,) int64, which view of the sample this is
    fresh   int, how many rows are fresh samples
    label_probs  (B, K) float32, where pictures are mixed
    clean_label  (B,) int64, where some labels are wrong on purpose
    weight  float, this process's share of the global batch times the number of processes: 1 but for a kept last
            partial batch that does not divide evenly

The global batch b of epoch e is rows [b * batch_size, (b + 1) * batch_size) of ``epoch_order(seed, e)``; process r of W
takes every W-th of them, from the r-th on. Nothing here is saved in a checkpoint for the sake of order: the place to go
on from is read off the trainer's own counters.
"""

import hashlib
import itertools
import re
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from distill_lightning.data.augment import Draws, Transform, augment
from distill_lightning.data.mixing import Mixing
from distill_lightning.data.noise import with_noise
from distill_lightning.data.order import (
    MIX,
    PAIR,
    epoch_order,
    rank_within_class,
    run_seed,
    seed_of_order,
    stratified_order,
    uniform,
)
from distill_lightning.data.sources import Source
from distill_lightning.errors import InputError

Batch = dict[str, Any]
MOST_WORKERS = 512


@dataclass
class Split:
    """Pictures of one kind: where they come from and which of them are taken, by position. ``taken`` is (n,) int64."""

    source: Source
    taken: Tensor

    def __len__(self) -> int:
        return len(self.taken)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch stands.

    Args:
        epoch, batch: which batch of which epoch.
        order: which order of the samples, 0 where there is only one.
        schedule_epoch: where the learning rate's schedule stands instead, in epochs; None for here.
    """

    epoch: int
    batch: int
    order: int = 0
    schedule_epoch: float | None = None


class Clock:
    """Tells data and method where training stands: where the trainer's counters say, unless something that trains in
    rounds puts another clock here."""

    def place(self, epoch: int, batch: int) -> Place | None:
        """Of the trainer's batch; None past the end of training."""
        return Place(epoch, batch)

    def epochs(self, trainer: pl.Trainer) -> float:
        """How long the schedule of the learning rate is."""
        return trainer.max_epochs


class ImageData(pl.LightningDataModule):
    """A data set of pictures. A subclass reads; everything else is done here.

    Args:
        root: the folder that the data set lies in, or is downloaded to.
        batch_size: fresh samples in a global batch, shared out evenly over the processes.
        eval_batch_size: samples per process in validation, test and prediction.
        val_size: how much of the training part is held out for validation, as a fraction (below 1) or a number of
            samples; 0 for none. The classes keep their proportions. Ignored where the data set has its own split.
        split_seed: draws the validation split and the part; the same in every run unless set.
        train_part: train on a part of what is left: a fraction (float), a number of samples (int), or
            so many of each class ("10 per class", by their right labels); all by default.
        leave_out: classes, by name, of which there are to be no training samples, by right label or wrong;
            validation and test keep them.
        label_noise: share of the training samples whose label is wrong; validation and test stay clean. A teacher keeps
            what it was trained with, which may be the right labels.
        noise_map: what each class is mistaken for, by name, {"4": "9"}; any other class by default.
        noise_seed: draws them; 0, the same in every run, by default.
        augment: transforms of the training pictures, in order.
        mix: mixes training pictures and their labels, after that: Mixup or CutMix.
        keep_last: keep the last partial batch of an epoch, instead of dropping it.
        seed: of the order of samples and of augmentation; the run's by default.
        num_workers: processes that decode pictures, where the data set does not fit in memory.
        pictures: a folder of pictures to predict, with or without class folders, instead of the test split.

    Attributes:
        num_classes, channels, image_size: known before any data is read.
        mean, std: (C,) float32 of the training pictures, in units of full scale.
        labels, clean_labels: int64 (N,) of the full training part, as trained on, and without noise.
        fingerprint: what tells this training part from another: labels, which picture is where, their shape, mean, std.
    """

    num_classes: int
    channels: int
    image_size: int

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_size: int | float = 0.1,
        split_seed: int = 0,
        train_part: int | float | str | None = None,
        leave_out: list[str | int] | None = None,
        label_noise: float | None = None,
        noise_map: dict[str | int, str | int] | None = None,
        noise_seed: int | None = None,
        augment: list[Transform] | None = None,
        mix: Mixing | None = None,
        keep_last: bool = False,
        seed: int | None = None,
        num_workers: int = 0,
        pictures: str | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, eval_batch_size {eval_batch_size}: both must be 1 or more")
        if not 0 <= num_workers <= MOST_WORKERS:
            raise InputError(f"num_workers is {num_workers}: it must be from 0 to {MOST_WORKERS}")
        if val_size < 0 or (isinstance(val_size, float) and val_size >= 1):
            raise InputError(f"val_size is {val_size}: give a fraction from 0 to below 1, or a number of samples")
        if label_noise is not None and not 0 <= label_noise <= 1:
            raise InputError(f"label_noise is {label_noise}: give a fraction from 0 to 1")
        if noise_map and label_noise is None:
            raise InputError("noise_map says which labels are mistaken for which: give label_noise as well")
        for right, mistaken in (noise_map or {}).items():
            if str(right) == str(mistaken):
                raise InputError(f"noise_map says that {right} is mistaken for itself: name another class")
        self.root = root
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.train_part = train_part
        self.leave_out = leave_out or []
        self.label_noise, self.noise_map, self.noise_seed = label_noise, noise_map, noise_seed or 0
        self.augment, self.mix = augment or [], mix
        self.keep_last = keep_last
        self.given_seed = seed
        self.num_workers = num_workers
        self.pictures = pictures
        self.train: Split | None = None
        self.val: Split | None = None
        self.test: Split | None = None
        self.views_per_epoch = 1
        self.repeats_last_batch = False
        self.pairs_classes = False
        self.remembered: dict[str, Any] = {}
        """What a checkpoint knows of the data, for predictions where the data is not at hand."""
        self.clock = Clock()
        self.view_cycle: int | None = None
        """Views are taken modulo this number: soft targets that are stored for V views ask for V."""

    # What a data set says of itself

    @property
    def name(self) -> str:
        """The folder of its runs in logs/."""
        return type(self).__name__.lower()

    @property
    def class_names(self) -> list[str]:
        """A name for each class, in the order of their numbers."""
        return [str(k) for k in range(self.num_classes)]

    def class_numbers(self, names: Iterable[str | int]) -> list[int]:
        """Numbers of classes that are given by name.

        Raises:
            InputError: there is no such class.
        """
        known = {name: number for number, name in enumerate(self.class_names)}
        for name in names:
            if str(name) not in known:
                raise InputError(f"{self.name} has no class {name}: it has {', '.join([*known][:10])} ...")
        return [known[str(name)] for name in names]

    @abstractmethod
    def read(self, part: str) -> tuple[Source, Tensor] | None:
        """The pictures and labels (N,) int64 of "train", "val" or "test"; None where the data set has no such part."""

    # Reading

    @property
    def seed(self) -> int:
        return run_seed() if self.given_seed is None else self.given_seed

    def setup(self, stage: str) -> None:
        self._learn_needs()
        if stage == "fit":  # not what a callback of an earlier fit asked for
            self.clock, self.view_cycle = Clock(), None
        if stage == "predict" and self.pictures is not None and self.remembered:
            self.mean, self.std = self.remembered["mean"], self.remembered["std"]
            return
        if self.train is None:
            self._read_training_part()
        if stage == "validate":
            self.refuse_seen(self.remembered, "the checkpoint")
        if self.remembered:  # what it was trained with, should the folder have changed since
            self.mean, self.std = self.remembered["mean"], self.remembered["std"]
        if stage == "test" or (stage == "predict" and self.pictures is None):
            self.read_test_part()
        if stage == "fit" and self.trainer is not None:
            self._check_batch_size()

    def _learn_needs(self) -> None:
        """What the method asks of the data, from its class attributes."""
        method = self.trainer.lightning_module if self.trainer is not None else None
        self.views = getattr(method, "views", 1)
        self.repeats_last_batch = getattr(method, "repeats_last_batch", False)
        self.pairs_classes = getattr(method, "pairs_classes", False)
        self.views_per_epoch = self.views + self.pairs_classes + self.repeats_last_batch
        if self.mix and not getattr(method, "mixes", True):
            raise InputError(f"{type(method).__name__} needs pictures of one sample each: leave data.mix out")

    def _read_training_part(self) -> None:
        read = self.read("train")
        if read is None:
            raise InputError(f"{self.name} in {self.root} has no training part")
        source, labels = read
        self.labels = self._checked(labels, "train")
        count = len(labels)
        own_val = self.read("val")
        if own_val is not None:
            val_source, val_labels = own_val
            self._checked(val_labels, "val")
            self.val_labels = val_labels
            self.val = Split(val_source, torch.arange(len(val_labels)))
            left = stratified_order(labels, self.split_seed)
        else:
            held_out = self.val_size if isinstance(self.val_size, int) else round(self.val_size * count)
            if held_out >= count:
                raise InputError(f"val_size {self.val_size} leaves no training samples of {count}: make it smaller")
            order = stratified_order(labels, self.split_seed)
            self.val_labels = labels
            self.val = Split(source, order[:held_out].sort().values) if held_out else None
            left = order[held_out:]
        taken = self._part(left).sort().values
        self.clean_labels = self.labels
        if self.label_noise is not None:
            given = self.noise_map
            pairs = zip(self.class_numbers(given), self.class_numbers(given.values()), strict=True) if given else None
            classes, noise_map = self.num_classes, dict(pairs) if pairs else None
            self.labels = with_noise(self.labels, self.label_noise, classes, self.noise_seed, noise_map)
        if self.leave_out:
            gone = torch.tensor(self.class_numbers(self.leave_out))
            taken = taken[~(torch.isin(labels[taken], gone) | torch.isin(self.labels[taken], gone))]
            if not len(taken):
                raise InputError(
                    f"leave_out {', '.join(map(str, self.leave_out))} leaves no training samples: leave out fewer"
                )
        self.train = Split(source, taken)
        self.mean, self.std = source.mean_and_std()
        parts = [repr((*source.shape, len(labels))).encode(), source.mark()]
        parts += [array.numpy().tobytes() for array in (labels, self.mean, self.std)]
        self.fingerprint = hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    def _checked(self, labels: Tensor, part: str) -> Tensor:
        if not len(labels):
            raise InputError(f"the {part} part of {self.name} in {self.root} is empty")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise InputError(
                f"{self.name} has labels from {labels.min()} to {labels.max()} in its {part} part: "
                f"with {self.num_classes} classes they must lie in 0 to {self.num_classes - 1}"
            )
        return labels

    def _part(self, left: Tensor) -> Tensor:
        """The training samples to use, of those left (in stratified order)."""
        part = self.train_part
        if part is None:
            return left
        if isinstance(part, str):
            match = re.fullmatch(r"(\d+) per class", part)
            if not match or not int(match[1]):
                raise InputError(f'train_part is "{part}": give a fraction, a number, or words like "10 per class"')
            rank = rank_within_class(self.labels[left], self.split_seed)
            short = [k for k in range(self.num_classes) if (self.labels[left] == k).sum() < int(match[1])]
            if short:
                raise InputError(
                    f'train_part "{part}" asks for more than class {self.class_names[short[0]]} has: make it smaller'
                )
            return left[rank < int(match[1])]
        count = round(part * len(left)) if isinstance(part, float) else part
        if not 0 < count <= len(left):
            raise InputError(f"train_part {part} is {count} samples: there are 1 to {len(left)} to choose from")
        return left[:count]

    def read_test_part(self) -> None:
        """Reads it where there is one: ``test`` stays None otherwise."""
        if self.test is None and (read := self.read("test")) is not None:
            source, self.test_labels = read
            self._checked(self.test_labels, "test")
            self.test = Split(source, torch.arange(len(self.test_labels)))

    def _check_batch_size(self) -> None:
        world = self.trainer.world_size
        if self.batch_size % world:
            raise InputError(
                f"batch_size {self.batch_size} cannot be shared out evenly over {world} processes: "
                f"use {max(1, self.batch_size // world) * world}"
            )
        if self.batch_size > len(self.train):
            raise InputError(
                f"batch_size {self.batch_size} is larger than the training split of {len(self.train)} samples: "
                "make it smaller"
            )
        if self.keep_last and self.repeats_last_batch and len(self.train) % self.batch_size % world:
            raise InputError(
                f"keep_last with a method that repeats the last batch needs a last batch "
                f"({len(self.train) % self.batch_size} samples) that {world} processes can share evenly: drop it"
            )

    # Pictures

    def device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to float32: (x / 255 - mean) / std."""
        scale, shift = self._scale_and_shift(images.device)
        return torch.addcmul(shift, images.float(), scale)

    @lru_cache(maxsize=2)  # noqa: B019 - one data module a process
    def _scale_and_shift(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (x.to(device)[:, None, None] for x in (self.mean, self.std))
        return 1 / (255 * std), -mean / std

    def view_of(self, epoch: int, copy: int) -> int:
        """The number of a view: the epoch, unless several views belong to an epoch or views come round again."""
        view = epoch * self.views_per_epoch + copy
        return view if self.view_cycle is None else view % self.view_cycle

    def planned(self, index: Tensor, view: Tensor, fresh: int | None = None, weight: float = 1.0) -> "Plan":
        """Which pictures of the training part to fetch for these views of samples, int64 (B,) each."""
        partner = None
        if self.mix:
            partner = self.mix.partners(self._mixture(view, index), self._taken(index.device))
        return Plan(index, view, len(index) if fresh is None else fresh, weight, partner)

    @lru_cache(maxsize=2)  # noqa: B019 - one data module a process
    def _taken(self, device: torch.device) -> Tensor:
        return self.train.taken.to(device)

    def as_seen(self, images: Tensor, plan: "Plan") -> tuple[Tensor, Tensor | None]:
        """Training pictures as the network sees them.

        Args:
            images: uint8, those of ``plan.fetched``.
            plan: as ``planned`` made it.

        Returns:
            float32 (B, C, H, W), and, where they are mixed, the share of each one's own label, (B,).
        """
        index, view = plan.index.to(images.device), plan.view.to(images.device)
        if plan.partner is None:
            return self._augmented(images, view, index), None
        own, others = images.split(len(index))
        others = self._augmented(others, view, plan.partner.to(images.device))
        draws = self._mixture(view, index)
        draws.asked = 1  # behind the partner
        return self.mix(self._augmented(own, view, index), others, draws)

    def _augmented(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        return self.normalise(augment(images, self.augment, self.seed, view, index) if self.augment else images)

    def _mixture(self, view: Tensor, index: Tensor) -> Draws:
        """The draws of a mixture: the same for all views that an epoch has of a sample."""
        return Draws(self.seed, view // self.views_per_epoch, index, MIX)

    # Loaders

    def batches_per_epoch(self) -> int:
        full, rest = divmod(len(self.train), self.batch_size)
        return full + bool(rest and self.keep_last)

    def train_dataloader(self) -> "TrainLoader":
        return TrainLoader(self, self.trainer.global_rank, self.trainer.world_size, self.position)

    def position(self) -> tuple[int, int]:
        """The epoch and batch that come next, by the trainer's counters, which a checkpoint restores."""
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def val_dataloader(self) -> "EvalLoader | list":
        return self._eval_loader(self.val, self.val_labels) if self.val else []

    def test_dataloader(self) -> "EvalLoader":
        if self.test is None:
            raise InputError(
                f"{self.name} in {self.root} has no test part: give it a folder test/, or, to predict, data.pictures"
            )
        return self._eval_loader(self.test, self.test_labels)

    def predict_dataloader(self) -> "EvalLoader":
        if self.pictures is None:
            return self.test_dataloader()
        from distill_lightning.data.folder import pictures_in

        source = pictures_in(self.pictures, self.channels, self.image_size, self.num_workers)
        self.predicted_names = source.names
        return self._eval_loader(Split(source, torch.arange(len(source))), None)

    def _eval_loader(self, split: Split, labels: Tensor | None) -> "EvalLoader":
        trainer = self.trainer
        return EvalLoader(self, split, labels, trainer.global_rank, trainer.world_size)

    # What a checkpoint keeps, for whoever loads the network later

    def state_dict(self) -> dict[str, Any]:
        if self.train is None:
            return {}
        own_val = self.val is not None and self.val.source is not self.train.source
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "class_names": self.class_names,
            "channels": self.channels,
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
            "noise": [
                self.label_noise,
                self.noise_map and {str(k): str(v) for k, v in self.noise_map.items()},
                self.noise_seed,
            ],
            "held_out": torch.empty(0, dtype=torch.int32) if own_val or not self.val else self.val.taken.int(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.train is not None and state and state["fingerprint"] != self.fingerprint:
            raise InputError(
                f"the data in {self.root} is not what this run was trained on (its labels or pictures differ): "
                "put the old data back, or start a new run"
            )
        if self.train is not None and state and state["noise"] != self.state_dict()["noise"]:
            raise InputError(
                f"label_noise, noise_map and noise_seed were {state['noise']} in this run: resume it with these"
            )

    def refuse_seen(self, said: dict[str, Any], who: str) -> None:
        """Refuses a checkpoint that was trained on pictures of this validation split.

        Args:
            said: what its data module said of itself.
            who: the checkpoint, for the error.
        """
        if self.val is None or self.val.source is not self.train.source:
            return  # a validation split of its own
        if said.get("fingerprint") != self.fingerprint:
            ours = (said.get("name"), said.get("class_names")) == (self.name, self.class_names)
            if ours and (self.trainer is None or self.trainer.is_global_zero):
                print(
                    f"{who} was trained on other pictures of {self.name}, or at another size: whether it has seen the "
                    "validation pictures of this run cannot be told",
                    file=sys.stderr,
                )
            return
        seen = int((~torch.isin(self.val.taken, said["held_out"].long())).sum())
        if seen:
            raise InputError(
                f"{who} was trained on {seen} of the {len(self.val)} validation pictures of this run: "
                "use the data.val_size and data.split_seed that it was trained with"
            )


@dataclass
class Plan:
    """Which rows a process sees in one batch."""

    index: Tensor
    view: Tensor
    fresh: int
    weight: float
    partner: Tensor | None = None
    """What each is mixed with."""

    @property
    def fetched(self) -> Tensor:
        """The positions of all pictures that it takes."""
        return self.index if self.partner is None else torch.cat([self.index, self.partner])


class TrainLoader:
    """Training batches, from wherever the trainer stands.

    Args:
        data: says which pictures, and how they are augmented.
        rank, world: which share of each global batch.
        position: tells the epoch and the batch to go on from, asked when the first batch is.
    """

    def __init__(self, data: ImageData, rank: int, world: int, position: Callable[[], tuple[int, int]]) -> None:
        self.data, self.rank, self.world, self.position = data, rank, world, position
        self.device = data.device()
        self.images = data.train.source.on(self.device)
        self.labels = data.labels.to(self.device)
        self.clean_labels = data.clean_labels.to(self.device) if data.label_noise is not None else None
        self._order = lru_cache(maxsize=2)(self._order)  # this epoch's, and the last for the batch that is repeated

    def __len__(self) -> int:
        return self.data.batches_per_epoch()

    def _order(self, epoch: int, order: int) -> Tensor:
        taken = self.data.train.taken
        return taken[epoch_order(len(taken), seed_of_order(self.data.seed, order), epoch)].to(self.images.device)

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self.position()  # asked late: the trainer sets its counters after it has called iter()
        places = (self.data.clock.place(epoch, batch) for batch in range(start, len(self)))
        plans = (self.plan(p.epoch, p.batch, p.order) for p in itertools.takewhile(lambda p: p is not None, places))
        for images, plan in self.images.stream(plans):
            yield self.build(images.to(self.device, non_blocking=True), plan)

    def _fresh(self, epoch: int, batch: int, order: int) -> tuple[Tensor, float]:
        size = self.data.batch_size
        rows = self._order(epoch, order)[batch * size : (batch + 1) * size]
        share = rows[self.rank :: self.world]
        weight = len(share) * self.world / len(rows)
        return (share, weight) if len(share) else (rows[:1], 0.0)  # a rank with nothing to do still takes the step

    def plan(self, epoch: int, batch: int, order: int = 0) -> Plan:
        """The rows of batch b of epoch e: a function of (seed, e, b) and of the share."""
        data = self.data
        fresh, weight = self._fresh(epoch, batch, order)
        index = [fresh] * data.views
        view = [torch.full_like(fresh, data.view_of(epoch, copy)) for copy in range(data.views)]
        if data.pairs_classes:
            partner = self.partners(fresh, epoch)
            index.append(partner)
            view.append(torch.full_like(partner, data.view_of(epoch, data.views)))
        before = (epoch, batch - 1) if batch else (epoch - 1, self._trained_batches() - 1)
        if data.repeats_last_batch and before[0] >= 0:
            repeated, _ = self._fresh(*before, order)
            index.append(repeated)
            view.append(torch.full_like(repeated, data.view_of(before[0], data.views_per_epoch - 1)))
        return data.planned(torch.cat(index), torch.cat(view), len(fresh), weight)

    def partners(self, fresh: Tensor, epoch: int) -> Tensor:
        """For each sample one of its class, perhaps itself: a function of (seed, epoch, index). int64 (B,)."""
        labels, by_class, counts = self._classes
        mine = labels[fresh]
        place = (uniform(PAIR, self.data.seed, epoch, fresh).double() * counts[mine]).long()
        return by_class[(counts.cumsum(0) - counts)[mine] + place]

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor, Tensor]:
        """All labels, (N,), the training samples, class by class, (n,), and how many there are of each, (K,); int64,
        where the pictures are."""
        taken, labels = self.data.train.taken, self.data.labels
        by_class = taken[labels[taken].argsort(stable=True)]
        counts = labels[taken].bincount(minlength=self.data.num_classes)
        return tuple(part.to(self.images.device) for part in (labels, by_class, counts))

    def _trained_batches(self) -> int:
        """Of an epoch: fewer than there are, where the trainer limits them."""
        return int(min(len(self), self.data.trainer.num_training_batches)) if self.data.trainer else len(self)

    def build(self, images: Tensor, plan: Plan) -> Batch:
        index = plan.index.to(self.device)
        image, share = self.data.as_seen(images, plan)
        extra = {"clean_label": self.clean_labels[index]} if self.clean_labels is not None else {}
        if share is not None:
            own, other = (
                F.one_hot(self.labels[rows], self.data.num_classes).float()
                for rows in (index, plan.partner.to(self.device))
            )
            extra["label_probs"] = torch.lerp(other, own, share[:, None])
        return extra | {
            "image": image,
            "label": self.labels[index],
            "index": index,
            "view": plan.view.to(self.device),
            "fresh": plan.fresh,
            "weight": plan.weight,
        }


class EvalLoader:
    """Every sample of a split once, over all processes together. A process may get empty batches at the end, so that
    all take as many steps."""

    def __init__(self, data: ImageData, split: Split, labels: Tensor | None, rank: int, world: int) -> None:
        self.data, self.size, self.device = data, data.eval_batch_size, data.device()
        self.images = split.source.on(self.device)
        self.labels = labels.to(self.device) if labels is not None else None
        self.taken = split.taken[rank::world].to(self.images.device)
        self.largest_share = -(-len(split) // world)

    def __len__(self) -> int:
        return -(-self.largest_share // self.size)

    def __iter__(self) -> Iterator[Batch]:
        plans = (Plan(rows, rows, len(rows), 1.0) for rows in self._batches())
        for images, plan in self.images.stream(plans):
            index = plan.index.to(self.device)
            batch = {"image": self.data.normalise(images.to(self.device, non_blocking=True)), "index": index}
            yield batch if self.labels is None else batch | {"label": self.labels[index]}

    def _batches(self) -> Iterable[Tensor]:
        return (self.taken[b * self.size : (b + 1) * self.size] for b in range(len(self)))

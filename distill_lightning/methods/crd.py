"""Contrastive Representation Distillation (Tian et al., ICLR 2020, arXiv:1910.10699), CRD.

    L = CE(y, s) + w (L_s + L_t)        L_s = -mean_b [ log (o_0 / (o_0 + K/N)) + sum_k log ((K/N) / (o_k + K/N)) ]
    o_k = exp(M_t[c_k] . v_s / T) / Z_s        v_s = N(W_s f + b_s)        M_s[i] <- N(m M_s[i] + (1 - m) v_s)

    s          logits of the student, (B, K')
    f, g       pooled features of student and teacher, (B, D) and (B, D'); g has no gradient
    v_s, v_t   their embeddings, (B, E), of length 1. Both linear layers W are trained
    M_s, M_t   the banks: the embeddings of all N training samples when they were last seen, (N, E)
    c          the candidates of a sample, rows of the banks: itself (c_0), and K samples of other classes
    Z_s, Z_t   N times the mean of exp(.) in the first batch of the run; kept from then on
    L_t        likewise, of v_t and the student's bank
    y          labels, (B,)

The sample itself is taken from the bank of the other network, as it was an epoch ago. K/N has 1e-7 added to it, as in
the authors' code. In that code the K negatives of a sample are different from each other; here they are drawn with
replacement, as a function of seed, epoch and sample, which costs no permutation of the data set. A part of the data
that is not trained on has no rows in the banks, and N does not count it.

State between steps: the banks, float32, 2 N E numbers (51 MB for CIFAR-100, 1.3 GB for ImageNet), and Z. The checkpoint
contains them once. With several processes each holds the whole banks, and the rows of each step are gathered, so two
processes give what one gives. The two linear layers are in the checkpoint, under ``adapters.``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.distributed import gather_rows, mean_over_processes
from distill_lightning.errors import InputError
from distill_lightning.losses import crd, crd_rows, crd_similarity
from distill_lightning.methods.feature_taught import FeatureTaught, through
from distill_lightning.methods.memory import put_rows
from distill_lightning.networks import Network
from distill_lightning.ranges import BelowOne, Count, NonNegative, Positive
from distill_lightning.seeds import BUILD, CONTRAST, hash_names, run_seed, seed_for, seed_of_order
from distill_lightning.values import Batch, Position, TeacherGiver


class CRD(FeatureTaught):
    """Learns to tell the teacher's features of the same sample from those of samples of other classes.

    Args:
        network: the student; see Method.
        contrast_weight: w, the weight of the contrast.
        negatives: K, the number of samples of other classes that a sample is compared with.
        embedding: E, the width of the embeddings.
        contrast_temperature: T.
        momentum: m, the weight of the old row of a bank.
        kwargs: see FeatureTaught.
    """

    usual_layers: ClassVar = ["pooled"]
    takes: ClassVar = "any"
    shared_memory = ("banks", "normalisers")

    def __init__(
        self,
        network: Network,
        contrast_weight: NonNegative = 0.8,
        negatives: Count = 16384,
        embedding: Count = 128,
        contrast_temperature: Positive = 0.07,
        momentum: BelowOne = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.contrast_weight, self.negatives, self.embedding = contrast_weight, negatives, embedding
        self.contrast_temperature, self.momentum = contrast_temperature, momentum
        self.needs = replace(self.needs, allows_mixing=False)  # a mixture is no sample, and has no single class
        self.samples: Samples | None = None
        self.banks: Tensor | None = None
        """M_s and M_t, (2, N, E)."""
        self.normalisers: Tensor | None = None
        """Z_s and Z_t, (2,)."""

    def get_ready(self, giver: TeacherGiver, data: ImageData) -> None:
        """Sorts the training samples by class.

        Raises:
            InputError: all samples have the same class.
        """
        split = data.training_split
        assert split.labels is not None
        self.samples = Samples.of(split.taken.sort().values, split.labels)
        if int((self.samples.counts > 0).sum()) < 2:
            raise InputError(f"CRD compares samples of different classes, and {data.name} has one: give more classes")

    def make_adapters(
        self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]
    ) -> list[nn.Module]:
        """Makes W_s and W_t."""
        if len(shapes) != 1:
            raise InputError(f"CRD compares one layer, and {len(shapes)} are given: give one of both networks")
        return [nn.Linear(torch.Size(one[0]).numel(), self.embedding) for one in (shapes, of_teacher)]

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``contrast_s`` (student) and ``contrast_t`` (teacher). The banks get the new embeddings."""
        assert self.samples is not None
        index = batch.index
        self.samples = self.samples.to(index.device)
        rows = self.samples.rows(index)
        seed = seed_of_order(run_seed(), position.order)
        drawn = draws(seed, position.epoch, index, self.negatives)
        candidates = torch.cat([rows[:, None], self.samples.others(rows, drawn)], 1)
        embeddings = [embedded(w, x) for w, x in zip(self.adapters, (features[0], teacher_features[0]), strict=True)]
        if self.banks is None:
            self.banks = first_banks(len(self.samples.index), self.embedding)
        self.banks = self.banks.to(index.device)
        near = torch.stack(
            [
                crd_similarity(v, bank, candidates, temperature=self.contrast_temperature)
                for v, bank in zip(embeddings, self.banks.flip(0), strict=True)
            ]
        )
        count = len(self.samples.index)
        if self.normalisers is None:
            self.normalisers = count * mean_over_processes(near.detach().mean(2).T, batch.weight)
        z_s, z_t = self.normalisers = self.normalisers.to(index.device)
        self._remember(rows, embeddings, batch.seen)
        return {
            "contrast_s": self.contrast_weight * crd(near[0], count, z_s),
            "contrast_t": self.contrast_weight * crd(near[1], count, z_t),
        }

    def _remember(self, rows: Tensor, embeddings: list[Tensor], seen: slice) -> None:
        assert self.banks is not None
        rows = gather_rows(rows[seen])
        for bank, embedding in zip(self.banks, embeddings, strict=True):
            new = crd_rows(bank[rows], gather_rows(embedding.detach()[seen]), momentum=self.momentum)
            put_rows(bank, rows, new.to(bank.dtype))  # with precision bf16-true the bank is in bfloat16


def embedded(layer: nn.Module, features: Tensor) -> Tensor:
    """V = N(W f + b), (B, E), for features (B, ...), in float32 also under autocast."""
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(through(layer, features.flatten(1)))


def first_banks(count: int, width: int) -> Tensor:
    """The banks before the first step, (2, N, E): uniform in +-sqrt(3 / E), as a function of the seed of the run."""
    generator = Generator().manual_seed(seed_for(BUILD, run_seed(), 2))
    limit = (3 / width) ** 0.5
    drawn: Tensor = torch.rand(2, count, width, generator=generator) * 2 * limit - limit
    return drawn


def draws(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """``count`` numbers in [0, 2^40) for each sample of an index (B,), int64 (B, count)."""
    numbers = torch.arange(count, device=index.device)
    return (hash_names(CONTRAST, seed, epoch, index[:, None], numbers) >> 24) & ((1 << 40) - 1)


class Samples(NamedTuple):
    """The training samples by class. A row is the place of a sample among them.

    Args:
        index: (N,) int64, the positions of the samples in the full training part, ascending.
        labels: (N,) int64, the class of each row.
        order: (N,) int64, the rows, sorted by class.
        starts: (K,) int64, where each class begins in ``order``.
        counts: (K,) int64, the number of samples of each class.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which is not used
    labels: Tensor
    order: Tensor
    starts: Tensor
    counts: Tensor

    @classmethod
    def of(cls, index: Tensor, labels: Tensor) -> "Samples":
        """Sorts the samples at the positions ``index`` (N,), given the labels of the full training part."""
        own = labels[index]
        counts = own.bincount()
        return cls(index, own, own.argsort(stable=True), counts.cumsum(0) - counts, counts)

    def to(self, device: torch.device) -> "Samples":
        """The same samples on a device."""
        return Samples(*(part.to(device) for part in self))

    def rows(self, index: Tensor) -> Tensor:
        """The rows of samples, by their positions, (B,) int64 each."""
        return torch.searchsorted(self.index, index)

    def others(self, rows: Tensor, drawn: Tensor) -> Tensor:
        """Rows of samples of other classes, (B, K).

        Args:
            rows: the samples, (B,).
            drawn: (B, K) int64, 0 or larger; equal numbers give equal samples.
        """
        of_class = self.labels[rows]
        start, count = self.starts[of_class][:, None], self.counts[of_class][:, None]
        place = drawn % (len(self.order) - count)
        return self.order[place + torch.where(place >= start, count, 0)]

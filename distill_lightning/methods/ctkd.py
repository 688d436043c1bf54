"""Curriculum Temperature for Knowledge Distillation (Li et al., AAAI 2023, arXiv:2211.16231), CTKD, its global form.

    L = w_hard CE(y, s) + w_soft T^2 KL(p^T(t) || p^T(s))        T = T_0 + R sigmoid(a)
    dL/da is multiplied by lambda(e) = -(1 - cos(pi min((e + 1) / E, 1))) / 2

    s, t    logits of the student and raw logits of the teacher, (B, K); t has no gradient, from SoftTargets
    a       a number that is trained with the student, 1 at first
    e, E    the epoch, from 0, and the number of epochs in which the reversal grows to its full strength
    y       labels, (B,)                                                                         p^T(z) = softmax(z / T)

The student minimises L, the temperature maximises it: it looks for the softness at which the student is worst. lambda
goes from nearly 0 to -1, so the task grows harder over the first epochs. The gradient flows through the factor T^2,
too.

T_0 = 1, R = 20 and E = 10 of 240 epochs are of the authors' code, which counts epochs from 1; the first temperature is
15.62. The number a is in the optimizer of the student, with its rate and, as there, its weight decay. The form with a
temperature for each sample, from a network of its own, is not here.

State between steps: none beside a, which is in the checkpoint under ``raw_temperature``. The teacher is not part of the
method.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.losses import ctkd
from distill_lightning.methods.taught import Taught
from distill_lightning.networks import Network
from distill_lightning.ranges import CountOrZero, NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput


class CTKD(Taught):
    """Learns from a teacher's soft targets, at a temperature that is learned against the student.

    Args:
        network: the student; see Method.
        lowest_temperature: T_0, the temperature is above it.
        temperature_range: R, the temperature is below T_0 + R.
        reversal_epochs: E, the number of epochs in which the reversed gradient grows to its full strength.
        soft_weight: w_soft, the weight of the teacher's soft targets.
        hard_weight: w_hard, the weight of the labels.
        kwargs: see Taught.

    Raises:
        InputError: an option is out of range, or ``soft_weight`` is 0.
    """

    def __init__(
        self,
        network: Network,
        lowest_temperature: Positive = 1.0,
        temperature_range: Positive = 20.0,
        reversal_epochs: CountOrZero = 10,
        soft_weight: NonNegative = 0.9,
        hard_weight: NonNegative = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if not soft_weight:
            raise InputError("CTKD.soft_weight is 0, so there is no temperature to learn: give it, or use Baseline")
        self.lowest_temperature, self.temperature_range = lowest_temperature, temperature_range
        self.reversal_epochs, self.soft_weight, self.hard_weight = reversal_epochs, soft_weight, hard_weight
        self.needs = BatchNeeds(teacher_logits=True, allows_unlabelled=True)
        self.raw_temperature = nn.Parameter(torch.ones(()))

    def make_networks(self, shape: Mapping[str, int], data: str) -> dict[str, functools.partial[nn.Module]]:
        """See Method; for a new network, the temperature is learned anew."""
        made = super().make_networks(shape, data)
        if made:
            nn.init.ones_(self.raw_temperature)
        return made

    def strength(self, epoch: int) -> float:
        """-lambda(e), in [0, 1]."""
        done = min((epoch + 1) / self.reversal_epochs, 1.0) if self.reversal_epochs else 1.0
        return (1 - math.cos(math.pi * done)) / 2

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels) and ``soft`` (teacher)."""
        logits = self(batch.images)
        soft = ctkd(
            logits, self.teacher_logits(batch), self.raw_temperature, strength=self.strength(position.epoch),
            lowest=self.lowest_temperature, width=self.temperature_range,
        )  # fmt: skip
        hard = self.cross_entropy(logits, batch)
        terms = {"hard": self.hard_weight * hard, "soft": self.soft_weight * soft}
        return self.step_output(terms, logits, batch)

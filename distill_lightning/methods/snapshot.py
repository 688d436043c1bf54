"""Snapshot Distillation: Teacher-Student Optimization in One Generation (Yang et al., CVPR 2019, arXiv:1812.00123).

    cycle 0    L = CE(y, s)
    cycle c    L = (1 + 1/T) CE(y, s) + KL(p^T(t) || p(s))        p^T(z) = softmax(z / T)

    s   logits, (B, K)
    t   logits of the network from the end of cycle c - 1, for the same pictures, (B, K); eval mode, no gradient
    T   temperature of the teacher only
    y   labels, (B,)

The learning rate falls along half a cosine in each of the C cycles. This schedule is part of the method; a fair
comparison uses it for the baseline as well. C = 4, T = 2 and the weights could not be verified against the paper.

State between steps: the weights and buffers of the teacher, and the number of the cycle. They are equal on all
processes, and the checkpoint contains them once.
"""

from typing import Annotated, Any

import torch
from torch import Tensor

from distill_lightning.frozen_copies import FrozenCopies
from distill_lightning.losses import softened_teacher
from distill_lightning.methods.base import Method
from distill_lightning.models.outputs import in_full, main_output
from distill_lightning.networks import Network
from distill_lightning.ranges import Positive, Range
from distill_lightning.schedules import CosineCycles
from distill_lightning.values import Batch, Position, StepOutput


class Snapshot(Method):
    """Each cycle of training is taught by the previous cycle.

    Args:
        network: see Method.
        cycles: C, the number of cycles.
        temperature: T, the temperature of the teacher.
        kwargs: see Method; the default schedule is CosineCycles(cycles).

    Raises:
        InputError: an option is out of range.
    """

    shared_memory = ("cycle", "snapshot")

    def __init__(
        self,
        network: Network,
        cycles: Annotated[int, Range(at_least=2)] = 4,
        temperature: Positive = 2.0,
        **kwargs: Any,
    ) -> None:
        kwargs["schedule"] = kwargs.get("schedule") or CosineCycles(cycles)
        super().__init__(network, **kwargs)
        self.cycles, self.temperature = cycles, temperature
        self.cycle = 0
        self.snapshot: dict[str, Tensor] | None = None
        self.frozen = FrozenCopies()

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The term ``ce`` (labels) and, from the second cycle on, ``snapshot`` (teacher)."""
        cycle = int(position.progress * self.cycles + 1e-9)
        if cycle != self.cycle:
            self.share_buffers()  # between accumulated batches, each process has its own
            self.cycle, self.snapshot = cycle, {k: v.clone() for k, v in self.model.state_dict().items()}
        logits = self(batch.images)
        ce = self.cross_entropy(logits, batch)
        if self.snapshot is None:
            return StepOutput({"ce": ce}, logits)
        (teacher,) = self.frozen.networks(self.model, [self.snapshot])
        with torch.no_grad():
            of_teacher = in_full(main_output(teacher(batch.images)))
        soft = softened_teacher(logits, of_teacher, temperature=self.temperature)
        return StepOutput({"ce": (1 + 1 / self.temperature) * ce, "snapshot": soft}, logits)

"""Memory-Replay Knowledge Distillation (Wang et al., Sensors 2021, 21(8), 2792), Mr-KD.

    L = CE(y, s) + lambda T^2 mean_j KL(p^T(KA(h_j)) || p^T(s)) + CE(y, F)        p^T(z) = softmax(z / T)

    s      logits, (B, K)
    h_j    logits of copy j of the network from an earlier step, j = 1 .. n, (B, K); eval mode, no gradient. Once there
           are n copies, F is one more teacher in the mean
    F      logits of a small fully connected network with the input (h_1, .., h_n), (B, K). CE(y, F) trains only this
           network
    KA     knowledge adjustment: if a teacher predicts a wrong class, the logits of this class and of the correct class
           are exchanged
    y      labels, (B,)

A copy is made every kappa steps; the oldest copy is then dropped. No public code was found, and the paper's values
could not be verified: n, kappa, lambda, T, the width of F and the use of F as a teacher are our choice.

State between steps: the weights and buffers of the copies, which are equal on all processes. The checkpoint contains
them once, and F under ``fusion.``. A step costs about 1 + n / 3 steps of the baseline.
"""

from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.frozen_copies import FrozenCopies
from distill_lightning.losses import adjusted, kd
from distill_lightning.methods.base import Method
from distill_lightning.models.outputs import in_full, input_type, main_output
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, NonNegative, Positive
from distill_lightning.values import Batch, BatchNeeds, DataInfo, Position, StepOutput

HIDDEN = 128


class MrKD(Method):
    """The teachers are copies of the network from earlier steps.

    Args:
        network: see Method.
        copies: n, the number of copies.
        every_n_steps: kappa, the number of steps between two copies.
        temperature: T, by which logits are divided before the softmax.
        weight: lambda, the weight of the copies' soft targets.
        kwargs: see Method.

    Raises:
        InputError: an option is out of range.
    """

    needs = BatchNeeds(allows_mixing=False)  # knowledge adjustment needs a single correct class
    shared_memory = ("copies",)

    def __init__(
        self,
        network: Network,
        copies: Count = 2,
        every_n_steps: Count = 500,
        temperature: Positive = 4.0,
        weight: NonNegative = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.most_copies, self.every_n_steps = copies, every_n_steps
        self.temperature, self.weight = temperature, weight
        self.copies: dict[str, dict[str, Tensor]] = {}  # by the step at which they were made, oldest first
        self.fusion: nn.Sequential | None = None
        self.frozen = FrozenCopies()

    def build(self, info: DataInfo) -> None:
        """Makes the fusion network F."""
        classes = info.num_classes
        layers = nn.Linear(self.most_copies * classes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)
        self.fusion = nn.Sequential(*layers).to(self.device, input_type(self.model)[1])

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce`` (labels), ``fusion`` (F) and, once there is a copy, ``memory`` (copies)."""
        assert self.fusion is not None
        self._remember(position.step)
        logits, labels = self(batch.images), batch.labels
        terms = {"ce": self.cross_entropy(logits, batch)}
        with torch.no_grad():
            teachers = [
                in_full(main_output(teacher(batch.images)))
                for teacher in self.frozen.networks(self.model, [*self.copies.values()])
            ]
        if len(teachers) == self.most_copies:
            dtype = next(self.fusion.parameters()).dtype
            fused = in_full(self.fusion(torch.cat(teachers, 1).to(dtype)))
            terms["fusion"] = self.cross_entropy(fused, batch)
            teachers.append(fused.detach())
        else:  # DDP expects that each step uses all parameters
            terms["fusion"] = in_full(0 * torch.stack([p.sum() for p in self.fusion.parameters()]).sum())
        if teachers:
            soft = [kd(logits, adjusted(t, labels), temperature=self.temperature) for t in teachers]
            terms["memory"] = self.weight * torch.stack(soft).mean()
        return StepOutput(terms, logits)

    def _remember(self, step: int) -> None:
        """Makes a copy of the network before every kappa-th step."""
        if step and step % self.every_n_steps == 0 and str(step) not in self.copies:
            now = {name: value.clone() for name, value in self.model.state_dict().items()}
            kept = [*self.copies.items(), (str(step), now)][-self.most_copies :]
            self.copies = dict(kept)

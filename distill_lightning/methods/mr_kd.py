"""Memory-Replay Knowledge Distillation (Wang et al., Sensors 2021, 21(8), 2792), Mr-KD.

    L = CE(y, s) + lambda T^2 mean_j KL(p^T(KA(h_j)) || p^T(s)) + CE(y, F)        p^T(z) = softmax(z / T)

    s      logits, (B, K)
    h_j    those of the network as it was at n earlier moments, (B, K); eval mode, no gradient. From the moment that
           there are n of them, F is one more
    F      what a small fully connected network makes of h_1 .. h_n side by side, (B, K); its cross-entropy trains it
           alone
    KA     knowledge adjustment: where a teacher is wrong, its logits of the right class and of its answer change places
    y      labels, (B,)

A copy is taken every kappa steps, and the oldest is dropped. No public code was found: n, kappa, lambda, T, the width
of F and the place of F among the teachers are this house's, for the paper's could not be verified.

Kept between steps: the copies, weights and buffers, the same on all processes. They are in the checkpoint, once; F is,
under ``fusion.``. A step costs 1 + n / 3 of the baseline.
"""

from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.frozen_copies import FrozenCopies
from distill_lightning.losses import soft_target_loss
from distill_lightning.methods.base import Method
from distill_lightning.values import Batch, BatchNeeds, DataInfo, Position, StepOutput

HIDDEN = 128


def adjusted(logits: Tensor, labels: Tensor) -> Tensor:
    """Knowledge adjustment. (B, K), for labels (B,)."""
    most, answer = logits.max(1, keepdim=True)
    of_label = logits.gather(1, labels[:, None])
    return logits.scatter(1, answer, of_label).scatter(1, labels[:, None], most)


class MrKD(Method):
    """Learns from what it was a while ago.

    Args:
        network: see Method.
        copies: n, 1 or more.
        every_n_steps: kappa, 1 or more.
        temperature: T > 0.
        weight: lambda >= 0.
        kwargs: see Method.
    """

    needs = BatchNeeds(allows_mixing=False)  # knowledge adjustment knows one right class
    shared_memory = ("copies",)

    def __init__(
        self,
        network: nn.Module,
        copies: int = 2,
        every_n_steps: int = 500,
        temperature: float = 4.0,
        weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if copies < 1 or every_n_steps < 1:
            raise InputError(f"copies is {copies}, every_n_steps {every_n_steps}: both must be 1 or more")
        if not temperature > 0 or weight < 0:
            raise InputError(
                f"temperature is {temperature}, weight {weight}: T must be above 0, the weight not below 0"
            )
        self.most_copies, self.every_n_steps = copies, every_n_steps
        self.temperature, self.weight = temperature, weight
        self.copies: dict[str, dict[str, Tensor]] = {}  # by the step that they were taken at, oldest first
        self.fusion: nn.Sequential | None = None
        self.frozen = FrozenCopies()

    def build(self, info: DataInfo) -> None:
        classes = info.num_classes
        layers = nn.Linear(self.most_copies * classes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)
        self.fusion = nn.Sequential(*layers).to(self.device, next(self.model.parameters()).dtype)

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        assert self.fusion is not None
        self._remember(position.step)
        logits, labels = self(batch.images), batch.labels
        terms = {"ce": self.cross_entropy(logits, batch)}
        with torch.no_grad():
            teachers = [teacher(batch.images).float() for teacher in self.frozen.networks(self.model, [*self.copies.values()])]
        if len(teachers) == self.most_copies:
            dtype = next(self.fusion.parameters()).dtype
            fused = self.fusion(torch.cat(teachers, 1).to(dtype)).float()
            terms["fusion"] = self.cross_entropy(fused, batch)
            teachers.append(fused.detach())
        else:  # its parameters are part of the step, as DDP expects
            terms["fusion"] = 0 * torch.stack([p.sum() for p in self.fusion.parameters()]).sum()
        if teachers:
            soft = [soft_target_loss(adjusted(t, labels), logits, self.temperature) for t in teachers]
            terms["memory"] = self.weight * torch.stack(soft).mean()
        return StepOutput(terms, logits)

    def _remember(self, step: int) -> None:
        """A copy of the network before this step, when one is due."""
        if step and step % self.every_n_steps == 0 and str(step) not in self.copies:
            now = {name: value.clone() for name, value in self.model.state_dict().items()}
            kept = [*self.copies.items(), (str(step), now)][-self.most_copies :]
            self.copies = dict(kept)

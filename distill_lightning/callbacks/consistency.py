"""How much a network's predictions change: the divergence between a sample's predictions in successive epochs.

    D_e = mean over samples of KL(p_{e-1}(x) || p_e(x))        in nats

p_e(x) is the softmax of the logits that the method computes for x in epoch e, when x is a new sample of a batch. The
network is in training mode and sees the augmented picture. With data.mix, each epoch mixes x with another sample, so
the mixing adds to the divergence. Shen et al. (CVPR 2022) argue that self-distillation from the last mini-batch makes
training more stable; this number tests that claim. It is logged as train/consistency from the second epoch on. Each
round of pruning starts from nothing again.

The checkpoint keeps the last predictions, (N, K) float32, the step of the last update, and the sums of the running
epoch. Under DDP every process holds all predictions. They are on the CPU if they are larger than 1 GiB.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from distill_lightning.distributed import gather_rows
from distill_lightning.methods.base import Method
from distill_lightning.methods.memory import put_rows
from distill_lightning.recorded import Recorded
from distill_lightning.values import Batch

LARGE = 2**30
"""Bytes of predictions; more than this is kept on the CPU."""


class Consistency(Recorded, Callback):
    """Logs train/consistency for any method, in nats. A lower value means more stable predictions."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.log_probs: Tensor | None = None
        self.seen: Tensor | None = None
        self.sums = torch.zeros(2, dtype=torch.float64)
        self.step = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":  # drops what an earlier fit left; a checkpoint is loaded after this
            self._forget()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Method)
        step = pl_module.position(batch_idx).step
        if step < self.step:  # a new round of pruning starts at an earlier step
            self._forget()
        self.step = step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Method) and pl_module.trained_on is not None
        new = batch.num_new if batch.weight else 0  # a process without samples of its own repeats one with weight 0
        index = gather_rows(batch.index[:new])
        now = gather_rows(outputs["logits"][:new].float().log_softmax(1))
        if self.log_probs is None or self.seen is None:
            count = pl_module.trained_on.info.num_samples
            self.log_probs = torch.zeros(count, now.shape[1])
            self.seen = torch.zeros(count, dtype=torch.bool)
        place = "cpu" if self.log_probs.nbytes > LARGE else now.device
        index, now = index.to(place), now.to(place)
        self.log_probs, self.seen, self.sums = (x.to(place) for x in (self.log_probs, self.seen, self.sums))
        before, seen = self.log_probs[index], self.seen[index]
        divergence = (before.exp() * (before - now)).sum(1)
        self.sums += torch.stack([(divergence * seen).sum(), seen.sum()]).double()
        put_rows(self.log_probs, index, now)
        self.seen[index] = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total, count = self.sums.tolist()
        if count:
            assert isinstance(pl_module, Method)
            pl_module.log_metrics("train", {"consistency": total / count}, trainer.global_step)
        self.sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        kept = {"log_probs": self.log_probs, "seen": self.seen, "sums": self.sums}
        kept = {name: None if value is None else value.cpu().clone() for name, value in kept.items()}
        return kept | {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

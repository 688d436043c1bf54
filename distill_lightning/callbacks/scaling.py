"""The scale of gradients in 16-bit training."""

import lightning.pytorch as pl
import torch


def gradient_scale(trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> float:
    """The factor that gradients have in ``on_before_optimizer_step``.

    Lightning has divided them by the scale of 16-bit training before. It leaves this to a fused optimizer, which does
    it within its step.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    fused = any(group.get("fused") for group in optimizer.param_groups)
    return float(scaler.get_scale()) if scaler is not None and fused else 1.0

"""Penalties on the size of weights: L1 and L2 as a term of the loss, L1 as a proximal step, and decoupled weight decay.

With the gradient g, the learning rate lr and the strength lambda, in each optimizer step:

    L1Penalty               L + lambda sum |w|          g + lambda sign(w)
    L2Penalty               L + lambda / 2 sum w^2      g + lambda w
    ProximalL1              w <- sign(w) max(|w| - lr lambda / (1 - m), 0)      after the step
    DecoupledWeightDecay    w <- (1 - lr lambda) w                              before the step

The two penalties are added to the gradient, not to the loss: the step is the same, and the loss that is logged stays
comparable. They pass through momentum and through Adam's division, and are clipped with the gradient. L2Penalty is
what ``weight_decay`` of torch's SGD and Adam and of Caffe does, for the weights that a pattern names.
DecoupledWeightDecay is what AdamW does, for any optimizer (Loshchilov & Hutter 2019, arXiv:1711.05101).

With L1Penalty a weight swings around 0 by some lr lambda / (1 - m) and never is exactly 0. ProximalL1 gives exact zeros
(Daubechies, Defrise & De Mol 2004; Beck & Teboulle 2009, section 2.3). m is the momentum of the optimizer, 0 if it has
none: a gradient lambda sign(w) moves a weight by lr lambda / (1 - m) in all, so that both have the same strength.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from distill_lightning.callbacks.of_method import method_of
from distill_lightning.callbacks.scaling import gradient_scale
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import completes_no_step
from distill_lightning.methods.base import Method
from distill_lightning.ranges import Positive
from distill_lightning.recorded import Recorded


class WeightPenalty(Recorded, Callback, ABC):
    """The base class: which weights are meant.

    Args:
        strength: lambda.
        params: patterns of the names of the network's parameters, such as "*.weight" or "layer1.*". By default all with
            two dimensions or more: norms and biases are left out.

    Raises:
        InputError: ``strength`` is out of range. When the fit starts: a pattern matches no parameter.
    """

    def __init__(self, strength: Positive, params: list[str] | None = None) -> None:
        self.strength, self.params = strength, params

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            names = [name for name, _ in method_of(pl_module, self).model.named_parameters()]
            for pattern in self.params or ():
                if not any(fnmatchcase(name, pattern) for name in names):
                    some = ", ".join(names[:3])
                    raise InputError(f"{type(self).__name__}.params: {pattern} matches no parameter ({some}, ...)")

    def chosen(self, network: nn.Module) -> list[nn.Parameter]:
        """The parameters of the network that are meant."""
        return [
            parameter
            for name, parameter in network.named_parameters()
            if (parameter.ndim > 1 if self.params is None else any(fnmatchcase(name, p) for p in self.params))
        ]

    def trained(self, method: Method) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
        """Those that the current step trains, each with its group of the optimizer."""
        mine = {id(parameter) for parameter in self.chosen(method.model)}
        for parameter, group in method.optimization.trained(method.trainer.optimizers[0]):
            if id(parameter) in mine and parameter.grad is not None:
                yield parameter, group

    @abstractmethod
    def measured(self, weights: list[Tensor]) -> tuple[str, Tensor]:
        """What is logged: the name of a metric, and its value."""

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if completes_no_step(trainer):
            return
        method = method_of(pl_module, self)
        self.after_step(method)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            name, value = self.measured(list(self.chosen(method.model)))
            method.log_metrics("train", {name: float(value)}, trainer.global_step)

    def after_step(self, method: Method) -> None:
        """Called after each optimizer step."""


class L1Penalty(WeightPenalty):
    """L1 as a term of the loss: lambda times the sum of the absolute weights. Logs train/l1_penalty."""

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        by = self.strength * gradient_scale(trainer, optimizer)
        for parameter, _ in self.trained(method_of(pl_module, self)):
            assert parameter.grad is not None
            parameter.grad.add_(parameter.sign(), alpha=by)

    def measured(self, weights: list[Tensor]) -> tuple[str, Tensor]:
        return "l1_penalty", self.strength * torch.stack([w.double().abs().sum() for w in weights]).sum()


class L2Penalty(WeightPenalty):
    """L2 as a term of the loss: lambda / 2 times the sum of the squared weights. Logs train/l2_penalty."""

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        by = self.strength * gradient_scale(trainer, optimizer)
        for parameter, _ in self.trained(method_of(pl_module, self)):
            assert parameter.grad is not None
            parameter.grad.add_(parameter, alpha=by)

    def measured(self, weights: list[Tensor]) -> tuple[str, Tensor]:
        return "l2_penalty", self.strength / 2 * torch.stack([w.double().square().sum() for w in weights]).sum()


class ProximalL1(WeightPenalty):
    """L1 as a proximal step after each optimizer step, which makes weights exactly 0. Logs train/zeros, their share."""

    def after_step(self, method: Method) -> None:
        for parameter, group in self.trained(method):
            momentum, dampening = group.get("momentum", 0.0), group.get("dampening", 0.0)
            of_momentum = (1 - dampening) / (1 - momentum) if momentum else 1.0
            parameter.copy_(soft_threshold(parameter, group["lr"] * self.strength * of_momentum))

    def measured(self, weights: list[Tensor]) -> tuple[str, Tensor]:
        return "zeros", torch.cat([(w == 0).flatten() for w in weights]).double().mean()


class DecoupledWeightDecay(WeightPenalty):
    """Weight decay apart from the gradient, with any optimizer. Set the optimizer's own ``weight_decay`` to 0. Logs
    train/weight_norm, the L2 norm of the weights.
    """

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        for parameter, group in self.trained(method_of(pl_module, self)):
            parameter.mul_(1 - group["lr"] * self.strength)

    def measured(self, weights: list[Tensor]) -> tuple[str, Tensor]:
        return "weight_norm", torch.stack([w.double().square().sum() for w in weights]).sum().sqrt()


def soft_threshold(weights: Tensor, threshold: float) -> Tensor:
    """The proximal operator of L1: sign(w) max(|w| - threshold, 0)."""
    return weights.sign() * (weights.abs() - threshold).clamp(min=0)

"""Be Your Own Teacher (Zhang et al., ICCV 2019, arXiv:1905.08094), BYOT.

    L = CE(y, s_C) + sum_{i < C} [ (1 - alpha) CE(y, s_i) + alpha T^2 KL(p^T(s_C) || p^T(s_i)) + lambda |f_i - f_C|^2 ]

    s_i   logits at exit i, (B, K); C is the deepest, the network itself, and carries no gradient where it teaches
    f_i   what goes into the linear layer of exit i, (B, D); squared distance, mean over the batch
    y     labels, (B,)                                                p^T(z) = softmax(z / T)

A ResNet or VGG has an exit after each of its stages. An earlier one has a head: a bottleneck of three convolutions for
each stage it leaves out, pooling, and a linear layer, so that its features are as many as the deepest's. Heads are
there from the start, beside the network (the authors' code makes layers in the first step, and loses the optimizer's
state at a resume). T^2 is this house's; the code's soft cross-entropy has none. alpha = 0.3, T = 3 and lambda = 0.03
are the code's, whose distance is not squared and over the whole batch; the paper's could not be verified.

The network is deployed alone; ``EarlyExit`` takes an exit and its head out of the checkpoint as a smaller network.

Nothing is kept between steps; the heads are in the checkpoint, under ``heads.``.
"""

from typing import Any

import torch
from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.losses import soft_target_loss
from distill_lightning.methods.base import Method
from distill_lightning.models.early_exit import ExitHead, exit_names, feature_shapes, pooled
from distill_lightning.values import Batch, DataInfo, Position, StepOutput


class BYOT(Method):
    """The end of a network teaches its earlier stages.

    Args:
        network: one that names its exits: a ResNet or VGG; see Method.
        temperature: T > 0.
        alpha: in [0, 1].
        feature_weight: lambda >= 0.
        kwargs: see Method.

    Raises:
        InputError: the network names no exits.
    """

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 3.0,
        alpha: float = 0.3,
        feature_weight: float = 0.03,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if not temperature > 0 or not 0 <= alpha <= 1 or feature_weight < 0:
            raise InputError(
                f"temperature is {temperature}, alpha {alpha}, feature_weight {feature_weight}: T must be above 0, "
                "alpha in [0, 1], the weight not below 0"
            )
        self.temperature, self.alpha, self.feature_weight = temperature, alpha, feature_weight
        self.heads = nn.ModuleList()
        self.exits = [FeatureHook() for _ in exit_names(network)]
        for name, hook in zip(exit_names(network), self.exits, strict=True):
            hook.watch(network.get_submodule(name))

    def build(self, info: DataInfo) -> None:
        """A head for each exit but the deepest."""
        shapes = feature_shapes(self.model, info.channels, info.image_size)
        parameter = next(self.model.parameters())
        for number in range(len(shapes) - 1):
            head = ExitHead(shapes[number:], info.num_classes).to(parameter.device, parameter.dtype)
            self.heads.append(head.to(memory_format=self.memory_format))

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        deepest = self(batch.images)
        *at_exits, last = (hook.take() for hook in self.exits)
        of_deepest = pooled(last).detach().float()
        terms = {"ce": self.cross_entropy(deepest, batch)}
        for number, (head, at_exit) in enumerate(zip(self.heads, at_exits, strict=True), 1):
            logits, features = (part.float() for part in head(at_exit))
            soft = soft_target_loss(deepest, logits, self.temperature)
            distance = torch.square(features - of_deepest).sum(1).mean()
            terms[f"ce_{number}"] = (1 - self.alpha) * self.cross_entropy(logits, batch)
            terms[f"soft_{number}"] = self.alpha * soft
            terms[f"features_{number}"] = self.feature_weight * distance
        return StepOutput(terms, deepest)

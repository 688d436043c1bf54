"""Be Your Own Teacher (Zhang et al., ICCV 2019, arXiv:1905.08094), BYOT.

    L = CE(y, s_C) + sum_{i < C} [ (1 - alpha) CE(y, s_i) + alpha T^2 KL(p^T(s_C) || p^T(s_i)) + lambda |f_i - f_C|^2 ]

    s_i   logits at exit i, (B, K). Exit C is the deepest one, the output of the network; s_C has no gradient in KL
    f_i   input of the linear layer of exit i, (B, D); f_C has no gradient; |.|^2 is averaged over the batch
    y     labels, (B,)                                                p^T(z) = softmax(z / T)

A ResNet or VGG has an exit after each of its stages. Each exit but the deepest has a head: a bottleneck of three
convolutions for each later stage, pooling, and a linear layer. So all exits have the same number of features D. The
heads are made before the first step and are not part of the network. (The authors' code makes some layers in the first
step and loses the optimizer state when a run is resumed.)

Differences to the sources: the factor T^2 is our choice; the soft cross-entropy in the authors' code has no such
factor. alpha = 0.3, T = 3 and lambda = 0.03 are from that code, where the distance is not squared and is taken over the
whole batch. The values in the paper could not be verified.

Only the network is deployed. ``EarlyExit`` makes a smaller network from an exit and its head in the checkpoint.

State between steps: none. The heads are in the checkpoint, under ``heads.``.
"""

from typing import Any

from torch import nn

from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.losses import feature_distance, kd
from distill_lightning.methods.base import Method
from distill_lightning.models.early_exit import ExitHead, exit_names, feature_shapes, pooled
from distill_lightning.models.outputs import in_full, input_type
from distill_lightning.networks import Network
from distill_lightning.ranges import Fraction, NonNegative, Positive
from distill_lightning.values import Batch, DataInfo, Position, StepOutput


class BYOT(Method):
    """The output of a network teaches its earlier stages.

    Args:
        network: a network that defines ``exits``, such as a ResNet or VGG; see Method.
        temperature: T, by which logits are divided before the softmax.
        alpha: the weight of the soft targets at the earlier exits.
        feature_weight: lambda, the weight of the distance between features.
        kwargs: see Method.

    Raises:
        InputError: an option is out of range, or the network defines no exits.
    """

    def __init__(
        self,
        network: Network,
        temperature: Positive = 3.0,
        alpha: Fraction = 0.3,
        feature_weight: NonNegative = 0.03,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.temperature, self.alpha, self.feature_weight = temperature, alpha, feature_weight
        self.heads = nn.ModuleList()

    def network_is_set(self, network: nn.Module) -> None:
        """Watches the exits of the network."""
        self.exits = [FeatureHook() for _ in exit_names(network)]
        for name, hook in zip(exit_names(network), self.exits, strict=True):
            hook.watch(network.get_submodule(name))

    def build(self, info: DataInfo) -> None:
        """Makes a head for each exit but the deepest."""
        shapes = feature_shapes(self.model, info.channels, info.image_size)
        device, dtype = input_type(self.model)
        self.heads = nn.ModuleList()
        for number in range(len(shapes) - 1):
            head = ExitHead(shapes[number:], info.num_classes).to(device, dtype)
            self.heads.append(head.to(memory_format=self.memory_format))

    def read_by_build(self, info: DataInfo) -> tuple[int, ...]:
        """See Method; the heads also depend on the size of the exits' maps."""
        return *super().read_by_build(info), info.image_size

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The term ``ce``, and ``ce_i``, ``soft_i`` and ``features_i`` for each earlier exit i = 1 .. C - 1."""
        deepest = self(batch.images)
        *at_exits, last = (hook.take() for hook in self.exits)
        of_deepest = in_full(pooled(last).detach())
        terms = {"ce": self.cross_entropy(deepest, batch)}
        for number, (head, at_exit) in enumerate(zip(self.heads, at_exits, strict=True), 1):
            logits, features = map(in_full, head(at_exit))
            soft = kd(logits, deepest, temperature=self.temperature)
            terms[f"ce_{number}"] = (1 - self.alpha) * self.cross_entropy(logits, batch)
            terms[f"soft_{number}"] = self.alpha * soft
            terms[f"features_{number}"] = self.feature_weight * feature_distance(features, of_deepest)
        return StepOutput(terms, deepest)

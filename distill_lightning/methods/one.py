"""Knowledge Distillation by On-the-Fly Native Ensemble (Lan, Zhu & Gong, NeurIPS 2018, arXiv:1806.04606), ONE.

    L = sum_m CE(y, z_m) + CE(y, z_g) + r(e) sum_m T^2 KL(p^T(z_g) || p^T(z_m))        z_g = sum_m g_m z_m

    z_m    logits of branch m, (B, K); all branches share the first stages of the network
    g      weights of the branches, (B, M): softmax(ReLU(BN(W x))) with x the pooled shared feature map, (B, C)
    z_g    logits of the group, (B, K); no gradient in KL, so the gate learns from CE(y, z_g) alone
    r(e)   exp(-5 (1 - min(e / E, 1))^2), the weight of the group in epoch e, from 0
    y      labels, (B,)                                                                    p^T(z) = softmax(z / T)

M = 3, T = 3, and E = 80 of 300 epochs in the authors' code. Their rate there is 0.1, divided by 10 after 150 and 225
epochs, with batches of 128.

Differences to that code: it adds 1e-7 to the target's probabilities, without a normalisation, which changes the loss by
1e-5; its gate has a bias, which the batch norm behind it takes away again.

The gate's batch norm sees the rows of its own process, so two processes do not give what one gives, whatever the
network.

The first branch is evaluated and deployed: it is the plain network. The authors also report the whole group, which
costs its M branches; ``BranchEnsemble`` with a gate makes it from the checkpoint. The control is ``Branches``.

State between steps: none. Gate and other branches are in the checkpoint, under ``gate.`` and ``branches.``.
"""

from typing import Any

from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.features import channels_last
from distill_lightning.losses import one, ramp, weighted_logits
from distill_lightning.methods.branched import Branched
from distill_lightning.models.branched import Gate
from distill_lightning.models.outputs import input_type
from distill_lightning.networks import Network
from distill_lightning.ranges import CountOrZero, Positive
from distill_lightning.values import Batch, DataInfo, Position, StepOutput


class ONE(Branched):
    """Branches that learn from labels and from their gated mean.

    Args:
        network: the network; see Branched for it and for further options.
        temperature: T, by which logits are divided before the softmax.
        ramp_epochs: E, the number of epochs in which the weight of the group grows to 1.
        kwargs: see Branched.

    Raises:
        InputError: an option is out of range; see Branched.
    """

    needs_two_samples = True
    """The batch norm of the gate needs them."""

    def __init__(
        self, network: Network, temperature: Positive = 3.0, ramp_epochs: CountOrZero = 80, **kwargs: Any
    ) -> None:
        super().__init__(network, **kwargs)
        self.temperature, self.ramp_epochs = temperature, ramp_epochs
        self.gate: nn.Module | None = None

    def build(self, info: DataInfo) -> None:
        """See Branched; makes the gate.

        Raises:
            InputError: see Branched; or the shared map has its channels last.
        """
        super().build(info)
        if channels_last(self.model, self.shared_layer, info.shape):
            raise InputError(
                f"ONE's gate reads maps (C, H, W), and {self.shared_layer} of {type(self.model).__name__} gives "
                "(H, W, C): take OKDDip or another network"
            )
        self.gate = Gate(self.channels, self.number).to(*input_type(self.model))

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce_m`` for each branch, ``ce_group``, and ``soft``; branch 0 is the one that is evaluated."""
        assert self.gate is not None
        logits, at_layer = self.logits_of_branches(batch.images)
        group = weighted_logits(logits, self.gate(at_layer))
        terms = {f"ce_{m}": self.cross_entropy(z, batch) for m, z in enumerate(logits)}
        terms["ce_group"] = self.cross_entropy(group, batch)
        weight = ramp(position.epoch, self.ramp_epochs)
        terms["soft"] = weight * one(logits, group, temperature=self.temperature)
        return StepOutput(terms, logits[0])

"""Peer Collaborative Learning for Online Knowledge Distillation (Wu & Gong, AAAI 2021, arXiv:2006.04147), PCL.

    L = sum_m CE(y, z_m) + CE(y, z_g) + r(e) T^2 sum_m [ KL(p^T(z_g) || p^T(z_m))
                                                       + 1/(M-1) sum_{j != m} KL(p^T(t_j) || p^T(z_m)) ]

    z_m    logits of branch m for view m of the samples, (n, K); all branches share the first stages of the network
    z_g    logits of the group, (n, K): W (h_1, ..., h_M) + b, where h_m, (n, D), is the input of the linear layer of
           branch m. No gradient in KL, so W and b learn from CE(y, z_g) alone
    t_j    logits of branch j with averaged weights for view j, (n, K), no gradient
    r(e)   exp(-5 (1 - min(e / E, 1))^2), the weight of the group in epoch e, from 0
    y      labels, (n,)                                                                     p^T(z) = softmax(z / T)

The average of the weights, those of the shared stages included, after optimizer step s:

    a_s = d_s a_{s-1} + (1 - d_s) theta_s,    d_s = min(decay, 1 - 1/s)

So it is the mean of theta_1, ..., theta_s at first. The averaged networks are in training mode, as in the programs for
Mean Teacher (Tarvainen & Valpola 2017): batch norm uses the statistics of the batch.

M = 3 and E = 80 of 300 epochs in the paper. No code of the authors is known. T = 3, decay = 0.999 and the form of the
sum over j are those of a program of others, whose r(e) differs: it divides e by 1, not by 80.

The first branch is evaluated and deployed: it is the plain network. The authors deploy its averaged weights; add the
callback ``EMA`` to evaluate them beside it, and deploy them with ``use_ema``. The control is ``Branches``.

A step costs M + M/3 steps of the baseline, and augments M views.

State between steps: the averaged weights, which are equal on all processes. The checkpoint contains them, the branches
under ``branches.``, and the group's layer under ``group.``.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning import losses
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.methods.branched import Branched, logits_of_branches
from distill_lightning.models.outputs import in_full, input_type
from distill_lightning.moving_average import as_average, move_average
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, CountOrZero, OpenFraction, Positive
from distill_lightning.values import Batch, BatchNeeds, DataInfo, Position, StepOutput


class PCL(Branched):
    """Branches that learn from their joined features and from the averaged weights of each other.

    Args:
        network: the network; see Branched for it and for further options.
        branches: M, the number of branches, each with a view of its own.
        temperature: T, by which logits are divided before the softmax.
        ramp_epochs: E, the number of epochs in which the weight of the teaching grows to 1.
        decay: the largest d_s, the weight of the old average in each step, in (0, 1).
        kwargs: see Branched.

    Raises:
        InputError: an option is out of range; the network ends in no linear layer; see Branched.
    """

    separate_views = True
    shared_memory = ("averages", "averaged_until")

    def __init__(
        self,
        network: Network,
        branches: Count = 3,
        temperature: Positive = 3.0,
        ramp_epochs: CountOrZero = 80,
        decay: OpenFraction = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, branches=branches, **kwargs)
        self.needs = BatchNeeds(views=branches, allows_mixing=False)
        self.temperature, self.ramp_epochs, self.decay = temperature, ramp_epochs, decay
        self.group: nn.Linear | None = None
        self.pooled: list[FeatureHook] = []
        self.averages: dict[str, Tensor] = {}
        self.averaged_until = 0  # the number of optimizer steps
        self._averaged: tuple[nn.Module, FeatureHook, nn.ModuleList] | None = None  # not in the state dict

    def build(self, info: DataInfo) -> None:
        """See Branched; makes the group's layer.

        Raises:
            InputError: see Branched; or the network ends in no linear layer.
        """
        super().build(info)
        self.pooled, width = self.watch_heads([self.model, *self.branches])
        self.group = nn.Linear(self.number * width, info.num_classes).to(*input_type(self.model))

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce`` (labels, all branches), ``ce_group`` and ``soft``; branch 0 is the one that is evaluated."""
        assert self.group is not None
        logits, _ = self.logits_of_branches(batch.images)
        group = in_full(self.group(torch.cat([hook.take() for hook in self.pooled], 1)))
        means = self.averaged_logits(batch.images, position.step)
        weight = losses.ramp(position.epoch, self.ramp_epochs)
        targets = batch.targets[: batch.num_new]
        terms = {
            "ce": self.number * self.cross_entropy(torch.cat(logits), batch),
            "ce_group": losses.cross_entropy(group, targets, class_weights=batch.class_weights),
            "soft": weight * losses.pcl(logits, group, means, temperature=self.temperature),
        }
        return StepOutput(terms, logits[0])

    @torch.no_grad()
    def averaged_logits(self, images: Tensor, step: int) -> list[Tensor]:
        """t_1, ..., t_M, (n, K) each, of the weights averaged until now.

        Args:
            images: M views of n samples, (M n, C, H, W), one view after the other.
            step: s, the number of optimizer steps until now.
        """
        now = parameters_of(self.model, self.branches)
        averages = self.averages or as_average(now)
        self.averages = {name: value.to(self.device) for name, value in averages.items()}  # on the CPU in a checkpoint
        if step > self.averaged_until:  # not in each batch, where gradients are accumulated
            move_average(self.averages, now, min(self.decay, 1 - 1 / step))
            self.averaged_until = step
        network, at_layer, branches = self._networks()
        for name, parameter in parameters_of(network, branches).items():
            parameter.copy_(self.averages[name])
        layout = self.memory_format
        return logits_of_branches(network, at_layer, branches, images.contiguous(memory_format=layout))[0]

    def _networks(self) -> tuple[nn.Module, FeatureHook, nn.ModuleList]:
        """A copy of the network, the hook at its shared layer, and copies of the branches."""
        made = self._averaged
        if made is None or next(made[0].parameters()).device != self.device:
            made = copy.deepcopy((self.model, self.at_layer, self.branches))
            for part in (made[0], made[2]):
                part.train().requires_grad_(False)
            self._averaged = made
        return made


def parameters_of(network: nn.Module, branches: nn.ModuleList) -> dict[str, nn.Parameter]:
    """The parameters of all branches, the network's own first, by the number of the branch and their name in it."""
    parts = (network, *branches)
    return {f"{m}.{name}": value for m, part in enumerate(parts) for name, value in part.named_parameters()}

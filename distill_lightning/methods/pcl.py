"""Peer Collaborative Learning for Online Knowledge Distillation (Wu & Gong, AAAI 2021, arXiv:2006.04147), PCL.

    L = sum_m CE(y, z_m) + CE(y, z_g) + r(e) T^2 sum_m [ KL(p^T(z_g) || p^T(z_m))
                                                       + 1/(M-1) sum_{j != m} KL(p^T(t_j) || p^T(z_m)) ]

    z_m    logits of branch m for view m of the samples, (n, K); all branches share the first stages of the network
    z_g    logits of the group, (n, K): W (h_1, ..., h_M) + b, where h_m, (n, D), is the input of the linear layer of
           branch m. No gradient in KL, so W and b learn from CE(y, z_g) alone
    t_j    logits of branch j with mean weights for view j, (n, K), no gradient
    r(e)   exp(-5 (1 - min(e / E, 1))^2), the weight of the group in epoch e, from 0
    y      labels, (n,)                                                                     p^T(z) = softmax(z / T)

The mean weights, those of the shared stages included, after optimizer step s:

    a_0 = theta_0,    a_s = d_s a_{s-1} + (1 - d_s) theta_s,    d_s = min(decay, 1 - 1/s)

So they are the mean of theta_1, ..., theta_s at first. The branches with mean weights are in training mode, as in the
program of Mean Teacher (Tarvainen & Valpola 2017): batch norm uses the statistics of the batch. Other buffers are those
of the branches themselves.

M = 3 and E = 80 of 300 epochs in the paper. No code of the authors is known. T = 3, decay = 0.999 and the form of the
sum over j are those of the program shaoeric/Peer-Collaborative-Learning-for-Online-Knowledge-Distillation, whose r(e)
differs: it divides e by 1, not by 80.

The first branch is evaluated and deployed: it is the plain network. The authors deploy it with mean weights; add the
callback ``EMA`` to evaluate these beside it, and deploy them with ``use_ema``. ``BranchEnsemble`` gives the mean of the
logits of all branches, not z_g. The control is ``Branches``.

A step costs M + M/3 steps of the baseline, and augments M views.

State between steps: the mean weights, which are equal on all processes. The checkpoint contains them, the branches
under ``branches.``, and W and b under ``group.``.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from distill_lightning import losses
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.methods.branched import Branched, logits_of_branches
from distill_lightning.models.outputs import in_full, input_type
from distill_lightning.moving_average import as_average, move_average
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, CountOrZero, OpenFraction, Positive
from distill_lightning.values import Batch, BatchNeeds, DataInfo, Position, StepOutput, TimelineGiver


class PCL(Branched):
    """Branches that learn from all together and from their means.

    Args:
        network: the network; see Branched for it and for further options.
        branches: M, the number of branches, each with a view of its own.
        temperature: T, by which logits are divided before the softmax.
        ramp_epochs: E, the number of epochs in which the weight of the teaching grows to 1.
        decay: the largest d_s, the weight of the old mean in each step, in (0, 1).
        kwargs: see Branched.

    Raises:
        InputError: an option is out of range; the network ends in no linear layer; see Branched.
    """

    separate_views = True
    shared_memory = ("mean_weights", "mean_steps")

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
        self.of_others: list[FeatureHook] = []
        self.mean_weights: dict[str, Tensor] = {}
        self.mean_steps = 0  # s

    def network_is_set(self, network: nn.Module) -> None:
        """See Branched; watches the input of the last linear layer, too.

        Raises:
            InputError: there is none.
        """
        super().network_is_set(network)
        (self.pooled,), self.width = self.watch_heads([network])

    def check_networks(self, data: ImageData) -> None:
        """See Branched.

        Raises:
            InputError: see Branched; or there is a callback that goes back to earlier weights.
        """
        super().check_networks(data)
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if self.trainer.state.fn == "fit" and any(isinstance(callback, TimelineGiver) for callback in callbacks):
            raise InputError("PCL would teach with means over the rounds of Lottery: leave one of the two out")

    def build(self, info: DataInfo) -> None:
        """See Branched; makes the group's layer."""
        super().build(info)
        self.of_others, _ = self.watch_heads(self.branches)
        self.group = nn.Linear(self.number * self.width, info.num_classes).to(*input_type(self.model))

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``ce_m`` for each branch, ``ce_group``, and ``soft``; branch 0 is the one that is evaluated."""
        assert self.group is not None
        means = self.mean_logits(batch.images, position.step)
        logits, _ = self.logits_of_branches(batch.images)
        joined = torch.cat([hook.take() for hook in (self.pooled, *self.of_others)], 1)
        group = in_full(self.group(joined))
        terms = {f"ce_{m}": self.cross_entropy(z, batch) for m, z in enumerate(logits)}
        terms["ce_group"] = self.cross_entropy(group, batch)
        weight = losses.ramp(position.epoch, self.ramp_epochs)
        terms["soft"] = weight * losses.pcl(logits, group, means, temperature=self.temperature)
        return StepOutput(terms, logits[0])

    @torch.no_grad()
    def mean_logits(self, images: Tensor, step: int) -> list[Tensor]:
        """t_1, ..., t_M, (n, K) each, after the mean weights have been moved towards the weights of now.

        Args:
            images: M views of n samples, (M n, C, H, W), one view after the other.
            step: s, the number of optimizer steps until now.
        """
        parts = [self.model, *self.branches]
        weights = dict(nn.ModuleList(parts).named_parameters())
        means = self.mean_weights or as_average(weights)
        self.mean_weights = {name: value.to(self.device) for name, value in means.items()}  # resumed, on the CPU
        if step > self.mean_steps:  # not in each batch, where gradients are accumulated
            move_average(self.mean_weights, weights, min(self.decay, 1 - 1 / step))
            self.mean_steps = step
        network, *branches = (functools.partial(self._with_means, m, part) for m, part in enumerate(parts))
        images = images.contiguous(memory_format=self.memory_format)
        return logits_of_branches(network, self.at_layer, branches, images, separate_views=True)[0]

    def _with_means(self, m: int, part: nn.Module, inputs: Tensor) -> Any:
        """The output of branch m with its mean weights. What it writes into buffers is dropped."""
        means = {name: self.mean_weights[f"{m}.{name}"].to(own.dtype) for name, own in part.named_parameters()}
        buffers = {name: own.clone() for name, own in part.named_buffers()}
        return functional_call(part, means | buffers, (inputs,))

"""An ensemble of trained networks: the unweighted average of their outputs (Allen-Zhu & Li 2020, arXiv:2012.09816).

    F = 1/M (F_1 + ... + F_M)

    F_m   logits of member m, (B, K), as in the paper, or its probabilities. The member comes from a checkpoint and uses
          the normalisation that it was trained with
    M     number of members

There is nothing to train: ``distill fit`` evaluates the ensemble and makes a run folder, as for other methods. In
addition to the metrics of every method it logs

    disagreement          fraction of pictures for which two members predict different classes, mean over all pairs
    error_correlation     correlation of being wrong, of two members, mean over all pairs: 1 if all errors are shared
    members_kl            KL(p_i || p_j) in nats, mean over all ordered pairs of members and all pictures
    member_accuracy       mean accuracy of the members
    accuracy_by_members   accuracy of the ensemble of the first m members; m is logged as the step
    members_needed        the number of members that have 95 % of the gain of all of them over one

and in the test, if there is a validation split,

    temperature           T with the smallest NLL of F / T on the validation split (Guo et al. 2017, arXiv:1706.04599)
    nll_calibrated        NLL of F / T; the test split has no part in T
    ece_calibrated        ECE of F / T

An ensemble of one member evaluates a checkpoint again, for example with a ``class_bias``. To use an ensemble as a
teacher, give the list of its members to SoftTargets.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.methods.evaluated import Unregistered
from distill_lightning.methods.untrained import Untrained
from distill_lightning.metrics import CalibrationError, MembersMetric, NegativeLogLikelihood, TemperatureMetric
from distill_lightning.ranges import Finite
from distill_lightning.teachers import FrozenNetwork, TrainedNetwork, as_list
from distill_lightning.values import Batch


class Members(nn.Module):
    """A module that averages the outputs of networks.

    Args:
        members: the M networks.
        average: whether logits or probabilities are averaged.
    """

    def __init__(self, members: list[nn.Module], average: Literal["logits", "probs"]) -> None:
        super().__init__()
        self.members, self.average = nn.ModuleList(members), average

    def each(self, images: Tensor) -> Tensor:
        """The logits of each member, (M, B, K), for pictures (B, C, H, W)."""
        return torch.stack([member(images) for member in self.members])

    def of_first(self, logits: Tensor) -> Tensor:
        """The outputs of the ensembles of the first m members, m = 1 .. M.

        Args:
            logits: the logits of each member, (M, B, K).

        Returns:
            (M, B, K): the average logits, or the logarithm of the average probabilities.
        """
        counts = torch.arange(1, len(logits) + 1, device=logits.device)[:, None, None]
        if self.average == "logits":
            return logits.cumsum(0) / counts
        return logits.log_softmax(2).logcumsumexp(0) - counts.log()

    def forward(self, images: Tensor) -> Tensor:
        """The output of the ensemble of all members, (B, K), for pictures (B, C, H, W)."""
        return self.of_first(self.each(images))[-1]


class Ensemble(Untrained):
    """Evaluates the average of trained networks.

    Args:
        members: paths of checkpoints, or networks that have their weights.
        average: whether logits or probabilities are averaged.
        class_bias: see Method.

    Raises:
        InputError: ``members`` is empty.
    """

    leaves_checkpoint = False

    def __init__(
        self,
        members: list[TrainedNetwork],
        average: Literal["logits", "probs"] = "logits",
        class_bias: dict[str | int, Finite] | None = None,
    ) -> None:
        super().__init__(class_bias)
        if not members:
            raise InputError("Ensemble.members is an empty list: give one checkpoint or more")
        self.given, self.average = as_list(members), average
        self._members_metric: Unregistered | None = None
        self._fitted: Unregistered | None = None
        self._calibrated: dict[str, Unregistered] = {}
        self.temperature: float | None = None
        """The temperature of the last validation; None before."""

    def setup(self, stage: str) -> None:
        """Opens the members; otherwise see Method.

        Raises:
            InputError: a member cannot be opened or does not fit the data.
        """
        if self.image_data.preprocess:
            raise InputError(
                "each member of an Ensemble has the preprocessing of its own run: leave data.preprocess out"
            )
        data, device = self.image_data, self.trainer.strategy.root_device
        if not isinstance(self.model, Members):
            members: list[nn.Module] = [FrozenNetwork.open(given, data, "member") for given in self.given]
            self.set_network(Members(members, self.average).to(device))
        # anew, because an evaluation that was interrupted leaves batches in them
        self._members_metric = Unregistered(MembersMetric(len(self.given)).to(device))
        self._fitted = Unregistered(TemperatureMetric().to(device))
        after = {"nll_calibrated": NegativeLogLikelihood(), "ece_calibrated": CalibrationError()}
        self._calibrated = {name: Unregistered(metric.to(device)) for name, metric in after.items()}
        super().setup(stage)

    def over_views(self, images: Tensor) -> Tensor:
        """See Evaluated. Each member's logits are averaged over the views first, then the members are."""
        assert isinstance(self.model, Members)
        return self.model.of_first(self.averaged(self.model.each, images))[-1]

    def evaluate(self, batch: Batch) -> None:
        """See Evaluated. It also adds the batch to the metrics of the members."""
        if len(batch.labels):
            assert isinstance(self.model, Members) and self._members_metric is not None and self._fitted is not None
            logits = self.averaged(self.model.each, batch.images)
            of_first = self.metrics.biased(self.model.of_first(logits))
            self.metrics.update(of_first[-1], batch.labels)
            self._members_metric.module.update(self.metrics.biased(logits), of_first.argmax(2), batch.labels)
            if not self.trainer.testing:
                self._fitted.module.update(of_first[-1], batch.labels)
            elif self.temperature is not None:
                for metric in self._calibrated.values():
                    metric.module.update(of_first[-1] / self.temperature, batch.labels)

    def end_evaluation(self, stage: str) -> None:
        """See Evaluated. It also logs the metrics of the members."""
        assert self._members_metric is not None
        seen = self._members_metric.module.compute()
        self._members_metric.module.reset()
        for count, value in enumerate(seen.pop("accuracy_by_members").view(-1).tolist(), start=1):
            self.log_metrics(stage, {"accuracy_by_members": value}, count)
        results = {name: float(value) for name, value in seen.items()} | self._end_of_calibration(stage)
        self.log_results(stage, results, 0)
        super().end_evaluation(stage)

    def _end_of_calibration(self, stage: str) -> dict[str, float]:
        """Fits the temperature at the end of a validation; at the end of a test, what it makes of the metrics."""
        assert self._fitted is not None
        if stage == "val":
            self.temperature = float(self._fitted.module.compute())
            self._fitted.module.reset()
            return {}
        if self.temperature is None:
            return {}
        found = {name: float(metric.module.compute()) for name, metric in self._calibrated.items()}
        for metric in self._calibrated.values():
            metric.module.reset()
        return {"temperature": self.temperature} | found

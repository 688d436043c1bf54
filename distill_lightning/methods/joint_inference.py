"""Joint inference of a generalist and its specialists (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5.5).

    q = argmin KL(p^g || q) + sum_{m in A} KL(p^m || q)

    p^g   probabilities of the generalist, (B, K)
    p^m   probabilities of specialist m for its classes and its dustbin, over whose classes q is summed
    A     the active specialists of a picture: those with one of the generalist's first n classes in their set
    q     the joint probabilities, (B, K)

The package's module ``joint`` has the solution. There is nothing to train: ``distill fit`` evaluates the generalist
with its specialists, and leaves a checkpoint with all of their weights. This is a network like others
(``models.WithSpecialists``): it can be loaded, tested, exported, and be a teacher. In addition to the metrics of every
method it logs

    specialists_asked                 mean number of specialists that were asked for a picture
    generalist_accuracy               of the generalist alone
    conditional_accuracy              when only the classes of a set with the correct class are compared (Table 3), and
    generalist_conditional_accuracy   the same of the generalist alone
    repairable                        share of the generalist's errors in which an active set has the correct class
    pictures_by_coverage              number of pictures by the number of specialists whose set has the correct class,
    generalist_right_by_coverage      the number of them that the generalist has right, and the number that are right
    right_by_coverage                 after the specialists were asked (Table 4); the coverage is logged as the step
"""

from typing import Any

import torch

from distill_lightning import checkpoints
from distill_lightning.errors import InputError
from distill_lightning.methods.evaluated import Unregistered
from distill_lightning.methods.untrained import Untrained
from distill_lightning.metrics import CoverageMetric
from distill_lightning.models.with_specialists import WithSpecialists
from distill_lightning.ranges import Count, Finite, Positive
from distill_lightning.teachers import FrozenNetwork
from distill_lightning.values import Batch


class JointInference(Untrained):
    """Evaluates a generalist with its specialists.

    Args:
        generalist: the run or the checkpoint of the generalist.
        specialists: the runs or the checkpoints of the specialists.
        top: n, the number of the generalist's first classes that decide which specialists are asked.
        correction: whether the specialists' correction for their batches counts; False is a control.
        gap: see ``models.WithSpecialists``.
        class_bias: see Method.

    Raises:
        InputError: there are no specialists.
    """

    def __init__(
        self,
        generalist: str,
        specialists: list[str],
        top: Count = 1,
        correction: bool = True,
        gap: Positive = 1e-6,
        class_bias: dict[str | int, Finite] | None = None,
    ) -> None:
        super().__init__(class_bias)
        if not specialists:
            raise InputError("JointInference.specialists is an empty list: give one checkpoint or more")
        self.generalist, self.specialists = generalist, specialists
        self.top, self.correction, self.gap = top, correction, gap
        self._coverage: Unregistered | None = None

    def setup(self, stage: str) -> None:
        """Opens generalist and specialists, unless a checkpoint has given the network; otherwise see Method.

        Raises:
            InputError: one cannot be opened, does not fit the data, or is not one of this generalist's.
        """
        data, device = self.image_data, self.trainer.strategy.root_device
        if not isinstance(self.model, WithSpecialists):
            self.set_network(self._open())
        assert isinstance(self.model, WithSpecialists)
        self.model.to(device)
        self._coverage = Unregistered(CoverageMetric(self.model.members).to(device))
        super().setup(stage)
        if data.part is not None and self.trained_on is None:
            self.trained_on = data.as_trained_on()

    def _open(self) -> WithSpecialists:
        digest = FrozenNetwork.open(self.generalist, self.image_data, "generalist").digest
        checkpoint = self._read(self.generalist)
        spec, general = checkpoint["hyper_parameters"].get("network"), checkpoints.network_weights(checkpoint)
        weights = {f"generalist.{name}": value for name, value in general.items()}
        sets, bias = [], []
        for number, path in enumerate(self.specialists):
            FrozenNetwork.open(path, self.image_data, "specialist")
            content = self._read(path)
            shared = content["method"].get("shared") or {}
            if not {"classes", "correction", "generalist_digest"} <= shared.keys():
                raise InputError(f"{path[-60:]} is no specialist: give runs of the method Specialist")
            if shared["generalist_digest"] != digest or content["hyper_parameters"].get("network") != spec:
                raise InputError(
                    f"{path[-60:]} is a specialist of another generalist than {self.generalist[-60:]}: give its own one"
                )
            sets.append([int(one) for one in shared["classes"]])
            bias.append(0.0 if self.correction else -float(shared["correction"]))
            own = checkpoints.network_weights(content)
            weights |= {f"specialists.{number}.{name}": value for name, value in own.items()}
        arguments = {
            "network": spec,
            "sets": sets,
            "num_classes": self.image_data.num_classes,
            "top": self.top,
            "dustbin_bias": bias,
            "gap": self.gap,
        }
        made = {"class_path": f"{WithSpecialists.__module__}.{WithSpecialists.__name__}", "init_args": arguments}
        count = sum(value.numel() for value in weights.values())
        network = checkpoints.build_network(made, f"the generalist {self.generalist}", count)
        checkpoints.put_activation(network, checkpoint, self.generalist)
        network.load_state_dict(weights)
        self.hparams["network"] = made
        if activation := checkpoint["hyper_parameters"].get("activation"):
            self.hparams["activation"] = activation
        assert isinstance(network, WithSpecialists)
        return network.eval()

    def _read(self, path: str) -> dict[str, Any]:
        """The content of a checkpoint, whose network must get the pictures as the data of this run give them."""
        content, ours = checkpoints.read(path), self.image_data.info
        trained_on = checkpoints.trained_on(content, path)
        theirs = ours if trained_on is None else trained_on.info
        if (theirs.fingerprint, theirs.preprocessing) != (ours.fingerprint, ours.preprocessing):
            raise InputError(
                f"{path[-60:]} was trained on other pictures, of {theirs.name}, or with another preprocessing than "
                f"{ours.name} here: all must have the same"
            )
        return content

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> None:
        """See Evaluated. It also adds the batch to the table by coverage."""
        if len(batch.labels):
            assert isinstance(self.model, WithSpecialists) and self._coverage is not None
            model = self.model
            log_probs, general = self.averaged(lambda shown: torch.stack([*model.answer(shown)[:2]]), batch.images)
            self.metrics.update(self.metrics.biased(log_probs.float()), batch.labels)
            self._coverage.module.update(general, log_probs, model.active(general), batch.labels)

    def end_evaluation(self, stage: str) -> None:
        """See Evaluated. It also logs the table by coverage."""
        assert self._coverage is not None
        seen = self._coverage.module.compute()
        self._coverage.module.reset()
        columns = [seen.pop(name).tolist() for name in ("pictures", "before", "after")]
        for coverage, (pictures, before, after) in enumerate(zip(*columns, strict=True)):
            if pictures:
                row = {"pictures": pictures, "generalist_right": before, "right": after}
                self.log_metrics(stage, {f"{name}_by_coverage": value for name, value in row.items()}, coverage)
        results = {name: float(value) for name, value in seen.items()}
        self.log_results(stage, results, 0)
        super().end_evaluation(stage)

"""A specialist for a few classes (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, sections 5.2 to 5.4 and 6.1).

    L = CE_D(y, s)                                                     before soft_from
    L = (1 - w) CE_D(y, s) + w T^2 KL(softmax(g / T) || softmax(s / T))     from then on

    S     the specialist's classes: one of several clusters of classes that the generalist confuses
    s     logits of the specialist for all K classes, (B, K)
    g     logits of the generalist, (B, K), no gradient
    CE_D  cross-entropy over S and the dustbin, whose logit is logsumexp_{k not in S} s_k - b
    b     log[(N - N_S) / N_S], the correction for batches of which half are samples of S
    y     labels, (B,)

The specialist starts from the generalist's weights: give them as ``start_from``. Then its first probabilities are those
of the generalist exactly, since it keeps the logits of all classes.

Differences from the paper: (1) The paper gives a specialist an output layer of |S| + 1 classes; here it keeps all K
outputs, and the dustbin is the sum of the other classes. The generalist's soft targets can then be used for all
classes, for which section 6.1 asks for a full softmax. (2) The paper adds b to the dustbin's bias after training; here
it is inside the loss, which has the same optimum, so that the network's logits need no correction afterwards. (3) The
paper gives no recipe for the clusters beyond K-means on the columns of the covariance matrix; see ``clusters``. (4) The
paper proposes soft targets against overfitting, and does not show them.

State between steps: none. The checkpoint has the sets, the specialist's own one, b, and the digest of the generalist.
A specialist is resumed only with the same generalist.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from distill_lightning import losses
from distill_lightning.clusters import check_clusters, clusters
from distill_lightning.data.base import ImageData
from distill_lightning.data.loaders import EvalLoader
from distill_lightning.data.special_order import special_count
from distill_lightning.data.training_samples import Share
from distill_lightning.digests import tensors_digest
from distill_lightning.distributed import first_decides, say
from distill_lightning.errors import InputError
from distill_lightning.evaluation import METRICS
from distill_lightning.methods.base import Method
from distill_lightning.methods.evaluated import Unregistered
from distill_lightning.metrics import SpecialistMetric
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, CountOrZero, Fraction, Positive, Seed
from distill_lightning.teachers import FrozenNetwork, Teachers
from distill_lightning.values import Batch, BatchNeeds, Position, StepOutput, TeacherOutput, TimelineGiver

OWN_METRICS = ("special_accuracy", "dustbin_nll", "dustbin_probs", "dustbin_share")


class Specialist(Method):
    """Learns to tell a few classes apart that a generalist confuses.

    The clusters are found from the generalist's probabilities for the validation pictures, by every specialist anew:
    with the same options they are the same. An epoch shows each sample of the specialist's classes once, and as many
    others.

    Args:
        network: the network, of the same kind as the generalist; see Method.
        generalist: the run or the checkpoint of the generalist.
        specialists: the number of specialists, and of clusters.
        number: which of them this one is, from 0.
        clusters: how the clusters are found: "equal" (of equal size), "lloyd" (K-means), "paper" (online K-means of
            the raw covariance, whose sizes are very uneven), or "random" (a control).
        classes_per_specialist: the size of sets that may overlap: the classes nearest to the centre of each cluster. By
            default the sets are the clusters, which do not overlap.
        cluster_seed: the seed of the clusters.
        soft_from: the fraction of training after which the generalist's soft targets are added.
        soft_weight: w, the weight of the soft targets from then on.
        temperature: T.
        kwargs: see Method.

    Raises:
        InputError: ``number`` is too large; in ``setup``, the clusters cannot be made, the specialist's cluster has one
            class, or the generalist does not fit the data.
    """

    needs = BatchNeeds(allows_mixing=False)
    shared_memory = ("sets", "classes", "correction", "generalist_digest")
    val_metrics = METRICS + OWN_METRICS

    def __init__(
        self,
        network: Network,
        generalist: str,
        specialists: Count = 10,
        number: CountOrZero = 0,
        clusters: Literal["equal", "lloyd", "paper", "random"] = "equal",
        classes_per_specialist: Count | None = None,
        cluster_seed: Seed = 0,
        soft_from: Fraction = 0.67,
        soft_weight: Fraction = 0.5,
        temperature: Positive = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if number >= specialists:
            raise InputError(
                f"Specialist.number is {number}: with {specialists} specialists it is at most {specialists - 1}"
            )
        self.generalist, self.specialists, self.number = generalist, specialists, number
        self.clusters, self.cluster_seed = clusters, cluster_seed
        self.classes_per_specialist = classes_per_specialist
        self.soft_from, self.soft_weight, self.temperature = soft_from, soft_weight, temperature
        self.sets: list[list[int]] = []
        """The classes of all specialists. Known in a fit."""
        self.classes: list[int] = []
        """The classes of this one. Known in a fit."""
        self.correction = 0.0
        """b. Known in a fit."""
        self.generalist_digest = ""
        self._opened: Teachers | None = None
        self._is_soft = False
        self._special: Unregistered | None = None

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms ``hard`` (labels and dustbin) and ``soft`` (generalist), which is 0 before ``soft_from``."""
        logits = self(batch.images)
        classes = torch.tensor(self.classes, device=logits.device)
        hard = losses.dustbin_cross_entropy(logits, batch.labels, classes, self.correction)
        if batch.teacher is None:
            return StepOutput({"hard": hard, "soft": logits.new_zeros(())}, logits)
        soft = losses.kd(logits, batch.teacher.logits, temperature=self.temperature)
        return StepOutput({"hard": (1 - self.soft_weight) * hard, "soft": self.soft_weight * soft}, logits)

    def with_teacher(self, batch: Batch) -> Batch:
        """See Method. The generalist is asked only where its soft targets are used."""
        if not self._is_soft:
            return batch
        assert self._opened is not None
        return batch._replace(teacher=TeacherOutput(self._opened.logits(batch.images)))

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """See Method."""
        self._is_soft = self.soft_weight > 0 and self.position(batch_idx).progress >= self.soft_from
        return super().training_step(batch, batch_idx)

    # Before training

    def setup(self, stage: str) -> None:
        """Finds the specialist's classes for a fit; otherwise see Method."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageData):
            raise InputError("Specialist chooses its own batches: use a data module of distill_lightning")
        if stage == "fit":
            self._find_classes(data)
        super().setup(stage)

    def _find_classes(self, data: ImageData) -> None:
        check_clusters(data.num_classes, self.specialists, self.classes_per_specialist)
        if any(isinstance(callback, TimelineGiver) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise InputError("a specialist is not trained in rounds: leave the callback Lottery out")
        opened = FrozenNetwork.open(self.generalist, data, "generalist")
        of_generalist = opened.trained_on
        if of_generalist is not None and of_generalist.info.fingerprint != data.fingerprint:
            raise InputError(
                f"the generalist {self.generalist[-60:]} was trained on other pictures, of {of_generalist.info.name}, "
                f"than {data.name} has here: give one that was trained on these"
            )
        self.generalist_digest = opened.digest
        self._opened = Teachers([opened])
        self._opened.prepare(self.trainer)
        self.sets = first_decides(lambda: self._clusters(data))
        if self.number >= len(self.sets):
            raise InputError(
                f"clusters {self.clusters} found only {len(self.sets)} clusters: there is no specialist {self.number}; "
                "give fewer, or clusters equal"
            )
        self.classes = self.sets[self.number]
        if len(self.classes) < 2:
            raise InputError(
                f"the cluster {self.number} has one class, {data.class_names[self.classes[0]]}, and nothing to tell it "
                "apart from: give fewer specialists, or clusters equal"
            )
        train = data.training_split
        assert train.labels is not None
        labels = train.labels[train.taken]
        self.correction = losses.dustbin_correction(special_count(labels, self.classes), len(labels))
        self.needs = BatchNeeds(allows_mixing=False, special_classes=tuple(self.classes))
        self._special = Unregistered(SpecialistMetric(self.classes).to(self.trainer.strategy.root_device))

    @torch.no_grad()
    def _clusters(self, data: ImageData) -> list[list[int]]:
        """The sets of all specialists, from the generalist's probabilities on validation (or training) pictures."""
        assert self._opened is not None and data.normaliser is not None
        split = data.val or data.training_split
        if data.val is None:
            say("there is no validation split: the clusters are found on training pictures, which the generalist knows")
        loader = EvalLoader(
            split, data.eval_batch_size, data.normaliser, Share(device=self.trainer.strategy.root_device)
        )
        probs = torch.cat([self._opened.logits(batch.images).softmax(1).cpu() for batch in loader])
        found = clusters(probs, self.specialists, self.clusters, self.cluster_seed, self.classes_per_specialist)
        sizes = ", ".join(str(len(classes)) for classes in found)
        say(f"{self.number + 1} of {len(found)} specialists, with {sizes} classes")
        return found

    def on_train_start(self) -> None:
        """Says so if the specialist does not start from the generalist's weights."""
        assert self._opened is not None
        if self.trainer.global_step == 0:
            theirs = self._opened.members[0].network.state_dict()
            if tensors_digest(self.model.state_dict()) != tensors_digest(theirs):
                say("the specialist does not start from the generalist's weights: give these as start_from")

    # Evaluation

    @property
    def validation_tags(self) -> set[str]:
        """See Evaluated."""
        tags = super().validation_tags
        return {f"val/{name}" for name in self.val_metrics} if tags and self._special is not None else tags

    def evaluate(self, batch: Batch) -> None:
        """See Evaluated. In a fit it also adds the batch to the metrics of the specialist's classes."""
        if len(batch.labels):
            logits = self.metrics.biased(self.averaged(self, batch.images))
            self.metrics.update(logits, batch.labels)
            if self._special is not None:
                self._special.module.update(logits, batch.labels)

    def end_evaluation(self, stage: str) -> None:
        """See Evaluated. It also logs the metrics of the specialist's classes."""
        if self._special is not None:
            results = {name: float(value) for name, value in self._special.module.compute().items()}
            self._special.module.reset()
            if not self.trainer.sanity_checking:
                self.log_results(stage, results, self.trainer.global_step)
        super().end_evaluation(stage)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See Method.

        Raises:
            InputError: the run is resumed with another generalist, or with other clusters.
        """
        if self.has_trainer and self.trainer.training:
            shared = checkpoint["method"]["shared"]
            for name, what in (("generalist_digest", "another generalist"), ("sets", "other clusters")):
                if shared.get(name) != getattr(self, name):
                    raise InputError(
                        f"this specialist was started with {what}: resume it with the same, or start a new run"
                    )
        super().on_load_checkpoint(checkpoint)

"""Knowledge Distillation with the Reused Teacher Classifier (Chen et al., CVPR 2022, arXiv:2203.14001), SimKD.

    L = w mean over B, C, H and W of (P(f) - g)^2                                 s = W mean over H and W of P(f) + b

    f      the student's last map, (B, D, H, W)
    P      the projector: convolutions 1x1, 3x3, 1x1, each with batch norm and ReLU, to the channels of g
    g      the teacher's last map, (B, C, H', W'), no gradient. The larger of P(f) and g is averaged to the smaller
    W, b   the teacher's classifier, which is not trained
    s      logits, (B, K)

The labels have no part in it, so pictures without labels serve as well; ``hard_weight`` and ``soft_weight``, 0 by
default, add them and the soft targets.

Another network is deployed than the student: its layers up to the last map, the projector, and the teacher's
classifier. It is ``models.ReusedClassifier``; it is what is validated, tested, exported and opened from the checkpoint,
and its parameters are those that are counted. With r = 2, the projector of a ResNet-8x4 of a ResNet-32x4 adds 17 % to
the parameters and 8 % to the multiply-adds. Compare it with methods that deploy the student in a column of its own.

In the authors' code a student's map that is larger than the teacher's is averaged before the projector; here after it.

With several processes, the projector's batch norms use the statistics of each one's own rows, so two processes do not
give exactly what one gives.

State between steps: none.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.checkpoints import open_network
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.features import Features, channels_last, layer_shapes, module_path
from distill_lightning.losses import simkd
from distill_lightning.methods.classifier_taught import ClassifierTaught
from distill_lightning.models.early_exit import trunk
from distill_lightning.models.outputs import dry_pictures, input_type
from distill_lightning.models.reused_classifier import ReusedClassifier, take_classifier
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, NonNegative
from distill_lightning.seeds import BUILD, run_seed, seed_for
from distill_lightning.values import Batch, Position, TeacherGiver

DEPLOYED = f"{ReusedClassifier.__module__}.{ReusedClassifier.__name__}"


class SimKD(ClassifierTaught):
    """Learns the features that the teacher's classifier knows.

    Args:
        network: the student; see Method. Its own classifier is not used.
        layers: the student's last map, one layer: a module path, or ``last_stage``.
        teacher_layers: the teacher's last map, likewise. The teacher's logits must be its linear layer on the mean of
            this map.
        feature_weight: w, the weight of the features.
        reduction: r, how many times fewer channels than the teacher's map the projector has inside.
        hard_weight: the weight of the labels.
        kwargs: see FeatureTaught.
    """

    def __init__(
        self,
        network: Network,
        layers: list[str] | None = None,
        teacher_layers: list[str] | None = None,
        feature_weight: NonNegative = 1.0,
        reduction: Count = 2,
        hard_weight: NonNegative = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, layers=layers, teacher_layers=teacher_layers, hard_weight=hard_weight, **kwargs)
        if self.activation is not None:
            raise InputError("SimKD has a projector with ReLU, like the teacher's map: leave activation out")
        self.feature_weight, self.reduction = feature_weight, reduction
        self.needs = replace(self.needs, allows_unlabelled=True)

    @property
    def student_layers(self) -> list[str]:
        """The projector, once the network has it."""
        return ["projector"] if isinstance(self.model, ReusedClassifier) else super().student_layers

    def trained_networks(self) -> dict[str, nn.Module]:
        """See Method; only the student's layers are drawn by ``initializer``."""
        return {"": self.model.trunk if isinstance(self.model, ReusedClassifier) else self.model}

    def get_ready(self, giver: TeacherGiver, data: ImageData) -> None:
        """Replaces the student by the network that is deployed, with the teacher's classifier.

        Raises:
            InputError: the student cannot be cut at its layer, or the teacher has no such classifier.
        """
        super().get_ready(giver, data)
        classifier = self.teacher_classifier(input_type(self.model)[0])
        if not isinstance(self.model, ReusedClassifier):
            layer = self.student_layers
            if len(layer) != 1:
                raise InputError(f"SimKD cuts the student at one layer, and {len(layer)} are given: give one")
            (own,) = layer_shapes(self.model, layer, data.info.shape)
            path = module_path(self.model, layer[0])
            if channels_last(self.model, path, data.info.shape):
                raise InputError(f"SimKD needs a map (C, H, W), and {path} of the student gives (H, W, C)")
            refuse_other_order(self.model, path, data.info.shape)
            arguments = {
                "layer": path, "channels": own[0], "teacher_channels": classifier.in_features,
                "reduction": self.reduction, "bias": classifier.bias is not None, "num_classes": data.num_classes,
            }  # fmt: skip
            self._deploy(arguments)
        assert isinstance(self.model, ReusedClassifier)
        if self.model.classifier.weight.shape != classifier.weight.shape:
            raise InputError(f"SimKD has the classifier of another teacher, of {classifier.in_features} features")
        take_classifier(self.model, classifier)

    def match_network(self, checkpoint: dict[str, Any], where: str) -> None:
        """See Method."""
        said = checkpoint["hyper_parameters"].get("network")
        if isinstance(said, dict) and said.get("class_path") == DEPLOYED:
            self.set_network(open_network(where, checkpoint), **self.layout)

    def _deploy(self, arguments: dict[str, Any]) -> None:
        device, dtype = input_type(self.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(BUILD, run_seed(), 1))
            deployed = ReusedClassifier(self.model, **arguments).to(device, dtype)
        self.set_network(deployed.train(self.training), **self.layout)
        if "network" in self.hparams:  # so that the checkpoint says how to build what is in it
            student = self.hparams["network"]
            self.hparams["network"] = {"class_path": DEPLOYED, "init_args": {"network": student, **arguments}}

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The term ``features``."""
        return {"features": self.feature_weight * simkd(features[0], teacher_features[0])}


@torch.no_grad()
def refuse_other_order(network: nn.Module, path: str, shape: tuple[int, int, int]) -> None:
    """Checks that a network can be cut after a module.

    Raises:
        InputError: its children, in their order, give another map.
    """
    name, training = type(network).__name__, network.training
    features = Features(network, [path], in_eval=True)
    picture = dry_pictures(network, shape)
    try:
        network.eval()(picture)
        (whole,) = features.take()
        same = torch.allclose(trunk(network, path)(picture), whole, rtol=1e-4, atol=1e-5)
    except Exception as error:
        raise InputError(
            f"SimKD cannot cut {name} after {path}: its layers are not called one after another"
        ) from error
    finally:
        features.remove()
        network.train(training)
    if not same:
        raise InputError(f"SimKD cannot cut {name} after {path}: its layers are not called one after another")

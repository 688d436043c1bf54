"""The base class of the methods that use the teacher's classifier.

The classifier is the teacher's last linear layer, whose input is the mean of the teacher's last map over its places. It
is not trained, and no part of the checkpoint.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.features import Features, last_linear, layer_shapes
from distill_lightning.methods.evaluated import Unregistered
from distill_lightning.methods.feature_taught import FeatureTaught
from distill_lightning.models.early_exit import pooled
from distill_lightning.models.outputs import dry_pictures, main_output
from distill_lightning.networks import Network
from distill_lightning.values import TeacherGiver


class ClassifierTaught(FeatureTaught):
    """A method with a teacher's last map and classifier. The teacher has the classes of the data.

    Args:
        network: the student; see Method.
        kwargs: see FeatureTaught.
    """

    usual_layers: ClassVar = ["last_stage"]

    def __init__(self, network: Network, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.needs = replace(self.needs, teacher_logits=True)
        self._classifier: Unregistered | None = None

    def get_ready(self, giver: TeacherGiver, data: ImageData) -> None:
        """Reads the teacher's classifier.

        Raises:
            InputError: the teacher's logits are not its linear layer on the mean of its last map.
        """
        teacher, shape = giver.copy_of_teacher(data.info.shape)
        classifier = classifier_of(teacher, self.layers_of_teacher, shape, type(self).__name__)
        self._classifier = Unregistered(classifier.requires_grad_(False))

    def teacher_classifier(self, device: torch.device) -> nn.Linear:
        """The teacher's linear layer, on a device. A gradient may pass through it."""
        assert self._classifier is not None
        classifier: nn.Linear = self._classifier.module.to(device)
        return classifier


@torch.no_grad()
def classifier_of(
    network: nn.Module, layers: Sequence[str], shape: tuple[int, int, int], method: str, option: str = "teacher_layers"
) -> nn.Linear:
    """The linear layer of a network, after a check that its input is the mean of the map at a layer.

    Args:
        network: the network.
        layers: the layer of its last map, alone.
        shape: (C, H, W) of a picture.
        method: the name of the method, for errors.
        option: the option that gives the layer, for errors.

    Raises:
        InputError: the network's logits are not the linear layer on the mean of this map.
    """
    name = type(network).__name__
    if len(layers) != 1:
        raise InputError(f"{method} uses one layer of each network, and {option} has {len(layers)}: give one")
    (found,) = layer_shapes(network, layers, shape)
    classifier, features = last_linear(network), Features(network, layers, in_eval=True, shape=shape)
    training = network.training
    logits = main_output(network.eval()(dry_pictures(network, shape, 2)))
    network.train(training)
    (taken,) = features.take()
    features.remove()
    if classifier is None or len(found) != 3 or found[0] != classifier.in_features:
        raise InputError(f"{method} needs a linear layer after {layers[0]} of {name}: give its last map in {option}")
    if not torch.allclose(classifier(pooled(taken)), logits, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"{method}: the logits of {name} are not its linear layer on the mean of {layers[0]}: give its last map in "
            f"{option}"
        )
    return classifier

"""The base class of the methods that learn from a teacher's features.

    L = w_hard CE(y, s) + sum of the method's terms of (f_1, g_1), (f_2, g_2), ... + w_soft T^2 KL(p^T(t) || p^T(s))

f_j are the features of the student at its layer j, g_j those of the teacher at its own, which have no gradient. Both
are of the same pictures: the callback SoftTargets asks the teacher once for a batch.

Adapters, which some methods train between the features of both networks, are made before the first step from the shapes
that a pass of one picture finds. They are drawn from a seed of their own, so the student begins with the weights that
it has without them. They are in the checkpoint, under ``adapters.``, and are not part of the network that is deployed.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.features import ALL_STAGES, Features, layer_shapes, layers_of
from distill_lightning.losses import kd
from distill_lightning.methods.taught import Taught
from distill_lightning.models.outputs import dry_pictures, in_full, input_type
from distill_lightning.networks import Network
from distill_lightning.ranges import NonNegative, Positive
from distill_lightning.seeds import BUILD, run_seed, seed_for
from distill_lightning.values import Batch, BatchNeeds, Position, Reading, StepOutput, TeacherGiver


class FeatureTaught(Taught):
    """A method with a teacher's features. The teacher may have other classes, unless ``soft_weight`` is above 0.

    Args:
        network: the student; see Method.
        layers: the student's layers: module paths as ``stages.1``, ``stage1`` to ``last_stage`` for the ends of stages,
            ``pooled`` for the input of the last linear layer, ``all_stages``; with ``.before_relu`` after a layer, the
            features before its ReLU. By default those that are usual for the method. The stages are known for networks
            of this program, ResNets of torchvision, and networks of timm.
        teacher_layers: the teacher's layers, one for each of the student's, likewise.
        hard_weight: w_hard, the weight of the labels.
        soft_weight: w_soft, the weight of the teacher's soft targets, as in KD. If both are 0, the layers after those
            that are read are not trained.
        temperature: T, by which logits are divided before the softmax of the soft targets.
        kwargs: see Taught.
    """

    usual_layers: ClassVar[list[str] | None] = None
    """The layers of both networks by default; None for the ends of all stages."""
    usual_teacher_layers: ClassVar[list[str] | None] = None
    """The layers of the teacher by default; None for those of ``usual_layers``."""
    batch_statistics = False
    """Whether the batch norms of the teacher use the statistics of the batch."""
    takes: ClassVar[str] = "maps"
    """What the features of a layer must be: "maps" (C, H, W), or "any"."""

    def __init__(
        self,
        network: Network,
        layers: list[str] | None = None,
        teacher_layers: list[str] | None = None,
        hard_weight: NonNegative = 1.0,
        soft_weight: NonNegative = 0.0,
        temperature: Positive = 4.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.layers, self.teacher_layers = layers, teacher_layers
        self.hard_weight, self.soft_weight, self.temperature = hard_weight, soft_weight, temperature
        self.needs = BatchNeeds(teacher_logits=soft_weight > 0, teacher_features=True)
        self.features: Features | None = None
        self.adapters = nn.ModuleList()
        self._adapted: object = None
        self._untrained: list[nn.Parameter] = []

    def network_is_set(self, network: nn.Module) -> None:
        """Forgets the layers of an earlier network, and that there are adapters for it."""
        self.features = self._adapted = None

    def make_adapters(
        self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]
    ) -> list[nn.Module]:
        """Makes the modules that are trained between the features of both networks. By default there are none.

        Args:
            shapes: the shapes of the student's features of a picture, one for each layer.
            of_teacher: those of the teacher, as many.

        Raises:
            InputError: the features cannot be matched.
        """
        return []

    def reading(self, shapes: Sequence[tuple[int, ...]]) -> Reading | None:
        """What the terms read of the teacher's features, if it is less than whole maps; None for the features.

        Args:
            shapes: the shapes of the student's features of a picture, one for each layer.
        """
        return None

    def get_ready(self, giver: TeacherGiver, data: ImageData) -> None:
        """Reads what the method needs of the teacher beside its features, and of the data, before a fit."""

    def adapt(self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]) -> None:
        """Makes the adapters, once for the same shapes. Their weights depend on the seed of the run alone.

        Raises:
            InputError: see ``make_adapters``.
        """
        if self._adapted == (wanted := (list(shapes), list(of_teacher))):
            return
        device, dtype = input_type(self.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(BUILD, run_seed(), 1))  # not the numbers of ``build``
            made = nn.ModuleList(self.make_adapters(shapes, of_teacher))
        self.adapters = made.to(device, dtype).to(memory_format=self.memory_format)
        self._adapted = wanted

    @abstractmethod
    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms of the loss of features of a step, by name.

        Args:
            features: those of the student, one for each layer.
            teacher_features: those of the teacher, as many, or what ``reading`` makes of them.
            batch: the batch that they are of.
            position: where training is.
        """

    def check_networks(self, data: ImageData) -> None:
        """See Method; finds the layers of both networks before a fit.

        Raises:
            InputError: there is no teacher; a layer does not exist; or the layers cannot be compared.
        """
        super().check_networks(data)
        if self.trainer.state.fn == "fit":
            self._find_features(data)
            if not self.hard_weight and not self.soft_weight:
                untouched = self.untouched(data.info.shape)
                for parameter in untouched:
                    parameter.requires_grad_(False)
                self._untrained += untouched  # Lottery asks for the check, too

    def untouched(self, shape: tuple[int, int, int]) -> list[nn.Parameter]:
        """The parameters of the student that the terms of the features do not depend on. If the logits have no term,
        these are not trained: DDP would stop at them, and weight decay would act on them.

        Args:
            shape: (C, H, W) of a picture.
        """
        return unreached(self.model, self.student_layers, shape)

    def teardown(self, stage: str) -> None:
        """See Method."""
        super().teardown(stage)
        for parameter in self._untrained:
            parameter.requires_grad_(True)
        self._untrained = []

    def _find_features(self, data: ImageData) -> None:
        name, shape = type(self).__name__, data.info.shape
        givers = [c for c in self.trainer.callbacks if isinstance(c, TeacherGiver)]  # type: ignore[attr-defined]
        if not givers:
            raise InputError(f"{name} needs a teacher: add the callback SoftTargets to trainer.callbacks")
        if self.optimization.fine_tuning is not None:
            raise InputError(f"{name} reads layers that fine_tuning may freeze: leave fine_tuning out")
        self.get_ready(givers[0], data)
        layers = layers_of(self.model, self.student_layers)
        if not layers:
            raise InputError(f"{name}.layers is an empty list: give one layer or more, or leave it out")
        shapes = layer_shapes(self.model, layers, shape)
        of_teacher = givers[0].watch(self.layers_of_teacher, shape, self.batch_statistics)
        if len(shapes) != len(of_teacher):
            raise InputError(
                f"{name}: the student has {len(shapes)} layers and the teacher {len(of_teacher)}: give layers and "
                "teacher_layers with as many each"
            )
        for layer, *both in zip(layers, shapes, of_teacher, strict=True):
            if self.takes == "maps" and not all(len(one) == 3 for one in both):
                raise InputError(
                    f"{name} compares maps (C, H, W), and at {layer} the student has {both[0]}, the teacher {both[1]}"
                )
        givers[0].read(self.reading(shapes))
        self.adapt(shapes, of_teacher)
        if self.features is None:  # torch.compile would not see hooks that come after the first call
            self.features = Features(self.model, layers, shape=shape)

    @property
    def student_layers(self) -> list[str]:
        """The layers of the student: those that were given, or the usual ones."""
        return (self.usual_layers or [ALL_STAGES]) if self.layers is None else self.layers

    @property
    def layers_of_teacher(self) -> list[str]:
        """The layers of the teacher, likewise."""
        usual = self.usual_teacher_layers or self.usual_layers or [ALL_STAGES]
        return usual if self.teacher_layers is None else self.teacher_layers

    def find_plain_teacher(self) -> None:
        """Refuses plain batches: the layers are found with the shape of the data."""
        raise InputError(f"{type(self).__name__} needs a data module of distill_lightning, to find the layers")

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms of the features and, if their weights are above 0, ``hard`` (labels) and ``soft`` (teacher)."""
        assert self.features is not None and batch.teacher is not None
        logits = self(batch.images)
        terms = {"hard": self.hard_weight * self.cross_entropy(logits, batch)} if self.hard_weight else {}
        terms |= self.feature_terms(self.features.take(), batch.teacher.features, batch, position)
        if self.soft_weight:
            terms["soft"] = self.soft_weight * kd(logits, batch.teacher.logits, temperature=self.temperature)
            return self.step_output(terms, logits, batch)
        return StepOutput(terms, logits[: batch.num_new])


def through(layer: nn.Module, features: Tensor) -> Tensor:
    """W f + b of a linear layer, in float32 also under autocast, or in float64 if the layer is."""
    with torch.autocast(features.device.type, enabled=False):
        return in_full(layer(features.to(layer.weight.dtype)))  # type: ignore[arg-type]


def unreached(network: nn.Module, layers: Sequence[str], shape: tuple[int, int, int]) -> list[nn.Parameter]:
    """The parameters of a network that its features at some layers do not depend on.

    Args:
        network: the network.
        layers: see ``Features``.
        shape: (C, H, W) of a picture.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    features, training = Features(network, layers, in_eval=True, shape=shape), network.training
    try:
        network.eval()(dry_pictures(network, shape))
        reached = sum(one.sum() for one in features.take())
    finally:
        features.remove()
        network.train(training)
    gradients = torch.autograd.grad(reached, parameters, allow_unused=True)  # type: ignore[arg-type]
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is None]

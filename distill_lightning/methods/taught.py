"""The base class of the methods that learn from a teacher's logits."""

from typing import Any

from torch import Tensor

from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.models.outputs import auxiliary_weight
from distill_lightning.networks import Network
from distill_lightning.teachers import Teachers, TrainedNetwork, as_list
from distill_lightning.values import Batch, BatchNeeds, StepOutput, TeacherOutput


class Taught(Method):
    """A method with a teacher.

    The teacher is not part of the method: neither its weights nor its state are in the checkpoint or in the optimizer.
    In a run of this program the callback SoftTargets asks it, also if it is given here. In another program, with plain
    data loaders, the method asks it itself, and the teacher gets the pictures as the student does.

    Args:
        network: the student; see Method.
        teacher: a checkpoint of any method, a network with its weights, or a list of these, which is an ensemble. By
            default the callback SoftTargets has it.
        kwargs: see Method.

    Raises:
        InputError: the teacher is the student itself.
    """

    needs = BatchNeeds(teacher_logits=True)
    hard_weight: float = 1.0
    """The weight of the labels in the loss."""

    def __init__(
        self,
        network: Network,
        teacher: TrainedNetwork | list[TrainedNetwork] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        # in a list: a module that is an attribute would become a part of the method
        self.teachers = as_list(teacher)
        networks = [one.network if isinstance(one, PlainNetwork) else one for one in self.teachers]
        if any(one is network for one in networks):
            raise InputError(
                f"{type(self).__name__}.teacher is the student itself: give a copy, copy.deepcopy(network)"
            )
        self._own: Teachers | None = None

    def weigh(self, soft_weight: float, hard_weight: float) -> None:
        """Keeps the weights of the teacher's soft targets and of the labels.

        Raises:
            InputError: both are 0.
        """
        if not soft_weight and not hard_weight:
            name = type(self).__name__
            raise InputError(f"{name}.soft_weight and {name}.hard_weight are both 0: one of them must be above 0")
        self.soft_weight, self.hard_weight = soft_weight, hard_weight

    def step_output(self, terms: dict[str, Tensor], logits: Tensor, batch: Batch) -> StepOutput:
        """The result of a step, with the agreement with the teacher, which is known without labels too.

        Args:
            terms: the terms of the loss.
            logits: (B, K), those of the student.
            batch: the batch.
        """
        agrees = logits.detach().argmax(1) == self.teacher_logits(batch).argmax(1)
        return StepOutput(terms, logits[: batch.num_new], agrees)

    def check_networks(self, data: ImageData) -> None:
        """See Method.

        Raises:
            InputError: see Method; or the labels have no weight, and auxiliary classifiers would learn from them.
        """
        super().check_networks(data)
        if self.trainer.state.fn == "fit":
            self._refuse_auxiliary()

    def _refuse_auxiliary(self) -> None:
        if not self.hard_weight and auxiliary_weight(self.model):
            raise InputError(
                f"{type(self.model).__name__} has auxiliary classifiers, which need labels: leave them out"
            )

    def find_plain_teacher(self) -> None:
        """Opens the teacher that the method asks itself."""
        self._refuse_auxiliary()
        if not self.teachers:
            raise InputError(f"{type(self).__name__} needs a teacher: give it one, as teacher=network")
        if self.needs.teacher_members and len(self.teachers) < 2:
            raise InputError(f"{type(self).__name__} needs several teachers: give it a list, as teacher=[one, other]")
        self._own = Teachers.of_plain(self.teachers)
        self._own.prepare(self.trainer)

    def with_teacher(self, batch: Batch) -> Batch:
        """See Method. Without a callback that gives the teacher's logits, the method asks its own teacher."""
        batch = super().with_teacher(batch)
        if batch.teacher is None and self._own is not None:
            images = batch.images
            each = self.needs.teacher_members
            batch = batch._replace(
                teacher=self._own.of_each(images) if each else TeacherOutput(self._own.logits(images))
            )
        return batch

"""Self-supervised Distillation for Visual Representation (Fang et al., ICLR 2021, arXiv:2101.04731), SEED, with a term
of the places of a picture.

    L = mean_b KL(q(t_b) || p(s_b))  +  w_local mean_bi KL(q_b(u_bi) || p_b(v_bi))        no labels

    p(s) = softmax(Q N(s) / T_s)    s = W f + b          q(t) = softmax(Q N(t) / T_t)
    p_b(v_i) = softmax_j(N(v_i) . N(v_j) / T_s)          q_b(u_i) = softmax_j(N(u_i) . N(u_j) / T_t)

    f     pooled features of the student, (B, D)
    t     pooled features of the teacher, (B, D'), no gradient
    s     the student's, with the width of the teacher's, (B, D'). The linear layer W is trained
    N     a vector divided by its length
    Q     the queue: N(t) of the last M pictures, those of the batch among them, (M, D')
    u_i   the teacher's features at place i of its last map, (B, L, D'')
    v_i   the student's: its last map, through a linear layer to the teacher's width, then bilinearly to its size

The pictures of the queue stand in for classes: the student learns to be as near to each of them as the teacher is. In
the second term, the places of the same picture stand in for classes. The second term, and 0.07 for both temperatures,
are those of the program LightlyTrain. The paper has the first term alone, with T_s = 0.2, T_t = 0.01 and 65,536
pictures in the queue, and the cross-entropy in the place of KL, which has the same gradient. LightlyTrain also mixes
pictures in pairs, with a share that is uniform in (0, 1): ``data.mix: Mixup`` does this, and the teacher sees the same
mixtures.

What differs: in LightlyTrain the queue begins with rows of zeros, which are classes of similarity 0 until it is full,
and each process has its own. Here it holds only pictures that were seen, and those of all processes.

The labels have no part in it, so pictures without labels serve as well. ``hard_weight`` and ``soft_weight``, 0 by
default, add them and the soft targets. If both are 0, the classifier is not trained and keeps its first weights: the
accuracy of the run is that of chance. A run with labels then starts from it (``--start_from``).

State between steps: the queue, float32, M D' numbers (1 MB for 1,024 rows of width 256). The checkpoint contains it
once. With several processes each holds the whole queue; both terms are means over the pictures, so two processes give
what one gives. The two linear layers are in the checkpoint, under ``adapters.``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.distributed import gather_rows
from distill_lightning.errors import InputError
from distill_lightning.losses import seed, seed_local
from distill_lightning.methods.feature_taught import FeatureTaught, through
from distill_lightning.models.outputs import in_full
from distill_lightning.networks import Network
from distill_lightning.ranges import Count, NonNegative, Positive
from distill_lightning.token_maps import Form
from distill_lightning.values import Batch, Position, TeacherGiver

LENGTHS = ((50, 16), (250, 64), (1_000, 256), (4_000, 1_024), (20_000, 4_096))
"""The length of the queue by the number of pictures, up to so many. It is 8,192 for more."""


class SEED(FeatureTaught):
    """Learns a teacher's features without labels: which pictures, and which places of a picture, are alike.

    Args:
        network: the student; see Method. Its classifier is not trained, unless a weight below is above 0.
        layers: the student's pooled features and its last map: module paths, ``pooled``, ``last_stage``. Without the
            local term the first alone.
        teacher_layers: those of the teacher, likewise. Tokens of a vision transformer are a map.
        local_weight: w_local, the weight of the places of a picture.
        queue_length: M, the number of pictures in the queue, at least those of a batch. By default a
            fifth of the training pictures or more, at most 8,192.
        student_temperature: T_s.
        teacher_temperature: T_t.
        hard_weight: the weight of the labels.
        kwargs: see FeatureTaught.
    """

    takes: ClassVar = "any"
    shared_memory = ("queue",)

    def __init__(
        self,
        network: Network,
        layers: list[str] | None = None,
        teacher_layers: list[str] | None = None,
        local_weight: NonNegative = 1.0,
        queue_length: Count | None = None,
        student_temperature: Positive = 0.07,
        teacher_temperature: Positive = 0.07,
        hard_weight: NonNegative = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, layers, teacher_layers, hard_weight, **kwargs)
        self.local_weight, self.queue_length = local_weight, queue_length
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.needs = replace(self.needs, allows_unlabelled=True)
        self.usual_layers = ["pooled", "last_stage"] if local_weight else ["pooled"]  # type: ignore[misc]
        self.queue: Tensor | None = None
        """Q, (M', D'), the oldest first; M' grows to M."""
        self._length = 0
        self._forms = Form(), Form()

    def get_ready(self, giver: TeacherGiver, data: ImageData) -> None:
        """Reads the form of the features of both networks, and the length of the queue.

        Raises:
            InputError: the queue is shorter than a batch.
        """
        teacher, _ = giver.copy_of_teacher(data.info.shape)
        self._forms = Form.of(self.model), Form.of(teacher)
        length = self.queue_length
        if length is None:
            count = len(data.samples.index)
            length = max(next((rows for most, rows in LENGTHS if count <= most), 8_192), data.batch_size)
        if length < data.batch_size:
            raise InputError(
                f"SEED.queue_length is {length}, and the pictures of a batch are in the queue: give at least "
                f"{data.batch_size}"
            )
        self._length = length

    def make_adapters(
        self, shapes: Sequence[tuple[int, ...]], of_teacher: Sequence[tuple[int, ...]]
    ) -> list[nn.Module]:
        """Makes the linear layer of the pooled features, and with the local term that of the maps."""
        wanted = 2 if self.local_weight else 1
        if len(shapes) != wanted:
            said = "the pooled features and the last map" if self.local_weight else "the pooled features alone"
            raise InputError(
                f"SEED compares {said}, and {len(shapes)} layers are given: give {wanted} of both networks"
            )
        layers = [nn.Linear(torch.Size(shapes[0]).numel(), torch.Size(of_teacher[0]).numel())]
        if self.local_weight:
            own, theirs = self._forms
            layers.append(nn.Linear(own.map_shape(shapes[1])[0], theirs.map_shape(of_teacher[1])[0]))
        for layer in layers:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        return [*layers]

    def feature_terms(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor], batch: Batch, position: Position
    ) -> dict[str, Tensor]:
        """The terms ``global`` and, if its weight is above 0, ``local``. The queue gets the batch first."""
        temperatures = {"temperature": self.student_temperature, "teacher_temperature": self.teacher_temperature}
        t = in_full(teacher_features[0].flatten(1))
        self.queue = self._with_batch(F.normalize(t), batch)
        terms = {"global": seed(through(self.adapters[0], features[0].flatten(1)), t, self.queue, **temperatures)}
        if self.local_weight:
            own, theirs = (
                form.as_map(one) for form, one in zip(self._forms, (features[1], teacher_features[1]), strict=True)
            )
            v = through(self.adapters[1], own.movedim(1, 3)).movedim(3, 1)
            v = F.interpolate(v, theirs.shape[2:], mode="bilinear")
            local = seed_local(v.flatten(2).mT, theirs.flatten(2).mT, **temperatures)
            terms["local"] = self.local_weight * local
        return terms

    def _with_batch(self, rows: Tensor, batch: Batch) -> Tensor:
        """The queue with the rows of the batch, in the order of the positions of its pictures, on all processes."""
        order = gather_rows(batch.index[batch.seen]).argsort(stable=True)
        new = gather_rows(rows[batch.seen])[order]
        queue = new if self.queue is None else torch.cat([self.queue.to(new.device), new])
        return queue[-self._length :].clone()

"""A generalist with specialists as one network (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 5.5).

    logits = log q        q the joint probabilities of the package's module ``joint``

The specialists whose classes are among the generalist's first n are active, and only these are asked: each network gets
only the pictures that it is needed for. log q is exact for accuracy, NLL and calibration, and as a teacher's logits.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.joint import clamped_probs, closed_form, evidence, joint_probs
from distill_lightning.models.outputs import main_output
from distill_lightning.ranges import Count, CountOrZero, Finite, Positive, Ranged


class Answer(NamedTuple):
    """What a generalist with specialists says of pictures.

    Args:
        log_probs: log q, (B, K) float64.
        general: the log-probabilities of the generalist alone, (B, K) float64.
        asked: (B, M) bool, which specialists were asked.
        steps: the number of steps of the joint inference; 0 for the closed form.
    """

    log_probs: Tensor
    general: Tensor
    asked: Tensor
    steps: int


class WithSpecialists(Ranged, nn.Module):
    """A generalist with specialists.

    With sets that do not overlap and ``top`` 1, at most one specialist is active, and the joint probabilities have a
    closed form. Only then can the network be compiled and exported: all specialists run, and one is chosen.

    Args:
        network: makes the generalist and each specialist, which are alike; in YAML it is a network with a class_path.
        sets: the classes of each specialist, by number.
        num_classes: K.
        top: n, the number of the generalist's first classes that decide which specialists are active.
        dustbin_bias: what is added to the logit of each specialist's dustbin; 0 by default, for specialists that were
            trained with the correction in their loss.
        gap: the joint probabilities are proven to be this near to the minimum of their objective, in nats.

    Raises:
        InputError: a set has fewer than two classes or all of them, or a class that there is not.
    """

    members: Tensor
    owner: Tensor

    def __init__(
        self,
        network: Callable[[], nn.Module],
        sets: list[list[CountOrZero]],
        num_classes: Count = 10,
        top: Count = 1,
        dustbin_bias: list[Finite] | None = None,
        gap: Positive = 1e-6,
    ) -> None:
        super().__init__()
        members = as_members(sets, num_classes)
        if dustbin_bias is not None and len(dustbin_bias) != len(sets):
            raise InputError(f"there are {len(dustbin_bias)} values of dustbin_bias for {len(sets)} specialists")
        self.top, self.gap = min(top, num_classes), gap
        self.dustbin_bias = dustbin_bias or [0.0] * len(sets)
        self.generalist = network()
        self.specialists = nn.ModuleList(network() for _ in sets)
        self.register_buffer("members", members, persistent=False)
        owner = torch.where(members.any(0), members.long().argmax(0), -1)
        self.register_buffer("owner", owner, persistent=False)
        self.at_most_one = self.top == 1 and int(members.sum(0).max()) <= 1
        """Whether at most one specialist is active for any picture."""

    @property
    def refused_export(self) -> str | None:
        """Why the network cannot be exported; None if it can."""
        if self.at_most_one:
            return None
        return "several specialists may be active for a picture: only sets without overlap with top 1 can be exported"

    def active(self, general: Tensor) -> Tensor:
        """Which specialists are active, (B, M) bool, from the generalist's logits (B, K)."""
        return self.members[:, general.topk(self.top, dim=1).indices].any(2).T

    def forward(self, images: Tensor) -> Tensor:
        """The logits, log q, (B, K) float32, for pictures (B, C, H, W)."""
        if torch.compiler.is_compiling() and self.at_most_one:
            return self._all_at_once(images).float()
        return self.answer(images).log_probs.float()

    @torch.no_grad()
    def answer(self, images: Tensor) -> Answer:
        """The joint probabilities of pictures (B, C, H, W), with the specialists that were asked."""
        logits: Tensor = main_output(self.generalist(images)).double()
        active = self.active(logits)
        special = logits[:, None].repeat(1, len(self.specialists), 1)
        for number, specialist in enumerate(self.specialists):
            rows = active[:, number].nonzero().flatten()
            if len(rows):
                shown = main_output(specialist(images[rows])).double()
                special[rows, number] = shown + self.dustbin_bias[number] * ~self.members[number]
        alone, general = ~active.any(1), logits.log_softmax(1)
        if self.at_most_one:
            chosen, each = active.long().argmax(1), torch.arange(len(active), device=active.device)
            q, steps = self._closed(logits, special[each, chosen], self.members[chosen]), 0
        else:
            solution = joint_probs(evidence(logits, special, active, self.members), self.gap)
            q, steps = solution.probs, solution.steps
        return Answer(torch.where(alone[:, None], general, q.log()), general, active, steps)

    def _all_at_once(self, images: Tensor) -> Tensor:
        """The same log q as ``answer``. All specialists run: no decision depends on pictures, so it can be exported."""
        logits = main_output(self.generalist(images)).double()
        number = self.owner[logits.argmax(1)]
        special = torch.stack(
            [
                main_output(specialist(images)).double() + bias * (~members).double()
                for specialist, bias, members in zip(self.specialists, self.dustbin_bias, self.members, strict=True)
            ],
            dim=1,
        )
        chosen = number.clamp(min=0)
        place = chosen[:, None, None].expand(-1, 1, special.shape[2])
        q = self._closed(logits, special.gather(1, place)[:, 0], self.members[chosen])
        return torch.where((number < 0)[:, None], logits.log_softmax(1), q.log())

    @staticmethod
    def _closed(general: Tensor, special: Tensor, members: Tensor) -> Tensor:
        """The joint probabilities, from logits of the generalist and of one specialist a picture, (B, K) each."""
        probs, inside = special.softmax(1), members.double()
        return closed_form(clamped_probs(general), probs * inside, (probs * (1 - inside)).sum(1), members)


def as_members(sets: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """Sets of classes as a matrix, (M, K) bool.

    Raises:
        InputError: see WithSpecialists.
    """
    if not sets:
        raise InputError("WithSpecialists.sets is empty: give the classes of one specialist or more")
    members = torch.zeros(len(sets), num_classes, dtype=torch.bool)
    for number, classes in enumerate(sets):
        if not all(0 <= one < num_classes for one in classes):
            raise InputError(f"specialist {number} has the class {max(classes)}, and there are {num_classes} classes")
        if not 2 <= len(set(classes)) < num_classes:
            raise InputError(
                f"specialist {number} has {len(set(classes))} of {num_classes} classes: it must have 2 or more, not all"
            )
        members[number, list(classes)] = True
    return members

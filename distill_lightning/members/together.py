"""Trains several runs in one process. Their networks are computed as one; all else is as in an ordinary run.

Each run has a thread (``turns``) with its own Lightning loop, data, loss, optimizer and folder. The runs meet twice in
each step. When all have come to the forward pass of their networks, one pass of the stack is computed for all. When all
have the gradients of their logits, one backward pass of the stack gives those of the parameters. Methods do not notice.
"""

import functools
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from distill_lightning.callbacks.run_checkpoint import REQUEUE, SIGNALS
from distill_lightning.environment import requeue
from distill_lightning.errors import InputError
from distill_lightning.members.stacked import Modes, StackedNetworks, refuse_unlike
from distill_lightning.members.turns import ProcessState, Turns
from distill_lightning.methods.base import Method
from distill_lightning.training.fit import fit
from distill_lightning.training.parts import Parts


@dataclass(frozen=True)
class _Forward:
    """A member asks for its logits."""

    images: Tensor
    noises: list[Tensor]
    modes: Modes


BACKWARD = None
"""A member has the gradients of its logits, and asks for those of its parameters."""
OF_ALL = ("precision", "accumulate_grad_batches", "accelerator", "deterministic", "benchmark", "detect_anomaly")
"""Options of the trainer that are the same for all members: the process or the passes have them in common."""
ALONE = object()
"""The answer to a member that computes its pass itself."""


class Meeting:
    """Computes the passes of all members.

    Args:
        methods: the methods, in the order of the members.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self.methods = methods
        self._numbers: list[int] = []
        """The members whose networks are stacked."""
        self._stack: StackedNetworks | None = None
        self._passes: list[tuple[Tensor, list[Tensor]]] = []
        """Each pass of this step: the logits of all, and what each member has been given of them."""

    @property
    def stack(self) -> StackedNetworks:
        """The networks. Available after the first meeting."""
        assert self._stack is not None
        return self._stack

    def release(self) -> None:
        """Gives the networks that are still stacked tensors of their own."""
        if self._stack is not None:
            self._stack.release()

    def serve(self, asked: dict[int, _Forward | None]) -> dict[int, Any]:
        """Computes what all members that are not over have asked for: forward passes first, and backward passes when no
        member asks for another forward pass. If a member has ended, the others are stacked anew after the step.
        """
        numbers = sorted(asked)
        if numbers != self._numbers and not self._passes:
            self._numbers = numbers
            self._stack = StackedNetworks([self.methods[number].model for number in numbers])
        forwards = {number: one for number in numbers if (one := asked[number]) is not BACKWARD}
        if not forwards:
            return self._backward(numbers)
        given = [*forwards.values()]
        if [*forwards] != self._numbers or len({_form(one) for one in given}) > 1:
            return dict.fromkeys(forwards, ALONE)
        images, noises = torch.stack([one.images for one in given]), [one.noises for one in given]
        logits = self.stack.forward(images, noises, given[0].modes)
        parts = [part.detach().requires_grad_() for part in logits.unbind()]
        self._passes.append((logits, parts))
        return dict(zip(numbers, parts, strict=True))

    def _backward(self, numbers: list[int]) -> dict[int, Any]:
        if self._passes:
            all_logits, of_members = zip(*self._passes, strict=True)
            gradients = [
                torch.stack([torch.zeros_like(part) if part.grad is None else part.grad for part in parts])
                for parts in of_members
            ]
            self._passes = []
            torch.autograd.backward(all_logits, gradients)
            self.stack.take_gradients()
        return dict.fromkeys(numbers)


def _form(asked: _Forward) -> tuple[Any, ...]:
    return asked.images.shape, asked.images.dtype, tuple(noise.shape for noise in asked.noises), asked.modes


class Member(pl.Callback):
    """Lets one run take part in a meeting. It must come before all callbacks that look at gradients."""

    def __init__(self, number: int, meeting: Meeting, turns: Turns) -> None:
        self.number, self.meeting, self.turns = number, meeting, turns

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Method)
        self.turns.meet(self.number, BACKWARD)  # all networks have their weights, and are on the device
        pl_module.replace_call(self.call)

    def call(self, images: Tensor) -> Any:
        """The network of this member. In a training step it is computed with those of the others."""
        network = self.meeting.methods[self.number].model
        if not network.training or not torch.is_grad_enabled():
            return network(images)
        stack, modes = self.meeting.stack, tuple(module.training for module in network.modules())
        before = ProcessState() if stack.has_dropout else None
        logits = self.turns.meet(self.number, _Forward(images, stack.draw_noise(images, modes), modes))
        if logits is not ALONE:
            return logits
        if before is not None:
            before.restore()  # the network draws its noise itself
        return network(images)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Method)
        pl_module.replace_call(pl_module.model)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.turns.meet(self.number, BACKWARD)


def fit_together(members: Sequence[tuple[Parts, ProcessState]], ckpt_path: str | None) -> list[Any]:
    """Trains runs side by side.

    Args:
        members: the parts of each run, and the state of the process when its parts were made.
        ckpt_path: for all runs, see ``training.fit``.

    Returns:
        For each run its ``Result``, or the exception that has ended it.

    Raises:
        InputError: the runs cannot be trained side by side.
    """
    all_parts = [parts for parts, _ in members]
    refuse_unlike_runs(all_parts)
    meeting = Meeting([parts.method for parts in all_parts])
    turns = Turns([state for _, state in members], meeting.serve)

    for number, parts in enumerate(all_parts):
        parts.trainer.callbacks.insert(0, Member(number, meeting, turns))  # type: ignore[attr-defined]
        parts.checkpoint.alone = False
    with _passing_signals_on(all_parts) as received:
        outcomes = turns.run([functools.partial(fit, parts, ckpt_path) for parts in all_parts])
        meeting.release()
        if REQUEUE in received:
            requeue()
    return outcomes


def refuse_unlike_runs(members: Sequence[Parts]) -> None:
    """Refuses runs that cannot be trained side by side.

    Raises:
        InputError: a run trains no network by steps, reads inside it, compiles it, or uses several processes; or the
            runs differ in architecture, device or precision.
    """
    for parts in members:
        kind = type(parts.method).__name__
        if not parts.method.trains or not parts.method.automatic_optimization:
            raise InputError(f"{kind} trains no network step by step: its runs cannot be trained side by side")
        if type(parts.method).network_is_set is not Method.network_is_set:  # what it attaches would not be called
            raise InputError(f"{kind} reads features inside its network: its runs cannot be trained side by side")
        if parts.method.compiled:
            option = "cuda_graphs" if parts.method.cuda_graphs else "compile"
            raise InputError(f"model.{option} is for one network: leave it out for members side by side")
        if parts.trainer.world_size > 1:
            raise InputError("members side by side share one device: give --trainer.devices 1")
    for what in OF_ALL:
        if len(given := {str(parts.config.options["trainer"].get(what)) for parts in members}) > 1:
            raise InputError(f"members side by side have one trainer.{what}: {' and '.join(sorted(given))}")
    refuse_unlike([parts.method.model for parts in members])


@contextmanager
def _passing_signals_on(members: Sequence[Parts]) -> Iterator[list[int]]:
    """Within this block, a signal reaches all runs: each saves a checkpoint after its step, and ends. Gives the signals
    that have come.
    """
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if received:  # the second signal ends all at once
            os._exit(128 + number)
        received.append(number)
        for parts in members:
            parts.checkpoint.end_after_step(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    handlers = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

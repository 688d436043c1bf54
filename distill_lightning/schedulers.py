"""The learning-rate schedulers of torch, stepped so that a run can be resumed exactly.

A scheduler of torch has a state: it changes the rates that it finds in the optimizer. So it is stepped at places that
depend on nothing but the position in training, and its state is in the checkpoint:

- Before an optimizer step, it is stepped as often as epochs (or optimizer steps) have ended since its last step. A run
  that goes on in the middle of an epoch needs nothing else.
- ReduceLROnPlateau is stepped after each validation, with the value of this validation. Its ``patience`` and
  ``cooldown`` therefore count validations.

With gradient accumulation, a step is an optimizer step.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from distill_lightning.errors import InputError
from distill_lightning.recorded import Recorded

MakeScheduler = Callable[[Optimizer], LRScheduler]
STEPPED_EACH_STEP = (OneCycleLR, CyclicLR)
"""The schedulers that are stepped after each optimizer step by default, as torch's documentation asks for."""
MONITORS = {"min": "val/nll", "max": "val/accuracy"}
"""The metric that ReduceLROnPlateau watches by default, by its ``mode``."""


class TorchSchedule(Recorded):
    """A scheduler of torch with the times of its steps. A scheduler that is given without this class gets the defaults.

    Args:
        scheduler: makes the scheduler from the optimizer.
        every: what the scheduler counts: "epoch" or "step" (optimizer steps). By default it is "step" for OneCycleLR
            and CyclicLR and "epoch" for all others. ReduceLROnPlateau counts validations.
        monitor: the metric of validation that ReduceLROnPlateau watches. By default it is val/nll for the mode "min",
            and val/accuracy for the mode "max".
    """

    def __init__(
        self, scheduler: MakeScheduler, every: Literal["epoch", "step"] | None = None, monitor: str | None = None
    ) -> None:
        self.scheduler, self.every, self.monitor = scheduler, every, monitor

    @property
    def counts_steps(self) -> bool:
        """Whether the scheduler counts optimizer steps, as far as this is known before it is made."""
        made_by = getattr(self.scheduler, "func", self.scheduler)  # the command gives a partial
        return self.every == "step" or (self.every is None and made_by in STEPPED_EACH_STEP)

    def start(self, optimizer: Optimizer, epochs: int, steps: int) -> "RunningScheduler":
        """Makes the scheduler.

        Args:
            optimizer: the optimizer of the run, whose rates the scheduler sets.
            epochs: the length of training in epochs.
            steps: the length of training in optimizer steps.

        Raises:
            InputError: the scheduler cannot be made, or an option does not fit it.
        """
        try:
            made = self.scheduler(optimizer)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(f"model.schedule: {reason} (this run has {epochs} epochs, {steps} steps)") from error
        if not isinstance(made, LRScheduler):
            raise InputError(f"model.schedule makes a {type(made).__name__}: expected a scheduler of torch")
        name = type(made).__name__
        if isinstance(made, ReduceLROnPlateau):
            if self.every is not None:
                raise InputError(f"model.schedule.every is {self.every}: leave it out, {name} counts validations")
            return RunningScheduler(made, None, self._monitor_of(made))
        if self.monitor is not None:
            raise InputError(f"model.schedule.monitor is {self.monitor}: leave it out, {name} watches no metric")
        if type(made).__module__.partition(".")[0] == "torch":
            self._rehearse(optimizer)
        every = self.every or ("step" if isinstance(made, STEPPED_EACH_STEP) else "epoch")
        length, longest = (steps if every == "step" else epochs), getattr(made, "total_steps", None)
        if isinstance(made, OneCycleLR) and isinstance(longest, int) and longest < length:
            raise InputError(f"{name}.total_steps is {longest}, but this run has {length} {every}s: give {length}")
        return RunningScheduler(made, every, None)

    def _rehearse(self, optimizer: Optimizer) -> None:
        """Steps another scheduler, of rates that nothing uses: some options are only refused by the first step.

        Raises:
            InputError: the step fails.
        """
        groups = [{**group, "params": [torch.zeros(1)]} for group in optimizer.param_groups]
        scheduler = self.scheduler(torch.optim.SGD(groups, lr=0.1))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # there was no step of the optimizer before
                scheduler.step()
        except Exception as error:
            name = type(scheduler).__name__
            raise InputError(
                f"model.schedule: the first step of {name} fails: {type(error).__name__}: {error}"
            ) from error

    def _monitor_of(self, plateau: ReduceLROnPlateau) -> str:
        monitor: str = self.monitor or getattr(plateau, "monitor", None) or MONITORS[plateau.mode]
        better = {"accuracy": "max", "accuracy_top5": "max", "nll": "min", "ece": "min"}
        better |= {"balanced_accuracy": "max", "macro_f1": "max"}
        wanted = better.get(monitor.removeprefix("val/"), plateau.mode)
        if wanted != plateau.mode:
            raise InputError(f"ReduceLROnPlateau.mode is {plateau.mode}, which does not fit {monitor}: give {wanted}")
        return monitor


class RunningScheduler:
    """A scheduler of a running fit.

    Args:
        scheduler: the scheduler, which has not been stepped yet.
        every: see TorchSchedule; None for ReduceLROnPlateau.
        monitor: the metric that ReduceLROnPlateau watches; None for the other schedulers.
    """

    def __init__(self, scheduler: LRScheduler, every: str | None, monitor: str | None) -> None:
        self.scheduler, self.every, self.monitor = scheduler, every, monitor
        self.done = 0
        self.state()  # refuses a state that no checkpoint can hold before training begins

    def before_step(self, epoch: int, step: int) -> None:
        """Steps the scheduler as often as necessary before the optimizer step ``step`` of the epoch ``epoch``."""
        due = {"epoch": epoch, "step": step, None: self.done}[self.every]
        while self.done < due:
            self._step()

    def after_validation(self, metrics: Mapping[str, float]) -> None:
        """Steps ReduceLROnPlateau; the other schedulers do nothing here.

        Args:
            metrics: the results of the validation, by tag.
        """
        if self.monitor is not None:
            self._step(metrics[self.monitor])

    def _step(self, *metric: float) -> None:
        with warnings.catch_warnings():
            # after a resume, torch has not seen the optimizer steps that came before
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.scheduler.step(*metric)  # type: ignore[arg-type]
        self.done += 1

    def state(self) -> dict[str, Any]:
        """The state as plain data, for the checkpoint. The rates themselves are in the state of the optimizer.

        Raises:
            InputError: the scheduler's state holds something other than plain data and tensors.
        """
        name = type(self.scheduler).__name__
        return {"class": name, "done": self.done, "scheduler": _plain(self.scheduler.state_dict(), name)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up the state of a checkpoint.

        Raises:
            InputError: it is the state of a scheduler of another class.
        """
        if state["class"] != (mine := type(self.scheduler).__name__):
            raise InputError(f"this run was started with the scheduler {state['class']}, not {mine}: give that")
        self.done = state["done"]
        self.scheduler.load_state_dict(_plain(state["scheduler"], mine))


def _plain(value: Any, name: str) -> Any:
    """A copy as plain data. A Counter becomes a dict, which MultiStepLR takes as well."""
    if isinstance(value, dict):
        return {key: _plain(one, name) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(one, name) for one in value) if type(value) in (list, tuple) else list(value)
    if isinstance(value, Tensor):
        return value.detach().clone()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"the state of the scheduler {name} holds a {type(value).__name__}, which no checkpoint can hold: "
        "give another scheduler"
    )

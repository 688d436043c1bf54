"""The optimizer of a fit: its parameter groups, the learning rate of each step, and parts that are frozen."""

import math
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.optim import Optimizer

from distill_lightning.distributed import say
from distill_lightning.errors import InputError
from distill_lightning.learning_rates import refuse_zero
from distill_lightning.methods.foreign_callbacks import give_one_of
from distill_lightning.optimizers import (
    FineTuning,
    describe_groups,
    drop_gradients,
    make_optimizer,
    parameter_groups,
)
from distill_lightning.schedulers import MakeScheduler, RunningScheduler, TorchSchedule
from distill_lightning.schedules import Constant, Schedule
from distill_lightning.values import Position, Timeline


class Optimization:
    """Makes the optimizer of a fit and sets its learning rates.

    Args:
        make: makes the optimizer from parameter groups.
        schedule: the schedule of the learning rate; constant if None.
        decay_norms_and_biases: whether weight decay also acts on norms and biases.
        fine_tuning: which parameters are frozen, and the rates of single layers; None if all are trained alike.
    """

    def __init__(
        self,
        make: OptimizerCallable,
        schedule: Schedule | TorchSchedule | MakeScheduler | None,
        decay_norms_and_biases: bool,
        fine_tuning: FineTuning | None,
    ) -> None:
        self.make, self.fine_tuning = make, fine_tuning
        self.decay_norms_and_biases = decay_norms_and_biases
        self.schedule: Schedule | TorchSchedule = Constant()
        if schedule is not None:
            self.schedule = schedule if isinstance(schedule, Schedule | TorchSchedule) else TorchSchedule(schedule)
        self._held: list[nn.Module] = []
        self._held_in: int | None = None
        self._frozen: list[nn.Parameter] = []
        self.forget()

    def forget(self) -> None:
        """Forgets an earlier fit."""
        self._scheduler: RunningScheduler | None = None
        self._scheduler_state: dict[str, Any] | None = None

    # Before training

    def freeze(self, network: nn.Module) -> None:
        """Freezes the parameters that ``fine_tuning`` names.

        Raises:
            InputError: see ``FineTuning.freeze``.
        """
        if self.fine_tuning is not None:
            trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
            self.fine_tuning.freeze(network)
            self._frozen += [parameter for parameter in trained if not parameter.requires_grad]

    def unfreeze(self) -> None:
        """Takes back what ``freeze`` did."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []

    def refuse_rewinding(self) -> None:
        """Checks that the schedule can be set back to an earlier step.

        Raises:
            InputError: it is a scheduler of torch, which cannot.
        """
        if isinstance(self.schedule, TorchSchedule):
            raise InputError(
                "Lottery rewinds the learning rate, and a scheduler of torch cannot be rewound: give a schedule of "
                "this program, such as Cosine or MultiStep"
            )

    def optimizer(self, trained: nn.Module, network: nn.Module) -> Optimizer:
        """Makes the optimizer, and says its parameter groups if there is fine-tuning.

        Args:
            trained: the module that holds the network, and modules that are trained with it.
            network: the network, to which ``fine_tuning`` applies.
        """
        groups = parameter_groups(trained, self.decay_norms_and_biases, self.fine_tuning, network)
        optimizer = make_optimizer(self.make, groups)
        if self.fine_tuning is not None:
            frozen = sum(p.numel() for p in trained.parameters() if not p.requires_grad)
            names = {id(p): name.removeprefix("model.") for name, p in trained.named_parameters()}
            for line in describe_groups(optimizer, frozen, names):
                say(line)
        return optimizer

    def start_schedule(
        self, optimizer: Optimizer, batches: float, epochs: int, accumulated: int, monitors: set[str] | None
    ) -> None:
        """Starts a scheduler of torch, and takes up its saved state.

        Args:
            optimizer: the optimizer.
            batches: the number of batches in an epoch; infinite if it is not known.
            epochs: the number of epochs.
            accumulated: the number of batches in an optimizer step.
            monitors: the tags that ReduceLROnPlateau may watch; None if they are not known.

        Raises:
            InputError: the scheduler cannot be made, or does not fit the other options.
        """
        assert isinstance(self.schedule, TorchSchedule)
        if self.fine_tuning is not None and self.fine_tuning.rate_after_head != 1:
            raise InputError("fine_tuning.rate_after_head needs a schedule of this program, such as Cosine")
        steps = epochs * math.ceil(batches / accumulated) if math.isfinite(batches) else 0
        self._scheduler = self.schedule.start(optimizer, epochs, steps)
        multiplied = {group.get("lr_mult", 1.0) for group in optimizer.param_groups}
        rates = {group["lr"] for group in optimizer.param_groups}
        if len(multiplied) > 1 and len(rates) == 1 and rates != {0.0}:
            raise InputError(
                "fine_tuning gives layers rates of their own, and model.schedule sets one for all: give a schedule of "
                "this program, such as OneCycle"
            )
        monitor = self._scheduler.monitor
        if monitor is not None and monitors is not None and monitor not in monitors:
            raise InputError(f"ReduceLROnPlateau monitors {monitor}: {give_one_of(monitors)}")
        if self._scheduler_state is not None:
            self._scheduler.load(self._scheduler_state)

    def refuse_zero(self, optimizer: Optimizer, batches: float, epochs: int, accumulated: int) -> None:
        """Checks that the schedule trains anything; arguments as in ``start_schedule``.

        Raises:
            InputError: the learning rate is 0 at every step, although the optimizer's own rate is not.
        """
        follows_validation = self._scheduler is not None and self._scheduler.monitor is not None
        if math.isfinite(batches) and not follows_validation:
            refuse_zero(self.schedule, optimizer, self.make, epochs, int(batches), accumulated)

    # In training

    def forget_modes(self) -> None:
        """Notes that all modules were set to training or eval mode, also those that are held in eval mode."""
        self._held_in = None

    def hold(self, network: nn.Module, epoch: int) -> None:
        """Sets the parts that are not trained in an epoch to eval mode, and those that are to training mode."""
        if self.fine_tuning is None or self._held_in == epoch:
            return
        for module in self._held:
            module.training = True
        self._held, self._held_in = self.fine_tuning.held(network, epoch), epoch
        for module in self._held:
            module.training = False

    def set_rates(self, optimizer: Optimizer, position: Position, timeline: Timeline, epoch: int, step: int) -> None:
        """Sets the learning rates before an optimizer step.

        Args:
            optimizer: the optimizer.
            position: the position of training.
            timeline: the timeline of the position.
            epoch: the number of ended epochs of the trainer.
            step: the number of ended optimizer steps of the trainer.
        """
        if self._scheduler is not None:
            self._scheduler.before_step(epoch, step)
            return
        assert isinstance(self.schedule, Schedule)
        factor = self.schedule.factor(position.schedule_epoch, position.epochs, 1 / timeline.batches_per_epoch)
        if self.fine_tuning is not None:
            factor *= self.fine_tuning.rate_factor(int(position.schedule_epoch))
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def trained(self, optimizer: Optimizer) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
        """The parameters that the current step trains, each with its group of the optimizer."""
        for group in optimizer.param_groups:
            if self._held_in is None or group.get("from_epoch", 0) <= self._held_in:
                yield from ((parameter, group) for parameter in group["params"])

    def drop_gradients(self, optimizer: Optimizer) -> None:
        """Drops the gradients of parameters that are not trained yet."""
        if self._held_in is not None:
            drop_gradients(optimizer, self._held_in)

    def after_validation(self, results: dict[str, float]) -> None:
        """Steps ReduceLROnPlateau.

        Args:
            results: the metrics of the validation, by tag.
        """
        if self._scheduler is not None:
            self._scheduler.after_validation(results)

    # Checkpoints

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the schedule: nothing, unless it is a scheduler of torch."""
        return {} if self._scheduler is None else {"schedule": self._scheduler.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Keeps a saved state until the schedule starts."""
        self._scheduler_state = state.get("schedule")

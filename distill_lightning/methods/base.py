"""What every method does: optimizer, schedule, means of an epoch, evaluation, checkpoints.

A method states its loss, ``training_loss(batch, position) -> StepOutput``, and what it needs of a batch, ``needs``. The
loss is called once for each training batch and nowhere else, and may update the method's memory there. Attributes that
``memory`` names, and the running sums of the epoch, are in the checkpoint, for every process its own.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from distill_lightning import losses
from distill_lightning.checkpoints import trained_on
from distill_lightning.data.base import ImageData
from distill_lightning.data.provenance import refuse_other
from distill_lightning.distributed import gather_objects
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import completes_no_step, synchronises_batch_norm
from distill_lightning.methods.checks import depends_on_process_count, refuse_misfit, smallest_batch
from distill_lightning.methods.evaluated import Evaluated
from distill_lightning.methods.memory import Memory
from distill_lightning.optimizers import default_optimizer, make_optimizer, parameter_groups
from distill_lightning.running_means import RunningMeans, shared_out
from distill_lightning.schedules import Constant, Schedule
from distill_lightning.seeds import BUILD, STEP, run_seed, seed_for, seed_of_order
from distill_lightning.values import (
    Batch,
    BatchNeeds,
    DataInfo,
    PlainTimeline,
    Position,
    StepOutput,
    TeacherGiver,
    Timeline,
    TimelineGiver,
)


class Method(Evaluated):
    """A way of training a classifier.

    Args:
        network: gives logits (B, K) for pictures (B, C, H, W). Classes, channels and picture size come from the data.
        optimizer: makes the optimizer of the parameters.
        schedule: of the learning rate.
        decay_norms_and_biases: whether weight decay acts on norms and biases as well.
        channels_last: whether pictures and weights lie in memory with the channels last.
        compile: whether the network is compiled.
        class_bias: added to the logits of classes, by name, in evaluation alone, {"3": 3.5}: for classes that the
            training part had none or too few of (Hinton et al. 2015, section 3).
    """

    needs = BatchNeeds()
    """What a batch must hold. A method whose options decide sets its own in ``__init__``."""
    memory: tuple[str, ...] = ()
    """Attributes (a tensor or None each) that are kept between steps, by each process for itself."""
    shared_memory: tuple[str, ...] = ()
    """The same, of attributes that are equal on all processes (tensors, numbers, or dicts of them)."""
    trains = True
    """Whether there is anything to train."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Schedule | None = None,
        decay_norms_and_biases: bool = True,
        channels_last: bool = False,
        compile: bool = False,
        class_bias: dict[str | int, float] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name in [k for k, v in self.hparams.items() if _is_object(v)]:
            del self.hparams[name]  # built in Python: it would have to be executed to be read again
        self.set_network(network, channels_last, compile)
        self.make_optimizer = optimizer
        self.schedule = schedule or Constant()
        self.decay_norms_and_biases = decay_norms_and_biases
        self.class_bias = class_bias or {}
        self.means = RunningMeans()
        self.timeline: Timeline | None = None
        self.data_info: DataInfo | None = None
        self._teacher: TeacherGiver | None = None
        self._built = False
        self._memory: Memory | None = None

    # What a method states

    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms of the loss for a training batch.

        Args:
            batch: as ``needs`` asks for it.
            position: where training stands.
        """
        raise NotImplementedError

    def build(self, info: DataInfo) -> None:
        """Makes what is trained beside the network and depends on the data. The weights follow from the seed alone."""

    @staticmethod
    def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
        """With the labels of the batch, or their distributions where the data mixes them."""
        return losses.cross_entropy(logits, batch.targets)

    @staticmethod
    def teacher_logits(batch: Batch) -> Tensor:
        """(B, K), raw, as the teacher gave them.

        Raises:
            InputError: there is no teacher.
        """
        if batch.teacher is None:
            raise InputError("this method needs a teacher: add the callback SoftTargets to trainer.callbacks")
        return batch.teacher.logits

    # Before training

    def setup(self, stage: str) -> None:
        """Checks the network against the data, and gives the data what a fit depends on."""
        data = self.image_data
        if self.trainer.strategy.root_device.type == "mps":
            raise InputError("Apple's GPU cannot add up in float64: give --trainer.accelerator cpu")
        self.check_networks(data)
        if stage == "fit":
            self.data_info = data.info
            self._find_givers(data)
            self._check_batches(data)
            self.build_once(data.info)
            self._forget()
        self.prepare_evaluation(data, self.class_bias)

    def check_networks(self, data: ImageData) -> None:
        """Refuses networks that do not fit the data."""
        refuse_misfit(self.model, data)

    def _find_givers(self, data: ImageData) -> None:
        """Callbacks may keep the time, and ask a teacher."""
        trainer, samples = self.trainer, data.samples
        timelines = [c.timeline for c in trainer.callbacks if isinstance(c, TimelineGiver)]  # type: ignore[attr-defined]
        teachers = [c for c in trainer.callbacks if isinstance(c, TeacherGiver)]  # type: ignore[attr-defined]
        plain = PlainTimeline(
            trained_batches(trainer, samples.batches), trainer.max_epochs or 0, trainer.accumulate_grad_batches
        )
        self.timeline = timelines[0] if timelines else plain
        self._teacher = teachers[0] if teachers else None
        data.begin_fit(self.needs, self.timeline, self._teacher.view_cycle if self._teacher else None)

    def build_once(self, info: DataInfo) -> None:
        """``build``, once, with draws of its own: the same from the same seed, whatever was drawn before."""
        if self._built:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(BUILD, run_seed()))
            self.build(info)
        self._built = True

    def _forget(self) -> None:
        """A fit begins without what an earlier one of the same object remembered. A checkpoint is read after this."""
        if self._memory is None:
            self._memory = Memory(self, self.memory, self.shared_memory)
        self._memory.forget()
        self.means = RunningMeans()

    def _check_batches(self, data: ImageData) -> None:
        smallest = smallest_batch(data, self.trainer.world_size)
        norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules())
        if smallest < 2 and (norms or self.needs.repeats_last_batch):
            what = "batch norm" if norms else type(self).__name__
            raise InputError(f"{what} needs 2 samples a process, here there is {smallest}: make batch_size larger")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer, over the network and what is trained beside it."""
        return make_optimizer(self.make_optimizer, parameter_groups(self.parameters(), self.decay_norms_and_biases))

    # Training

    def position(self, batch_idx: int) -> Position:
        """Where training stands before the trainer's batch of this epoch."""
        assert self.timeline is not None
        position = self.timeline.position(self.trainer.current_epoch, batch_idx)
        assert position is not None
        return position

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss, and the logits of the new samples, which callbacks find in the outputs of the step."""
        position = self.position(batch_idx)
        self._start_step(position)
        if self._teacher is not None:
            batch = batch._replace(teacher=self._teacher.teach(batch))
        output = self.training_loss(batch, position)
        if not isinstance(output, StepOutput):
            raise InputError(
                f"{type(self).__name__}.training_loss gives a {type(output).__name__}: expected a StepOutput"
            )
        loss: Tensor = sum(output.terms.values())  # type: ignore[assignment]
        self.means.add(batch, output, loss)
        self._log_if_due()
        return {"loss": loss if batch.weight == 1.0 else loss * batch.weight, "logits": output.logits}

    def _start_step(self, position: Position) -> None:
        trainer = self.trainer
        # whatever the network draws is a function of seed, step and rank: no generator's state to save
        order = seed_of_order(run_seed(), position.order)
        seed = seed_for(STEP, order, position.epoch, position.batch, trainer.global_rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        assert self.timeline is not None
        a_step = 1 / self.timeline.batches_per_epoch
        factor = self.schedule.factor(position.schedule_epoch, position.epochs, a_step)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _log_if_due(self) -> None:
        trainer = self.trainer
        if completes_no_step(trainer):
            return
        step = trainer.global_step + 1  # the step that the running batch completes
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and step % every == 0:
            self.means.raise_if_not_finite(step, trainer.accumulate_grad_batches)
            rates = {"lr": trainer.optimizers[0].param_groups[0]["lr"], "samples_per_s": self.means.samples_per_s()}
            self.log_metrics("train", self.means.close_window() | rates, step)

    def on_train_epoch_end(self) -> None:
        step = self.trainer.global_step
        self.means.raise_if_not_finite(step, self.trainer.accumulate_grad_batches)
        self.means.close_window()
        self.log_metrics("train", self.means.close_epoch(), step)

    # What is remembered

    @property
    def remembered(self) -> Memory:
        """What is kept between steps; there after ``setup("fit")``."""
        assert self._memory is not None
        return self._memory

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        memory = self._memory or Memory(self, self.memory, self.shared_memory)
        everyones = gather_objects(memory.own() | {"account": memory.on_cpu(self.means.state_dict())})
        checkpoint["method"] = {"of_ranks": everyones, "shared": memory.shared()}
        data = self.trainer.datamodule if self.has_trainer else None  # type: ignore[attr-defined]
        if self.data_info is not None and isinstance(data, ImageData):
            checkpoint["data"] = {"info": self.data_info.as_dict(), "held_out": data.held_out}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        of_run = trained_on(checkpoint, "the checkpoint")
        if of_run is not None:
            self.build_once(of_run.info)
        if not self.has_trainer or not self.trainer.training:
            return
        if of_run is not None:
            refuse_other(self.image_data.info, of_run)
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if "Lottery" in checkpoint.get("callbacks", {}).keys() - {c.state_key for c in callbacks}:
            raise InputError("this run is pruned, and without the callback Lottery its zeros would grow again: add it")
        self._take_up(checkpoint["method"]["of_ranks"], checkpoint["method"]["shared"])

    def _take_up(self, everyones: list[dict[str, Any]], shared: dict[str, Any]) -> None:
        """Goes on from what every process remembered."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        if len(everyones) != world:
            synchronised = synchronises_batch_norm(self.trainer)
            if what := "memory of the last step" if self.memory else depends_on_process_count(self, synchronised):
                raise InputError(
                    f"this run was trained with {len(everyones)} processes, and with {world} its {what} would differ: "
                    f"resume it with {len(everyones)}"
                )
            mine = {"account": shared_out([of_rank["account"] for of_rank in everyones], rank, world)}
        else:
            mine = everyones[rank]
        mine = pl.utilities.move_data_to_device(mine, self.trainer.strategy.root_device)
        self.means.load_state_dict(mine.pop("account"))
        # what is shared may be large: the method puts it where it is used
        self.remembered.take_up(mine | shared)


def trained_batches(trainer: pl.Trainer, batches: int) -> int:
    """How many batches of an epoch are trained on, where the trainer limits them."""
    limit = trainer.limit_train_batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _is_object(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_object, value))
    return isinstance(value, nn.Module | Schedule) or callable(value)

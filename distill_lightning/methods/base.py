"""The base class of the methods: optimizer, schedule, training metrics, evaluation, checkpoints.

A subclass implements its loss, ``training_loss(batch, position) -> StepOutput``, and declares its requirements for a
batch in ``needs``. ``training_loss`` is called exactly once for each training batch, so it may also update the method's
memory. The checkpoint contains, for each process, the attributes that are named in ``memory`` and the running sums of
the epoch.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from distill_lightning import losses
from distill_lightning.checkpoints import trained_on
from distill_lightning.data.base import ImageData
from distill_lightning.data.loaders import limited
from distill_lightning.data.provenance import refuse_other
from distill_lightning.distributed import gather_objects, refuse_different
from distill_lightning.errors import InputError
from distill_lightning.initializers import Initializer, initialise
from distill_lightning.lightning_internals import completes_no_step, synchronises_batch_norm
from distill_lightning.methods.checks import (
    depends_on_process_count,
    refuse_cuda_graphs,
    refuse_empty_epochs,
    refuse_misfit,
    refuse_small_auxiliary,
    refuse_small_batches,
    refuse_unlike_batch_norms,
    refuse_untrainable,
    warn_of_other_activations,
    warn_of_slow_precision,
    warn_of_softmax,
)
from distill_lightning.methods.evaluated import Evaluated, Unregistered
from distill_lightning.methods.foreign_callbacks import SET_RATES, refuse_foreign, refuse_unknown_monitors
from distill_lightning.methods.insights import first_pictures, show_preprocessing
from distill_lightning.methods.memory import Memory
from distill_lightning.methods.optimization import Optimization
from distill_lightning.methods.plain_batches import (
    TrainerTimeline,
    as_batch,
    refuse_endless,
    refuse_labels,
    refuse_unmet,
)
from distill_lightning.models.activations import replace_activations
from distill_lightning.models.outputs import auxiliary_logits
from distill_lightning.networks import Network, maker, with_shape
from distill_lightning.optimizers import FineTuning, default_optimizer
from distill_lightning.ranges import Finite
from distill_lightning.running_means import RunningMeans, shared_out
from distill_lightning.schedulers import MakeScheduler, TorchSchedule
from distill_lightning.schedules import Schedule
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
    TrainedOn,
)


class Method(Evaluated, ABC):
    """A method to train a classifier.

    Args:
        network: a network that returns logits (B, K) for pictures (B, C, H, W). Number of classes, channels and picture
            size are set from the data. In Python also a class or function that makes one, which is called with
            ``num_classes``, ``in_channels`` and ``image_size`` where it takes them, or the name of one.
        optimizer: makes the optimizer from the parameters.
        schedule: the schedule of the learning rate: one of this program (Cosine, MultiStep, ...), or a scheduler of
            torch by class path (see TorchSchedule for the times of its steps). Constant by default.
        decay_norms_and_biases: whether weight decay also acts on norms and biases.
        fine_tuning: which parameters of the network are frozen, when others begin to be trained, and the rates of
            single layers; by default all are trained alike.
        channels_last: whether pictures and weights use the memory format channels_last.
        compile: whether the network is compiled with torch.compile. What a method trains beside it is not.
        cuda_graphs: whether the network is compiled, and its kernels are launched as CUDA graphs: for networks whose
            kernels are so short that a GPU waits for the next. Training needs a GPU, and no accumulated gradients.
        class_bias: numbers that are added to the logits of classes in evaluation only, by class name, {"3": 3.5}: for
            classes with no or too few training samples (Hinton et al. 2015, section 3).
        initializer: rules for the first weights of the network, see Initializer. The first rule that matches a
            parameter draws it. Weights of ``start_from`` replace what is drawn; what is drawn replaces weights that an
            option of the network has loaded.
        activation: makes the activation that replaces the network's own, such as GELU, at every place; see
            ``models.activations``. By default the network keeps its own.
    """

    later_options: ClassVar[Mapping[str, Any]] = {"initializer": None, "activation": None, "cuda_graphs": False}

    take_makers: ClassVar[tuple[str, ...]] = ("network",)
    needs = BatchNeeds()
    """The requirements for a batch. A method in which they depend on options sets them in ``__init__``."""
    needs_two_samples: ClassVar[bool] = False
    """Whether what a method trains beside the network needs 2 samples in each batch, as batch norm does."""
    memory: tuple[str, ...] = ()
    """Names of attributes (each a tensor or None) that are kept between steps and differ between processes."""
    shared_memory: tuple[str, ...] = ()
    """Names of attributes (tensors, numbers, or dicts of them) that are kept and are equal on all processes."""
    trains = True
    """Whether the method trains a network."""
    leaves_checkpoint = True
    """Whether a run of the method leaves a checkpoint with a network."""

    def __init__(
        self,
        network: Network,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Schedule | TorchSchedule | MakeScheduler | None = None,
        decay_norms_and_biases: bool = True,
        channels_last: bool = False,
        compile: bool = False,
        cuda_graphs: bool = False,
        class_bias: dict[str | int, Finite] | None = None,
        fine_tuning: FineTuning | None = None,
        initializer: list[Initializer] | None = None,
        activation: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name in [k for k, v in self.hparams.items() if _is_object(v)]:
            del self.hparams[name]  # an object cannot be read from a checkpoint without executing code
        self.optimization = Optimization(optimizer, schedule, decay_norms_and_biases, fine_tuning)
        self.maker = None if isinstance(network, nn.Module) else maker(network)
        """What makes the network; None if it was given ready-made."""
        self.layout = {"channels_last": channels_last, "compile": compile, "cuda_graphs": cuda_graphs}
        """The options of ``set_network``."""
        self.activation = activation
        if isinstance(network, nn.Module):
            self.set_network(self.with_activation(network), **self.layout)
        self.initializer = initializer or []
        self._initialised: Unregistered | None = None
        self.class_bias = class_bias or {}
        self.means = RunningMeans()
        self.timeline: Timeline | None = None
        self.trained_on: TrainedOn | None = None
        """The data of the fit, or of the last one."""
        self._teacher: TeacherGiver | None = None
        self._built_for: tuple[int, ...] | None = None
        """What the modules beside the network are for; see ``read_by_build``."""
        self._memory: Memory | None = None

    # For subclasses

    @abstractmethod
    def training_loss(self, batch: Batch, position: Position) -> StepOutput:
        """The terms of the loss for a training batch.

        Args:
            batch: a batch that fulfils ``needs``.
            position: the position of training before this batch.
        """

    def build(self, info: DataInfo) -> None:
        """Makes modules that depend on the data and are trained with the network. The weights depend on the seed."""

    def read_by_build(self, info: DataInfo) -> tuple[int, ...]:
        """The numbers of the data that ``build`` depends on."""
        return info.num_classes, info.channels

    @staticmethod
    def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy with the labels or mixed labels; mean over the rows that have labels, 0 if none has.

        Args:
            logits: (B, K); or (R, K), of the first R rows of the batch alone.
            batch: the batch.
        """
        targets = batch.targets[batch.labelled][: len(logits)]
        if not len(targets):
            return logits.new_zeros(())
        return losses.cross_entropy(logits[: len(targets)], targets, class_weights=batch.class_weights)

    @staticmethod
    def teacher_logits(batch: Batch) -> Tensor:
        """The raw logits of the teacher, (B, K) float32.

        Raises:
            InputError: there is no teacher.
        """
        if batch.teacher is None:
            raise InputError("this method needs a teacher: add the callback SoftTargets to trainer.callbacks")
        return batch.teacher.logits

    # Before training

    def configure_callbacks(self) -> list[pl.Callback]:
        """Adds no callbacks. It checks those of the trainer, before their own ``setup``, and puts the teacher's first:
        others may ask for it in their ``setup``.

        Raises:
            InputError: see ``refuse_foreign``.
        """
        self.trainer.callbacks.sort(key=lambda callback: not isinstance(callback, TeacherGiver))  # type: ignore[attr-defined]
        if self.trainer.state.fn == "fit":
            refuse_foreign(map(type, self.trainer.callbacks), SET_RATES)  # type: ignore[attr-defined]
        return []

    def make_networks(self, shape: Mapping[str, int], data: str) -> dict[str, functools.partial[nn.Module]]:
        """Makes the networks that were given by a class, a function or a name. Their weights are new.

        Args:
            shape: ``num_classes``, ``in_channels`` and ``image_size`` of the data.
            data: the name of the data, for errors.

        Returns:
            What made each network, by the name of the argument, as "network" or "peers.0".

        Raises:
            InputError: a network cannot be made, or does not fit the shape.
        """
        self.trained_on = None
        if self.maker is None:
            return {}
        made_by = with_shape(self.maker, shape, data)
        self.set_network(self.with_activation(made_by()), **self.layout)
        self._built_for = None  # what was built beside an earlier network is not for this one
        return {"network": made_by}

    def setup(self, stage: str) -> None:
        """Checks that the network fits the data, and prepares a fit and the evaluation.

        Raises:
            InputError: the network, the batches and the data do not fit together, the accelerator is mps, or
                ``cuda_graphs`` has no GPU or accumulated gradients.
        """
        device = self.trainer.strategy.root_device.type
        if device == "mps":
            raise InputError("the accelerator mps does not support float64: give --trainer.accelerator cpu")
        if self.cuda_graphs and stage == "fit":
            refuse_cuda_graphs(device, self.trainer.accumulate_grad_batches)
        self.plain_batches = not isinstance(self.trainer.datamodule, ImageData)  # type: ignore[attr-defined]
        if self.plain_batches:
            self._set_up_plain(stage)
            return
        data = self.image_data
        if stage != "fit" and self.trained_on is not None:
            data.evaluate_as(self.trained_on, stage)
        self.check_networks(data)
        if stage == "fit":
            warn_of_slow_precision(str(self.trainer.precision), device)
            refuse_different("other pictures", data.fingerprint)
            self._find_givers(data)
            needs_two = self.needs.repeats_last_batch or self.needs_two_samples
            refuse_small_batches(self.model, data, self.trainer.world_size, type(self).__name__ if needs_two else None)
            if synchronises_batch_norm(self.trainer):
                refuse_unlike_batch_norms(self)
            self.initialise()
            self.build_once(data.info)
            self.optimization.freeze(self.model)
            if self.trains:
                refuse_untrainable(self, self.model)
                if self.activation is not None:
                    warn_of_other_activations(self.model, self.activation, data)
                refuse_small_auxiliary(self.model, data)
                warn_of_softmax(self.model, data)
            self._forget()
            self.trained_on = data.as_trained_on()
        self.prepare_evaluation(data, self.class_bias)
        if stage == "fit":
            refuse_unknown_monitors(self.trainer.callbacks, self.validation_tags, self)  # type: ignore[attr-defined]

    def _set_up_plain(self, stage: str) -> None:
        """Prepares a fit in another program."""
        if not hasattr(self, "model"):
            raise InputError(f"{type(self).__name__} has no network yet: for plain batches give one, not its class")
        if self.class_bias:
            raise InputError("class_bias needs the names of the classes: use a data module of distill_lightning")
        if stage == "fit":
            refuse_unmet(self.needs, type(self).__name__, builds=type(self).build is not Method.build)
            self.timeline, self._teacher, self.trained_on = TrainerTimeline(self.trainer), None, None
            self.find_plain_teacher()
            self.initialise()
            self.optimization.freeze(self.model)
            self._forget()

    def teardown(self, stage: str) -> None:
        """Leaves the network to other methods as it was: what this one froze can be trained again."""
        self.optimization.unfreeze()

    def find_plain_teacher(self) -> None:
        """Prepares the teacher for plain batches. Only ``Taught`` can have one of its own."""
        if self.needs.teacher_logits:
            raise InputError(f"{type(self).__name__} needs a teacher, which plain batches do not give")

    def check_networks(self, data: ImageData) -> None:
        """Checks that each network fits the data.

        Raises:
            InputError: a network cannot take the pictures, or does not return K logits.
        """
        refuse_misfit(self.model, data)

    def with_activation(self, network: nn.Module) -> nn.Module:
        """The same network, with ``activation`` in place of its own.

        Raises:
            InputError: the network has no activation that can be replaced.
        """
        if self.activation is not None:
            replace_activations(network, self.activation)
        return network

    def match_network(self, checkpoint: dict[str, Any], where: str) -> None:
        """Makes the network the one of a checkpoint, for methods that deploy another one than they were given.

        Args:
            checkpoint: the content of the checkpoint.
            where: its file, for errors.

        Raises:
            InputError: the network cannot be made.
        """

    def trained_networks(self) -> dict[str, nn.Module]:
        """The networks that ``initializer`` draws, by the prefix of their names in the method; "" for ``model``."""
        return {"": self.model}

    def initialise(self) -> None:
        """Draws the first weights by ``initializer``, once for each network.

        Raises:
            InputError: see ``initializers.initialise``.
        """
        # wrapped, so that the network is not registered a second time
        if self.initializer and (self._initialised is None or self._initialised.module is not self.model):
            initialise(
                self.trained_networks(),
                self.initializer,
                run_seed(),
                None if self.plain_batches else self._first_inputs,
            )
            self._initialised = Unregistered(self.model)

    def _first_inputs(self, count: int) -> Tensor:
        """The first training samples, (N, C, H, W), as the network gets them."""
        data = self.image_data
        assert data.normaliser is not None
        return data.preprocessed(data.normaliser(first_pictures(data, count)))

    def _find_givers(self, data: ImageData) -> None:
        """Takes the timeline and the teacher from the callbacks, if they provide one."""
        if data.mix and not self.needs.allows_mixing:
            raise InputError(
                f"{type(self).__name__} needs pictures of one sample each, without mixing: leave data.mix out"
            )
        if data.unlabelled is not None and not self.needs.allows_unlabelled:
            raise InputError(
                f"{type(self).__name__} needs a label for each picture: leave data.unlabelled out, or use KD with a "
                "soft_weight above 0, or SEED"
            )
        trainer, samples = self.trainer, data.samples_for(self.needs)
        timelines = [c.timeline for c in trainer.callbacks if isinstance(c, TimelineGiver)]  # type: ignore[attr-defined]
        teachers = [c for c in trainer.callbacks if isinstance(c, TeacherGiver)]  # type: ignore[attr-defined]
        trained = trained_batches(trainer, samples.batches)
        refuse_empty_epochs(trainer, samples.batches, trained)
        plain = PlainTimeline(trained, trainer.max_epochs or 0, trainer.accumulate_grad_batches)
        if timelines:
            self.optimization.refuse_rewinding()
        self.timeline = timelines[0] if timelines else plain
        self._teacher = teachers[0] if teachers else None
        data.begin_fit(self.needs, self.timeline, self._teacher.view_cycle if self._teacher else None)

    def build_once(self, info: DataInfo) -> None:
        """Calls ``build`` once for each network. The random numbers depend only on the seed of the run, not on earlier
        draws.

        Raises:
            InputError: the network was given ready-made, and what is built beside it is for data of another shape.
        """
        wanted = self.read_by_build(info)
        if self._built_for is not None and type(self).build is not Method.build and self._built_for != wanted:
            raise InputError(
                f"this {type(self).__name__} was fitted to data of another shape: make a new one for {info.name}"
            )
        if self._built_for == wanted:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(BUILD, run_seed()))
            self.build(info)
        self._built_for = wanted

    def _forget(self) -> None:
        """Resets the memory of an earlier fit of the same object. A checkpoint is loaded after this."""
        if self._memory is None:
            self._memory = Memory(self, self.memory, self.shared_memory)
        self._memory.forget()
        self.means = RunningMeans()
        self.evaluation = None
        self.optimization.forget()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Makes one optimizer for the network and the modules that are trained with it."""
        optimizer = self.optimization.optimizer(self, self.model)
        if self.timeline is None:  # there is no fit, so there are no steps
            return optimizer
        # in another program, the loader may have no length, and validation may log anything
        batches = math.inf if self.plain_batches else self.timeline.batches_per_epoch
        epochs, accumulated = self.trainer.max_epochs or 0, self.trainer.accumulate_grad_batches
        if isinstance(self.optimization.schedule, TorchSchedule):
            monitors = None if self.plain_batches else self.validation_tags
            self.optimization.start_schedule(optimizer, batches, epochs, accumulated, monitors)
        self.optimization.refuse_zero(optimizer, batches, epochs, accumulated)
        return optimizer

    def train(self, mode: bool = True) -> "Method":
        """Sets training or eval mode, as for every module. Frozen parts stay in eval mode."""
        super().train(mode)
        self.optimization.forget_modes()
        return self

    # Training

    def on_train_start(self) -> None:
        """Adds a picture of the preprocessing to TensorBoard, when a run begins.

        Raises:
            InputError: see ``refuse_endless``.
        """
        if self.plain_batches:
            assert self.timeline is not None
            refuse_endless(self.optimization.schedule, self.timeline)
        elif self.trainer.global_step == 0 and self.trainer.is_global_zero:
            show_preprocessing(self.image_data, self.trainer.loggers)

    def position(self, batch_idx: int) -> Position:
        """The position of training before batch ``batch_idx`` of the trainer's current epoch."""
        assert self.timeline is not None
        position = self.timeline.position(self.trainer.current_epoch, batch_idx)
        assert position is not None
        return position

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Computes the loss of a batch.

        Returns:
            ``loss``, a scalar, and ``logits`` (num_new, K) of the new samples, which callbacks get as the outputs of
            the step.
        """
        position = self.position(batch_idx)
        self._start_step(position)
        batch = as_batch(batch)
        if self.plain_batches:
            refuse_labels(batch, self.needs, type(self).__name__)
        batch = self.with_teacher(batch)
        batch = batch._replace(images=self.preprocessed(batch.images))  # after the teacher, which has its own
        output = self.training_loss(batch, position)
        if not isinstance(output, StepOutput):
            raise InputError(
                f"{type(self).__name__}.training_loss gives a {type(output).__name__}: expected a StepOutput"
            )
        output = self._with_auxiliary(output, batch)
        loss: Tensor = sum(output.terms.values())  # type: ignore[assignment]
        self.means.add(batch, output, loss)
        self._log_if_due()
        # detached: what is returned outlives the step, and would keep its graph
        logits = output.logits.detach()
        return {"loss": loss if batch.weight == 1.0 else loss * batch.weight, "logits": logits}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drops the gradients of parameters that are not trained yet."""
        self.optimization.drop_gradients(optimizer)

    def _with_auxiliary(self, output: StepOutput, batch: Batch) -> StepOutput:
        """Adds the loss of auxiliary classifiers, for networks whose authors train with them (``models.outputs``)."""
        kept, self.auxiliary = self.auxiliary, {}
        weighted = auxiliary_logits(kept, len(batch.targets))
        of_classifiers = [weight * self.cross_entropy(logits, batch) for weight, logits in weighted]
        if not of_classifiers:
            return output
        term: Tensor = sum(of_classifiers)  # type: ignore[assignment]
        return replace(output, terms=output.terms | {"auxiliary": term})

    def with_teacher(self, batch: Batch) -> Batch:
        """The batch with the teacher's output, if a callback provides it."""
        return batch if self._teacher is None else batch._replace(teacher=self._teacher.teach(batch))

    def _start_step(self, position: Position) -> None:
        trainer = self.trainer
        if not self.plain_batches:  # another program's generators are its own
            # random numbers in the network (dropout) depend on seed, batch and rank alone: no generator state to save
            order = seed_of_order(run_seed(), position.order)
            seed = seed_for(STEP, order, position.epoch, position.batch, trainer.global_rank)
            torch.default_generator.manual_seed(seed)
            if self.device.type == "cuda":
                torch.cuda.manual_seed(seed)
        assert self.timeline is not None
        self.optimization.hold(self.model, int(position.schedule_epoch))
        optimizer = trainer.optimizers[0]
        self.optimization.set_rates(optimizer, position, self.timeline, trainer.current_epoch, trainer.global_step)

    def after_validation(self, results: dict[str, float]) -> None:
        """See Evaluated; steps ReduceLROnPlateau."""
        self.optimization.after_validation(results)

    def _log_if_due(self) -> None:
        trainer = self.trainer
        if completes_no_step(trainer):
            return
        step = trainer.global_step + 1  # the step that the current batch completes
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and step % every == 0:
            self.means.raise_if_not_finite(step, trainer.accumulate_grad_batches)
            rates = {"lr": trainer.optimizers[0].param_groups[0]["lr"], "samples_per_s": self.means.samples_per_s()}
            self.log_metrics("train", self.means.close_window() | rates, step)

    def on_train_epoch_end(self) -> None:
        """Logs the means of the epoch.

        Raises:
            FloatingPointError: a loss was not finite.
        """
        step = self.trainer.global_step
        self.means.raise_if_not_finite(step, self.trainer.accumulate_grad_batches)
        self.means.close_window()
        self.log_metrics("train", self.means.close_epoch(), step)

    # Checkpoints

    @property
    def remembered(self) -> Memory:
        """The state that is kept between steps. Available after ``setup("fit")``."""
        assert self._memory is not None
        return self._memory

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the memory of all processes and the description of the data. All processes must call it."""
        memory = self._memory or Memory(self, self.memory, self.shared_memory)
        everyones = gather_objects(memory.own() | {"account": memory.on_cpu(self.means.state_dict())})
        checkpoint["method"] = {"of_ranks": everyones, "shared": memory.shared()} | self.optimization.state()
        if self.trained_on is not None:
            checkpoint["data"] = {"info": self.trained_on.info.as_dict(), "held_out": self.trained_on.held_out}
            if self.trained_on.preprocessing is not None:
                checkpoint["data"]["preprocessing"] = self.trained_on.preprocessing.as_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the modules that depend on the data and, in a fit, restores the memory.

        Raises:
            InputError: the run cannot be resumed with this data, these callbacks or this number of processes.
        """
        of_run = trained_on(checkpoint, "the checkpoint")
        if of_run is not None and self._built_for is None:
            self.build_once(of_run.info)
        in_fit = self.has_trainer and self.trainer.training
        if not in_fit:
            self.trained_on = of_run
        if not self.has_trainer:
            return
        if of_run is not None and not in_fit and not self.plain_batches:
            assert self.trainer.state.fn is not None
            self.image_data.evaluate_as(of_run, self.trainer.state.fn.value)
        # Lightning does this after it loads the weights, which would round those of precision 64-true to float32
        self.trainer.precision_plugin.convert_module(self)
        if not in_fit:
            return
        if of_run is not None:
            refuse_other(self.image_data.info, of_run)
            if of_run.preprocessing is not None:  # fitted on another machine, it may differ in the last digits
                self.image_data.preprocessing = of_run.preprocessing
                self.trained_on = self.image_data.as_trained_on()
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if "Lottery" in checkpoint.get("callbacks", {}).keys() - {c.state_key for c in callbacks}:
            raise InputError(
                "this run is pruned, and without the callback Lottery its zeros would grow again: add Lottery to "
                "trainer.callbacks"
            )
        self.optimization.load(checkpoint["method"])
        self._take_up(checkpoint["method"]["of_ranks"], checkpoint["method"]["shared"])

    def _take_up(self, everyones: list[dict[str, Any]], shared: dict[str, Any]) -> None:
        """Restores the memory, from the saved states of all processes.

        Args:
            everyones: the state of each process that saved the checkpoint.
            shared: the state that was equal on all processes.
        """
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
        # the shared memory may be large, so it is not moved here: the method chooses its device
        self.remembered.take_up(mine | shared)


def trained_batches(trainer: pl.Trainer, batches: int) -> int:
    """The number of training batches in an epoch, given ``batches`` in the data and ``limit_train_batches``."""
    return limited(batches, trainer.limit_train_batches)


def _is_object(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_object, value))
    return isinstance(value, nn.Module | Schedule | TorchSchedule | FineTuning | Initializer) or callable(value)

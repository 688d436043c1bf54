"""What every method does: network, optimizer, schedule, evaluation, and keeping account of an epoch.

A method states its loss: ``losses(batch) -> {"name": term}``, weights already in, means over the batch. It is called
once for each training batch and nowhere else, and may update the method's memory there. Attributes that ``memory``
names, and the running sums of the epoch, are in the checkpoint, for every process its own.
"""

import copy
import time
from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from distill_lightning import losses
from distill_lightning.checkpoints import data_of
from distill_lightning.data.base import Batch, EvalLoader, ImageData, Place
from distill_lightning.data.order import BUILD, STEP, run_seed, seed_for, seed_of_order
from distill_lightning.errors import InputError
from distill_lightning.metrics import CalibrationError, NegativeLogLikelihood
from distill_lightning.schedules import Constant, Schedule


def default_optimizer(parameters: Iterable) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


class Tap:
    """A hook that holds what a module was last given, or gave out, in training. A copy of the module gets its own."""

    def __init__(self, inputs: bool = False) -> None:
        self.inputs = inputs
        self.held: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training:
            self.held = inputs[0] if self.inputs else output

    def take(self) -> Tensor:
        held, self.held = self.held, None
        return held

    def __reduce__(self) -> tuple[type, tuple[bool]]:  # copied and pickled without what it holds
        return Tap, (self.inputs,)


class Method(pl.LightningModule):
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

    views = 1
    """How many views of each fresh sample a batch holds."""
    repeats_last_batch = False
    """Whether a batch ends with the last one's fresh samples, under one further view."""
    pairs_classes = False
    """Whether each fresh sample comes with another of its class."""
    taught = False
    """Whether its loss reads a teacher's logits."""
    mixes = True
    """Whether its loss holds for pictures that are mixed of two samples."""
    memory: tuple[str, ...] = ()
    """Attributes (a tensor or None each) that are kept between steps, by each process for itself."""
    shared_memory: tuple[str, ...] = ()
    """The same, of attributes that are equal on all processes (tensors, or dicts of them)."""
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
        self.model = network.to(memory_format=torch.channels_last) if channels_last else network
        self.make_optimizer = optimizer
        self.schedule = schedule or Constant()
        self.decay_norms_and_biases = decay_norms_and_biases
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        # beside the module tree, so that the network's keys stay those of the plain network
        self.__dict__["call_model"] = torch.compile(network) if compile else network
        self.account = Account()
        self.built = False
        # beside the module tree: networks of the method's memory, and memory as it is before training
        self.__dict__["frozen_networks"], self.__dict__["blank"] = [], None
        self.class_bias = class_bias or {}
        self.__dict__["metrics"], self.__dict__["bias"] = None, None
        self.calibration: dict[str, list[float]] = {}
        """Of the test, by bin: pictures, sum of confidences, right answers."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # set many times a step: nn.Module's own way costs a tenth of a small step
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # What a method states

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, whose sum is minimised."""
        raise NotImplementedError

    def build(self, num_classes: int, in_channels: int, image_size: int) -> None:
        """Makes what is trained beside the network and depends on the data. The weights follow from the seed alone."""

    def cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """With the labels of the batch, or their distributions where the data mixes them."""
        return losses.cross_entropy(logits, batch.get("label_probs", batch["label"]))

    @staticmethod
    def teacher_logits(batch: Batch) -> Tensor:
        """(B, K), raw, as the callback SoftTargets put them into the batch."""
        if "teacher_logits" not in batch:
            raise InputError("this method needs a teacher: add the callback SoftTargets to trainer.callbacks")
        return batch["teacher_logits"]

    # What a method may ask

    @property
    def step(self) -> int:
        """Optimizer steps taken; by where training stands, which rounds begin anew."""
        place, together = self._place(self._batch()), self.trainer.accumulate_grad_batches
        return place.epoch * -(-self.trainer.num_training_batches // together) + place.batch // together

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self._place(self._batch()).epoch

    @property
    def epochs(self) -> float:
        """How long training is."""
        return self.trainer.datamodule.clock.epochs(self.trainer)

    @property
    def progress(self) -> float:
        """How much of the training is done, in [0, 1], before the running batch."""
        return self._schedule_epoch(self._place(self._batch())) / self.epochs

    def frozen(self, states: Sequence[dict[str, Tensor]]) -> list[nn.Module]:
        """The network with other weights, in eval mode and without gradient, for each of these states. Each is made
        once, and kept as long as it is asked for."""
        known = {id(state): network for state, network in self.frozen_networks}
        made = [(state, known[id(state)] if id(state) in known else self._frozen(state)) for state in states]
        self.__dict__["frozen_networks"] = made
        return [network for _, network in made]

    def _frozen(self, state: dict[str, Tensor]) -> nn.Module:
        network = copy.deepcopy(self.model).eval().requires_grad_(False)
        network.load_state_dict(state, assign=True)  # the memory's own tensors, where they are on the device
        return network.to(self.device)

    def mean_over_all(self, rows: Tensor, batch: Batch) -> Tensor:
        """(B, D) to (D,): the mean over the fresh samples of all processes, through which the gradient goes."""
        if self._trainer is None or self.trainer.world_size == 1:
            return rows.mean(0)
        n = len(rows) if batch["weight"] else 0  # a process with nothing to do repeats a sample
        sums = self.all_gather(rows.sum(0) if n else 0 * rows.sum(0), sync_grads=True)
        return sums.sum(0) / self.all_gather(rows.new_tensor([n])).sum()

    def _batch(self) -> int:
        """The number of the running batch in its epoch."""
        return max(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1, 0)

    def _place(self, batch: int) -> Place:
        return self.trainer.datamodule.clock.place(self.trainer.current_epoch, batch)

    def _schedule_epoch(self, place: Place) -> float:
        if place.schedule_epoch is not None:
            return place.schedule_epoch
        return place.epoch + place.batch / self.trainer.num_training_batches

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) in float32, whatever the precision of the network."""
        logits = self.call_model(images.contiguous(memory_format=self.memory_format)).float()
        if self.account.logits is None:
            self.account.logits = logits.detach()
        return logits

    # Training

    def _on_before_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """Batches are built on the device: looking for hooks that would move them costs a tenth of a small step."""
        return batch

    def _apply_batch_transfer_handler(self, batch: Batch, device: Any = None, dataloader_idx: int = 0) -> Batch:
        return batch

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        if not isinstance(data, ImageData):
            raise InputError(f"{type(self).__name__} needs an ImageData data module, not {type(data).__name__}")
        if self.trainer.strategy.root_device.type == "mps":
            raise InputError("Apple's GPU cannot add up in float64: give --trainer.accelerator cpu")
        self._check_network(self.model, data)
        if stage == "fit":
            self._check_batches(data)
            self._build(data.num_classes, data.channels, data.image_size)
            self._forget()
        if self.metrics is None:
            classes = data.num_classes
            metrics = MetricCollection(
                {
                    "accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False),
                    "accuracy_top5": MulticlassAccuracy(
                        classes, top_k=min(5, classes), average="micro", validate_args=False
                    ),
                    "nll": NegativeLogLikelihood(),
                    "ece": CalibrationError(),
                }
            )
            # beside the module tree: a run in half precision would make their sums half precise too
            self.__dict__["metrics"] = metrics.to(self.trainer.strategy.root_device)
        if self.class_bias and self.bias is None:
            bias = torch.zeros(data.num_classes, device=self.trainer.strategy.root_device)
            for number, value in zip(data.class_numbers(self.class_bias), self.class_bias.values(), strict=True):
                bias[number] = value
            self.__dict__["bias"] = bias  # beside the module tree: not part of the network

    def _build(self, *of_data: int) -> None:
        """``build``, once, with draws of its own: the same from the same seed, whatever was drawn before."""
        if self.built:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(BUILD, run_seed()))
            self.build(*of_data)
        self.built = True

    def _forget(self) -> None:
        """A fit begins without what an earlier one of the same object remembered. A checkpoint is read after this."""
        names = (*self.memory, *self.shared_memory)
        if self.blank is None:
            self.__dict__["blank"] = {name: copy.deepcopy(getattr(self, name)) for name in names}
        for name, value in self.blank.items():
            setattr(self, name, copy.deepcopy(value))
        self.account, self.__dict__["frozen_networks"] = Account(), []

    @staticmethod
    @torch.no_grad()
    def _check_network(network: nn.Module, data: ImageData) -> None:
        """One blank picture through the network tells whether it fits the data."""
        parameter = next(network.parameters())
        blank = torch.zeros(1, data.channels, data.image_size, data.image_size)
        name, training = type(network).__name__, network.training
        try:
            logits = network.eval()(blank.to(parameter.device, parameter.dtype))
        except RuntimeError as error:
            raise InputError(
                f"{name} cannot take pictures of {data.channels}x{data.image_size}x{data.image_size} "
                f"from {data.name}; give a network that can: {str(error).splitlines()[0]}"
            ) from error
        finally:
            network.train(training)
        if not isinstance(logits, Tensor) or logits.shape != (1, data.num_classes):
            shape = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f"{name} gives {shape} for a picture: {data.name} needs {data.num_classes} logits")

    def _check_batches(self, data: ImageData) -> None:
        rows = data.batch_size // self.trainer.world_size
        last = len(data.train) % data.batch_size // self.trainer.world_size
        smallest = min(rows, max(last, 1)) if data.keep_last and len(data.train) % data.batch_size else rows
        norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules())
        if smallest < 2 and (norms or self.repeats_last_batch):
            what = "batch norm" if norms else type(self).__name__
            raise InputError(f"{what} needs 2 samples a process, here there is {smallest}: make batch_size larger")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [p for p in self.parameters() if p.requires_grad]
        groups = [{"params": parameters}]
        if not self.decay_norms_and_biases:
            groups = [
                {"params": [p for p in parameters if p.ndim > 1]},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ]
        optimizer = self.make_optimizer(groups)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._start_step(batch_idx)
        self.account.logits = None
        terms = self.losses(batch)
        if not isinstance(terms, dict):
            raise InputError(f"{type(self).__name__}.losses gives a {type(terms).__name__}: expected a dict of terms")
        loss = sum(terms.values())
        self.account.add(batch, terms | {"": loss})
        self._log_if_due()
        return loss if batch["weight"] == 1.0 else loss * batch["weight"]

    def _start_step(self, batch_idx: int) -> None:
        trainer, place = self.trainer, self._place(batch_idx)
        # whatever the network draws is a function of seed, step and rank: no generator's state to save
        order = seed_of_order(run_seed(), place.order)
        seed = seed_for(STEP, order, place.epoch, place.batch, trainer.global_rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        factor = self.schedule.factor(self._schedule_epoch(place), self.epochs, 1 / trainer.num_training_batches)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _log_if_due(self) -> None:
        trainer = self.trainer
        if trainer.accumulate_grad_batches > 1 and trainer.fit_loop.epoch_loop._should_accumulate():
            return
        step = trainer.global_step + 1  # the step that the running batch completes
        if trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0:
            rates = {"lr": trainer.optimizers[0].param_groups[0]["lr"]} | self.account.rates()
            self.write("train", self.account.close_window(self, step) | rates, step)

    def on_train_epoch_end(self) -> None:
        self.account.close_window(self, self.trainer.global_step)
        self.write("train", self.account.close_epoch(self), self.trainer.global_step)

    def write(self, stage: str, metrics: dict[str, float], step: int) -> None:
        """Sends numbers to every logger, as ``stage/name``."""
        if self.trainer.is_global_zero:
            for logger in self.trainer.loggers:
                logger.log_metrics({f"{stage}/{name}": value for name, value in metrics.items()}, step)

    # Evaluation

    def biased(self, logits: Tensor) -> Tensor:
        """(..., K), with ``class_bias`` added."""
        return logits if self.bias is None else logits + self.bias

    def _evaluate(self, batch: Batch) -> None:
        if len(batch["label"]):
            self.metrics.update(self.biased(self(batch["image"])), batch["label"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    @torch.no_grad()
    def measure(self, loader: EvalLoader) -> dict[str, float]:
        """Metrics of the network as it is, in the middle of a fit. All processes ask together."""
        training = self.training
        self.eval()
        with self.trainer.precision_plugin.forward_context():
            for batch in loader:
                self._evaluate(self.trainer.precision_plugin.convert_input(batch))
        results = {name: float(value) for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        self.train(training)
        return results

    def on_validation_epoch_end(self) -> None:
        self._end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._end_evaluation("test")

    def _end_evaluation(self, stage: str) -> None:
        results = {name: float(value) for name, value in self.metrics.compute().items()}
        if stage == "test":
            self.calibration = self.metrics["ece"].table
        self.metrics.reset()
        if not self.trainer.sanity_checking:
            self.write(stage, results, self.trainer.global_step)
            self.log_dict({f"{stage}/{k}": v for k, v in results.items()}, logger=False)  # for callbacks that monitor

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        probs = self.biased(self(batch["image"])).softmax(1) if len(batch["index"]) else None
        return {} if probs is None else {"probs": probs} | {k: batch[k] for k in ("index", "label") if k in batch}

    # What is remembered

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        mine = {name: getattr(self, name) for name in self.memory} | {"account": self.account.state_dict()}
        mine = pl.utilities.move_data_to_device(mine, torch.device("cpu"))
        everyones = [mine]
        if self._trainer is not None and self.trainer.world_size > 1:
            everyones = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyones, mine)
        shared = {name: getattr(self, name) for name in self.shared_memory}
        shared = pl.utilities.move_data_to_device(shared, torch.device("cpu"))
        checkpoint["method"] = {"of_ranks": everyones, "shared": shared}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if said := data_of(checkpoint):
            self._build(len(said["class_names"]), said["channels"], said["image_size"])
        if self._trainer is None or not self.trainer.training:
            return
        if "Lottery" in checkpoint.get("callbacks", {}).keys() - {c.state_key for c in self.trainer.callbacks}:
            raise InputError("this run is pruned, and without the callback Lottery its zeros would grow again: add it")
        everyones = checkpoint["method"]["of_ranks"]
        world = self.trainer.world_size
        if len(everyones) != world and self._depends_on_world():
            raise InputError(
                f"this run was trained with {len(everyones)} processes, and with {world} its "
                f"{self._depends_on_world()} would differ: resume it with {len(everyones)}"
            )
        if len(everyones) == world:
            mine = everyones[self.trainer.global_rank]
        else:
            accounts = [of_rank["account"] for of_rank in everyones]
            mine = {"account": Account.share(accounts, self.trainer.global_rank, world)}
        mine = pl.utilities.move_data_to_device(mine, self.trainer.strategy.root_device)
        self.account.load_state_dict(mine.pop("account"))
        # what is shared may be large: the method puts it where it is used
        for name, value in (mine | checkpoint["method"]["shared"]).items():
            setattr(self, name, value)

    def _depends_on_world(self) -> str | None:
        """What of this method would turn out otherwise with another number of processes."""
        modules = list(self.modules())
        if self.memory:
            return "memory of the last step"
        norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)
        if norms and self.trainer.strategy._layer_sync is None:
            return "batch norm"
        if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in modules):
            return "dropout"
        return None


def _is_object(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_object, value))
    return isinstance(value, nn.Module | Schedule) or callable(value)


def _right_answers(predicted: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Counts over the fresh rows. Where some labels are wrong on purpose: how many are, for how many of these the wrong
    label is predicted (memorised), and for how many the right one (recovered); not of mixed pictures."""
    label = batch["label"][: len(predicted)]
    counts = {"right": (predicted == label).sum()}
    if "label_probs" in batch:  # of a mixture, the label that has the larger share
        counts["right"] = (predicted == batch["label_probs"][: len(predicted)].argmax(1)).sum()
    elif "clean_label" in batch:
        clean = batch["clean_label"][: len(predicted)]
        flipped = clean != label
        counts["flipped"] = flipped.sum()
        counts["memorised"] = (flipped & (predicted == label)).sum()
        counts["recovered"] = (flipped & (predicted == clean)).sum()
    return counts


class Account:
    """Running sums of an epoch, and of the window since they were last logged. On the device: nothing waits for them.

    The sums of each process are part of the checkpoint, so that a mean over an epoch is the same after a resume.
    """

    def __init__(self) -> None:
        self.window: dict[str, Tensor | int] = {}
        self.epoch: dict[str, Tensor | int] = {}
        self.exposures = 0
        self.logits: Tensor | None = None
        self.clock = time.perf_counter()
        self.rows_since = 0

    def add(self, batch: Batch, terms: dict[str, Tensor]) -> None:
        """One step: sums of the terms ("" is the loss), of right answers on the fresh rows, and counts of rows."""
        window, fresh, weight = self.window, batch["fresh"], batch["weight"]
        values = {f"loss_{name}" if name else "loss": term.detach() for name, term in terms.items()}
        if weight != 1.0:
            values = {key: value * weight for key, value in values.items()}
        if self.logits is not None:
            counted = _right_answers(self.logits[:fresh].argmax(1), batch)
            values |= counted if weight else {name: 0 * count for name, count in counted.items()}
        for key, value in values.items():
            if key in window:
                window[key].add_(value)
            else:
                window[key] = value.to(torch.float64, copy=True)
        # the running sum is finite until the first step whose loss is not
        window["broken"] = window.get("broken", 0) + ~torch.isfinite(window["loss"])
        counts = (1, fresh, len(batch["index"])) if weight else (1, 0, 0)
        for key, count in zip(("steps", "fresh", "rows"), counts, strict=True):
            window[key] = window.get(key, 0) + count
        self.rows_since += counts[2]

    def mean_loss(self) -> float | None:
        """Of the epoch so far, on this process, for the progress bar."""
        steps, loss = (self.epoch.get(k, 0) + self.window.get(k, 0) for k in ("steps", "loss"))
        return float(loss) / steps if steps else None

    def rates(self) -> dict[str, float]:
        """Pictures that pass through this process's network in a second, since last asked."""
        now = time.perf_counter()
        rate = self.rows_since / max(now - self.clock, 1e-9)
        self.clock, self.rows_since = now, 0
        return {"samples_per_s": rate}

    def raise_if_not_finite(self, method: Method, step: int) -> None:
        """Names the first bad step of the window, which ``step`` is the last of. All processes ask together.

        Raises:
            FloatingPointError: a loss in the window is not finite, on any process.
        """
        if not self.window:
            return
        broken = self.window["broken"]
        if method.trainer.world_size > 1:
            broken = broken.clone()
            torch.distributed.all_reduce(broken, torch.distributed.ReduceOp.MAX)
        if broken := int(broken):
            bad = step - (broken - 1) // method.trainer.accumulate_grad_batches
            raise FloatingPointError(
                f"the loss is not finite from step {bad} on: try a lower learning rate, warm-up, "
                "trainer.gradient_clip_val, or full precision"
            )

    def close_window(self, method: Method, step: int) -> dict[str, float]:
        """The window's means over all processes. Its sums move on to the epoch's. May raise as above."""
        self.raise_if_not_finite(method, step)
        window, self.window = self.window, {}
        if not window:
            return {}
        self.epoch |= {k: self.epoch.get(k, 0) + v for k, v in window.items()}
        return self._means(method, window)

    def close_epoch(self, method: Method) -> dict[str, float]:
        """The epoch's means over all processes, and the pictures seen since training began."""
        epoch, self.epoch = self.epoch, {}
        means = self._means(method, epoch)
        rows = torch.tensor(float(epoch["rows"]), dtype=torch.float64, device=method.device)
        self.exposures += int(method.trainer.strategy.reduce(rows, reduce_op="sum"))
        return {f"epoch_{name}": value for name, value in means.items()} | {"exposures": self.exposures}

    @staticmethod
    def _means(method: Method, sums: dict[str, Tensor | int]) -> dict[str, float]:
        names = list(sums)
        values = torch.stack([torch.as_tensor(sums[k], device=method.device).double() for k in names])
        values = dict(zip(names, method.trainer.strategy.reduce(values, reduce_op="sum").tolist(), strict=True))
        means = {name: values[name] / values["steps"] for name in names if name.startswith("loss")}
        if "right" in values:
            means["accuracy"] = values["right"] / values["fresh"]
        if "flipped" in values:
            flipped, kept = values["flipped"], values["fresh"] - values["flipped"]
            means |= {"accuracy_clean": (values["right"] - values["memorised"]) / kept} if kept else {}
            means |= {name: values[name] / flipped for name in ("memorised", "recovered")} if flipped else {}
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"window": dict(self.window), "epoch": dict(self.epoch), "exposures": self.exposures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.window, self.epoch, self.exposures = dict(state["window"]), dict(state["epoch"]), state["exposures"]

    @staticmethod
    def share(states: list[dict[str, Any]], rank: int, world: int) -> dict[str, Any]:
        """What a process holds where ``world`` of them go on from the sums of another number: the first has them all.

        Each process counts a step and its loss, so that an old step is to weigh as much as one of the new processes.
        """

        def of(part: str) -> dict[str, Tensor | float]:
            sums = {k: sum(state[part][k] for state in states) * (rank == 0) for k in states[0][part]}
            return {k: v * world / len(states) if k == "steps" or k.startswith("loss") else v for k, v in sums.items()}

        return {"window": of("window"), "epoch": of("epoch"), "exposures": states[0]["exposures"]}

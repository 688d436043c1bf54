"""All uses of private names of Lightning. No other file may use them.

They are checked with Lightning 2.6.4 to 2.6.6. Each function says why the public interface is not enough.
``tests/test_lightning_internals.py`` fails if a new version of Lightning has moved one of these names.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loops.fetchers import _DataLoaderIterDataFetcher
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy

from distill_lightning.errors import InputError
from distill_lightning.values import Batch


class LeanModule(pl.LightningModule):
    """A LightningModule without two costs that slow down short steps."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this string many times in a step; torch's __setattr__ would take a tenth of a short step for it
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Does nothing to this program's batches: they are built on the device. Lightning's search for hooks would take
        a tenth of a short step.
        """
        return batch if isinstance(batch, Batch) else super()._on_before_batch_transfer(batch, dataloader_idx)

    def _apply_batch_transfer_handler(self, batch: Any, device: Any = None, dataloader_idx: int = 0) -> Any:
        if isinstance(batch, Batch):
            return batch
        return super()._apply_batch_transfer_handler(batch, device, dataloader_idx)

    @property
    def has_trainer(self) -> bool:
        """Whether a trainer is attached. The public ``trainer`` raises an error if there is none."""
        return self._trainer is not None


def completes_no_step(trainer: pl.Trainer) -> bool:
    """Whether the current batch only accumulates gradients. Lightning has no public name for this."""
    return trainer.accumulate_grad_batches > 1 and trainer.fit_loop.epoch_loop._should_accumulate()


def validation_is_due(trainer: pl.Trainer) -> bool:
    """Whether a validation follows the current batch. Lightning's rule depends on five options and is private."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def epoch_ends(trainer: pl.Trainer) -> bool:
    """Whether the epoch ends with the current batch, also by early stopping. Its rule for a minimum of epochs is
    private.
    """
    return trainer.is_last_batch or (trainer.should_stop and trainer.fit_loop._can_stop_early)


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Turns off Lightning's signal handlers. The one for SIGTERM makes processes wait for each other within a step.

    Lightning has no public option for this.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


class ShortSteps:
    """Training steps without the calls that reach nobody.

    Lightning asks each callback, the module, the strategy and the precision plugin at about twenty places of a step. In
    a step of two milliseconds this takes a tenth of the time. Here only those are asked that have an answer. The hooks
    and their order are the same. Where a step has more parts than usual (clipping, accumulation, loss scaling, several
    processes, hooks that replace a part), it is Lightning's own. Lightning has no public way to replace its steps.

    Args:
        trainer: the trainer, before a fit.
    """

    HOOKS = (
        "on_train_batch_start",
        "on_before_zero_grad",
        "on_before_backward",
        "on_after_backward",
        "on_before_optimizer_step",
        "on_train_batch_end",
    )
    CHANGES = ("backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping")
    """Hooks of a module that change what a step does. The answer of ``on_train_batch_start`` does, too."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer, self.loop = trainer, trainer.fit_loop.epoch_loop
        self.usual = (self.loop.advance, self.loop.automatic_optimization.run)
        self.loop.advance = self.advance  # type: ignore[method-assign,assignment]
        self.loop.automatic_optimization.run = self.optimize  # type: ignore[method-assign,assignment]
        self.loop._build_kwargs = self._arguments  # type: ignore[method-assign,assignment]
        self.short = False
        """Whether the current step is a short one."""
        self._seen: tuple[Any, int, int] | None = None
        self._usual = False
        self._told: dict[str, list[Callable[..., Any]]] = {}

    @staticmethod
    def _arguments(_: Any, batch: Any, number: int) -> OrderedDict[str, Any]:
        """The arguments of ``training_step``, whose signature Lightning would look up at every step."""
        return OrderedDict(batch=batch, batch_idx=number)

    def advance(self, fetcher: Any) -> None:
        """The step of the next batch."""
        loop, trainer = self.loop, self.trainer
        if self._seen != (seen := (fetcher, trainer.current_epoch, len(trainer.callbacks))):  # type: ignore[attr-defined]
            self._seen, self._usual = seen, self._has_usual_parts(fetcher)
        # a callback may change the options in the middle of an epoch
        plain = trainer.accumulate_grad_batches == 1 and not trainer.gradient_clip_val
        self.short = self._usual and plain and not loop.restarting
        if not self.short:
            return self.usual[0](fetcher)
        module, connector, progress = trainer.lightning_module, trainer._logger_connector, loop.batch_progress
        loop.val_loop.restarting = False
        batch, _, _ = next(fetcher)
        number = loop.batch_idx + 1
        progress.is_last_batch = fetcher.done
        if not isinstance(batch, Batch):
            batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))
            batch = trainer.strategy.batch_to_device(batch)
        progress.increment_ready()
        connector.on_batch_start(batch)
        self._tell("on_train_batch_start", batch, number)
        progress.increment_started()
        outputs = loop.automatic_optimization.run(trainer.optimizers[0], number, self._arguments(None, batch, number))
        progress.increment_processed()
        self._tell("on_train_batch_end", outputs, batch, number)
        connector.on_batch_end()
        progress.increment_completed()
        connector.update_train_step_metrics()
        module._current_fx_name = None
        return None

    def optimize(self, optimizer: torch.optim.Optimizer, number: int, arguments: OrderedDict[str, Any]) -> Any:
        """The forward and backward pass of a batch, and the optimizer's step."""
        if not self.short:
            return self.usual[1](optimizer, number, arguments)
        progress = self.loop.automatic_optimization.optim_progress.optimizer
        outputs: Any = {}

        def closure() -> Any:
            with torch.enable_grad():
                self.trainer.lightning_module._current_fx_name = "training_step"
                given = self.trainer.strategy.training_step(*arguments.values())
                if not isinstance(given, dict):
                    raise InputError(f"training_step gives a {type(given).__name__}: expected a dict with the loss")
                outputs.update(given)
                loss = outputs["loss"]
                progress.zero_grad.increment_ready()
                self._tell("on_before_zero_grad", optimizer)
                progress.zero_grad.increment_started()
                optimizer.zero_grad()
                progress.zero_grad.increment_completed()
                self._tell("on_before_backward", loss)
                loss.backward()
                self._tell("on_after_backward")
                outputs["loss"] = loss.detach().clone()  # what is returned outlives the step, and would keep its graph
            self._tell("on_before_optimizer_step", optimizer)
            return outputs["loss"]

        progress.step.increment_ready()
        optimizer.step(closure=closure)
        progress.step.increment_completed()
        return outputs

    def _has_usual_parts(self, fetcher: Any) -> bool:
        """Whether a step has only the parts that it has here. Finds who is told of them."""
        trainer, module = self.trainer, self.trainer.lightning_module
        self._told = {
            hook: [
                functools.partial(getattr(callback, hook), trainer, module)
                for callback in trainer.callbacks  # type: ignore[attr-defined]
                if _has_own(callback, hook, pl.Callback)
            ]
            + [getattr(module, hook)] * _has_own(module, hook, pl.LightningModule)
            for hook in self.HOOKS
        }
        precision = trainer.precision_plugin
        return (
            isinstance(module, LeanModule)
            and module.automatic_optimization
            and not self.loop.automatic_optimization._skip_backward  # as Lightning's averaging of weights sets it
            and not any(_has_own(module, hook, pl.LightningModule) for hook in (*self.CHANGES, self.HOOKS[0]))
            and type(trainer.strategy) is SingleDeviceStrategy
            and type(precision) in (Precision, MixedPrecision)
            and getattr(precision, "scaler", None) is None
            and isinstance(trainer.profiler, PassThroughProfiler)  # type: ignore[attr-defined]
            and not trainer.lr_scheduler_configs
            and not isinstance(fetcher, _DataLoaderIterDataFetcher)
        )

    def _tell(self, hook: str, *args: Any) -> None:
        if told := self._told[hook]:
            self.trainer.lightning_module._current_fx_name = hook
            for tell in told:
                tell(*args)


def _has_own(one: Any, hook: str, base: type) -> bool:
    """Whether an object has a hook of its own, of whatever kind, in place of that of ``base``, which does nothing."""
    own = getattr(one, hook)
    return callable(own) and getattr(own, "__func__", None) is not getattr(base, hook)


def dump_checkpoint(trainer: pl.Trainer, weights_only: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, without writing a file. The public `save_checkpoint` always writes one."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=weights_only)


def cluster_environment(trainer: pl.Trainer) -> ClusterEnvironment:
    """The environment that started the processes. It is needed before the strategy has made it public."""
    return trainer._accelerator_connector.cluster_environment


def synchronises_batch_norm(trainer: pl.Trainer) -> bool:
    """Whether batch norm is synchronised between processes. The trainer does not keep this option."""
    return getattr(trainer.strategy, "_layer_sync", None) is not None


def continue_tracker(logger: Logger, version: str | int) -> None:
    """Lets a new logger write to an existing version. The version can publicly be given only when a logger is made, and
    the run's folder, which knows the version, is chosen later. A logger of another class begins a new version.
    """
    if isinstance(logger, MLFlowLogger):
        logger._run_id = str(version)
        logger.experiment.update_run(logger._run_id, status="RUNNING")
    elif isinstance(logger, WandbLogger):
        logger._id = logger._wandb_init["id"] = str(version)
    elif isinstance(logger, CSVLogger | TensorBoardLogger):
        logger._version = version


class CommandLine(LightningCLI):
    """LightningCLI with access to its resolved options."""

    def _parse_ckpt_path(self) -> None:
        """Does nothing. Lightning's version lets the options in a checkpoint override those of the user."""

    def option(self, name: str) -> Any:
        """The value of an option of the current verb."""
        return self._get(self.config, name)

    def resolved(self) -> dict[str, Any]:
        """All options of the current verb, as plain data."""
        config = self.config[self.subcommand]
        plain: dict[str, Any] = yaml.safe_load(self._parser(self.subcommand).dump(config, skip_none=False))
        return plain


class BuildingCommandLine(CommandLine):
    """Reads the options and builds the parts, but runs no verb."""

    def _run_subcommand(self, subcommand: str) -> None: ...


class ResolvingCommandLine(BuildingCommandLine):
    """Reads the options, but builds nothing and runs no verb."""

    def _set_seed(self) -> None: ...

    def instantiate_classes(self) -> None: ...

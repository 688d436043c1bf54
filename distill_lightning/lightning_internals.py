"""All uses of private names of Lightning. No other file may use them.

They are checked with Lightning 2.6.4 to 2.6.6. Each function says why the public interface is not enough.
``tests/test_lightning_internals.py`` fails if a new version of Lightning has moved one of these names.
"""

from collections import OrderedDict
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

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


def skip_signature_lookup(trainer: pl.Trainer) -> None:
    """Replaces Lightning's look-up of the signature of ``training_step`` at every step. The signature is known here."""

    def arguments(_: Any, batch: Any, number: int) -> OrderedDict[str, Any]:
        return OrderedDict(batch=batch, batch_idx=number)

    trainer.fit_loop.epoch_loop._build_kwargs = arguments  # type: ignore[method-assign,assignment]


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

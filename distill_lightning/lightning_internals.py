"""The private names of Lightning that this program touches, and the only file that may.

Checked against Lightning 2.6.4 to 2.6.6. Each function says why the public way does not do;
``tests/test_lightning_internals.py`` fails when a new Lightning has moved one of them.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.cli import LightningCLI


class LeanModule(pl.LightningModule):
    """A LightningModule without two costs that a short step feels."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this text many times a step; torch's own way of setting an attribute costs a tenth of a small step
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Batches are built on the device: looking for hooks that would move them costs a tenth of a small step."""
        return batch

    def _apply_batch_transfer_handler(self, batch: Any, device: Any = None, dataloader_idx: int = 0) -> Any:
        return batch

    @property
    def has_trainer(self) -> bool:
        """Whether a trainer is attached: asking for ``trainer`` raises where there is none."""
        return self._trainer is not None


def completes_no_step(trainer: pl.Trainer) -> bool:
    """Whether the running batch only adds to the gradients: there is no public word for it."""
    return trainer.accumulate_grad_batches > 1 and trainer.fit_loop.epoch_loop._should_accumulate()


def validation_is_due(trainer: pl.Trainer) -> bool:
    """Whether a validation follows the running batch: the rule has five options, and is Lightning's own."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def epoch_ends(trainer: pl.Trainer) -> bool:
    """Whether the epoch ends with the running batch, early stopping and its minimum of epochs included."""
    return trainer.is_last_batch or (trainer.should_stop and trainer.fit_loop._can_stop_early)


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Lightning's own handler for SIGTERM makes processes wait for each other in the middle of a step."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def skip_signature_lookup(trainer: pl.Trainer) -> None:
    """Lightning looks up the signature of ``training_step`` at every step; ours is known."""

    def arguments(_: Any, batch: Any, number: int) -> OrderedDict[str, Any]:
        return OrderedDict(batch=batch, batch_idx=number)

    trainer.fit_loop.epoch_loop._build_kwargs = arguments  # type: ignore[method-assign,assignment]


def dump_checkpoint(trainer: pl.Trainer, weights_only: bool = False) -> dict[str, Any]:
    """What a checkpoint would hold, without a file: `save_checkpoint` only writes."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=weights_only)


def cluster_environment(trainer: pl.Trainer) -> ClusterEnvironment:
    """Who started the processes: it is asked before the strategy has set anything up."""
    return trainer._accelerator_connector.cluster_environment


def synchronises_batch_norm(trainer: pl.Trainer) -> bool:
    """Whether batch norm is shared by all processes: the trainer does not keep its option."""
    return getattr(trainer.strategy, "_layer_sync", None) is not None


class CommandLine(LightningCLI):
    """LightningCLI, whose options can be asked for, and whose verbs can be described."""

    def _parse_ckpt_path(self) -> None:
        """Lightning's own lets a checkpoint override what was given."""

    def option(self, name: str) -> Any:
        """The value of an option of the running verb."""
        return self._get(self.config, name)

    def resolved(self) -> dict[str, Any]:
        """All options of the running verb, as plain data."""
        config = self.config[self.subcommand]
        plain: dict[str, Any] = yaml.safe_load(self._parser(self.subcommand).dump(config, skip_none=False))
        return plain

    def describe_verbs(self, words: Mapping[str, str]) -> None:
        """What ``--help`` says of each verb; verbs that have a parser of their own are added."""
        subcommands: Any = self.parser._subcommands_action
        listed = subcommands._choices_actions
        known = {choice.dest: choice for choice in listed}
        for verb, text in words.items():
            if verb not in known:
                known[verb] = copy.copy(listed[0])
                known[verb].dest = known[verb].metavar = verb
                listed.append(known[verb])
            known[verb].help = text


class ResolvingCommandLine(CommandLine):
    """Reads options, and makes nothing of them."""

    def _set_seed(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...

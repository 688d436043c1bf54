"""The verbs that train or evaluate: builds the parts of a run from the command line, and calls the verb."""

import itertools
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentParser, Namespace

import distill_lightning
import distill_lightning.callbacks
import distill_lightning.data
import distill_lightning.methods
import distill_lightning.models
from distill_lightning import checkpoints
from distill_lightning.bench import time_steps
from distill_lightning.bench_stages import time_stages
from distill_lightning.callbacks.reestimate_batch_norm import ReestimateBatchNorm
from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.cli import from_file
from distill_lightning.cli.bench import bench
from distill_lightning.cli.diagnosis import first_fault, left_to_data
from distill_lightning.cli.messages import Parser, RefusedError, refusals_of_libraries, refuse_out_of_range
from distill_lightning.cli.networks import (
    hide_block_of_shufflenets,
    with_builders,
    with_class_paths,
    without_block,
)
from distill_lightning.cli.tables import print_metrics, print_result
from distill_lightning.cli.verbs import VERBS
from distill_lightning.config_files import expand_configs
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.lightning_internals import CommandLine
from distill_lightning.methods.base import Method
from distill_lightning.methods.foreign_callbacks import refuse_foreign
from distill_lightning.runs import RunConfig
from distill_lightning.runs.config import MADE_IN_PYTHON
from distill_lightning.runs.declared import declared, named_class
from distill_lightning.specs import SLACK, allocating_at_most, count_numbers
from distill_lightning.specs.describe import class_path
from distill_lightning.training.evaluate import evaluate
from distill_lightning.training.fit import fit
from distill_lightning.training.lean import (
    DEFAULTS,
    LeanTrainer,
    equip,
    listed,
    refuse_odd_length,
    refuse_odd_numbers,
    refuse_overfit,
)
from distill_lightning.training.parts import Parts
from distill_lightning.training.predict import predict
from distill_lightning.training.shape import give_shape
from distill_lightning.values import DataInfo

NETWORKS = ("network", "peers")
"""Options of a method that are networks."""
NO_OPTIONS_OF_A_RUN = ("config", "ckpt_path", "trust", "use_ema")
"""Options of the command that config.yaml does not keep."""


class CommandTrainer(LeanTrainer):
    """The trainer of the command. It adds the verb ``bench`` to the verbs of Lightning's trainer."""

    def bench(
        self,
        model: Method,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        turns: int = 20,
        steps: int = 20,
        stages: bool = False,
    ) -> dict[str, Any]:
        """Measures the time of a training step.

        Args:
            model: the method.
            datamodule: the data.
            ckpt_path: the checkpoint whose configuration is used; its weights are not.
            turns: how often each part is timed.
            steps: the number of steps in each turn.
            stages: whether the stages of the data path are timed instead: decode, transfer, augment, train. It says
                which of them is the limit.
        """
        if stages:
            return time_stages(self, model, datamodule, turns + steps)
        return time_steps(self, model, datamodule, turns, steps)


class DistillCommand(CommandLine):
    """Reads the options of a command, builds each part of the run once, and passes the parts to the verb."""

    def __init__(self, args: list[str] | None = None) -> None:
        given = sys.argv[1:] if args is None else args
        self.verb = given[0]
        """A parser is made for this verb alone: each takes a tenth of a second."""
        self.given_checkpoint: dict[str, Any] | None = None
        """The checkpoint that gives the configuration if there is no --config."""
        super().__init__(
            Method,
            ImageData,
            trainer_class=CommandTrainer,
            save_config_callback=None,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={
                "prog": "distill",
                "allow_abbrev": False,
                "version": distill_lightning.__version__,
                "description": distill_lightning.__doc__,
                self.verb: {"description": VERBS[self.verb]},
            },
            trainer_defaults=dict(DEFAULTS),
            args=given,
        )

    # What can be given

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        loaders = {"model", "datamodule", "weights_only", "verbose"}
        verbs = {
            "fit": loaders | {"train_dataloaders", "val_dataloaders"},
            "validate": loaders | {"dataloaders"},
            "test": loaders | {"dataloaders"},
            "predict": loaders | {"dataloaders", "return_predictions"},
            "bench": {"model", "datamodule"},
        }
        return {self.verb: verbs[self.verb]}

    def add_arguments_to_parser(self, parser: Parser) -> None:  # type: ignore[override]
        parser.add_argument("--log_dir", type=str, default="logs", help="The folder that runs are written to.")
        parser.add_argument("--name", type=str | None, help="The name of the run (default: network and seed).")
        parser.add_argument(
            "--start_from",
            type=str | dict[str, str | None] | None,
            help="Starts a new run from the weights of an old one: the folder of a run (its last checkpoint), a "
            "checkpoint, or a file of weights. In a run's config.yaml it also says which weights they were.",
        )
        parser.add_argument(
            "--start_optimizer",
            type=bool,
            default=False,
            help="Whether the state of the optimizer is taken along from the checkpoint in start_from.",
        )
        parser.add_argument(
            "--doctor",
            type=bool,
            default=True,
            help="Whether a line at the end of a fit says what the curves show, as `distill doctor` does.",
        )
        parser.add_argument(
            "--trust",
            type=str | None,
            help="The dotted name of a class or function of yours that a file may use, as my_package.Net. "
            "It may be given several times.",
        )
        if self.verb in ("validate", "test", "predict"):
            parser.add_argument(
                "--use_ema", action="store_true", help="Take the weights that the callback EMA has averaged."
            )
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        if self.verb in ("validate", "test"):
            parser.add_argument(
                "--reestimate_batch_norm",
                type=int | None,
                help="The number of training pictures on which the statistics of batch norm are estimated anew first.",
            )

    def parse_arguments(self, parser: Parser, args: list[str] | None) -> None:  # type: ignore[override]
        args = self._with_config_of_checkpoint(expand_configs(args or []))
        args = with_class_paths(args)
        hide_block_of_shufflenets()
        try:
            self.config = parser.parse_args(args)
        except RefusedError as error:
            # a network may require options that only the data give: use 0 until they are known
            names = left_to_data(args)
            if (fault := first_fault(args)) or not names:
                raise InputError(fault or str(error)) from error
            self.config = parser.parse_args([*args, *(f"--{name}=0" for name in names)])
        without_block(self.config[args[0]])
        refuse_out_of_range(self.config[args[0]], args[0])

    def _with_config_of_checkpoint(self, args: list[str]) -> list[str]:
        """Adds the configuration of the checkpoint as the first --config, if the command has a checkpoint and no
        --config.
        """
        if not args or args[0] not in VERBS or any(a in ("-c", "--config") or a.startswith("--config=") for a in args):
            return args
        given = [a.partition("=")[2] for a in args if a.startswith("--ckpt_path=")]
        given += [b for a, b in itertools.pairwise(args) if a == "--ckpt_path"]
        if not given or given[-1] in ("last", "best", "auto"):
            return args
        path = given[-1]
        self.given_checkpoint = checkpoints.read(path)
        config = checkpoints.config_of(self.given_checkpoint, path)
        _refuse_made_in_python(config, args)
        # a checkpoint decides the network and the data, but not the trainer of a verb that does not train
        if args[0] not in ("fit", "bench"):
            config = {k: v for k, v in config.items() if k in ("seed_everything", "model", "data")}
            if isinstance(config.get("model"), dict) and isinstance(config["model"].get("init_args"), dict):
                config["model"]["init_args"].pop("optimizer", None)
        config = from_file.checked(config, Path(path))
        return [args[0], "--config", from_file.as_text(config), *args[1:]]

    # The parts

    def before_instantiate_classes(self) -> None:
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        _name_by_definition(config)
        trainer = vars(config.trainer)
        refuse_overfit(trainer)
        refuse_odd_numbers(trainer)
        refuse_foreign(named_class(callback.class_path) for callback in listed(trainer["callbacks"]))
        if self.subcommand == "fit":
            refuse_odd_length(trainer, named_class(config.model.class_path).trains)
        data = _build_data(config.data)
        shape: ImageData | DataInfo = data
        if self.subcommand in ("validate", "test", "predict") and self.given_checkpoint is not None:
            of_run = checkpoints.trained_on(self.given_checkpoint, str(config.ckpt_path))
            shape = data if of_run is None else of_run.info  # what is evaluated may lack classes
        if isinstance(shape, DataInfo) or self.subcommand != "predict" or data.pictures is None:
            give_shape(config.model, shape)
        options = {k: v for k, v in self.resolved().items() if k not in NO_OPTIONS_OF_A_RUN}
        _name_by_definition(options)  # again: the parser renames what lies deeper when it writes
        options["model"] = from_file.with_default_optimizer(options["model"])
        self.run_config = RunConfig(options, declared(options))
        self.method, self.data = named_class(config.model.class_path), data
        config.data = data  # the parser passes this object on, so that the data module is built once
        self._use_builders(config)

    def _use_builders(self, config: Namespace) -> None:
        """Lets the networks of torchvision and timm be built by ``foreign_network``."""
        path, given = config.get("ckpt_path"), self.given_checkpoint
        known = None if given is None else checkpoints.trained_on(given, str(path))
        info = known.info if known is not None and self.data.pictures is not None else self.data
        config.model = with_builders(config.model, info, fetches=path in (None, "auto"))
        config.trainer.callbacks = with_builders(config.trainer.callbacks, info, fetches=True)

    def instantiate_classes(self) -> None:
        # a network from a file may not need much more memory than the weights in the file
        where, given = str(self.option("ckpt_path")), self.given_checkpoint
        weights = None if given is None else count_numbers(given["state_dict"], where)
        with allocating_at_most(None if weights is None else 4 * weights + SLACK, where), refusals_of_libraries():
            super().instantiate_classes()
        # a checkpoint describes its networks as the user did
        arguments = self.run_config.options["model"].get("init_args") or {}
        self.model.hparams.update({k: v for k, v in arguments.items() if k in NETWORKS and k in self.model.hparams})

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        options = self.config_init[self.subcommand].trainer
        equipment = equip(vars(options), self.model, shows_progress=self.subcommand != "bench")
        self.checkpoint_io, self.user_loggers = equipment.checkpoint_io, equipment.loggers
        options.callbacks = equipment.options["callbacks"]
        rest = {name: value for name, value in equipment.options.items() if name != "callbacks"}
        return super().instantiate_trainer(**rest, **kwargs)

    @property
    def parts(self) -> Parts:
        """The parts of the run, which the verbs work with."""
        return Parts(
            config=self.run_config,
            method=self.model,
            data=self.data,
            trainer=self.trainer,
            checkpoint=self.config_init[self.subcommand].checkpoint,
            checkpoint_io=self.checkpoint_io,
            user_loggers=self.user_loggers,
        )

    # The verbs

    def fit(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        """See `training.fit`."""
        if self.given_checkpoint is not None and ckpt_path is not None:
            self.checkpoint_io.hold(ckpt_path, self.given_checkpoint)
        result = fit(self.parts, ckpt_path)
        if self.trainer.is_global_zero and result.trained:
            print_result(result)
            print(f"run: {result.folder}", flush=True)

    def validate(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        """See `training.evaluate`."""
        self._evaluate("validate", ckpt_path)

    def test(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        """See `training.evaluate`."""
        self._evaluate("test", ckpt_path)

    def _evaluate(self, verb: str, ckpt_path: str | None) -> None:
        count = self.option("reestimate_batch_norm")
        if count is not None:
            self.trainer.callbacks.append(ReestimateBatchNorm(count))  # type: ignore[attr-defined]
        metrics = evaluate(self.parts, verb, ckpt_path, self.given_checkpoint, self.option("use_ema"))
        if self.trainer.is_global_zero:
            print_metrics(metrics)

    def predict(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        """See `training.predict`."""
        if file := predict(self.parts, ckpt_path, self.given_checkpoint, self.option("use_ema")):
            print(f"predictions: {file}", flush=True)
            if datamodule.predicted is not None:
                datamodule.predicted.refuse_unread(str(file))

    def bench(
        self,
        model: Method,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        turns: int = 20,
        steps: int = 20,
        stages: bool = False,
    ) -> None:
        """See `cli.bench`."""
        bench(self.parts, turns, steps, stages)


def _refuse_made_in_python(config: dict[str, Any], args: list[str]) -> None:
    """Refuses the configuration of a run with objects that only Python can make again.

    The parts that this command does not use, or gives itself, do not matter. They are removed from the configuration.

    Args:
        config: the configuration of a checkpoint. It is changed.
        args: the verb and its options.

    Raises:
        InputError: there is such an object. The message says how to give it.
    """
    made = config.pop(MADE_IN_PYTHON, None)
    for place, kind in made.items() if isinstance(made, dict) else ():
        option = "--" + str(place).replace(".init_args", "")
        if str(place).startswith("trainer.") and args[0] != "fit":
            continue
        if not any(a == option or a.startswith(f"{option}=") for a in args):
            what = f"{place} of this run is a {kind} that was made in Python"
            if str(place).startswith("model.init_args."):
                raise InputError(f"{what}: give {option} CLASS, or open it in Python, dl.load(folder, network=...)")
            raise InputError(f"{what}: go on in Python, with dl.Trainer(...).fit(..., ckpt_path=...)")
        group, _, name = str(place).rpartition(".")
        inner: Any = config
        for part in group.split("."):
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(name, None)


def _name_by_definition(config: Any) -> None:
    """Names this program's classes by the file that defines them: the parser names them by any package that exports
    them.
    """
    if isinstance(config, list):
        for inner in config:
            _name_by_definition(inner)
    elif isinstance(config, Namespace | dict):
        for inner in vars(config).values() if isinstance(config, Namespace) else config.values():
            _name_by_definition(inner)
        given = config.get("class_path")
        if isinstance(given, str) and given.startswith("distill_lightning."):
            config["class_path"] = class_path(named_class(given)) or given


def _build_data(specification: Namespace) -> ImageData:
    parser = ArgumentParser()
    parser.add_subclass_arguments(ImageData, "data")
    data: ImageData = parser.instantiate_classes(Namespace(data=specification.clone())).data
    return data

"""The verbs of the command ``distill`` that need torch.

    distill fit|validate|test|predict|bench --config FILE [--config FILE ...] [--option value ...]
    distill study FILE [--jobs N] [--dry_run] [--option value ...]

Read `DistillCLI.fit` first: it is what a run consists of.
"""

import copy
import csv
import inspect
import io
import json
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.plugins.environments import SLURMEnvironment
from rich.console import Console
from rich.table import Table

import distill_lightning
import distill_lightning.callbacks
import distill_lightning.data
import distill_lightning.methods
import distill_lightning.models
from distill_lightning import checkpoints, runs, studies
from distill_lightning.bench import Trainer, Untimed
from distill_lightning.callbacks.progress import progress
from distill_lightning.callbacks.run_checkpoint import CHILD, RunCheckpoint, end_children
from distill_lightning.cli import from_file
from distill_lightning.cli import inspect as inspect_file
from distill_lightning.cli.messages import Parser
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError, first_input_error
from distill_lightning.files import write_whole
from distill_lightning.loggers import MetricsCSV, TensorBoard
from distill_lightning.methods.base import Method
from distill_lightning.specs import SLACK, allocating_at_most, count_numbers, trusting

# Lightning lets configurations be fetched from anywhere: here they are files
set_parsing_settings(config_read_mode_urls_enabled=False, config_read_mode_fsspec_enabled=False)

VERBS = {
    "fit": "Train a network, from the start or from a checkpoint, and test it once.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split.",
    "predict": "Write a checkpoint's predictions for the test split, or for a folder of pictures.",
    "bench": "Time a step of the run beside the bare PyTorch loop.",
}
OTHER_VERBS = {
    "study": "Run what is missing of a study's runs, in order, and make its tables.",
    "report": "Make one HTML page from any run folders.",
    "inspect": inspect_file.SUMMARY,
}
"""Those that have a parser of their own."""


class DistillCLI(LightningCLI):
    """LightningCLI with run folders, exact resume, and networks that learn their shape from the data."""

    def __init__(self, args: list[str] | None = None) -> None:
        super().__init__(
            Method,
            ImageData,
            trainer_class=Trainer,
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
                **{verb: {"description": words} for verb, words in VERBS.items()},
            },
            trainer_defaults={"num_sanity_val_steps": 0, "enable_model_summary": False},
            args=args,
        )

    # What can be given

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        loaders = {"model", "datamodule", "weights_only", "verbose"}
        return {
            "fit": loaders | {"train_dataloaders", "val_dataloaders"},
            "validate": loaders | {"dataloaders"},
            "test": loaders | {"dataloaders"},
            "predict": loaders | {"dataloaders", "return_predictions"},
            "bench": {"model", "datamodule"},
        }

    def setup_parser(self, *args: Any) -> None:
        super().setup_parser(*args)
        listed = self.parser._subcommands_action._choices_actions
        for choice in listed:
            choice.help = VERBS[choice.dest]  # not what the trainer's methods say of themselves
        for verb, words in OTHER_VERBS.items():
            other = copy.copy(listed[0])
            other.dest = other.metavar = verb
            other.help = words
            listed.append(other)

    def add_arguments_to_parser(self, parser: Parser) -> None:
        parser.add_argument("--log_dir", type=str, default="logs", help="The folder that runs go to.")
        parser.add_argument("--name", type=str | None, help="The name of the run (default: network and seed).")
        parser.add_argument(
            "--trust",
            type=str | None,
            help="The dotted name of a class or function of yours that the files you give may ask for, as my_package.Net. "
            "May be given several times.",
        )
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")

    def parse_arguments(self, parser: Parser, args: list[str] | None) -> None:
        args = self._with_config_of_checkpoint(sys.argv[1:] if args is None else args)
        try:
            self.config = parser.parse_args(args)
        except InputError as error:  # a network may require what only the data can tell: 0 stands for it until then
            required = re.search(r"arguments are required: ([\w, ]+)", str(error))
            names = [name for name in re.split(r"[, ]+", required[1]) if name in runs.SHAPE] if required else []
            if not names:
                raise
            self.config = parser.parse_args([*args, *(f"--model.network.{name}=0" for name in names)])

    def _parse_ckpt_path(self) -> None:
        """Lightning's own lets a checkpoint override what was given."""

    def _with_config_of_checkpoint(self, args: list[str]) -> list[str]:
        """A checkpoint alone is enough: without a --config, its own is the first."""
        self.config_is_checkpoints = False
        if not args or args[0] not in VERBS or any(a in ("-c", "--config") or a.startswith("--config=") for a in args):
            return args
        given = [a.partition("=")[2] for a in args if a.startswith("--ckpt_path=")]
        given += [b for a, b in zip(args, args[1:], strict=False) if a == "--ckpt_path"]
        if not given or given[-1] in ("last", "best", "auto"):
            return args
        self.given_checkpoint = checkpoints.read(given[-1])
        config = checkpoints.config_of(self.given_checkpoint, given[-1])
        self.config_is_checkpoints = True
        if args[0] != "fit":  # a file says what it is, not what is to be done with it
            config = {k: v for k, v in config.items() if k in ("seed_everything", "model", "data")}
            if isinstance(config.get("model"), dict) and isinstance(config["model"].get("init_args"), dict):
                config["model"]["init_args"].pop("optimizer", None)
        config = from_file.checked(config, Path(given[-1]))
        return [args[0], "--config", from_file.as_text(config), *args[1:]]

    # Before classes are made

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.trainer.max_steps not in (-1, None) and self.subcommand == "fit":
            raise InputError(f"trainer.max_steps is {config.trainer.max_steps}: give trainer.max_epochs instead")
        self.method = _class(config.model.class_path)
        if (config.trainer.max_epochs or 0) < 1 and self.subcommand == "fit" and self.method.trains:
            raise InputError(f"trainer.max_epochs is {config.trainer.max_epochs}: say how many epochs to train for")
        if config.trainer.overfit_batches:
            raise InputError("trainer.overfit_batches is not for ordered data: give data.train_part, say 64, instead")
        if config.trainer.accelerator == "auto" and torch.backends.mps.is_available():
            config.trainer.accelerator = "cpu"  # Apple's GPU has no float64, which running sums need
        # predictions of pictures do not need the data: a checkpoint's own configuration has the network's shape
        if self.subcommand != "predict" or config.data.init_args.pictures is None or not self.config_is_checkpoints:
            self._give_network_its_shape(config)
        dumped = yaml.safe_load(self._parser(self.subcommand).dump(config, skip_none=False))
        self.config_yaml = runs.dump({k: v for k, v in dumped.items() if k not in ("config", "ckpt_path", "trust")})

    def _give_network_its_shape(self, config: Namespace) -> None:
        """Classes, channels and picture size are the data's: a network that takes them is given them."""
        parser = ArgumentParser()
        parser.add_subclass_arguments(ImageData, "data")
        data = parser.instantiate_classes(Namespace(data=config.data.clone())).data
        self.data_name = data.name
        shape = dict(zip(runs.SHAPE, (data.num_classes, data.channels, data.image_size), strict=True))
        for name in ("network", "peers"):
            given = config.model.init_args.get(name)
            for network in given if isinstance(given, list) else [given] if given else []:
                _give_shape(network, shape, data.name)

    def instantiate_classes(self) -> None:
        # what a file describes may not take much more memory than the weights in it
        where = str(self._get(self.config, "ckpt_path"))
        weights = count_numbers(self.given_checkpoint["state_dict"], where) if self.config_is_checkpoints else None
        with allocating_at_most(None if weights is None else 4 * weights + SLACK, where):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        given = self.config_init[self.subcommand]
        self.checkpoint: RunCheckpoint = given.checkpoint
        trainer = given.trainer
        # its own loggers need the run's folder, which is found later; the user's come on top
        self.user_loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        self.user_loggers = [logger for logger in self.user_loggers if not isinstance(logger, bool | None)]
        plugins = [checkpoints.WholeFileIO()]
        if SLURMEnvironment.detect():
            plugins.append(SLURMEnvironment(auto_requeue=False))  # its handler saves in the middle of a step
        given_plugins = trainer.plugins if isinstance(trainer.plugins, list) else [trainer.plugins]
        bar = [] if trainer.enable_progress_bar is False or self.subcommand == "bench" else [progress()]
        callbacks = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
        trainer.callbacks = [c for c in callbacks if c is not None] + bar
        return super().instantiate_trainer(
            profiler=trainer.profiler or Untimed(),
            logger=False,
            plugins=plugins + [p for p in given_plugins if p is not None],
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in trainer.callbacks),
            **kwargs,
        )

    # The verbs

    def fit(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        """Trains, from the start or from a checkpoint; tests once; sums up."""
        run = self._decide(lambda: self._run(model, datamodule, ckpt_path))
        if run.finished:
            self._say(f"run: {run.folder} (finished already)")
            return
        self._say(f"run: {run.folder}")
        try:
            self._train_and_test(run, model, datamodule)
        except Exception as error:
            if first_input_error(error) and ckpt_path in (None, "auto") and not list(run.checkpoints.glob("*.ckpt")):
                shutil.rmtree(run.folder, ignore_errors=True)  # nothing has begun: the corrected start gets the name
            raise
        finally:
            run.release()
        self._say(f"run: {run.folder}")

    def _train_and_test(self, run: runs.Run, model: Method, datamodule: ImageData) -> None:
        trainer = self.trainer
        step = checkpoints.read(run.resume_from)["global_step"] if run.resume_from else -1
        board = self._attach(run, step, (run.folder / "config.yaml").read_text())
        with self._children(run):
            if model.trains:
                trainer.fit(model, datamodule=datamodule, ckpt_path=run.resume_from)
            else:
                self.checkpoint.start_clock()
                trainer.validate(model, datamodule=datamodule, verbose=False)
            datamodule.read_test_part()
            if datamodule.test is not None:
                trainer.test(model, datamodule=datamodule, verbose=False)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            summary = self._summary(run, model)
            settings = runs.settings(yaml.safe_load(self.checkpoint.config))
            board.log_outcome(settings, {k: v for k, v in summary["metrics"].items() if k[:4] in ("val/", "test")})
            board.save()
            write_whole(run.summary, lambda file: file.write((json.dumps(summary, indent=2) + "\n").encode()))
            self._table(summary["metrics"])

    def _attach(self, run: runs.Run, step: int, config: str) -> TensorBoard:
        """Points loggers and checkpoints at a run's folder.

        Args:
            run: which one.
            step: that of the checkpoint it goes on from, -1 for none.
            config: what its checkpoints are to say of how they were made.
        """
        board = TensorBoard(run.folder, step)
        self.trainer.loggers = [board, MetricsCSV(run.folder / "metrics.csv", step), *self.user_loggers]
        self.checkpoint.folder, self.checkpoint.config = run.checkpoints, config
        return board

    def validate(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        self._evaluate(model, datamodule, ckpt_path, self.trainer.validate)

    def test(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        self._evaluate(model, datamodule, ckpt_path, self.trainer.test)

    def _evaluate(self, model: Method, datamodule: ImageData, ckpt_path: str | None, verb: Any) -> None:
        self._load(model, datamodule, ckpt_path)
        with self._children():
            verb(model, datamodule=datamodule, verbose=False)
        results = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if not results:
            raise InputError(f"{datamodule.name} has no validation split: give data.val_size")
        if self.trainer.is_global_zero:
            self._table(results)

    def predict(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None) -> None:
        """Writes predictions.csv, or predictions-<folder>.csv: index or file name, label, predicted class,
        probabilities."""
        folder = self._load(model, datamodule, ckpt_path)
        with self._children():
            mine = self.trainer.predict(model, datamodule=datamodule) or []
        everyones = [mine]
        if self.trainer.world_size > 1:
            everyones = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyones, mine)
        if not self.trainer.is_global_zero:
            return
        parts = [part for one in everyones for part in one if part]
        rows = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        place = folder if (folder / "config.yaml").is_file() else Path()
        of = datamodule.pictures
        target = place / (f"predictions-{Path(of).resolve().name}.csv" if of is not None else "predictions.csv")
        write_whole(target, lambda file: file.write(_predictions(rows, datamodule).encode(errors="surrogateescape")))
        self._say(f"predictions: {target}")

    def _load(self, model: Method, datamodule: ImageData, ckpt_path: str | None) -> Path:
        """Puts a checkpoint's weights into the network. Returns the folder of its run."""
        if not model.trains:
            if ckpt_path is not None:
                raise InputError(f"{type(model).__name__} has no checkpoint: its members are --model.members")
            return self._stem(model, datamodule) / (self._get(self.config, "name") or self._usual_name())
        if ckpt_path is None:
            raise InputError(f"distill {self.subcommand} needs --ckpt_path: a file, last or best")
        path = Path(ckpt_path)
        if ckpt_path in ("last", "best"):
            folder = runs.find(self._stem(model, datamodule), self._get(self.config, "name"))
            path = folder / "checkpoints" / f"{ckpt_path}.ckpt"
        checkpoint = checkpoints.read(path)
        checkpoints.load_weights(model.model, checkpoints.network_weights(checkpoint, model.model), str(path))
        said = checkpoints.data_of(checkpoint)
        pictures = self.subcommand == "predict" and datamodule.pictures is not None
        if said and not pictures and said["class_names"] != datamodule.class_names:
            raise InputError(
                f"{path} was trained on the classes {', '.join(said['class_names'][:5])} ..., {datamodule.name} has "
                f"{', '.join(datamodule.class_names[:5])} ...: evaluate it on the data that it is for"
            )
        datamodule.remembered = said
        return path.parent.parent

    def bench(self, model: Method, datamodule: ImageData, turns: int = 20, steps: int = 20) -> None:
        """Prints the time of a step; what the run writes goes to a folder that is thrown away."""
        if turns < 2 or steps < 1:
            raise InputError(f"turns is {turns}, steps {steps}: there must be 2 turns or more, of 1 step or more")
        if not model.trains:
            raise InputError(f"{type(model).__name__} has nothing to train: a step of it takes no time")
        with tempfile.TemporaryDirectory() as folder:
            self._attach(runs.Run(Path(folder)), -1, self.config_yaml)
            result = self.trainer.bench(model, datamodule, turns, steps)
        if not self.trainer.is_global_zero:
            return
        table = Table("", "ms a step", "of the bare loop (quartiles)")
        table.add_row("bare loop", f"{1000 * result['bare_s']:.3f}", "1")
        rows = [("data", "data path alone", "bare"), ("run", "run as trained", "bare")]
        if result["fresh"] < result["rows"]:
            table.add_row(
                f"bare loop on the {result['fresh']} fresh of {result['rows']}", f"{1000 * result['fresh_s']:.3f}"
            )
            rows.append(("run", "the run, of the loop on the fresh", "fresh"))
        for name, words, other in rows:
            low, middle, high = result[f"{name}_to_{other}"]
            table.add_row(words, f"{1000 * result[f'{name}_s']:.3f}", f"{middle:.3f} ({low:.3f} to {high:.3f})")
        Console().print(table)
        sizes = {"memory at its highest": result["peak_bytes"], "checkpoint": result["checkpoint_bytes"]}
        print(", ".join(f"{words} {size / 1e6:.1f} MB" for words, size in sizes.items() if size is not None))
        print(json.dumps(result))

    # Run folders

    def _stem(self, model: Method, datamodule: ImageData) -> Path:
        method = type(model).__module__.rpartition(".")[2]
        return Path(self._get(self.config, "log_dir")) / datamodule.name / method

    def _run(self, model: Method, datamodule: ImageData, ckpt_path: str | None) -> runs.Run:
        stem, name = self._stem(model, datamodule), self._get(self.config, "name")
        auto = ckpt_path == "auto"
        if auto and name is None:
            raise InputError("--ckpt_path auto needs a --name: that of the run to go on with, or to start")
        if ckpt_path is None and (requeued := runs.of_slurm_job(stem, self.config_yaml)):
            ckpt_path, name = "last", requeued.name
        if ckpt_path is not None and not auto:
            run = runs.resume(stem, name, self.config_yaml, ckpt_path)
        else:
            run = runs.start(stem, name or self._usual_name(), self.config_yaml, once=auto)
        if not run.finished and (job := runs.slurm_job()):
            (run.folder / "slurm_job_id").write_text(job)
        return run

    def _usual_name(self) -> str:
        config = self._get(self.config, "model")
        what = config.init_args.get("network") or config
        return f"{what.class_path.rpartition('.')[2].lower()}-seed{self._get(self.config, 'seed_everything')}"

    def _decide(self, decide: Any) -> runs.Run:
        """What the first process decides, on all of them; an error of its is everyone's."""
        if CHILD in os.environ:
            folder, _, resume_from = os.environ[CHILD].partition("\n")
            return runs.Run(Path(folder), Path(resume_from) if resume_from else None)
        strategy = self.trainer.strategy
        environment = self.trainer._accelerator_connector.cluster_environment
        if self.trainer.world_size == 1 or not environment.creates_processes_externally:
            return decide()
        strategy.setup_environment()  # the processes are there already: let them meet now
        run, error = None, None
        if self.trainer.is_global_zero:
            try:
                run = decide()
            except Exception as raised:
                error = raised if isinstance(raised, InputError) else RuntimeError(f"{type(raised).__name__}: {raised}")
        told, error = strategy.broadcast((run, error))
        if error:
            raise error
        return run or told

    @contextmanager
    def _children(self, run: runs.Run | None = None) -> Iterator[None]:
        """Tells the processes that the trainer starts which run it is, and takes them along when this one fails."""
        if CHILD in os.environ:  # this is one of them
            yield
            return
        os.environ[CHILD] = f"{run.folder}\n{run.resume_from or ''}" if run else "\n"
        try:
            yield
        except BaseException:
            end_children(self.trainer)
            raise
        finally:
            os.environ.pop(CHILD, None)

    # What is shown and kept at the end

    def _summary(self, run: runs.Run, model: Method) -> dict[str, Any]:
        metrics = {tag: value for _, tag, value in runs.read_metrics(run.folder / "metrics.csv")}
        parameters = list(model.model.parameters())
        total = sum(p.numel() for p in parameters)
        config = yaml.safe_load(self.checkpoint.config)
        device = self.trainer.strategy.root_device
        of_callbacks = [callback.summary() for callback in self.trainer.callbacks if hasattr(callback, "summary")]
        return {
            **{k: v for summary in of_callbacks for k, v in summary.items()},
            "metrics": metrics,
            "wall_time_s": round(self.checkpoint.wall_time_s(), 3),
            "steps": self.trainer.global_step,
            "epochs": self.trainer.current_epoch,
            "exposures": model.account.exposures,
            "parameters": total,
            "density": sum(int(p.count_nonzero()) for p in parameters if p.ndim > 1)
            / sum(p.numel() for p in parameters if p.ndim > 1),
            "calibration": model.calibration,
            "seed": config["seed_everything"],
            "config_digest": runs.digest(config),
            "versions": {
                "distill_lightning": distill_lightning.__version__,
                "torch": torch.__version__,
                "lightning": pl.__version__,
                "python": platform.python_version(),
            },
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": self.trainer.world_size,
            "threads": torch.get_num_threads(),
        }

    def _say(self, line: str) -> None:
        if self.trainer.is_global_zero:
            print(line, flush=True)

    @staticmethod
    def _table(metrics: dict[str, float]) -> None:
        shown = {k: v for k, v in metrics.items() if k.partition("/")[0] in ("val", "test")}
        columns = list(dict.fromkeys(k.partition("/")[0] for k in shown))
        table = Table("", *columns)
        for name in dict.fromkeys(k.partition("/")[2] for k in shown):
            table.add_row(name, *(f"{shown[f'{c}/{name}']:.4f}" if f"{c}/{name}" in shown else "" for c in columns))
        Console().print(table)


def _class(path: str) -> Any:
    """What a class path names that has been parsed, and so imported."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules[module], name)


def _give_shape(network: Namespace, shape: dict[str, int], data: str) -> None:
    arguments = network.get("init_args") or Namespace()
    name = network.class_path.rpartition(".")[2]
    parameters = inspect.signature(_class(network.class_path)).parameters
    for key, value in shape.items():
        if key in arguments:
            default = parameters[key].default if key in parameters else arguments[key]
            if arguments[key] not in (0, value, default):
                raise InputError(f"{name}.{key} is {arguments[key]}, but {data} has {value}: leave it out")
            arguments[key] = value
    network["init_args"] = arguments
    within = [v for v in vars(arguments).values() if isinstance(v, Namespace) and "class_path" in v]
    for part in within:  # a network that is made of networks
        _give_shape(part, shape, data)
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if passes_on and "num_classes" not in arguments:  # as most of torchvision's functions
        network["dict_kwargs"] = {"num_classes": shape["num_classes"]} | (network.get("dict_kwargs") or {})


def _predictions(rows: dict[str, torch.Tensor], data: ImageData) -> str:
    names = getattr(data, "predicted_names", None)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = data.class_names
    writer.writerow(["index" if names is None else "file", "label", "predicted", *(f"prob_{c}" for c in classes)])
    for row in rows["index"].argsort().tolist():
        index, probs = int(rows["index"][row]), rows["probs"][row]
        label = classes[int(rows["label"][row])] if "label" in rows else ""
        probabilities = [f"{p:.6g}" for p in probs.tolist()]
        writer.writerow([index if names is None else names[index], label, classes[int(probs.argmax())], *probabilities])
    return text.getvalue()


class _Resolver(DistillCLI):
    """Reads a command's options, and makes nothing of them."""

    def _set_seed(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


def resolve(args: list[str]) -> studies.Resolved:
    """What a command's options come to.

    Raises:
        InputError: as the command would.
    """
    args, _ = _without_trust(args)
    cli = _Resolver(args)
    config = yaml.safe_load(cli.config_yaml)
    stem = Path(config["log_dir"]) / cli.data_name / cli.method.__module__.rpartition(".")[2]
    return studies.Resolved(config, stem, cli.method.trains)


def _devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def quiet() -> None:
    """Silences what a user can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|jsonargparse|torchmetrics|torch)\b")


def main(args: list[str]) -> int:
    """Runs the verbs that need torch. Returns 0, or what a study came to; what goes wrong is raised."""
    quiet()
    # Lightning makes torch ask NVML whether there is a GPU, which an optimizer does at every step
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # classes of one's own lie where one works
    if args[:1] == ["study"]:
        return studies.main(args[1:], resolve, _devices)
    args, trusted = _without_trust(args)
    with trusting(trusted):
        if args[:1] == ["inspect"]:
            return inspect_file.main(args[1:])
        DistillCLI(args)
    return 0


def _without_trust(args: list[str]) -> tuple[list[str], list[str]]:
    """Arguments without ``--trust NAME``, and the names: they count before a checkpoint's configuration is read."""
    left, names = [], []
    rest = iter(args)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option == "--trust":
            names.append(value if equals else next(rest, ""))
        else:
            left.append(argument)
    return left, names

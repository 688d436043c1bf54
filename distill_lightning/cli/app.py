"""Runs the verbs of the command that need torch.

distill fit --config FILE [--config FILE ...] [--option value ...]
distill validate|test|predict|bench RUN|FILE [--option value ...]
distill export RUN|CHECKPOINT [--format FORMAT] [--out FILE]
distill compress RUN|CHECKPOINT [--network NAME] [--keep SHARE] [--option value ...]
distill channels RUN|CHECKPOINT --layer NAME [--figure FILE]
distill inspect FILE
distill data CONFIG [--option value ...]
distill schedule CONFIG [--plot FILE] [--option value ...]
distill lr CONFIG|RUN [--plot FILE] [--option value ...]
distill study FILE [--jobs N] [--dry_run] [--option value ...]
distill search FILE [--jobs N] [--seed N] [--option value ...]
distill members --seeds N --config FILE [--option value ...]
distill compute FUNCTION [--option value ...]
"""

import importlib
import os
import sys
from pathlib import Path

import torch
from jsonargparse import set_parsing_settings

from distill_lightning.cli import compute, data, help, inspect, schedule
from distill_lightning.cli.command import DistillCommand
from distill_lightning.cli.positionals import as_options, checkpoint_of
from distill_lightning.data.base import ImageData
from distill_lightning.lightning_internals import BuildingCommandLine, ResolvingCommandLine
from distill_lightning.methods.foreign_callbacks import tags_of
from distill_lightning.runs.declared import named_class
from distill_lightning.specs import trusting
from distill_lightning.studies import Resolved
from distill_lightning.training.lean import listed, quieted
from distill_lightning.training.parts import method_name
from distill_lightning.training.range_test import RangeTest
from distill_lightning.training.range_test import range_test as run_range_test

# Lightning can download configurations from an address; here they must be files
set_parsing_settings(config_read_mode_urls_enabled=False, config_read_mode_fsspec_enabled=False)


OWN_PARSERS = ("export", "compress", "channels", "completion")
"""Verbs whose module, of the same name, is imported only for them."""
OF_SEVERAL_RUNS = ("study", "search")
"""Likewise; these get what resolves the arguments of a run, and the GPUs, too."""


class _Resolver(ResolvingCommandLine, DistillCommand):
    """Reads a command's options. It builds only the data module, which gives the network's shape."""


class _Builder(BuildingCommandLine, DistillCommand):
    """Reads a command's options and builds the parts of its run."""


def resolve(args: list[str]) -> Resolved:
    """Resolves the arguments of the command without running it.

    Args:
        args: the verb and its options.

    Raises:
        InputError: the command itself would refuse the arguments.
    """
    args, _ = without_trust(args)
    if args[:1] == ["compute"]:
        computation = compute.read(args[1:])
        return Resolved(computation.config, computation.stem, trains=False)
    command = _Resolver(args)
    stem = Path(command.run_config.options["log_dir"]) / command.data.name / method_name(command.method)
    return Resolved(command.run_config, stem, command.method.leaves_checkpoint, _val_tags(command))


def _val_tags(command: "_Resolver") -> frozenset[str] | None:
    if not command.method.trains:  # then more is logged, and nothing has to wait for it
        return None
    callbacks = listed(command.run_config.options["trainer"].get("callbacks"))
    more = tags_of([command.method, *(named_class(callback["class_path"]) for callback in callbacks)])
    return None if more is None else frozenset(more | {f"val/{name}" for name in command.method.val_metrics})


def resolve_data(args: list[str]) -> ImageData:
    """The data module that the arguments of the command name. Errors as in ``resolve``."""
    command = _Resolver(without_trust(args)[0])
    return command.data


def devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def main(args: list[str]) -> int:
    """Runs a verb that needs torch. Errors are raised.

    Returns:
        The exit status: 0, or the status of ``distill study``, ``distill search`` or ``distill inspect``.
    """
    _prepare()
    with quieted():
        return _answer(args)


def range_test(args: list[str], low: float, high: float, steps: int) -> RangeTest | None:
    """Runs a range test of the learning rate, see ``training.range_test``.

    Args:
        args: a configuration, a run's folder or a checkpoint; and options of ``distill fit``.
        low: the first rate.
        high: the last rate.
        steps: the number of steps.

    Returns:
        The result; None in all processes but the first.

    Raises:
        InputError: the arguments do not fit together.
    """
    _prepare()
    (source, *rest), trusted = without_trust(args)
    is_run = Path(source).is_dir() or source.endswith(".ckpt")
    first = ["--ckpt_path", checkpoint_of(source)] if is_run else ["--config", source]
    with quieted(), trusting(trusted):
        parts = _Builder(["fit", *first, *rest, "--trainer.enable_progress_bar", "false"]).parts
        found = run_range_test(parts, low, high, steps)
    return found if parts.trainer.is_global_zero else None


def _prepare() -> None:
    # Lightning makes torch ask NVML whether there is a GPU, which is slow: optimizers ask at every step
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # the user's own classes may lie in the current folder


def _answer(args: list[str]) -> int:
    if args[0] in OWN_PARSERS:
        return int(importlib.import_module(f"distill_lightning.cli.{args[0]}").main(args[1:]))
    if args[0] in OF_SEVERAL_RUNS:  # imported only for them: dask
        return int(importlib.import_module(f"distill_lightning.cli.{args[0]}").main(args[1:], resolve, devices))
    args, trusted = without_trust(args)
    if args[:1] == ["compute"]:
        return compute.main(args[1:])
    with trusting(trusted):
        if args[:1] == ["members"]:
            verb = importlib.import_module("distill_lightning.cli.members")  # only now, as those above
            return int(verb.main(args[1:], lambda options: _Builder(["fit", *options]).parts, resolve))
        if args[:1] == ["inspect"]:
            return inspect.main(args[1:])
        if args[:1] == ["data"]:
            return data.main(args[1:], resolve_data)
        if args[:1] == ["schedule"]:
            return schedule.main(args[1:], lambda given: resolve(given).config)
        if (page := help.asked(args)) is not None:
            print(page)
        else:
            DistillCommand(as_options(args))
    return 0


def without_trust(args: list[str]) -> tuple[list[str], list[str]]:
    """Splits arguments into those without ``--trust NAME`` and the names.

    The names are needed before the parser runs, because it reads the configuration of a checkpoint.
    """
    left, names = [], []
    rest = iter(args)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option == "--trust":
            names.append(value if equals else next(rest, ""))
        else:
            left.append(argument)
    return left, names

"""The verbs of the command that need torch.

    distill fit|validate|test|predict|bench --config FILE [--config FILE ...] [--option value ...]
    distill inspect FILE
    distill study FILE [--jobs N] [--dry_run] [--option value ...]
"""

import logging
import os
import sys
import warnings
from pathlib import Path

import torch
from jsonargparse import set_parsing_settings

from distill_lightning.cli import inspect, study
from distill_lightning.cli.command import DistillCommand
from distill_lightning.cli.fit import method_name
from distill_lightning.lightning_internals import ResolvingCommandLine
from distill_lightning.specs import trusting
from distill_lightning.studies import Resolved

# Lightning lets configurations be fetched from anywhere: here they are files
set_parsing_settings(config_read_mode_urls_enabled=False, config_read_mode_fsspec_enabled=False)


class _Resolver(ResolvingCommandLine, DistillCommand):
    """Reads a command's options, and makes nothing of them but the data module, which tells the network's shape."""


def resolve(args: list[str]) -> Resolved:
    """What a command's options come to.

    Raises:
        InputError: as the command would.
    """
    args, _ = without_trust(args)
    command = _Resolver(args)
    stem = Path(command.run_config.options["log_dir"]) / command.data.name / method_name(command.method)
    return Resolved(command.run_config, stem, command.method.trains)


def devices() -> list[str]:
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
        return study.main(args[1:], resolve, devices)
    args, trusted = without_trust(args)
    with trusting(trusted):
        if args[:1] == ["inspect"]:
            return inspect.main(args[1:])
        DistillCommand(args)
    return 0


def without_trust(args: list[str]) -> tuple[list[str], list[str]]:
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

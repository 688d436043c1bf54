"""Checks whether another commit gives bitwise the same results of training.

    python tests/same_as.py COMMIT [--only PATTERN] [--jobs N] [--keep FOLDER]

The script checks COMMIT out into a temporary git worktree, and makes the same short runs with both trees, by the
command, on the CPU. The old tree is COMMIT, the new one is the working tree of this script, committed or not. Then it
compares the files:

    weights       each tensor of each checkpoint's network, bitwise
    optimizer     the state of the optimizers, bitwise
    remembered    the method's memory (checkpoint["method"]), bitwise, if both trees store it in the same form
    metrics       metrics.csv, row by row, without rates (tags that end in _per_s)

It prints a line for each case: "equal", "differs" with the first difference, or "failed" with the last line of stderr.
The status is 0 if each case is equal or has only differences in DIFFERENCES_MEANT. A commit that changes numbers on
purpose adds an entry:

    DIFFERENCES_MEANT = {
        "two_processes_*": ("metrics val/ece", "bins are now summed in float64 over the processes"),
    }

The key is a pattern for cases. The value is a pattern for the differences that are allowed, and the reason. A
difference is written as "weights last.ckpt 0.weight", "optimizer last.ckpt 0.state.3.momentum_buffer", "remembered
...", "metrics <tag>", "metrics rows", "metrics order" (of the same rows) or "files"; * matches anything.

The script uses only these parts of the two trees: the command line, the YAMLs in configs/, ``main(list[str])`` of
``distill_lightning.__main__``, and the name in WORKERS_DECODE. All runs of a tree share one process, because the
imports take longer than a run. Runs that are killed and runs on two processes have their own processes.
"""

import argparse
import contextlib
import csv
import fnmatch
import importlib
import itertools
import json
import os
import pkgutil
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "distill_lightning"
TREES = ("old", "new")
DIFFERENCES_MEANT: dict[str, tuple[str, str]] = {
    "ps_kd": (
        "remembered *shared.past_probs*",
        "the table of past predictions begins empty, and a sample that was never seen counts with its label: rows of "
        "such samples are 0 where they were the label; weights and metrics are the same",
    ),
}
"""Pattern of cases: pattern of what may differ, and why. See above."""
TAGS_ADDED = ("balanced_accuracy", "macro_f1", "loss_max", "loss_std")
TAGS_ADDED += ("error_correlation", "members_kl", "members_needed", "temperature", "nll_calibrated", "ece_calibrated")
"""The ends of the tags of metrics that only the new tree has. Their rows are not compared."""


# The cases


@dataclass(frozen=True)
class Step:
    """One start of the command.

    Args:
        args: {configs}, {pictures} and {cases} in them stand for folders.
        status: that it must leave with.
        alone: whether it gets a process of its own.
        env: variables for that process.
        patched: names in the package that get another value.
    """

    args: tuple[str, ...]
    status: int = 0
    alone: bool = False
    env: dict[str, str] = field(default_factory=dict)
    patched: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Starts of the command, one after the other, in a folder of their own."""

    name: str
    steps: tuple[Step, ...]

    @property
    def needs(self) -> set[str]:
        """Cases whose runs it reads."""
        return set(re.findall(r"\{cases\}/(\w+)/", " ".join(arg for step in self.steps for arg in step.args)))


SHORT = "--trainer.max_epochs 2 --data.train_part 300 --trainer.log_every_n_steps 2"
"""An epoch is four steps of 64 pictures, and leaves 44 pictures over."""
COLOUR = "--data.root {pictures} --data.image_size 16 --data.batch_size 16 --model.network ConvNet "
COLOUR += "--trainer.max_epochs 2 --trainer.log_every_n_steps 2"
LARGE = "--data.image_size 16 --data.batch_size 32 --data.train_part 128"
"""Of digits, for networks that halve the picture several times; again four steps."""

OF_BASELINE = "{cases}/baseline/logs/digits/baseline/convnet-seed0/checkpoints/last.ckpt"
OF_BASELINE_1 = "{cases}/baseline_seed1/logs/digits/baseline/convnet-seed1/checkpoints/last.ckpt"
OF_TEACHER = "{cases}/teacher/logs/digits/baseline/teacher/checkpoints/last.ckpt"
OF_SPECIALIST = "{cases}/specialist/logs/digits/specialist/convnet-seed0/checkpoints/last.ckpt"
OF_LOTTERY = "{cases}/lottery_layers/logs/digits/baseline/convnet-seed0/ticket.pt"
OF_LATE = "{cases}/lottery_global_late/logs/digits/baseline/convnet-seed0/ticket.pt"

TAUGHT = f"--trainer.callbacks.teacher {OF_TEACHER}"
TABLE = f"{TAUGHT} --trainer.callbacks.mode table --trainer.callbacks.views 3 --trainer.max_epochs 4"
LOTTERY = "--config {configs}/callbacks/lottery.yaml --trainer.callbacks.rounds 3"
LATE = '--trainer.callbacks.rewind_to "5 steps"'
AT_START = "--trainer.callbacks.at_start snip --trainer.callbacks.density 0.1"
TICKET = "--config {configs}/callbacks/ticket.yaml --trainer.callbacks.ticket"
TWO = "--trainer.devices 2 --trainer.accelerator cpu"

WORKERS_DECODE = {"LARGEST_IN_MEMORY": 0}
"""The bytes of pictures above which worker processes decode them: no option sets them."""
STOPPER = """\
import os
import signal

from lightning.pytorch import Callback


class Stopper(Callback):
    \"\"\"Sends its process a signal after a step: STOP_AT="SIGTERM 6". Without the variable it does nothing.\"\"\"

    def on_train_batch_end(self, trainer, *rest):
        name, _, step = os.environ.get("STOP_AT", "").partition(" ")
        if name and trainer.global_step == int(step):
            os.kill(os.getpid(), getattr(signal, name))
"""


def digits(name: str, config: str, options: str = "", alone: bool = False) -> Case:
    """A short run of a YAML in configs/digits."""
    args = shlex.split(f"fit --config {{configs}}/digits/{config}.yaml {SHORT} {options}")
    return Case(name, (Step(tuple(args), alone=alone),))


def colour(name: str, options: str = "", **patched: Any) -> Case:
    """A short run of configs/folder/baseline.yaml, on small pictures."""
    args = shlex.split(f"fit --config {{configs}}/folder/baseline.yaml {COLOUR} {options}")
    return Case(name, (Step(tuple(args), patched=patched),))


def stopped(name: str, at: str, config: str, options: str) -> Case:
    """A short run that gets a signal after a step, and goes on in another process."""
    args = digits(name, config, f"{options} --trainer.callbacks+=stopper.Stopper").steps[0].args
    status = 128 + signal.SIGTERM if at.startswith("SIGTERM") else -signal.SIGKILL
    return Case(name, (Step(args, status, True, {"STOP_AT": at}), Step((*args, "--ckpt_path", "last"), alone=True)))


CASES = [
    # every method
    digits("teacher", "teacher"),
    digits("baseline", "baseline"),
    digits("baseline_seed1", "baseline", "--seed_everything 1"),
    digits("at", "at", TAUGHT),
    digits("averaged_training", "averaged_training"),
    digits("born_again", "born_again", f"--trainer.callbacks.teacher {OF_BASELINE}"),
    digits("branches", "branches"),
    digits("byot", "byot"),
    digits("ca_mkd", "ca_mkd", f"--trainer.callbacks.teacher [{OF_BASELINE},{OF_BASELINE_1}]"),
    digits("crd", "crd", TAUGHT),
    digits("cs_kd", "cs_kd"),
    digits("ctkd", "ctkd", TAUGHT),
    digits("ddgsd", "ddgsd"),
    digits("dist", "dist", TAUGHT),
    digits("dkd", "dkd", TAUGHT),
    digits("dlb", "dlb"),
    digits("dml", "dml"),
    digits("kdcl", "kdcl"),
    digits("ensemble", "ensemble", f"--model.members [{OF_BASELINE},{OF_BASELINE_1}]"),
    digits("fitnets", "fitnets", TAUGHT),
    digits("kd_online", "kd", TAUGHT),
    digits("mr_kd", "mr_kd", "--model.every_n_steps 3"),
    digits("nkd", "nkd", TAUGHT),
    digits("okddip", "okddip"),
    digits("pcl", "pcl"),
    digits("one", "one"),
    digits("pkt", "pkt", TAUGHT),
    digits("vid", "vid", TAUGHT),
    digits("srrl", "srrl", TAUGHT),
    digits("nst", "nst", TAUGHT),
    digits("cat_kd", "cat_kd", TAUGHT),
    digits("ofd", "ofd", TAUGHT),
    digits("ps_kd", "ps_kd", "--trainer.max_epochs 3"),
    digits("reviewkd", "reviewkd", TAUGHT),
    digits("rkd", "rkd", TAUGHT),
    digits("seed", "seed", TAUGHT),
    digits("simkd", "simkd", TAUGHT),
    digits("snapshot", "snapshot", "--trainer.max_epochs 4"),
    digits("sp", "sp", TAUGHT),
    digits("specialist", "specialist",
           f"--start_from {OF_BASELINE} --model.generalist {OF_BASELINE} --data.batch_size 32 --trainer.max_epochs 3"),
    digits("joint_inference", "joint_inference",
           f"--model.generalist {OF_BASELINE} --model.specialists [{OF_SPECIALIST}]"),
    digits("tf_kd_reg", "tf_kd_reg"),
    digits("tf_kd_self", "tf_kd_self", f"--trainer.callbacks.teacher {OF_BASELINE}"),
    digits("wsld", "wsld", TAUGHT),
    digits("lenet_adam", "ticket_of_mnist"),
    # teachers
    digits("kd_table", "kd", TABLE),
    digits("kd_table_mixup", "kd", f"{TABLE} --data.mix Mixup"),
    digits("kd_of_two", "kd", f"--trainer.callbacks.teacher [{OF_BASELINE},{OF_BASELINE_1}]"),
    digits("kd_unlabelled", "kd_unlabelled", TAUGHT),
    digits("kd_label_noise", "kd", f"{TAUGHT} --data.label_noise 0.3"),
    # labels and mixtures
    digits("label_noise", "baseline", "--data.label_noise 0.4"),
    digits("noise_map", "baseline", "--data.label_noise 0.4 --data.noise_map '{4: 9}'"),
    digits("label_smoothing", "baseline", "--model.label_smoothing 0.1"),
    digits("class_left_out", "baseline", "--data.leave_out [3] --model.class_bias '{3: 3.5}' --data.train_part 290"),
    digits("few_per_class", "baseline", '--data.train_part "13 per class" --data.batch_size 26'),
    digits("mixup", "baseline", "--data.mix Mixup"),
    digits("cutmix", "baseline", "--data.mix CutMix"),
    digits("dlb_cutmix", "dlb", "--data.mix CutMix"),
    digits("ddgsd_mixup", "ddgsd", "--data.mix Mixup"),
    # augmentation of colour pictures
    colour("augment_crop", "--data.augment [RandomCrop]"),
    colour("augment_flip", "--data.augment [RandomFlip]"),
    colour("augment_rotation", "--data.augment [RandomRotation]"),
    colour("augment_scale", "--data.augment [RandomScale]"),
    colour("augment_jitter", "--data.augment '[{class_path: ColorJitter, init_args: {hue: 0.2}}]'"),
    colour("augment_noise", "--data.augment [GaussianNoise]"),
    colour("augment_cutout", "--data.augment [Cutout]"),
    colour("augment_drop", "--data.augment '[{class_path: DropPatches, init_args: {size: 4}}]'"),
    colour("augment_trivial", "--data.augment [TrivialAugment]"),
    colour("augment_all_dlb", "--model DLB --data.augment [RandomCrop,RandomFlip,RandomRotation,RandomScale,ColorJitter,"  # noqa: E501
           "GaussianNoise,Cutout,TrivialAugment]"),
    # samples of floats
    Case("floats", (Step(tuple(shlex.split(
        "fit --config {configs}/multi_view/baseline.yaml --data.samples 60 --data.batch_size 20 --trainer.max_epochs 4 "
        "--model DLB --data.augment [DropPatches] --data.single_view 0.3"))),)),
    # folders of pictures
    colour("folder_in_memory"),
    colour("folder_by_workers", "--data.num_workers 2", **WORKERS_DECODE),
    colour("folder_in_this_process", "--data.num_workers 0", **WORKERS_DECODE),
    colour("folder_grey", "--data.grey true"),
    # lottery tickets: rounds of eight steps
    digits("lottery_layers", "baseline", LOTTERY),
    digits("lottery_global_late", "baseline", f"{LOTTERY} {LATE} --trainer.callbacks.scope global"),
    digits("lottery_learning_rate", "baseline", f"{LOTTERY} --trainer.callbacks.retrain learning_rate"),
    digits("lottery_fine_tune", "baseline", f"{LOTTERY} --trainer.callbacks.retrain fine_tune"),
    digits("lottery_new_order", "baseline", f"{LOTTERY} --trainer.callbacks.order new"),
    digits("lottery_dlb_kept", "dlb", f"{LOTTERY} {LATE} --trainer.callbacks.optimizer kept"),
    digits("lottery_one_shot", "baseline", f"{LOTTERY} --trainer.callbacks.rounds 1 --trainer.callbacks.density 0.1"),
    digits("lottery_at_start", "baseline", f"{LOTTERY} --trainer.callbacks.rounds 0 {AT_START}"),
    digits("ticket", "baseline", f"{TICKET} {OF_LOTTERY}"),
    digits("ticket_late", "baseline", f"{TICKET} {OF_LATE} --trainer.callbacks.ticket_round 2"),
    digits("ticket_pruned_on", "baseline", f"{TICKET} {OF_LOTTERY} --trainer.callbacks.rounds 3"),
    digits("ticket_at_random", "baseline",
           f"{TICKET} {OF_LOTTERY} --trainer.callbacks.weights reinitialised --trainer.callbacks.mask random"),
    digits("ticket_shuffled", "baseline", f"{TICKET} {OF_LOTTERY} --trainer.callbacks.mask shuffled"),
    # resumed: step 6 is in the middle of the second epoch, steps 10 and 14 of the first round after a pruning
    stopped("resume_mid_epoch", "SIGTERM 6", "dlb", "--model.network.dropout 0.3"),
    stopped("resume_killed", "SIGKILL 7", "dlb", "--checkpoint.every_n_steps 3"),
    stopped("resume_kd_table", "SIGTERM 10", "kd", TABLE),
    stopped("resume_mid_round", "SIGTERM 10", "baseline", LOTTERY),
    stopped("resume_mid_round_killed", "SIGKILL 15", "dlb", f"{LOTTERY} {LATE} --checkpoint.every_n_steps 7"),
    # two processes
    digits("two_processes_dlb", "dlb", TWO, alone=True),
    digits("two_processes_uneven", "baseline", f"{TWO} --data.train_part 311 --data.keep_last true", alone=True),
    digits("two_processes_lottery", "baseline", f"{TWO} {LOTTERY}", alone=True),
    stopped("two_processes_resume", "SIGTERM 6", "dlb", TWO),
    # how a step is made
    digits("accumulate", "baseline", "--trainer.accumulate_grad_batches 2"),
    digits("clip", "baseline", "--trainer.gradient_clip_val 0.1"),
    digits("clip_lottery", "baseline", f"{LOTTERY} --trainer.gradient_clip_val 0.1"),
    digits("bf16", "baseline", "--trainer.precision bf16-mixed"),
    digits("bf16_kd", "kd", f"{TAUGHT} --trainer.precision bf16-mixed"),
    digits("no_decay_of_norms", "baseline", "--model.decay_norms_and_biases false"),
    digits("keep_last", "baseline", "--data.keep_last true"),
    digits("keep_last_dlb", "dlb", "--data.keep_last true"),
    digits("channels_last", "baseline", "--model.channels_last true"),
    digits("dropout", "baseline", "--model.network.dropout 0.3"),
    digits("adamw", "baseline", "--model.optimizer AdamW --model.optimizer.lr 0.001"),
    digits("steps_and_warmup", "baseline",
           "--model.schedule MultiStep --model.schedule.milestones [1.5] --model.schedule.warmup_epochs 0.75"),
    digits("validate_often", "baseline", "--trainer.val_check_interval 2 --checkpoint.every_n_steps 1"),
    digits("best_of_lowest", "dlb", "--checkpoint.monitor val/nll --checkpoint.lowest_is_best true"),
    # other callbacks and networks
    digits("consistency", "dlb", "--config {configs}/callbacks/consistency.yaml"),
    digits("max_norm", "baseline", "--model.network LeNet300100 --trainer.callbacks MaxNorm "
           "--trainer.callbacks.limit 0.5"),
    digits("fully_connected", "baseline", "--model.network FullyConnected --model.network.units [50,50]"),
    digits("early_exit", "baseline", "--model.network EarlyExit --model.network.network ConvNet --model.network.exit 1"),  # noqa: E501
    digits("resnet", "baseline", f"--model.network ResNet8 {LARGE}"),
    digits("resnet_byot", "byot", f"--model.network ResNet8 {LARGE}"),
    digits("vgg", "baseline", f"--model.network VGG16 {LARGE} --data.image_size 32 --trainer.max_epochs 1"),
    digits("wide_resnet", "baseline", f"--model.network WideResNet --model.network.depth 10 --model.network.widen 1 {LARGE}"),  # noqa: E501
    digits("densenet", "baseline", f"--model.network SmallDenseNet --model.network.depth 10 {LARGE}"),
    digits("conv2", "baseline", f"--model.network Conv2 {LARGE}"),
]  # fmt: skip


def chosen(pattern: str) -> list[Case]:
    """The cases that match, and those that they need, in order."""
    by_name = {case.name: case for case in CASES}
    names = set(fnmatch.filter(by_name, pattern))
    while missing := {need for name in names for need in by_name[name].needs} - names:
        names |= missing
    return [case for case in CASES if case.name in names]


# The runs of one tree, in a process that imports it


def drive(job: Path) -> int:
    """Makes the runs that a file names, and leaves a result.json in the folder of each case."""
    given = json.loads(job.read_text())
    tree, cases = Path(given["tree"]), Path(given["cases"])
    sys.path[0] = ""  # as ``python -m`` has it, instead of the folder of this script
    main = importlib.import_module(f"{PACKAGE}.__main__")
    if not Path(main.__file__).is_relative_to(tree):
        raise SystemExit(f"{PACKAGE} comes from {main.__file__}, which is not in {tree}")
    places = {"{configs}": f"{tree}/configs", "{pictures}": given["pictures"], "{cases}": str(cases)}
    for case in (case for case in CASES if case.name in given["names"]):
        folder = cases / case.name
        folder.mkdir(parents=True)
        (folder / "stopper.py").write_text(STOPPER)
        os.chdir(folder)
        begun = time.monotonic()
        failure = run_case(case, places, main.main)
        write_result(folder, {"failure": failure, "seconds": round(time.monotonic() - begun, 1)})
    return 0


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Whole or not at all: somebody waits for it."""
    part = folder / "result.part"
    part.write_text(json.dumps(result))
    part.rename(folder / "result.json")


def run_case(case: Case, places: dict[str, str], main: Callable[[list[str]], int]) -> str | None:
    """All steps of a case, in the running folder. Returns what went wrong, if anything did."""
    for step in case.steps:
        args = list(step.args)
        for name, place in places.items():
            args = [arg.replace(name, place) for arg in args]
        status = run_alone(args, step.env) if step.alone else run_here(args, step.patched, main)
        if status != step.status:
            lines = Path("stderr.txt").read_text(errors="replace").strip().splitlines()
            return f"status {status}, not {step.status}: {lines[-1] if lines else 'nothing on stderr'}"
    return None


def run_alone(args: list[str], env: dict[str, str]) -> int:
    """The command in a process of its own; its exit status, -n for one that signal n ended."""
    with open("stdout.txt", "a") as out, open("stderr.txt", "a") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", PACKAGE, *args], stdout=out, stderr=err, env=environment() | env
        )
        try:
            return process.wait(timeout=600)
        except subprocess.TimeoutExpired:
            process.kill()
            err.write("not done after ten minutes")
            return process.wait()


def environment() -> dict[str, str]:
    """This process's, with a cache in the running folder."""
    return {**os.environ, "XDG_CACHE_HOME": str(Path.cwd() / "cache")}


def run_here(args: list[str], patched: dict[str, Any], main: Callable[[list[str]], int]) -> int:
    """The command in this process; its exit status. The environment is afterwards as it was."""
    before = dict(os.environ)
    os.environ.update(environment())
    try:
        with output_to_files(), patches(patched):
            return main(args)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except (LookupError, ImportError) as error:  # of the patches; the command turns its own into a status
        Path("stderr.txt").write_text(f"{type(error).__name__}: {error}\n")
        return 1
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def output_to_files() -> Iterator[None]:
    """Sends what is written to stdout and stderr, by whomever, to files in the running folder."""
    kept = {}
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        kept[number] = os.dup(number)
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def patches(patched: dict[str, Any]) -> Iterator[None]:
    """Gives names another value, in each module of the package that has them.

    Raises:
        LookupError: none has.
    """
    if patched:
        package = importlib.import_module(PACKAGE)
        for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
            importlib.import_module(module.name)
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == PACKAGE]
    found = [(module, name) for module in modules for name in patched if name in vars(module)]
    if lost := patched.keys() - {name for _, name in found}:
        raise LookupError(f"no module of {PACKAGE} has {', '.join(sorted(lost))}: this script must follow")
    before = [(module, name, getattr(module, name)) for module, name in found]
    for module, name in found:
        setattr(module, name, patched[name])
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


# Comparison


class Difference(NamedTuple):
    """``what`` is matched by patterns, ``where`` is for people."""

    what: str
    where: str


@dataclass
class Comparison:
    """Of what two trees left of a case."""

    differences: list[Difference] = field(default_factory=list)
    tensors: int = 0
    rows: int = 0
    other_layout: bool = False

    def differ(self, what: str, where: str) -> None:
        self.differences.append(Difference(what, where))


def compare(old: Path, new: Path) -> Comparison:
    """The folders of a case, with each run and each checkpoint in them."""
    result = Comparison()
    found = [sorted(str(file.relative_to(folder)) for pattern in ("metrics.csv", "*.ckpt")
                    for file in folder.glob(f"logs/**/{pattern}")) for folder in (old, new)]  # fmt: skip
    if found[0] != found[1] or not found[0]:
        odd = sorted(set(found[0]) ^ set(found[1]))
        result.differ("files", f"{odd[0]} is only in the {TREES[odd[0] in found[1]]} one" if odd else "no run")
    for name in sorted(set(found[0]) & set(found[1])):
        (compare_metrics if name.endswith(".csv") else compare_checkpoints)(old / name, new / name, result)
    return result


def compare_checkpoints(old: Path, new: Path, result: Comparison) -> None:
    first, second = (torch.load(path, map_location="cpu", weights_only=True) for path in (old, new))
    for key, word in (("state_dict", "weights"), ("optimizer_states", "optimizer"), ("method", "remembered")):
        leaves = [dict(flat(checkpoint[key])) if key in checkpoint else {} for checkpoint in (first, second)]
        if key == "method" and layout(leaves[0]) != layout(leaves[1]):
            result.other_layout = True
            continue
        for path in [*leaves[0], *(leaves[1].keys() - leaves[0].keys())]:
            what = f"{word} {old.name} {path}"
            if path not in leaves[0] or path not in leaves[1]:
                result.differ(what, f"{what} is only in the {TREES[path in leaves[1]]} one")
            elif where := unequal(leaves[0][path], leaves[1][path]):
                result.differ(what, what + where)
            result.tensors += isinstance(leaves[0].get(path), torch.Tensor)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What lies in dicts and lists, with the way to it."""
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def layout(leaves: dict[str, Any]) -> dict[str, type]:
    return {path: type(value) for path, value in leaves.items()}


def unequal(a: Any, b: Any) -> str:
    """Where two leaves differ first, with both values; empty if they are the same bits."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return "" if type(a) is type(b) and repr(a) == repr(b) else f": {a!r} -> {b!r}"
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return f": {a.dtype} {list(a.shape)} -> {b.dtype} {list(b.shape)}"
    if not a.numel():
        return ""
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8).view(tensor.numel(), -1) for tensor in (a, b)]
    apart = (bits[0] != bits[1]).any(1)
    if not apart.any():
        return ""
    first, count = int(apart.nonzero()[0]), int(apart.sum())
    values = [tensor.reshape(-1)[first].item() for tensor in (a, b)]
    return f"[{first}]: {values[0]!r} -> {values[1]!r}, and {count - 1} others of {a.numel()}"


def compare_metrics(old: Path, new: Path, result: Comparison) -> None:
    """Values tag by tag where both have the same rows."""
    first, second = map(read_metrics, (old, new))
    if not any(row[1].endswith(TAGS_ADDED) for row in first):
        second = [row for row in second if not row[1].endswith(TAGS_ADDED)]
    result.rows += len(first)
    heads = [[row[:2] for row in rows] for rows in (first, second)]
    if heads[0] != heads[1]:
        number = next((n for n, (a, b) in enumerate(zip(*heads, strict=False)) if a != b), min(map(len, heads)))
        rows = [",".join(found[number]) if number < len(found) else "the end" for found in (first, second)]
        what, words = ("order", " (else the same rows)") if sorted(first) == sorted(second) else ("rows", "")
        result.differ(f"metrics {what}", f"metrics.csv, row {number + 1}: {rows[0]} -> {rows[1]}{words}")
        return
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if a != b:
            result.differ(f"metrics {a[1]}", f"metrics.csv, row {number + 1}: {','.join(a)} -> {','.join(b)}")


def read_metrics(path: Path) -> list[list[str]]:
    """Rows of step, tag, value, as they are written, without rates."""
    with path.open(newline="") as file:
        return [row for row in list(csv.reader(file))[1:] if not row[1].endswith("_per_s")]


# Both trees


class Word(NamedTuple):
    """What is said of a case, and whether it may be so."""

    fine: bool
    verdict: str
    said: str


def judge(name: str, folder: Path) -> Word:
    """Reads what both trees left of a case."""
    results = [json.loads((folder / tree / name / "result.json").read_text()) for tree in TREES]
    failed = [f"{tree}: {result['failure']}" for tree, result in zip(TREES, results, strict=True) if result["failure"]]
    if failed:
        return Word(False, "failed", "; ".join(failed))
    found = compare(*(folder / tree / name for tree in TREES))
    counted = f"{found.tensors} tensors, {found.rows} rows"
    if found.other_layout:
        counted += ", not what the method remembers: another layout"
    if not found.differences:
        return Word(True, "equal", counted)
    meant = [pair for pattern, pair in DIFFERENCES_MEANT.items() if fnmatch.fnmatchcase(name, pattern)]
    others = [d for d in found.differences if not any(fnmatch.fnmatchcase(d.what, pattern) for pattern, _ in meant)]
    if not others:
        return Word(True, "differs", "as meant: " + "; ".join(reason for _, reason in meant))
    return Word(False, "differs", first_of_each_kind(others))


def first_of_each_kind(differences: list[Difference]) -> str:
    kinds: dict[str, Difference] = {}
    for difference in differences:
        kinds.setdefault(difference.what.partition(" ")[0], difference)
    rest = len(differences) - len(kinds)
    return "; ".join(d.where for d in kinds.values()) + (f"; and {rest} more" if rest else "")


def write_pictures(folder: Path) -> None:
    """A folder of three classes that their colour tells, as PPM: 20 x 24, to be resized."""
    rng = random.Random(0)
    for part, count in (("train", 40), ("test", 6)):
        for label, colour_of_class in enumerate([(200, 60, 60), (60, 180, 90), (70, 80, 210)]):
            target = folder / part / f"class_{label}"
            target.mkdir(parents=True)
            for number in range(count):
                values = bytes(value + rng.randint(-45, 45) for _ in range(20 * 24) for value in colour_of_class)
                (target / f"{number:02d}.ppm").write_bytes(b"P6\n20 24\n255\n" + values)


def shares(cases: list[Case], count: int) -> list[list[str]]:
    """Names of the cases for so many processes: each goes where those that it needs go."""
    groups: list[list[Case]] = []
    for case in cases:
        before = [group for group in groups if case.needs & {other.name for other in group}]
        groups = [group for group in groups if group not in before] + [[*itertools.chain(*before), case]]
    parts: list[list[Case]] = [[] for _ in range(count)]
    for group in sorted(groups, key=starts, reverse=True):
        min(parts, key=starts).extend(group)
    return [[case.name for case in part] for part in parts if part]


def starts(cases: list[Case]) -> int:
    """About how long they take: a process of its own takes as long as ten runs without."""
    return sum(10 if step.alone else 1 for case in cases for step in case.steps)


@contextlib.contextmanager
def checked_out(commit: str, tree: Path) -> Iterator[None]:
    """A git worktree of a commit, for a while."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
    try:
        yield
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=False)


class Drivers:
    """Processes that make the runs, so many at a time."""

    def __init__(self, jobs: list[Path], at_once: int) -> None:
        self.waiting, self.running, self.at_once = list(jobs), {}, at_once

    def look(self) -> None:
        """Starts what may start, and writes down what a process that ended has left undone."""
        for job, process in list(self.running.items()):
            if process.poll() is not None:
                del self.running[job]
                self._close(job, process.returncode)
        while self.waiting and len(self.running) < self.at_once:
            job = self.waiting.pop(0)
            self.running[job] = self._start(job)

    def _start(self, job: Path) -> subprocess.Popen:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "DISTILL_", "SLURM_", "STOP_AT"))}
        env |= {"PYTHONPATH": json.loads(job.read_text())["tree"], "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(Path(__file__).resolve()), "--drive", str(job)]
        with job.with_suffix(".txt").open("w") as said:
            # elsewhere than in a tree: what lies in the running folder comes before PYTHONPATH
            return subprocess.Popen(command, stdout=said, stderr=said, env=env, cwd=job.parent, start_new_session=True)

    def _close(self, job: Path, status: int) -> None:
        given = json.loads(job.read_text())
        lines = job.with_suffix(".txt").read_text(errors="replace").strip().splitlines()
        for name in given["names"]:
            folder = Path(given["cases"], name)
            if not (folder / "result.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                failure = f"the process of the runs left with {status}: {lines[-1] if lines else 'it said nothing'}"
                write_result(folder, {"failure": failure, "seconds": 0})

    def kill(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_both(cases: list[Case], folder: Path, old_tree: Path, at_once: int) -> bool:
    """Makes the runs of both trees and prints a line a case; whether all may be so."""
    write_pictures(folder / "pictures")
    jobs = []
    for number, names in enumerate(shares(cases, max(1, at_once // 2))):
        for name, tree in zip(TREES, (old_tree, ROOT), strict=True):
            jobs.append(folder / f"{name}_{number}.json")
            given = {
                "tree": str(tree),
                "cases": str(folder / name),
                "pictures": str(folder / "pictures"),
                "names": names,
            }
            jobs[-1].write_text(json.dumps(given))
    drivers = Drivers(jobs, at_once)
    width = max(len(case.name) for case in cases)
    words = []
    try:
        for case in cases:
            while not all((folder / tree / case.name / "result.json").exists() for tree in TREES):
                drivers.look()
                time.sleep(0.1)
            words.append(judge(case.name, folder))
            print(f"{words[-1].verdict:8}{case.name:{width}}  {words[-1].said}", flush=True)
    finally:
        drivers.kill()
    counts = {verdict: sum(word.verdict == verdict for word in words) for verdict in ("equal", "differs", "failed")}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), end="")
    return all(word.fine for word in words)


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether another commit trains to the same numbers, bit by bit.")
    parser.add_argument("commit", nargs="?", help="what to compare the working tree with")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="cases by name, such as 'lottery*'")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="where to leave the runs; a new folder")
    parser.add_argument("--list", action="store_true", help="only say which cases there are")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        return drive(given.drive)
    cases = chosen(given.only)
    if given.list:
        print("\n".join(case.name for case in cases))
        return 0
    if given.commit is None or not cases or given.jobs < 1:
        parser.error("give a commit, a pattern that matches a case, and one job or more")
    known = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{given.commit}^{{commit}}"]
    if subprocess.run(known, stdout=subprocess.DEVNULL, check=False).returncode:
        parser.error(f"git knows no commit {given.commit}")
    if given.keep and given.keep.exists():
        parser.error(f"{given.keep} is there already")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begun = time.monotonic()
    folder = given.keep.resolve() if given.keep else Path(tempfile.mkdtemp(prefix="same_as_"))
    try:
        with checked_out(given.commit, folder / "tree"):
            fine = run_both(cases, folder, folder / "tree", given.jobs)
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(f", in {time.monotonic() - begun:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())

"""Files from other people: reading a file never imports, downloads or calls anything, whatever the file holds.

"Attacks" are tables of contents of such files. "Doors" are the ways in which the program reads a file. ``canary`` is a
module that writes a file when it is imported or called. A refused file gives status 2 and one line.
"""

import copy
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import CONFIGS, command, distill, fit
from torch import nn

from distill_lightning import checkpoints, files, runs, specs
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.cli import app, from_file
from distill_lightning.data.digits import Digits
from distill_lightning.errors import InputError
from distill_lightning.lottery.packing import load_packed, packed
from distill_lightning.lottery.tickets import Ticket
from distill_lightning.masks import ones, pack_all
from distill_lightning.models.convnet import ConvNet
from distill_lightning.soft_targets import SoftTargetTable
from distill_lightning.teachers import FrozenNetwork
from distill_lightning.tensor_files import read_tensors, write_tensors
from distill_lightning.weights import read_source

OURS, MODELS = "distill_lightning", "distill_lightning.models"
TOUCH = "touch owned"
MOST_MEMORY = 300 << 20
"""Bytes that a refusal may take."""


def spec(class_path, **arguments):
    return {"class_path": class_path, "init_args": arguments}


NET = spec(f"{MODELS}.convnet.ConvNet", num_classes=10, in_channels=1, width=4)
S1 = spec("torch.fx.symbolic_trace", root="pydoc.pipepager", concrete_args={"text": "x", "cmd": TOUCH})
CANARY = spec("canary_module.Net", command=TOUCH)

# What a file may give in place of a network

TEXTS = {
    "address": "http://127.0.0.1:9/net.yaml",
    "remote_file": "s3://bucket/net.yaml",
    "yaml_file": "evil.yaml",
    "file_without_suffix": "evil",
    "module_that_acts": "canary_module.Net",
    "easter_egg": "antigravity.X",
    "this": "this.X",
    "function": "os.system",
    "yaml_in_text": "{class_path: canary_module.Net}",
    "lines_of_yaml": "class_path: canary_module.Net\ninit_args: {}",
    "empty": "",
}
CLASSES = {
    "S1": S1,
    "canary": CANARY,
    "eval": spec("builtins.eval", source="__import__('os').system('touch owned')"),
    "exec": spec("builtins.exec", source="__import__('os').system('touch owned')"),
    "system": spec("os.system", command=TOUCH),
    "posix": spec("posix.system", command=TOUCH),
    "popen": spec("os.popen", cmd=TOUCH),
    "subprocess": spec("subprocess.run", args=TOUCH, shell=True),
    "Popen": spec("subprocess.Popen", args=["touch", "owned"]),
    "pipepager": spec("pydoc.pipepager", text="x", cmd=TOUCH),
    "pty": spec("pty.spawn", argv=["touch", "owned"]),
    "runpy": spec("runpy.run_module", mod_name="canary_module"),
    "importlib": spec("importlib.import_module", name="canary_module"),
    "pkgutil": spec("pkgutil.resolve_name", name="canary_module:Net"),
    "partial": spec("functools.partial", func="os.system"),
    "hub": spec("torch.hub.load", repo_or_dir=".", model="net", source="local"),
    "torch_load": spec("torch.load", f="evil.pickle", weights_only=False),
    "jit_load": spec("torch.jit.load", f="evil.pt"),
    "pickle": spec("pickle.load", file="evil.pickle"),
    "yaml_load": spec("yaml.unsafe_load", stream="!!python/object/apply:os.system [touch owned]"),
    "numpy": spec("numpy.load", file="evil.npy", allow_pickle=True),
    "ctypes": spec("ctypes.CDLL", name="evil.so"),
    "easter_egg_class": spec("antigravity.X"),
    "get_model": spec("torchvision.models.get_model", name="resnet18", weights="DEFAULT"),
    "jsonargparse": spec("jsonargparse.set_parsing_settings", import_path_allowlist=["os"]),
    "nn_sequential": spec("torch.nn.Sequential", args=[CANARY]),
    "nn_module": spec("torch.nn.Module"),
    "through_ours_to_nn": spec(f"{MODELS}.resnet.nn.Sequential"),
    "through_ours_to_hub": spec(f"{MODELS}.resnet.torch.hub.load", repo_or_dir=".", model="net", source="local"),
    "through_ours_to_os": spec(f"{OURS}.files.os.system", command=TOUCH),
    "through_torchvision": spec("torchvision.models.resnet.torch.hub.load", repo_or_dir=".", model="net"),
    "imported_by_ours": spec(f"{MODELS}.resnet.Tensor"),
    "function_of_ours": spec(f"{OURS}.files.sweep", folder="."),
    "class_of_ours": spec(f"{OURS}.soft_targets.SoftTargetTable", parent="."),
    "data_as_network": spec(f"{OURS}.data.digits.Digits"),
    "private": spec(f"{MODELS}.resnet._SmallPictures"),
    "dunder": spec(f"{MODELS}.resnet.__loader__.load_module"),
    "no_such_class": spec(f"{MODELS}.convnet.Nothing"),
    "no_such_module": spec(f"{MODELS}.nothing.ConvNet"),
    "short_name": spec("ConvNet"),
    "cyrillic": spec(f"{MODELS}.c\u043envnet.ConvNet"),
    "fullwidth": spec(f"{MODELS}.convnet.\uff23onvNet"),
    "cyrillic_module_of_torchvision": spec("torchvision.models.resne\u0442.resnet18"),
    "space": spec(f" {MODELS}.convnet.ConvNet"),
    "newline": spec(f"{MODELS}.convnet.ConvNet\n"),
    "escape": spec("\x1b]0;owned\x07.Net"),
    "markup": spec("<script>alert(1)</script>.Net"),
    "dots": spec("..convnet.ConvNet"),
    "empty_path": spec(""),
    "path_is_number": spec(5),
    "path_is_list": spec([f"{MODELS}.convnet.ConvNet"]),
    "path_is_spec": spec(CANARY),
}
ARGUMENTS = {
    "spec_for_a_number": spec(NET["class_path"], width=CANARY),
    "text_for_a_number": spec(NET["class_path"], width="canary_module.Net"),
    "list_for_a_number": spec(NET["class_path"], width=[[CANARY]]),
    "dict_kwargs": NET | {"dict_kwargs": {"width": CANARY}},
    "unknown_argument": spec(NET["class_path"], hook=CANARY),
    "unknown_plain_argument": spec(NET["class_path"], __class__=1),
    "beside": NET | {"__path__": "evil.yaml"},
    "arguments_as_text": {"class_path": NET["class_path"], "init_args": "evil.yaml"},
    "arguments_as_list": {"class_path": NET["class_path"], "init_args": [1, 2]},
    "keys_that_are_numbers": {"class_path": NET["class_path"], "init_args": {1: 2}},
    "within_an_allowed_class": spec(f"{MODELS}.averaged_training.AveragedTraining", network=S1),
    "text_within_an_allowed_class": spec(f"{MODELS}.averaged_training.AveragedTraining", network="canary_module.Net"),
    "two_deep": spec(f"{MODELS}.early_exit.EarlyExit", network=spec(f"{MODELS}.early_exit.EarlyExit", network=S1)),
    "in_a_list": spec(f"{MODELS}.early_exit.EarlyExit", network=NET, after=[[{"a": CANARY}]]),
    "weights_of_torchvision": spec("torchvision.models.resnet18", weights="DEFAULT"),
    "pretrained_of_torchvision": spec("torchvision.models.resnet18", pretrained=True),
    "callable_of_torchvision": spec("torchvision.models.resnet18", norm_layer="canary_module.Net"),
    "keyword_of_torchvision": spec("torchvision.models.resnet18", norm_layer=CANARY),
    "detection_of_torchvision": spec(
        "torchvision.models.detection.fasterrcnn_resnet50_fpn", weights_backbone="DEFAULT"
    ),
    "hub_of_timm": spec("timm.create_model", model_name="hf-hub:attacker/net", pretrained=True),
    "file_of_timm": spec("timm.create_model", model_name="resnet18", checkpoint_path="evil.pickle"),
    "a_number": 7,
    "a_list": [NET],
    "no_class": {"init_args": {"class_path": "canary_module.Net"}},
    "huge_number": spec(NET["class_path"], width=10**13),
}
NETWORKS = TEXTS | CLASSES | ARGUMENTS
FEW = {name: NETWORKS[name] for name in ("S1", "yaml_file", "within_an_allowed_class", "escape")}

# What a file may give elsewhere in a configuration: where, and what

TEACHER = f"{OURS}.callbacks.soft_targets.SoftTargets"
PLAIN = f"{OURS}.checkpoints.PlainNetwork"
CALLBACKS, LOGGERS = "lightning.pytorch.callbacks", "lightning.pytorch.loggers"
SLOTS = {
    "model_is_text": ("model", "evil.yaml"),
    "model_is_list": ("model", [CANARY]),
    "model_is_empty": ("model", {}),
    "model_is_canary": ("model", CANARY),
    "model_is_function": ("model", spec("lightning.pytorch.LightningModule.load_from_checkpoint", checkpoint_path="x")),
    "peers": ("model.init_args.peers", [NET, S1]),
    "optimizer_text": ("model.init_args.optimizer", "canary_module.Net"),
    "optimizer": ("model.init_args.optimizer", CANARY),
    "optimizer_through_torch": ("model.init_args.optimizer", spec("torch.optim.sgd.torch.hub.load", model="x")),
    "optimizer_base": (
        "model.init_args.optimizer",
        spec("torch.optim.Optimizer", defaults={"lr": "canary_module.Net"}),
    ),
    "optimizer_argument": ("model.init_args.optimizer", spec("torch.optim.SGD", lr=CANARY)),
    "schedule": ("model.init_args.schedule", spec("torch.optim.lr_scheduler.LambdaLR", lr_lambda="canary_module.Net")),
    "schedule_text": ("model.init_args.schedule", "evil"),
    "abstract_schedule": ("model.init_args.schedule", spec(f"{OURS}.schedules.Schedule")),
    "number_text": ("model.init_args.label_smoothing", "canary_module.Net"),
    "data_is_text": ("data", "evil.yaml"),
    "data_is_empty": ("data", {}),
    "data_is_canary": ("data", CANARY),
    "abstract_data": ("data", spec(f"{OURS}.data.base.ImageData")),
    "root_is_address": ("data.init_args.root", "ftp://127.0.0.1/x"),
    "root_is_share": ("data.init_args.root", "\\\\127.0.0.1\\share"),
    "transform": ("data.init_args.augment", [CANARY]),
    "transform_of_torchvision": ("data.init_args.augment", [spec("torchvision.transforms.Lambda", lambd="os.system")]),
    "transform_text": ("data.init_args.augment", ["canary_module.Net"]),
    "mixing": ("data.init_args.mix", spec("canary_module.Net")),
    "callback": ("trainer.callbacks", [CANARY]),
    "callback_text": ("trainer.callbacks", "evil.yaml"),
    "callback_texts": ("trainer.callbacks", ["canary_module.Net"]),
    "callback_number": ("trainer.callbacks", [3]),
    "lambda_callback": ("trainer.callbacks", [spec(f"{CALLBACKS}.LambdaCallback", on_fit_start="canary_module.Net")]),
    "removes_files": ("trainer.callbacks", [spec(f"{CALLBACKS}.ModelCheckpoint", dirpath=".", save_top_k=1)]),
    "writes_on_exception": ("trainer.callbacks", [spec(f"{CALLBACKS}.OnExceptionCheckpoint", dirpath="/tmp/owned")]),
    "function_of_callback": ("trainer.callbacks", [spec(f"{CALLBACKS}.ModelPruning", pruning_fn="canary_module.Net")]),
    "base_callback": ("trainer.callbacks", [spec(f"{CALLBACKS}.BaseFinetuning")]),
    "teacher_spec": ("trainer.callbacks", [spec(TEACHER, teacher=CANARY)]),
    "teacher_deep": ("trainer.callbacks", [spec(TEACHER, teacher=["a.ckpt", spec(PLAIN, network=S1)])]),
    "teacher_network_text": ("trainer.callbacks", [spec(TEACHER, teacher=spec(PLAIN, network="evil.yaml"))]),
    "teacher_weights_address": (
        "trainer.callbacks",
        [spec(TEACHER, teacher=spec(PLAIN, network=NET, weights="http://127.0.0.1/x"))],
    ),
    "teacher_yaml": ("trainer.callbacks", [spec(TEACHER, teacher="evil.yaml")]),
    "teacher_yaml_as_ckpt": ("trainer.callbacks", [spec(TEACHER, teacher="evil.ckpt")]),
    "teacher_in_list": ("trainer.callbacks", [spec(TEACHER, teacher=["evil.ckpt"])]),
    "teacher_module": ("trainer.callbacks", [spec(TEACHER, teacher="canary_module.Net")]),
    "teacher_easter_egg": ("trainer.callbacks", [spec(TEACHER, teacher="antigravity.ckpt")]),
    "teacher_inline": ("trainer.callbacks", [spec(TEACHER, teacher="{class_path: canary_module.Net}")]),
    "teacher_lines": ("trainer.callbacks", [spec(TEACHER, teacher="class_path: canary_module.Net")]),
    "teacher_address": ("trainer.callbacks", [spec(TEACHER, teacher="http://127.0.0.1:9/t.ckpt")]),
    "members": ("model", spec(f"{OURS}.methods.ensemble.Ensemble", members=["canary_module.Net"])),
    "members_file": ("model", spec(f"{OURS}.methods.ensemble.Ensemble", members=["evil.ckpt"])),
    "logger": ("trainer.logger", CANARY),
    "logger_list": ("trainer.logger", [CANARY]),
    "csv": ("trainer.logger", spec(f"{LOGGERS}.CSVLogger", save_dir="/tmp/owned")),
    "csv_here": ("trainer.logger", spec(f"{LOGGERS}.CSVLogger", save_dir="logs/digits", name="mine", version="")),
    "tensorboard_variable": ("trainer.logger", spec(f"{LOGGERS}.TensorBoardLogger", save_dir="$HOME/owned")),
    "wandb": ("trainer.logger", spec(f"{LOGGERS}.WandbLogger", project="x", dir="/tmp/owned")),
    "mlflow": ("trainer.logger", spec(f"{LOGGERS}.MLFlowLogger", tracking_uri="http://127.0.0.1:9")),
    "comet": ("trainer.logger", spec(f"{LOGGERS}.CometLogger", api_key="x")),
    "plugin": ("trainer.plugins", [CANARY]),
    "plugin_text": ("trainer.plugins", "canary_module.Net"),
    "strategy": ("trainer.strategy", CANARY),
    "strategy_text": ("trainer.strategy", "canary_module.Net"),
    "strategy_of_lightning": ("trainer.strategy", spec("lightning.pytorch.strategies.DDPStrategy")),
    "accelerator_text": ("trainer.accelerator", "canary_module.Net"),
    "accelerator_file": ("trainer.accelerator", "evil"),
    "profiler": ("trainer.profiler", spec("lightning.pytorch.profilers.SimpleProfiler", dirpath="/tmp/owned")),
    "profiler_that_writes": ("trainer.profiler", "pytorch"),
    "uploads": ("trainer.model_registry", "attacker/model"),
    "processes": ("trainer.devices", 100_000),
    "processes_text": ("trainer.devices", "100000"),
    "trainer_is_text": ("trainer", "evil.yaml"),
    "trainer_is_list": ("trainer", ["evil.yaml"]),
    "checkpoint_is_text": ("checkpoint", "evil.yaml"),
    "unknown_trainer_option": ("trainer.callback_metrics", CANARY),
    "unknown_option": ("config", "evil.yaml"),
    "dotted_option": ("model\0class_path", "canary_module.Net"),
    "dotted_trainer_option": ("trainer.callbacks\0class_path", "canary_module.Net"),
    "odd_name": ("name", "a\x1b[31mb"),
}


class Fixture:
    """A folder with a canary: files that act when they are obeyed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "lib").mkdir()
        (folder / "lib" / "canary_module.py").write_text(
            "import os\nopen('owned', 'w')\nclass Net:\n    def __init__(self, **kwargs): open('owned', 'w')\n"
        )
        for name in ("evil.yaml", "evil", "evil.ckpt"):
            (folder / name).write_text(yaml.safe_dump(CANARY))
        (folder / "evil.pickle").write_bytes(pickle.dumps(Evil()))

    def is_alive(self) -> bool:
        imported = {"canary_module", "antigravity", "this"} & set(sys.modules)
        return not imported and not any((place / "owned").exists() for place in (self.folder, Path("/tmp")))


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, (TOUCH,)


@pytest.fixture
def canary(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "lib")
    fixture = Fixture(tmp_path)
    yield fixture
    assert fixture.is_alive()


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run's folder, logs/digits/baseline/<name>."""
    folder = tmp_path_factory.mktemp("honest")
    before = Path.cwd()
    os.chdir(folder)
    try:
        run = fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--model.network.width", 4)
    finally:
        os.chdir(before)
    return folder / run


def forged(honest: Path, path: Path, change) -> Path:
    """A checkpoint with another configuration, written as this program does: whoever forges can count a digest too."""
    content = torch.load(honest / "checkpoints" / "last.ckpt", weights_only=True)
    config = yaml.safe_load(content["config"])
    change(config, content)
    content["config"] = yaml.safe_dump(config, sort_keys=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, content)
    return path


def put(config: dict, where: str, value) -> dict:
    """The configuration with a value elsewhere; ``\\0`` is a dot within a name."""
    *above, last = where.split(".")
    place = config
    for name in above:
        place = place[name]
    place[last.replace("\0", ".")] = value
    return config


def with_network(value):
    def change(config, content):
        config["model"]["init_args"]["network"] = content["hyper_parameters"]["network"] = copy.deepcopy(value)

    return change


def refused(capsys, *args) -> str:
    """The one line with which the command refuses."""
    capsys.readouterr()
    assert distill(*args) == 2
    said = capsys.readouterr().err
    *before, line = said.splitlines()
    assert line.startswith("distill: ") and "Traceback" not in said and "Error: " not in line
    assert all(c.isprintable() for c in line) and all("names" in one for one in before)
    return line


# Networks


@pytest.mark.parametrize("attack", NETWORKS)
def test_no_network_of_a_file_acts_in_a_configuration(attack, canary, honest, capsys):
    where = forged(honest, Path("forged.ckpt"), with_network(NETWORKS[attack]))
    line = refused(capsys, "test", "--ckpt_path", where)
    assert "forged.ckpt" in line and len(line) < 700


@pytest.mark.parametrize("attack", NETWORKS)
def test_no_network_of_a_file_acts_as_a_teacher(attack, canary, honest):
    where = forged(honest, Path("forged.ckpt"), with_network(NETWORKS[attack]))
    data = Digits()
    data.setup("fit")
    with pytest.raises(InputError, match=r"forged\.ckpt"):
        FrozenNetwork.open(str(where), data, "teacher")


@pytest.mark.parametrize("attack", FEW)
@pytest.mark.parametrize("verb", ["predict", "validate", "bench"])
def test_every_verb_refuses(verb, attack, canary, honest, capsys):
    refused(capsys, verb, "--ckpt_path", forged(honest, Path("forged.ckpt"), with_network(FEW[attack])))


@pytest.mark.parametrize("attack", FEW)
def test_a_resume_refuses(attack, canary, honest, capsys):
    run = Path("logs/digits/baseline/x")
    shutil.copytree(honest, run)
    last = forged(honest, run / "checkpoints" / "last.ckpt", with_network(FEW[attack]))
    refused(capsys, "fit", "--ckpt_path", last)


@pytest.mark.parametrize("attack", FEW)
def test_teachers_and_members_are_refused_by_the_command(attack, canary, honest, capsys):
    where = forged(honest, Path("forged.ckpt"), with_network(FEW[attack]))
    refused(capsys, "fit", "--config", CONFIGS / "digits/kd.yaml", "--trainer.callbacks.teacher", where)
    refused(capsys, "fit", "--config", CONFIGS / "digits/ensemble.yaml", "--model.members", f"['{where}']")


@pytest.mark.parametrize("attack", FEW)
def test_inspect_lists_and_builds_nothing(attack, canary, honest, capsys):
    where = forged(honest, Path("forged.ckpt"), with_network(FEW[attack]))
    assert distill("inspect", where) == 2
    said = capsys.readouterr()
    assert "asks for trust" in said.out or "would be refused" in said.out
    assert "its digest holds" in said.out and "trained on digits: 10 classes" in said.out
    assert "\x1b" not in said.out + said.err


# The rest of a configuration


@pytest.mark.parametrize("attack", SLOTS)
def test_no_part_of_a_configuration_acts(attack, canary, honest):
    where, value = SLOTS[attack]
    config = put(yaml.safe_load((honest / "config.yaml").read_text()), where, copy.deepcopy(value))
    with pytest.raises(InputError, match=r"x\.ckpt") as refusal:
        from_file.checked(config, Path("x.ckpt"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "attack", ["callback", "teacher_yaml_as_ckpt", "teacher_inline", "accelerator_file", "odd_name"]
)
def test_no_part_of_a_configuration_acts_on_resume(attack, canary, honest, capsys):
    run = Path("logs/digits/baseline/x")
    shutil.copytree(honest, run)
    slot = SLOTS[attack]
    refused(capsys, "fit", "--ckpt_path", forged(honest, run / "checkpoints" / "last.ckpt", lambda c, _: put(c, *slot)))


def test_a_file_of_the_name_of_the_configuration_is_not_opened(canary, honest, capsys):
    for text in ("{}\n", "seed_everything: 0\n", "{}"):
        Path(text).write_text(yaml.safe_dump({"model": CANARY}))
    where = forged(
        honest, Path("forged.ckpt"), lambda config, _: [config.pop(k) for k in [*config] if k != "seed_everything"]
    )
    refused(capsys, "test", "--ckpt_path", where)


def test_what_is_trusted_is_trusted_by_name_alone(canary, honest, capsys):
    where = forged(honest, Path("forged.ckpt"), with_network(spec("mine.Net", hook=CANARY)))
    Path("lib/mine.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self, hook: nn.Module): ...\n"
    )
    assert "--trust mine.Net" in refused(capsys, "test", "--ckpt_path", where)
    assert "asks for canary_module.Net," in refused(capsys, "test", "--ckpt_path", where, "--trust", "mine.Net")
    for odd in ("*", "mine", "mine.*", "mine.N\u0435t", ""):
        refused(capsys, "test", "--ckpt_path", where, "--trust", odd)
    capsys.readouterr()
    assert distill("inspect", where, "--trust", "mine.Net") == 2
    assert "mine.Net: trusted" in (said := capsys.readouterr().out) and "--trust canary_module.Net" in said


# Where to write


@pytest.mark.parametrize("name", ["log_dir", "trainer.default_root_dir"])
@pytest.mark.parametrize("path", ["/tmp/owned", "../owned", "~/owned", "$HOME/owned", ".git/owned", "a/../../owned"])
def test_a_file_does_not_say_where_to_write(name, path, canary, honest, capsys):
    config = put(yaml.safe_load((honest / "config.yaml").read_text()), name, path)
    kept = from_file.checked(config, Path("x.ckpt"))
    assert path not in str(kept)
    assert f"names {path} as {name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("trainer.callbacks", [spec(TEACHER, teacher="a.ckpt", mode="table", folder="/tmp/owned")]),
        ("data", spec(f"{OURS}.data.folder.ImageFolder", root="x", cache="/tmp/owned")),
        ("data", spec(f"{OURS}.data.torchvision_sets.MNIST", root="/tmp/owned")),
        ("data", spec(f"{OURS}.data.torchvision_sets.CIFAR10", root="/tmp/owned")),
    ],
    ids=["table", "cache", "download", "download_of_class_folders"],
)
@pytest.mark.parametrize("part", ["init_args", "dict_kwargs"])
def test_no_class_of_a_file_writes_elsewhere(part, where, value, canary, honest, capsys):
    """Arguments may stand in two places, and the parser builds with both."""
    of_spec = value[0] if isinstance(value, list) else value
    of_spec = {"class_path": of_spec["class_path"], part: of_spec["init_args"]}
    value = [of_spec] if isinstance(value, list) else of_spec
    config = put(yaml.safe_load((honest / "config.yaml").read_text()), where, value)
    assert "/tmp/owned" not in str(from_file.checked(config, Path("x.ckpt")))
    assert "/tmp/owned" in capsys.readouterr().err


def test_a_data_set_that_is_there_may_lie_anywhere(honest, mnist, capsys):
    config = put(
        yaml.safe_load((honest / "config.yaml").read_text()),
        "data",
        spec(f"{OURS}.data.torchvision_sets.MNIST", root=str(mnist)),
    )
    assert from_file.checked(config, Path("x.ckpt"))["data"]["init_args"]["root"] == str(mnist)


@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints/best.ckpt", "events.out.tfevents.1.x.1"])
def test_a_run_does_not_write_through_links(name, honest, capsys):
    run, mine = Path("logs/digits/baseline/x"), Path("mine")
    shutil.copytree(honest, run)
    mine.write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine.resolve())
    assert "leads out of the run's folder" in refused(capsys, "fit", "--ckpt_path", run / "checkpoints/last.ckpt")
    assert mine.read_text() == "mine"


# Sizes


HUGE = {
    "classes": spec(NET["class_path"], num_classes=10**9),
    "width": spec(NET["class_path"], width=10**6),
    "picture": spec(f"{MODELS}.lenet.LeNet300100", image_size=100_000),
    "depth": spec(f"{MODELS}.wide_resnet.WideResNet", depth=10**7 + 2, widen=1),
    "dense_depth": spec(f"{MODELS}.densenet.SmallDenseNet", depth=10**7, growth=1),
    "averaged": spec(
        f"{MODELS}.averaged_training.AveragedTraining", network=spec(NET["class_path"], num_classes=10**9)
    ),
    "of_torchvision": spec("torchvision.models.resnet18", num_classes=10**9),
    "wide_of_torchvision": spec("torchvision.models.resnet50", width_per_group=10**7),
    "vision_transformer": spec("torchvision.models.vit_b_16", image_size=16 * 10**6),
}


@pytest.mark.parametrize("attack", HUGE)
def test_a_huge_network_is_refused_before_it_takes_memory(attack):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(InputError, match=r"a\.ckpt describes a network"):
        checkpoints.build_network(HUGE[attack], "a.ckpt", weights=1000)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2 * MOST_MEMORY
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("attack", ["classes", "picture"])
def test_the_command_refuses_a_huge_network(attack, honest, capsys):
    where = forged(honest, Path("forged.ckpt"), with_network(HUGE[attack]))
    refused(capsys, "test", "--ckpt_path", where)


def test_tensors_that_share_their_numbers_do_not_allow_a_larger_network(tmp_path):
    one = torch.zeros(1000)
    assert specs.count_numbers({str(k): one.view(10, 100) for k in range(50)}, "a.ckpt") == 1000


# Files of tensors


def archive(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x/data.pkl", pickled)
        for name, content in {"version": b"3\n", "byteorder": b"little", **records}.items():
            file.writestr(f"x/{name.replace('_', '/')}", content)


def old_format(path: Path, pickled: bytes) -> None:
    """As torch wrote before archives."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*parts, pickled, pickle.dumps([], 2)]))


def tensor(numel: int, size: int, stride: int) -> bytes:
    """A pickle of {"a": a tensor of 4 numbers, said to be of that size}."""
    text = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, text)
    pickled = zipfile.ZipFile(text).read("archive/data.pkl")
    long = {n: b"\x8a\x08" + n.to_bytes(8, "little") for n in (numel, size, stride)}
    pickled = pickled.replace(b"cpuq\x06K\x04", b"cpuq\x06" + long[numel])
    shape = b"K\x00" + long[size] + b"\x85q\x08" + long[stride] + b"\x85"
    changed = pickled.replace(b"K\x00K\x04\x85q\x08K\x01\x85", shape)
    assert changed != pickled
    return changed


def nested_tuples() -> bytes:
    """{t: 1} where t holds itself 2^60 times over: its hash takes for ever."""
    steps = b"".join(b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) for k in range(60))
    return b"\x80\x02}K\x01q\x00" + steps + b"K\x01s."


def recursive_list() -> bytes:
    endless: list = []
    endless.append(endless)
    return pickle.dumps({"a": endless}, 2)


def sharing(path: Path) -> None:
    one = torch.zeros(1000)
    torch.save({str(k): one for k in range(2000)}, path)


def with_tail(path: Path) -> None:
    """A pickle that acts, and a harmless archive behind it: readers that begin at the end see the latter."""
    torch.save({"a": torch.zeros(2)}, path)
    path.write_bytes(pickle.dumps(Evil(), 2) + path.read_bytes())


def with_two_contents(path: Path) -> None:
    """A pickle that acts is where the end says that the table of contents is, a harmless one right before the end,
    where other readers look."""
    archive(path, GLOBALS.replace(b"%b", b"posix", 1).replace(b"%b", b"system", 1))
    acting = path.read_bytes()
    text = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, text)
    harmless, table, size = text.getvalue(), int.from_bytes(acting[-6:-2], "little"), acting[-10:-6]
    path.write_bytes(acting[:-22] + harmless[:-98] + acting[-22:-10] + size + table.to_bytes(4, "little") + b"\0\0")


def with_the_pickle_in_capitals(path: Path) -> None:
    """torch's reader finds DATA.PKL under data.pkl."""
    archive(path, GLOBALS.replace(b"%b", b"collections", 1).replace(b"%b", b"Counter", 1))
    path.write_bytes(path.read_bytes().replace(b"x/data.pkl", b"x/DATA.PKL"))


def overlapping(path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 16)}, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        table = file.start_dir
    _with_table(path, content[:table], content[table : content.index(b"PK\x06\x06")] * 40)


def _with_table(path: Path, before: bytes, table: bytes) -> None:
    count = table.count(b"PK\x01\x02")
    end = b"PK\x05\x06\0\0\0\0" + count.to_bytes(2, "little") * 2
    end += len(table).to_bytes(4, "little") + len(before).to_bytes(4, "little") + b"\0\0"
    path.write_bytes(before + table + end)


def with_attributes(path: Path) -> None:
    weights = OrderedDict(a=torch.zeros(2))
    weights.values = 5  # in place of the method
    torch.save(weights, path)


def of_a_later_format(path: Path) -> None:
    torch.save({"a": 1, "format": 99, "digest": "x"}, path)


GLOBALS = b"\x80\x02c%b\n%b\n(X\x0b\0\0\0touch owned\x85R."
FILES = {
    "pickle": lambda path: path.write_bytes(pickle.dumps(Evil(), 2)),
    "pickle_4": lambda path: path.write_bytes(pickle.dumps(Evil(), 4)),
    "pickle_0": lambda path: path.write_bytes(pickle.dumps(Evil(), 0)),
    "saved": lambda path: torch.save({"a": Evil()}, path),
    "saved_4": lambda path: torch.save({"a": Evil()}, path, pickle_protocol=4),
    "saved_in_the_old_format": lambda path: torch.save({"a": Evil()}, path, _use_new_zipfile_serialization=False),
    "module": lambda path: torch.save(nn.Linear(1, 1), path),
    "script": lambda path: torch.jit.script(nn.Linear(1, 1)).save(path),
    "posix_in_archive": lambda path: archive(path, GLOBALS.replace(b"%b", b"posix", 1).replace(b"%b", b"system", 1)),
    "capitals": with_the_pickle_in_capitals,
    "bytearray": lambda path: archive(path, b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R."),
    "bytearray_old": lambda path: old_format(path, b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R."),
    "counter": lambda path: archive(path, b"\x80\x02ccollections\nCounter\n)R."),
    "tuples": lambda path: archive(path, nested_tuples()),
    "tuples_old": lambda path: old_format(path, nested_tuples()),
    "recursive": lambda path: archive(path, recursive_list()),
    "bomb": lambda path: archive(path, pickle.dumps({"a": 1}, 2), zipfile.ZIP_DEFLATED, data_0=bytes(50 << 20)),
    "bomb_of_pickle": lambda path: archive(path, b"\x80\x02" + b"N0" * (10 << 20) + b"N.", zipfile.ZIP_DEFLATED),
    "overlapping": overlapping,
    "two_contents": with_two_contents,
    "tail": with_tail,
    "stride_0": lambda path: archive(path, tensor(4, 10**12, 0), data_0=bytes(16)),
    "larger_than_stored": lambda path: archive(path, tensor(4, 10**12, 1), data_0=bytes(16)),
    "claims_storage": lambda path: archive(path, tensor(10**12, 10**12, 1), data_0=bytes(16)),
    "sparse": lambda path: torch.save({"a": torch.sparse_coo_tensor([[0]], [1.0], (10**12,))}, path),
    "meta": lambda path: torch.save({"a": torch.empty(10**12, device="meta")}, path),
    "quantized": lambda path: torch.save({"a": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8)}, path),
    "conjugate": lambda path: torch.save({"a": torch.zeros(2, dtype=torch.complex64).conj()}, path),
    "shared": sharing,
    "attributes": with_attributes,
    "later_format": of_a_later_format,
    "no_weights": lambda path: torch.save([1, 2], path),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text(yaml.safe_dump(CANARY)),
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
}
READERS = {
    "checkpoint": checkpoints.read,
    "ticket": Ticket.open,
    "packed": lambda path: load_packed(path, ConvNet()),
    "weights": lambda path: PlainNetwork(ConvNet(), weights=str(path)),
}


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
@pytest.mark.parametrize("attack", FILES)
def test_no_file_of_tensors_acts(attack, suffix, canary):
    path = Path(f"file{suffix}")
    FILES[attack](path)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for read in READERS.values():
        with pytest.raises(InputError, match=r"file\.") as refusal:
            read(path)
        assert "\n" not in str(refusal.value)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY
    assert time.monotonic() - start < 10


def test_a_later_format_is_named():
    of_a_later_format(Path("a.ckpt"))
    with pytest.raises(InputError, match=r"a\.ckpt has the format 99, this version reads up to 2: use a later version"):
        checkpoints.read("a.ckpt")


PARTS = {
    "state_dict": ("state_dict", [1]),
    "weights_that_are_none": ("state_dict", {"model.x": 5}),
    "hyper_parameters": ("hyper_parameters", "canary_module.Net"),
    "config": ("config", {"model": CANARY}),
    "callbacks": ("callbacks", [CANARY]),
    "data": ("data", CANARY),
    "info": ("data", {"info": CANARY, "held_out": torch.zeros(1).int()}),
    "class_names": ("Digits", {"fingerprint": "x", "held_out": torch.zeros(1).int(), "class_names": "abc"}),
    "held_out": ("Digits", {"fingerprint": "x", "held_out": [1]}),
    "fingerprint": ("Digits", {"fingerprint": [], "held_out": torch.zeros(1).int()}),
    "mean": (
        "Digits",
        {"fingerprint": "x", "held_out": torch.zeros(1).int(), "class_names": ["a"], "mean": "x", "std": 5},
    ),
}


@pytest.mark.parametrize("attack", PARTS)
def test_parts_of_another_kind_are_refused(attack, canary, honest, capsys):
    content = torch.load(honest / "checkpoints" / "last.ckpt", weights_only=True)
    name, value = PARTS[attack]
    if name == "Digits":  # where version 0.1 kept what the data module wrote
        del content["data"]
    write_tensors("forged.ckpt", content | {name: value})
    assert "forged.ckpt" in refused(capsys, "test", "--ckpt_path", "forged.ckpt")
    assert "forged.ckpt" in refused(capsys, "inspect", "forged.ckpt")


# Damage


def flipped(path: Path, place: int) -> None:
    """Changes a bit at a place, counted from the end where it is negative."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(bytes(content))


def inside(path: Path, which: str) -> int:
    """The middle of a part of an archive: of its pickle, of its largest or of its last tensor, of its table."""
    with zipfile.ZipFile(path) as file:
        entries = [
            entry for entry in file.infolist() if f"/{'data.pkl' if which == 'pickle' else 'data/'}" in entry.filename
        ]
        table = file.start_dir
    if which == "table":
        return table + 20
    entry = entries[-1] if which == "last" else max(entries, key=lambda entry: entry.file_size)
    content = path.read_bytes()
    head = content[entry.header_offset : entry.header_offset + 30]
    begin = entry.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return begin + entry.file_size // 2


def _ticket(path: Path) -> None:
    network = ConvNet()
    weights = {name: p.detach() for name, p in network.named_parameters() if p.ndim > 1}
    Ticket(network.state_dict(), [pack_all(ones(weights))], 0, {}).save(path)


def _packed(path: Path) -> None:
    network = ConvNet()
    masks = ones({name: p.detach() for name, p in network.named_parameters() if p.ndim > 1})
    write_tensors(path, packed(network.state_dict(), masks))


@pytest.mark.parametrize("which", ["pickle", "largest", "last", "table"])
@pytest.mark.parametrize("kind", ["ticket", "packed", "weights", "checkpoint"])
def test_one_damaged_byte_is_found_and_the_file_named(kind, which, honest):
    path = Path(f"{kind}.pt")
    if kind == "checkpoint":
        shutil.copy(honest / "checkpoints" / "last.ckpt", path)
    else:
        {"ticket": _ticket, "packed": _packed, "weights": lambda p: torch.save(ConvNet().state_dict(), p)}[kind](path)
    READERS[kind](path)
    flipped(path, inside(path, which))
    with pytest.raises(InputError, match=rf"{kind}\.pt"):
        READERS[kind](path)


@pytest.mark.parametrize("name", ["logits.npy", "checks.npy", "manifest.json"])
@pytest.mark.parametrize("place", [8, 20, -10])
def test_a_damaged_table_is_named(name, place):
    table = SoftTargetTable("tables", {"teacher": "x"}, 1, 300, 4)
    table.create()
    table.open()
    for view, block in table.missing():
        table.fill(view, block, torch.randn(len(table.rows(block)), 4))
    table.verify()
    flipped(table.folder / name, place)
    again = SoftTargetTable("tables", {"teacher": "x"}, 1, 300, 4)
    with pytest.raises(InputError, match=r"npy|manifest\.json"):
        again.open()
        again.verify()


def test_an_array_with_a_pickle_is_not_opened(canary):
    table = SoftTargetTable("tables", {"teacher": "x"}, 1, 2, 4)
    table.create()
    np.save(table.folder / "logits.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"logits\.npy"):
        table.open()


# YAML and JSON


def bomb(levels: int, merge: bool) -> str:
    lines = ["a0: &a0 {" + ", ".join(f"k{k}: 1" for k in range(10)) + "}"]
    for level in range(1, levels):
        within = f"[{', '.join([f'*a{level - 1}'] * 10)}]"
        lines.append(f"a{level}: &a{level} " + (f"{{<<: {within}}}" if merge else within))
    return "\n".join(lines)


YAMLS = {
    "apply": "!!python/object/apply:os.system [touch owned]",
    "new": "a: !!python/object/new:canary_module.Net {}",
    "name": "a: !!python/name:canary_module.Net",
    "module": "a: !!python/module:canary_module",
    "tuple": "a: !!python/tuple [1, 2]",
    "unknown_tag": "a: !owned x",
    "aliases": bomb(10, merge=False),
    "many_merges": "a: &a {"
    + ", ".join(f"k{k}: 1" for k in range(2000))
    + "}\n"
    + "\n".join(f"b{k}: {{<<: *a}}" for k in range(2000)),
    "itself": "a: &a [*a]",
    "merges_itself": "a: &a {<<: *a, b: [*a]}",
    "deep": "[" * 100_000,
    "deep_lines": "- " * 100_000 + "a",
    "sixties": "a: " + ":".join(["1"] + ["59"] * 200_000),
    "sixties_float": "a: " + ":".join(["1"] + ["59"] * 1000) + ".5",
    "digits": "a: " + "1" * 100_000,
    "hexadecimal": "a: 0x" + "1" * 100_000,
    "binary": "a: !!binary x",
    "list_as_key": "? [1]\n: 2",
    "large": "a: " + "x" * (5 << 20),
    "control": "a: \x07",
}


@pytest.mark.parametrize("attack", YAMLS)
def test_no_yaml_acts(attack, canary, honest, capsys):
    start = time.monotonic()
    Path("evil.yaml").write_text(YAMLS[attack])
    with pytest.raises(InputError, match=r"evil\.yaml") as refusal:
        files.read_yaml("evil.yaml")
    assert len(str(refusal.value)) < 400
    content = torch.load(honest / "checkpoints" / "last.ckpt", weights_only=True)
    write_tensors("forged.ckpt", content | {"config": YAMLS[attack]})
    refused(capsys, "test", "--ckpt_path", "forged.ckpt")
    run = Path("logs/digits/baseline/x")
    shutil.copytree(honest, run)
    (run / "config.yaml").write_text(YAMLS[attack])
    refused(capsys, "inspect", run / "config.yaml")
    with pytest.raises(InputError, match=r"config\.yaml"):
        runs.identity(run)
    assert time.monotonic() - start < 10


def test_merges_of_merges_do_not_multiply():
    start = time.monotonic()
    try:  # as PyYAML has it in later versions
        assert all(len(keys) == 10 for keys in files.parse_yaml(bomb(10, merge=True), "a.yaml").values())
    except InputError as refusal:
        assert "merges of more than" in str(refusal)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 100_000, "[1]", "{", "\x00"], ids=["deep", "digits", "list", "torn", "zero"]
)
def test_no_json_acts(text):
    Path("a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        files.read_json("a.json")


# Names


@pytest.mark.parametrize(
    "name", [".", "..", ".hidden", "a\nb", "../x", "a/b", "a\\b", "-x", "\x1b[2J", "a\u202eb", "x" * 300]
)
def test_run_names_are_names(name, capsys):
    line = refused(
        capsys, "fit", "--config", CONFIGS / "digits/baseline.yaml", "--trainer.max_epochs=1", f"--name={name}"
    )
    assert "--name is" in line
    assert not Path("logs").exists() or not [*Path("logs").rglob("config.yaml")]


def test_names_in_a_file_do_not_reach_the_terminal_as_they_are(honest, capsys):
    names = [f"\x1b[2J{k}\n<script>" for k in range(10)]

    def change(config, content):
        content["data"]["info"]["class_names"], content["data"]["info"]["name"] = names, "\x1b]0;owned\x07"

    where = forged(honest, Path("forged\x1b[2J.ckpt"), change)
    assert distill("inspect", where) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\\x1b[2J" in said
    assert "\x1b" not in refused(capsys, "test", "--ckpt_path", where)


# Run folders


def _of_run(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


FOLDERS = {
    "tag_in_config": ("config.yaml", YAMLS["apply"]),
    "script_in_config": (
        "config.yaml",
        yaml.safe_dump({"model": spec("<script>.<img src=x onerror=alert(1)>"), "data": NET}),
    ),
    "canary_in_config": (
        "config.yaml",
        yaml.safe_dump({"model": CANARY, "data": CANARY, "trainer": {"callbacks": [S1]}}),
    ),
    "script_in_summary": ("summary.json", json.dumps({"metrics": {"test/<script>alert(1)</script>": 0.5}})),
    "numbers_in_metrics": ("metrics.csv", "step,tag,value\n1,<script>alert(1)</script>,0.5\n"),
    "bomb_in_config": ("config.yaml", "model: 1\ndata: 1\n" + bomb(10, merge=False)),
    "merges_in_config": ("config.yaml", "model: 1\ndata: 1\n" + bomb(10, merge=True)),
    "list_as_config": ("config.yaml", "[1, 2]"),
    "lists_in_config": ("config.yaml", "{model: [1], data: [2], trainer: [3]}"),
    "list_as_summary": ("summary.json", "[1]"),
    "odd_summary": ("summary.json", json.dumps({"metrics": [1], "rounds": 5})),
    "deep_summary": ("summary.json", "[" * 100_000),
}


@pytest.mark.parametrize(("name", "text"), [pytest.param(*f, id=k) for k, f in FOLDERS.items()])
def test_no_run_folder_acts_in_a_report_or_a_study(name, text, canary, honest, capsys):
    run = Path("logs/digits/baseline/<script>alert(1)<")
    shutil.copytree(honest, run)
    shutil.copytree(honest, "logs/digits/baseline/honest")
    _of_run(run, name, text)
    assert distill("report", "logs", "--out", "page.html") in (0, 2)
    assert not Path("page.html").exists() or "<script>alert" not in Path("page.html").read_text()
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "\x1b" not in said.out + said.err


def test_no_run_folder_acts_in_a_study(canary, honest, capsys):
    hostile = {"config.yaml": [YAMLS["apply"], yaml.safe_dump({"model": CANARY}), "[1]"]}
    hostile["summary.json"] = [
        "[1]",
        "{",
        json.dumps({"config_digest": [S1]}),
        json.dumps({"config_digest": "../../x"}),
    ]
    for number, (name, text) in enumerate((name, text) for name, texts in hostile.items() for text in texts):
        shutil.copytree(honest, run := Path(f"logs/digits/baseline/hostile{number}"))
        _of_run(run, name, text)
    study = {"runs": {"one": {"config": str(CONFIGS / "digits/baseline.yaml"), "options": {"trainer.max_epochs": 1}}}}
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert distill("study", "study.yaml", "--dry_run") == 0
    assert "1 runs, 0 done" in capsys.readouterr().out


# Real processes


def _process(*args, cwd: Path) -> subprocess.CompletedProcess:
    """The command as a user starts it, with as much memory as a small machine has."""
    limit = 12 << 30
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(cwd / "lib"), env.get("PYTHONPATH", "")]))
    return subprocess.run(
        command(*args),
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )


def test_real_processes_refuse(canary, honest, tmp_path):
    evil = forged(honest, tmp_path / "forged.ckpt", with_network(S1))
    huge = forged(honest, tmp_path / "huge.ckpt", with_network(HUGE["classes"]))
    shutil.copytree(honest, run := tmp_path / "logs/digits/baseline/x")
    forged(honest, run / "checkpoints/last.ckpt", lambda config, _: put(config, *SLOTS["teacher_yaml_as_ckpt"]))
    torch.save({"kind": "ticket", "weights": Evil()}, tmp_path / "ticket.pt")
    kd, lottery = CONFIGS / "digits/kd.yaml", CONFIGS / "callbacks/ticket.yaml"
    doors = [
        ("test", "--ckpt_path", evil),
        ("predict", "--ckpt_path", huge),
        ("fit", "--ckpt_path", run / "checkpoints/last.ckpt"),
        ("fit", "--config", kd, "--trainer.callbacks.teacher", evil),
        ("fit", "--config", CONFIGS / "digits/ensemble.yaml", "--model.members", f"['{evil}']"),
        (
            "fit",
            "--config",
            CONFIGS / "digits/baseline.yaml",
            "--config",
            lottery,
            "--trainer.callbacks.ticket",
            "ticket.pt",
        ),
        ("inspect", tmp_path / "evil.pickle"),
    ]
    with ThreadPoolExecutor(2) as pool:
        all_done = list(pool.map(lambda args: _process(*args, cwd=tmp_path), doors))
    for args, done in zip(doors, all_done, strict=True):
        assert done.returncode == 2, (args, done.stderr)
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("distill: "), (args, done.stderr)
    assert canary.is_alive()


# What is honest passes

SHIPPED = [
    path.relative_to(CONFIGS)
    for folder in ("digits", "mnist", "cifar100", "cifar10")
    for path in sorted((CONFIGS / folder).glob("*.yaml"))
]
WITH = {
    "mixup": {"data.mix": f"{OURS}.data.mixing.Mixup"},
    "cutmix": {"data.mix": f"{OURS}.data.mixing.CutMix"},
}


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_what_our_configurations_leave_is_accepted(path, mnist, cifar10, cifar100, capsys):
    root = {"mnist": mnist, "cifar10": cifar10, "cifar100": cifar100}.get(path.parts[0], Path("data"))
    epochs = ["--trainer.max_epochs=1"]
    config = app.resolve(["fit", "--config", str(CONFIGS / path), f"--data.root={root}", *epochs]).config.options
    assert from_file.checked(config, Path("logs/a/b/c/checkpoints/last.ckpt")) == config
    if network := config["model"]["init_args"].get("network"):
        specs.refuse_untrusted({"network": network}, {"network": nn.Module}, "a.ckpt")
        assert specs.NetworkSpec.of(network, "a.ckpt")
    assert capsys.readouterr().err == ""


HONEST = {
    "lottery": [spec(f"{OURS}.callbacks.lottery.Lottery", rounds=2, also={"0.bias": 0.1}, ticket="logs/a/ticket.pt")],
    "teacher": [spec(TEACHER, teacher="logs/digits/teacher/x/checkpoints/last.ckpt")],
    "teacher_here": [spec(TEACHER, teacher="teacher.ckpt")],
    "teachers": [
        spec(TEACHER, teacher=["/data/My Teacher (1).ckpt", "b.ckpt"], mode="table", folder="logs/soft_targets")
    ],
    "plain_teacher": [
        spec(
            TEACHER,
            teacher=spec(
                PLAIN,
                network=spec("torchvision.models.resnet18", num_classes=10),
                weights="a.pth",
                mean=[0.5],
                std=[0.2],
            ),
        )
    ],
    "consistency": [spec(f"{OURS}.callbacks.consistency.Consistency")],
    "max_norm": [spec(f"{OURS}.callbacks.max_norm.MaxNorm", limit=3.0)],
    "early_stopping": [spec(f"{CALLBACKS}.EarlyStopping", monitor="val/nll", mode="min", patience=3)],
    "learning_rate": [spec(f"{CALLBACKS}.LearningRateMonitor", logging_interval="step")],
    "full_path": [spec(f"{CALLBACKS}.early_stopping.EarlyStopping", monitor="val/nll")],
}


@pytest.mark.parametrize("callbacks", HONEST)
def test_honest_callbacks_are_accepted(callbacks, honest, capsys):
    config = put(yaml.safe_load((honest / "config.yaml").read_text()), "trainer.callbacks", HONEST[callbacks])
    assert from_file.checked(config, Path("logs/a/b/c/checkpoints/last.ckpt")) == config
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "vit_b_16", "efficientnet_b0", "swin_t", "mobilenet_v3_small"])
def test_honest_networks_of_torchvision_are_built(name):
    network = spec(f"torchvision.models.{name}", weights=None, progress=True, num_classes=7)
    built = checkpoints.build_network(network, "a.ckpt", weights=1000)
    assert isinstance(built, nn.Module)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StepLR", {"step_size": 3, "gamma": 0.1}),
        ("CosineAnnealingLR", {"T_max": 10}),
        ("ReduceLROnPlateau", {"mode": "min", "factor": 0.1}),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 10, "anneal_strategy": "cos"}),
        ("MultiStepLR", {"milestones": [1, 2]}),
    ],
)
def test_honest_schedules_of_torch_are_accepted(name, arguments):
    kind = torch.optim.lr_scheduler.LRScheduler
    specs.refuse_untrusted({"s": spec(f"torch.optim.lr_scheduler.{name}", **arguments)}, {"s": kind}, "a.ckpt")


@pytest.mark.parametrize("hint", [Any, object])
def test_an_argument_without_a_type_is_named(hint):
    with pytest.raises(InputError, match="ConvNet as network, whose type its class does not say"):
        specs.refuse_untrusted({"network": spec(f"{OURS}.models.ConvNet")}, {"network": hint}, "a.ckpt")


def test_an_honest_checkpoint_is_tested_and_inspected(honest, capsys):
    assert distill("test", "--ckpt_path", honest / "checkpoints/last.ckpt") == 0
    assert distill("inspect", honest) == 0
    said = capsys.readouterr().out
    assert said.count("its digest holds") == 2 and "asks for trust" not in said and "would be refused" not in said
    assert f"asks for {MODELS}.convnet.ConvNet: allowed" in said


def test_weights_of_others_are_read(tmp_path):
    weights = ConvNet().state_dict()
    torch.save(weights, "new.pt")
    torch.save(weights, "old.pth", _use_new_zipfile_serialization=False)
    shared = weights | {"again": weights["0.weight"]}
    torch.save(shared, "shared.pt")
    for name in ("new.pt", "old.pth"):
        assert all(v.equal(weights[k]) for k, v in read_source(name).entries[""].items())
    assert read_source("shared.pt").entries[""].keys() == shared.keys()


def test_inspect_says_what_a_file_is(honest, capsys):
    _ticket(Path("ticket.pt"))
    torch.save(ConvNet().state_dict(), "weights.pt")
    for name, words in {"ticket.pt": "a ticket; format 2", "weights.pt": "weights; no format and no digest"}.items():
        assert distill("inspect", name) == 0
        assert words in capsys.readouterr().out
    assert distill("inspect", honest / "config.yaml") == 0
    assert "a configuration" in capsys.readouterr().out
    assert "there is no file nothing.ckpt" in refused(capsys, "inspect", "nothing.ckpt")
    assert read_tensors("ticket.pt", "ticket")["kind"] == "ticket"

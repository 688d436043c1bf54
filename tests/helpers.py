"""The real command, in this process and in others; comparison of runs."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from distill_lightning.__main__ import main
from distill_lightning.methods.base import Method
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.born_again import BornAgain
from distill_lightning.methods.byot import BYOT
from distill_lightning.methods.cs_kd import CSKD
from distill_lightning.methods.ddgsd import DDGSD
from distill_lightning.methods.dlb import DLB
from distill_lightning.methods.dml import DML
from distill_lightning.methods.kd import KD
from distill_lightning.methods.mr_kd import MrKD
from distill_lightning.methods.ps_kd import PSKD
from distill_lightning.methods.snapshot import Snapshot
from distill_lightning.methods.tf_kd_reg import TfKDReg
from distill_lightning.methods.tf_kd_self import TfKDSelf
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.runs import read_metrics

CONFIGS = Path(__file__).parent.parent / "configs"
CLASSES = {
    "baseline": Baseline, "kd": KD, "dlb": DLB, "born_again": BornAgain, "tf_kd_self": TfKDSelf, "tf_kd_reg": TfKDReg,
    "cs_kd": CSKD, "ps_kd": PSKD, "ddgsd": DDGSD, "snapshot": Snapshot, "dml": DML, "byot": BYOT, "mr_kd": MrKD,
}  # fmt: skip
METHODS = list(CLASSES)


def distill(*args: Any) -> int:
    """The command in this process; its exit status."""
    try:
        return main([str(a) for a in args])
    except SystemExit as leaving:
        return leaving.code or 0


def fit(config: str, *args: Any) -> Path:
    """A fit that must succeed; its run folder."""
    path = config if str(config).endswith(".yaml") and Path(config).is_absolute() else CONFIGS / config
    before = set(Path().glob("logs/*/*/*/config.yaml"))
    assert distill("fit", "--config", path, *args) == 0
    new = set(Path().glob("logs/*/*/*/config.yaml")) - before
    return new.pop().parent if new else max(before, key=lambda f: f.stat().st_mtime).parent


def bare_trainer(**options: Any) -> pl.Trainer:
    """Lightning's trainer on the CPU, writing and showing nothing."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(accelerator="cpu", **dict.fromkeys(quiet, False), **options)


def command(*args: Any) -> list[str]:
    return [sys.executable, "-m", "distill_lightning", *map(str, args)]


def start(*args: Any, **env: str) -> subprocess.Popen:
    """The command in a process group of its own, with one thread."""
    return subprocess.Popen(
        command(*args),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )


def load(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Bitwise equal, at any depth."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def rows(run: Path) -> list[tuple[int, str, float]]:
    """metrics.csv, rates aside."""
    return [row for row in read_metrics(run / "metrics.csv") if not row[1].endswith("_per_s")]


def write_run(folder: Path, seed: int = 0, lr: float = 0.1, teacher: str | None = None, accuracy: float = 0.9) -> Path:
    """A run folder as the command leaves it."""
    folder.mkdir(parents=True)
    model = {"class_path": "distill_lightning.methods.baseline.Baseline", "init_args": {"optimizer": {"lr": lr}}}
    callbacks = [{"class_path": "SoftTargets", "init_args": {"teacher": teacher}}] if teacher else []
    config = {"seed_everything": seed, "model": model, "data": {}, "trainer": {"max_epochs": 3, "callbacks": callbacks}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [f"{step},val/accuracy,{accuracy - 0.1 / step}\n" for step in (1, 2, 3)]
    (folder / "metrics.csv").write_text("step,tag,value\n" + "".join(rows))
    metrics = {"test/accuracy": accuracy, "test/nll": 0.3, "test/ece": 0.02}
    calibration = {"count": [0.0, 100.0], "confidence": [0.0, 95.0], "right": [0.0, 90.0]}
    summary = {"metrics": metrics, "calibration": calibration, "parameters": 1234, "wall_time_s": 5.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def events(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars as TensorBoard reads them, rates aside."""
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0})
    reader.Reload()
    tags = [tag for tag in reader.Tags()["scalars"] if not tag.endswith("_per_s")]
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in tags}


def assert_same_run(a: Path, b: Path) -> None:
    """Equal in the sense of an exact resume: weights, optimizer, memory, and every number that was logged."""
    first, second = load(a), load(b)
    for part in ("state_dict", "optimizer_states", "method"):
        assert same(first[part], second[part]), part
    assert rows(a) == rows(b)
    assert events(a) == events(b)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def make(name: str, network: nn.Module | None = None, **options) -> Method:
    torch.manual_seed(0)
    network = network or (ConvNet() if name == "byot" else LeNet300100(image_size=8))
    if name == "mr_kd":
        options.setdefault("every_n_steps", 3)
    if name == "dml":
        options.setdefault("peers", [copy.deepcopy(network)])
        next(options["peers"][0].parameters()).data.mul_(0.5)  # equal networks have nothing to say to each other
    method = CLASSES[name](network, optimizer=sgd, **options)
    if name == "byot":
        method._build(10, 1, 8)
    if name == "mr_kd":
        method._build(10, 1, 8)
    return method

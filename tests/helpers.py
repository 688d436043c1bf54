"""Helpers: the real command in this process and in others, interrupted runs, comparison of runs, small values and
data."""

import copy
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from distill_lightning import masks
from distill_lightning.__main__ import main
from distill_lightning.callbacks.progress import Lines
from distill_lightning.data.base import ImageData
from distill_lightning.data.loaders import TrainLoader
from distill_lightning.data.training_samples import Share
from distill_lightning.files import atomic_write
from distill_lightning.loggers import MetricsCSV
from distill_lightning.methods.at import AT
from distill_lightning.methods.base import Method
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.born_again import BornAgain
from distill_lightning.methods.branches import Branches
from distill_lightning.methods.byot import BYOT
from distill_lightning.methods.ca_mkd import CAMKD
from distill_lightning.methods.cat_kd import CATKD
from distill_lightning.methods.crd import CRD
from distill_lightning.methods.cs_kd import CSKD
from distill_lightning.methods.ctkd import CTKD
from distill_lightning.methods.ddgsd import DDGSD
from distill_lightning.methods.dist import DIST
from distill_lightning.methods.dkd import DKD
from distill_lightning.methods.dlb import DLB
from distill_lightning.methods.dml import DML
from distill_lightning.methods.fitnets import FitNets
from distill_lightning.methods.kd import KD
from distill_lightning.methods.kdcl import KDCL
from distill_lightning.methods.mr_kd import MrKD
from distill_lightning.methods.nkd import NKD
from distill_lightning.methods.nst import NST
from distill_lightning.methods.ofd import OFD
from distill_lightning.methods.okddip import OKDDip
from distill_lightning.methods.one import ONE
from distill_lightning.methods.pcl import PCL
from distill_lightning.methods.pkt import PKT
from distill_lightning.methods.ps_kd import PSKD
from distill_lightning.methods.reviewkd import ReviewKD
from distill_lightning.methods.rkd import RKD
from distill_lightning.methods.seed import SEED
from distill_lightning.methods.simkd import SimKD
from distill_lightning.methods.snapshot import Snapshot
from distill_lightning.methods.sp import SP
from distill_lightning.methods.srrl import SRRL
from distill_lightning.methods.tf_kd_reg import TfKDReg
from distill_lightning.methods.tf_kd_self import TfKDSelf
from distill_lightning.methods.vid import VID
from distill_lightning.methods.wsld import WSLD
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.runs import Run, RunConfig, read_metrics
from distill_lightning.runs import start as start_run
from distill_lightning.runs.summary import write_summary
from distill_lightning.values import Batch, BatchNeeds, DataInfo, PlainTimeline, Position, StepOutput

CONFIGS = Path(__file__).parent.parent / "configs"
CLASSES = {
    "baseline": Baseline, "kd": KD, "dlb": DLB, "born_again": BornAgain, "tf_kd_self": TfKDSelf, "tf_kd_reg": TfKDReg,
    "cs_kd": CSKD, "ps_kd": PSKD, "ddgsd": DDGSD, "snapshot": Snapshot, "dml": DML, "kdcl": KDCL, "byot": BYOT,
    "mr_kd": MrKD, "dkd": DKD, "dist": DIST, "at": AT, "sp": SP, "rkd": RKD, "pkt": PKT, "fitnets": FitNets, "ofd": OFD,
    "reviewkd": ReviewKD, "simkd": SimKD, "crd": CRD, "seed": SEED, "vid": VID, "srrl": SRRL,
    "nst": NST, "cat_kd": CATKD,
    "nkd": NKD, "wsld": WSLD, "ctkd": CTKD, "ca_mkd": CAMKD, "branches": Branches, "one": ONE, "okddip": OKDDip,
    "pcl": PCL,
}  # fmt: skip
METHODS = list(CLASSES)
FEATURE_TAUGHT = (
    "at", "sp", "rkd", "pkt", "fitnets", "ofd", "reviewkd", "simkd", "crd", "seed", "vid", "srrl", "nst", "cat_kd",
)  # fmt: skip
"""Those that learn from the features of a teacher."""
TAUGHT = ("kd", "born_again", "tf_kd_self", "dkd", "dist", "nkd", "wsld", "ctkd", "ca_mkd", *FEATURE_TAUGHT)
"""Those that have a teacher."""
BRANCHED = ("branches", "one", "okddip", "pcl")
"""Those that train a network in branches."""


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


def start(*args: Any, program: list[str] | None = None, **env: str) -> subprocess.Popen:
    """The command, started by ``program`` or by itself, in a process group of its own, with one thread."""
    return subprocess.Popen(
        command(*args) if program is None else [*program, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )


def run_on(devices: int, *args: Any) -> None:
    """The command on one process, which is this one, or on several."""
    given = [*args, "--trainer.accelerator", "cpu", "--trainer.devices", devices]
    if devices == 1:
        assert distill(*given) == 0
    else:
        process = start(*given)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err


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


def rows_of_any_world(run: Path) -> list[tuple[int, str, float]]:
    """The rows that do not depend on the number of processes: not the spread of losses over the parts of batches."""
    return [row for row in rows(run) if not row[1].endswith(("loss_max", "loss_std"))]


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


def without_scripts(page: str | Path) -> str:
    """A report, without the scripts that are the program's own; what they read is still there."""
    text = page.read_text() if isinstance(page, Path) else page
    return re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def made_run(where: str, state: str = "finished", accuracy: float = 0.9, epochs: int = 2, **options: Any) -> Run:
    """A run folder logs/<data set>/<method>/<name> in a given state, made by the program's own writers.

    Options are those of the method, but ``seed`` and ``callbacks``. A run in the state "running" stays locked.
    """
    stem, _, name = where.rpartition("/")
    trainer = {"max_epochs": 4, "callbacks": options.pop("callbacks", None)}
    seed, method = options.pop("seed", 0), stem.rpartition("/")[2]
    network = {"class_path": "distill_lightning.models.convnet.ConvNet", "init_args": {"num_classes": 10}}
    model = {"class_path": f"distill_lightning.methods.{method}.{method.upper()}"}
    model["init_args"] = {"network": network, **options}
    data = {"class_path": "distill_lightning.data.digits.Digits", "init_args": {"num_workers": 0}}
    content = {"seed_everything": seed, "model": model, "data": data, "trainer": trainer, "log_dir": "logs"}
    run = start_run(Path(stem), name, RunConfig(content))
    record = MetricsCSV(run.metrics, -1)
    for epoch in range(1, epochs + 1):
        numbers = {"val/accuracy": accuracy - 0.1 / epoch, "val/nll": 1 / epoch, "train/epoch_loss": 2 / epoch}
        record.log_metrics(numbers, 20 * epoch)
    record.save()
    if state in ("finished", "interrupted"):
        atomic_write(run.checkpoints / "last.ckpt", lambda file: file.write(name.encode()))
    if state == "finished":
        metrics = record.latest | {"test/accuracy": accuracy, "test/nll": 1 - accuracy}
        write_summary(run.summary, {"metrics": metrics, "wall_time_s": 200.0, "steps": 20 * epochs, "epochs": epochs})
    if state != "running":
        run.release()
        for path in [run.folder / "config.yaml", *run.folder.rglob("*")]:  # as if it had ended an hour ago
            os.utime(path, (time.time() - 3600,) * 2)
    return run


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
    network = network or (ConvNet() if name in ("byot", *BRANCHED, *FEATURE_TAUGHT) else LeNet300100(image_size=8))
    if name == "mr_kd":
        options.setdefault("every_n_steps", 3)
    if name == "crd":
        options.setdefault("negatives", 64)
    if name == "seed":
        options.setdefault("hard_weight", 0.1)  # without labels its classifier is not trained
    if name in ("dml", "kdcl"):
        options.setdefault("peers", [copy.deepcopy(network)])
        next(options["peers"][0].parameters()).data.mul_(0.5)  # equal networks have nothing to say to each other
    method = CLASSES[name](network, optimizer=sgd, **options)
    if name in ("byot", "mr_kd", *BRANCHED):
        method.build_once(data_info())
    return method


# Values


def data_info(num_classes: int = 10, channels: int = 1, image_size: int = 8, num_samples: int = 0) -> DataInfo:
    """Of data that are not there; the digits' by default."""
    names = tuple(str(k) for k in range(num_classes))
    mean, std = (0.0,) * channels, (1.0,) * channels
    return DataInfo("made", names, channels, image_size, mean, std, num_samples, "", (None, None, 0), "")


def batch_of(images: Tensor, labels: Tensor, **more: Any) -> Batch:
    """All of them new samples, unless ``num_new`` says otherwise."""
    return Batch(images, labels, **{"index": torch.arange(len(labels)), "num_new": len(labels), **more})


def at(epoch: int = 0, step: int = 0, progress: float = 0.0, epochs: float = 1.0) -> Position:
    """A position in training, with what a method may ask for."""
    return Position(epoch, 0, step, 0, progress * epochs, epochs)


def total(output: StepOutput) -> float:
    """The loss."""
    return sum(output.terms.values()).item()


def train_loader(
    data: ImageData,
    rank: int = 0,
    world: int = 1,
    start: tuple[int, int] = (0, 0),
    needs: BatchNeeds | None = None,
    view_cycle: int | None = None,
) -> TrainLoader:
    """The training batches that a process of ``world`` sees from an epoch and batch on. The data must be set up."""
    needs, timeline = needs or BatchNeeds(), PlainTimeline(data.samples.batches, 100)
    data.begin_fit(needs, timeline, view_cycle)
    return TrainLoader(data.samples, data.renderer, needs, timeline, Share(rank, world), lambda: start, view_cycle)


# Data


def write_pictures(folder: Path, classes: int, per_class: int, size: int = 32, seed: int = 0) -> Path:
    """A folder of class folders with PNGs whose colour tells the class."""
    rng = np.random.default_rng(seed)
    for label in range(classes):
        target = folder / f"class_{label:03d}"
        target.mkdir(parents=True, exist_ok=True)
        colour = np.array([label * 37 % 256, label * 91 % 256, label * 151 % 256])
        for number in range(per_class):
            pixels = np.clip(colour + rng.integers(-40, 40, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(target / f"{number:03d}.png")
    return folder


def write_shard(file: Path, samples: list[tuple[str, dict[str, object]]]) -> Path:
    """A tar file in the form of webdataset, from the common name of a sample's files and their content by extension."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for key, files in samples:
            for end, given in files.items():
                content = given if isinstance(given, bytes) else str(given).encode()
                member = tarfile.TarInfo(f"{key}.{end}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file


def pruned_network(seed: int = 0, keep: float = 0.1) -> tuple[ConvNet, masks.Masks]:
    """A network whose running statistics have moved, without all but the largest of its weights, and its masks."""
    torch.manual_seed(seed)
    network = ConvNet(width=16)
    network(torch.randn(4, 1, 8, 8))
    weights = {name: p.detach() for name, p in network.named_parameters() if p.ndim > 1}
    count = sum(weight.numel() for weight in weights.values())
    found = masks.smallest(weights, masks.ones(weights), round(keep * count))
    for name, mask in found.items():
        weights[name].masked_fill_(~mask, 0.0)
    return network, found


# Runs that are cut


class Killed(Exception):
    """As good as SIGKILL: nobody saves on it."""


HOOKS = [
    "on_train_batch_start",
    "on_before_backward",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
]


class Kill:
    """Raises at the n-th call of a hook, of whatever trainer comes next."""

    def __init__(self, monkeypatch, hook: str, count: int) -> None:
        def wrapped(callback, *args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise Killed
            return original(callback, *args, **kwargs)

        self.left = count
        original = getattr(Lines, hook)
        monkeypatch.setattr(Lines, hook, wrapped)


def kill_and_resume(given: list, rng: random.Random, monkeypatch, times: int, reach: int) -> None:
    """The run "killed", cut at hooks at random and resumed, up to so often, each time within ``reach`` calls of a
    batch's hook; then to its end. At least two cuts fall."""
    resume: list = []
    kills = 0
    for _ in range(times):
        hook = rng.choice(HOOKS)
        seldom = "epoch" in hook or "validation" in hook
        count = rng.randint(1, 2 if seldom else reach)
        if seldom and kills < 2:
            count = 1  # so that two cuts fall before the run ends
        with monkeypatch.context() as patch:
            Kill(patch, hook, count)
            status = distill("fit", *given, "--name", "killed", *resume)
        assert status in (0, 1)
        kills += status
        resume = ["--ckpt_path", "last"]
        if status == 0:
            break
    assert kills >= 2
    assert distill("fit", *given, "--name", "killed", *resume) == 0


# Processes


def on_two_processes(code: str) -> list[str]:
    """What two processes print that run this code and find each other, as Lightning's DDP expects its processes."""
    Path("two_processes.py").write_text(
        f"{code}\nfrom distill_lightning.distributed import leave_group\nleave_group()\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "two_processes.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    return [out for out, _ in ended]

"""The folder of a run: which one, what is in it, whether it may go on.

logs/<data set>/<method>/<name>/
    config.yaml          as the first start resolved it; the reference for a resume
    events.out.tfevents  TensorBoard
    metrics.csv          step, tag, value
    checkpoints/         last.ckpt, best.ckpt
    summary.json         once the run is finished
"""

import csv
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from distill_lightning.errors import InputError
from distill_lightning.files import link_whole, read_yaml, refuse_odd_name, write_whole

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FREE = {
    "root", "num_workers", "pictures", "eval_batch_size", "cache",  # of data: where it lies, how it is evaluated
    "folder",  # of soft targets: where the tables lie
}  # fmt: skip
"""Options of model, data and callbacks that cannot change the result."""

RESULT_OF_TRAINER = {
    "max_epochs", "max_steps", "min_epochs", "min_steps", "max_time", "precision", "accumulate_grad_batches",
    "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches", "overfit_batches", "deterministic",
    "sync_batchnorm", "fast_dev_run", "callbacks", "reload_dataloaders_every_n_epochs", "limit_val_batches",
    "limit_test_batches",
}  # fmt: skip
"""Options of the trainer that can. The others are about paths, logging, progress, devices and checks."""


SHAPE = ("num_classes", "in_channels", "image_size")
"""Options of a network that the data gives."""

OF_STUDY = "DISTILL_STUDY"
"""Set for the runs of a study: the number of its process. A run whose study is gone saves and leaves."""

CHOOSES_BEST = {"monitor", "lowest_is_best"}, {"check_val_every_n_epoch", "val_check_interval"}
"""Options of the checkpoints and of the trainer that decide which weights best.ckpt has, and nothing else, unless
rounds of pruning keep their best as well."""


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as {"a.b.0": value}."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else None
    if items is None or not config:
        return {prefix: config}
    return {k: v for key, value in items for k, v in flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()}


def what_matters(config: dict[str, Any]) -> dict[str, Any]:
    """The options that can change a run's result, flat."""
    names = RESULT_OF_TRAINER | (CHOOSES_BEST[1] if _has_rounds(config) else set())
    trainer = {k: v for k, v in config.get("trainer", {}).items() if k in names}
    parts = {k: config.get(k) for k in ("seed_everything", "model", "data")} | {"trainer": trainer}
    return {k: v for k, v in flatten(parts).items() if k.rpartition(".")[2] not in FREE}


def _has_rounds(config: dict[str, Any]) -> bool:
    callbacks = config.get("trainer", {}).get("callbacks") or []
    return any(str(c.get("class_path")).endswith(".Lottery") for c in callbacks if isinstance(c, dict))


def folder_of_pictures(config: dict[str, Any]) -> dict[str, str]:
    """``data.root``, where it says which pictures these are: the sets that this program knows are the same anywhere."""
    data = config.get("data") or {}
    path, root = str(data.get("class_path")), data.get("init_args", {}).get("root")
    known = path.startswith("distill_lightning.data.") and not path.endswith(".ImageFolder")
    return {} if known or not root else {"data.root": str(Path(root).resolve())}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The same for people: "model" is "DLB", "model.optimizer.lr" is 0.1; nothing that is not set."""

    def short(key: str) -> str:
        return key.replace(".init_args", "").removesuffix(".class_path")

    matters = {k: v for k, v in what_matters(config).items() if v not in (None, [], {})} | folder_of_pictures(config)
    return {short(k): v.rpartition(".")[2] if k.endswith(".class_path") else v for k, v in matters.items()}


def digest(config: dict[str, Any], of_run: Callable[[Path], str | None] | None = None) -> str:
    """Names what a run computes: equal for runs that must come out equal, wherever they and their teachers lie.

    A folder of pictures counts by its path: what is in it is not read.

    Args:
        config: as resolved.
        of_run: the identity of a run that a checkpoint in ``config`` belongs to, by its folder; read there by default.
    """

    of_run = of_run or identity
    matters = {key: _plain(value, of_run) for key, value in what_matters(config).items()} | folder_of_pictures(config)
    for part, names in zip(("checkpoint", "trainer"), CHOOSES_BEST, strict=True):
        matters |= {f"{part}.{name}": config.get(part, {}).get(name) for name in names}
    # what is not set counts for nothing, so that an option that a later version adds makes no new run of an old one
    matters = {key: value for key, value in matters.items() if value not in (None, [], {})}
    return hashlib.sha256(json.dumps(matters, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _plain(value: Any, of_run: Callable[[Path], str | None]) -> Any:
    """The path of a checkpoint or a ticket as what it is: which file of which run, wherever it lies."""
    if isinstance(value, str) and value.endswith((".ckpt", "ticket.pt")):
        path = Path(value)
        folder = path.parent if path.name == "ticket.pt" else path.parent.parent
        return f"{known}/{path.name}" if (known := of_run(folder)) else value
    return value


def identity(folder: Path) -> str | None:
    """What the run in a folder computes: its data set's name and its digest; None where there is no run."""
    config = folder / "config.yaml"
    return named(folder, digest(_configuration(config))) if config.is_file() else None


def _configuration(path: Path) -> dict[str, Any]:
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} is no configuration of a run: it holds a {type(config).__name__}")
    return config


def named(folder: Path, digest: str) -> str:
    """A digest with the name of the data set, which the configuration need not tell: a folder may lie anywhere."""
    return f"{folder.absolute().parent.parent.name}/{digest}"


def refuse_changes(old: dict[str, Any], new: dict[str, Any], run: "Run") -> None:
    """Resuming with an option that could change the result is refused by name.

    A teacher may have moved: a checkpoint knows its weights, and SoftTargets compares them. So may a folder of pictures,
    unless the run is finished, and nothing will be read.

    Raises:
        InputError: naming the first such option.
    """
    before, now, folder = what_matters(old), what_matters(new), run.folder
    if run.finished:
        before, now = before | folder_of_pictures(old), now | folder_of_pictures(new)
    for key in [*now, *before]:
        if run.resume_from is not None and "teacher" in key.split("."):
            continue
        if _plain(before.get(key), identity) != _plain(now.get(key), identity):
            if key.startswith("trainer.callbacks.") and key.endswith(".class_path") and key not in now:
                name = str(before[key]).rpartition(".")[2]
                raise InputError(f"{folder} was started with the callback {name}: add it, as at the start")
            raise InputError(
                f"{key} is {now.get(key)}, but {folder} was started with {before.get(key)}: "
                "resume it with that, or leave --ckpt_path out for a new run"
            )


@dataclass
class Run:
    """A run's folder, and the checkpoint to go on from, if any."""

    folder: Path
    resume_from: Path | None = None
    finished: bool = False
    held: IO | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"held": None}  # other processes are told which run it is; it is held here

    def hold(self, patience_s: float = 0.5) -> "Run":
        """Keeps other processes from writing into this run until it is released or this process ends, however it ends.

        Args:
            patience_s: how long to try; another may only be looking.

        Raises:
            InputError: another one has it.
        """
        self.held = open(self.folder / "config.yaml", "r+b")  # noqa: SIM115 - open for as long as it is held
        until = time.monotonic() + patience_s
        while fcntl is not None:
            try:
                fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > until:
                    self.release()
                    raise InputError(
                        f"{self.folder} is being trained by another process: wait for it, or end it"
                    ) from error
                time.sleep(0.05)
                continue
            except OSError:
                pass  # a file system without locks
            break
        return self

    def release(self) -> None:
        if self.held is not None:
            self.held.close()
            self.held = None

    def busy(self) -> bool:
        """Whether another process holds it."""
        try:
            Run(self.folder).hold(patience_s=0).release()
        except InputError:
            return True
        except OSError:  # not there, or not ours
            pass
        return False


def read_metrics(path: str | Path) -> list[tuple[int, str, float]]:
    """The rows (step, tag, value) of a metrics.csv, without a torn last line. Empty where there is no file."""
    path = Path(path)
    if not path.exists():
        return []
    whole, _, _torn = path.read_text().rpartition("\n")
    return [(int(step), tag, float(value)) for step, tag, value in list(csv.reader(whole.splitlines()))[1:]]


def start(stem: Path, name: str, config_yaml: str, once: bool = False) -> Run:
    """A new folder, held. Two starts at once get two folders.

    Args:
        stem: logs/<data set>/<method>.
        name: of the folder; the next number is added where that holds a run.
        config_yaml: what this start resolved.
        once: go on with the run that the folder holds, instead.
    """
    refuse_odd_name(name, "--name")
    stem.mkdir(parents=True, exist_ok=True)
    made = stem / f".{name}.{os.getpid()}"
    made.mkdir(exist_ok=True)
    number = 1
    while True:
        folder = stem / (name if number == 1 else f"{name}-{number}")
        config = yaml.safe_load(config_yaml) | {"name": folder.name}
        write_whole(made / "config.yaml", lambda file, config=config: file.write(dump(config).encode()))
        try:
            os.rename(made, folder)  # fails where a folder is that has something in it
            return Run(folder).hold()
        except OSError:
            if not folder.exists():
                shutil.rmtree(made, ignore_errors=True)
                raise
            if once:
                shutil.rmtree(made, ignore_errors=True)
                return resume(stem, name, config_yaml, "last")
            number += 1


def dump(config: dict[str, Any]) -> str:
    """YAML in the order given."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def resume(stem: Path, name: str | None, config_yaml: str, ckpt_path: str) -> Run:
    """The run to go on with, held, unless it is finished.

    Args:
        stem: logs/<data set>/<method>.
        name: of the run; None for the newest unfinished one.
        config_yaml: what this start resolved.
        ckpt_path: "last", "best", or a file in the ``checkpoints`` of a run.

    Raises:
        InputError: there is no such run or file, or an option differs that matters.
    """
    if ckpt_path not in ("last", "best"):
        path = Path(ckpt_path)
        if not path.is_file():
            raise InputError(f"there is no checkpoint {path}")
        folder = path.resolve().parent.parent
        if path.resolve().parent.name != "checkpoints" or not (folder / "config.yaml").is_file():
            raise InputError(f"{path} is not in the checkpoints of a run, which alone can be resumed from")
    else:
        folder, path = find(stem, name, finished=False), None
    run = Run(folder).hold()  # before anything is looked at: what another process is at may change
    try:
        _decide_where_to_go_on(run, path, ckpt_path, config_yaml)
    except BaseException:
        run.release()
        raise
    if run.finished:
        run.release()
    return run


def _decide_where_to_go_on(run: Run, path: Path | None, ckpt_path: str, config_yaml: str) -> None:
    path = path or run.checkpoints / f"{ckpt_path}.ckpt"
    last = path.name == "last.ckpt"
    if not last and not path.is_file():
        raise InputError(f"there is no checkpoint {path}: resume from last")
    run.resume_from = path if path.is_file() else None
    run.finished = last and run.summary.is_file()
    old = _configuration(run.folder / "config.yaml")
    refuse_changes(old, yaml.safe_load(config_yaml), run)
    if not last:  # what came after it is given up: a cut from here on goes on from here
        run.summary.unlink(missing_ok=True)
        run.resume_from = link_whole(path, run.checkpoints / "last.ckpt")


def find(stem: Path, name: str | None, finished: bool | None = None) -> Path:
    """The folder of a run, by name, or the newest (of those unfinished, where ``finished`` is False)."""
    if name is not None:
        refuse_odd_name(name, "--name")
        if not (stem / name / "config.yaml").is_file():
            raise InputError(
                f"there is no run {stem / name}: leave --ckpt_path out to start it, or give another --name"
            )
        return stem / name
    found = [config.parent for config in stem.glob("[!.]*/config.yaml")]
    if finished is False:
        found = [folder for folder in found if not Run(folder).summary.exists()]
    if not found:
        what = "unfinished run" if finished is False else "run"
        raise InputError(f"there is no {what} in {stem}: leave --ckpt_path out to start one, or give a --name")
    return max(found, key=lambda folder: (folder / "config.yaml").stat().st_mtime)


def of_slurm_job(stem: Path, config_yaml: str) -> Path | None:
    """The folder that an earlier start of this SLURM job made with these options, if the job was requeued."""
    job = slurm_job()
    if job is None or not int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        return None
    wanted = what_matters(yaml.safe_load(config_yaml))
    for mark in stem.glob("[!.]*/slurm_job_id"):
        config = _configuration(mark.parent / "config.yaml")
        if mark.read_text().strip() == job and what_matters(config) == wanted:
            return mark.parent
    return None


def slurm_job() -> str | None:
    """The number of the job, or of the task of an array, as ``scontrol requeue`` takes it."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")

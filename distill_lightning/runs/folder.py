"""The folder of a run: made, found, held, and gone on with.

    logs/<data set>/<method>/<name>/
        config.yaml          the resolved options
        identity.json        what the run computes, and which options do not matter to it
        events.out.tfevents  TensorBoard
        metrics.csv          step, tag, value
        checkpoints/         last.ckpt, best.ckpt
        summary.json         once the run is finished
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from distill_lightning.errors import InputError
from distill_lightning.files import link_whole, refuse_odd_name, sweep, write_whole
from distill_lightning.runs.config import CONFIG, RunConfig, by_run, identity

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OF_STUDY = "DISTILL_STUDY"
"""Set for the runs of a study: the number of its process. A run whose study is gone saves and leaves."""
ABANDONED_S = 600
"""A start makes its folder in less than a second."""


@dataclass
class Run:
    """A run's folder, and the checkpoint to go on from, if any."""

    folder: Path
    resume_from: Path | None = None
    finished: bool = False
    held: IO[bytes] | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of last.ckpt and best.ckpt."""
        return self.folder / "checkpoints"

    @property
    def summary(self) -> Path:
        """The file that a finished run leaves."""
        return self.folder / "summary.json"

    @property
    def metrics(self) -> Path:
        """The file of all that was logged."""
        return self.folder / "metrics.csv"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"held": None}  # other processes learn which run it is; it is held here

    def hold(self, patience_s: float = 0.5) -> "Run":
        """Keeps other processes from writing into this run until it is released or this process ends, however it ends.

        Args:
            patience_s: how long to try; another process may only be looking.

        Raises:
            InputError: another process holds it.
        """
        self.held = open(self.folder / CONFIG, "r+b")  # noqa: SIM115 - open for as long as it is held
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
        """Lets other processes have it."""
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


def start(stem: Path, name: str, config: RunConfig, once: bool = False) -> Run:
    """A new folder, held. Two starts at once get two folders.

    Args:
        stem: logs/<data set>/<method>.
        name: of the folder; the next number is added where that holds a run.
        config: of this start.
        once: go on with the run that the folder holds, instead.
    """
    refuse_odd_name(name, "--name")
    stem.mkdir(parents=True, exist_ok=True)
    _sweep_starts(stem)
    made = stem / f".{name}.{os.getpid()}"
    made.mkdir(exist_ok=True)
    number = 1
    while True:
        folder = stem / (name if number == 1 else f"{name}-{number}")
        for file_name, text in config.with_options(name=folder.name).files().items():
            write_whole(made / file_name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
        try:
            os.rename(made, folder)  # fails where a folder is that has something in it
            return Run(folder).hold()
        except OSError:
            if not folder.exists():
                shutil.rmtree(made, ignore_errors=True)
                raise
            if once:
                shutil.rmtree(made, ignore_errors=True)
                return resume(stem, name, config, "last")
            number += 1


def _sweep_starts(stem: Path) -> None:
    """Removes folders that starts were making when they were killed."""
    for leftover in stem.glob(".*"):
        if leftover.name.rpartition(".")[2].isdigit() and time.time() - leftover.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(leftover, ignore_errors=True)


def resume(stem: Path, name: str | None, config: RunConfig, ckpt_path: str) -> Run:
    """The run to go on with, held, unless it is finished.

    Args:
        stem: logs/<data set>/<method>.
        name: of the run; None for the newest unfinished one.
        config: of this start.
        ckpt_path: "last", "best", or a file in the ``checkpoints`` of a run.

    Raises:
        InputError: there is no such run or file, or an option differs that can change the result.
    """
    path = None
    if ckpt_path in ("last", "best"):
        folder = find(stem, name, finished=False)
    else:
        path = Path(ckpt_path)
        if not path.is_file():
            raise InputError(f"there is no checkpoint {path}")
        folder = path.resolve().parent.parent
        if path.resolve().parent.name != "checkpoints" or not (folder / CONFIG).is_file():
            raise InputError(f"{path} is not in the checkpoints of a run, which alone can be resumed from")
    run = Run(folder).hold()  # before anything is looked at: a process that holds it may change it
    try:
        _decide_where_to_go_on(run, path or run.checkpoints / f"{ckpt_path}.ckpt", config)
    except BaseException:
        run.release()
        raise
    if run.finished:
        run.release()
    return run


def _decide_where_to_go_on(run: Run, path: Path, config: RunConfig) -> None:
    last = path.name == "last.ckpt"
    if not last and not path.is_file():
        raise InputError(f"there is no checkpoint {path}: resume from last")
    run.resume_from = path if path.is_file() else None
    run.finished = last and run.summary.is_file()
    refuse_changes(RunConfig.read(run.folder), config, run)
    if run.finished:
        return
    sweep(run.folder)
    if not last:  # what came after it is given up: a cut from here on goes on from here
        run.summary.unlink(missing_ok=True)
        run.resume_from = link_whole(path, run.checkpoints / "last.ckpt")


def refuse_changes(old: RunConfig, new: RunConfig, run: Run) -> None:
    """Refuses to go on with an option that could change the result.

    A teacher may have moved: a checkpoint knows its weights, and SoftTargets compares them. So may a folder of pictures,
    unless the run is finished, and nothing will be read.

    Raises:
        InputError: naming the first such option.
    """
    before, now, folder = old.result_options, new.result_options, run.folder
    if run.finished:
        before, now = before | old.pictures, now | new.pictures
    for key in [*now, *before]:
        if run.resume_from is not None and "teacher" in key.split("."):
            continue
        if by_run(before.get(key), identity) != by_run(now.get(key), identity):
            if key.startswith("trainer.callbacks.") and key.endswith(".class_path") and key not in now:
                name = str(before[key]).rpartition(".")[2]
                raise InputError(f"{folder} was started with the callback {name}: add it, as at the start")
            raise InputError(
                f"{key} is {now.get(key)}, but {folder} was started with {before.get(key)}: "
                "resume it with that, or leave --ckpt_path out for a new run"
            )


def find(stem: Path, name: str | None, finished: bool | None = None) -> Path:
    """The folder of a run, by name, or the newest (of those unfinished, where ``finished`` is False).

    Raises:
        InputError: there is none.
    """
    if name is not None:
        refuse_odd_name(name, "--name")
        if not (stem / name / CONFIG).is_file():
            raise InputError(f"there is no run {stem / name}: leave --ckpt_path out to start it, or give another --name")
        return stem / name
    found = [config.parent for config in stem.glob(f"[!.]*/{CONFIG}")]
    if finished is False:
        found = [folder for folder in found if not Run(folder).summary.exists()]
    if not found:
        what = "unfinished run" if finished is False else "run"
        raise InputError(f"there is no {what} in {stem}: leave --ckpt_path out to start one, or give a --name")
    return max(found, key=lambda folder: (folder / CONFIG).stat().st_mtime)

"""The folder of a run: makes, finds, locks and resumes it.

logs/<data set>/<method>/<name>/
config.yaml          the resolved options
identity.json        the id of the configuration, and the options that cannot change the result
events.out.tfevents  TensorBoard
metrics.csv          step, tag, value
checkpoints/         last.ckpt, best.ckpt
summary.json         exists when the run is finished
confusion.csv        test pictures by true and predicted class
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from distill_lightning.errors import InputError
from distill_lightning.files import atomic_link, atomic_write, lock_ends_here, refuse_odd_name, sweep, unique_digits
from distill_lightning.runs.config import CONFIG, RunConfig, by_run, identity

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ABANDONED_S = 600
"""After this many seconds, a folder that a start was making is abandoned: a start takes less than a second."""


@dataclass
class Run:
    """A run's folder, the checkpoint that it is resumed from, if any, and the file that locks the folder."""

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
        """The file summary.json, which exists when the run is finished."""
        return self.folder / "summary.json"

    @property
    def metrics(self) -> Path:
        """The file metrics.csv, with everything that was logged."""
        return self.folder / "metrics.csv"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"held": None}  # other processes get the run without the lock, which this process keeps

    def hold(self, patience_s: float = 0.5) -> "Run":
        """Locks the run, so that no other process writes into it. The lock ends with ``release`` or with this process.

        Args:
            patience_s: how many seconds to wait for the lock. `locked` takes it for a moment in another process.

        Raises:
            InputError: another process has locked the run.
            OSError: the folder's config.yaml cannot be opened.
        """
        self.held = open(self.folder / CONFIG, "r+b")  # noqa: SIM115 - stays open as long as the lock is held
        lock_ends_here(self.held)
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
        """Unlocks the run."""
        if self.held is not None:
            self.held.close()
            self.held = None

    def locked(self) -> bool | None:
        """Whether a process, which may be this one, has locked the run. It needs no right to write.

        Returns:
            None if that cannot be found out: the file system has no locks, or config.yaml cannot be opened.
        """
        if fcntl is None:
            return None
        try:
            with open(self.folder / CONFIG, "rb") as file:
                # a shared lock, so that two processes that ask at the same time do not see each other
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False

    def busy(self) -> bool:
        """Whether another process is known to have locked the run."""
        return bool(self.locked())


def start(
    stem: Path,
    name: str,
    config: RunConfig,
    once: bool = False,
    complete: Callable[[RunConfig], RunConfig] = lambda config: config,
) -> Run:
    """Makes and locks the folder of a new run. Two starts at the same time get two folders.

    Args:
        stem: logs/<data set>/<method>.
        name: the name of the folder. If the folder exists, a number is added to the name.
        config: the configuration of this start.
        once: whether to resume the run in an existing folder instead of adding a number.
        complete: completes the configuration of a run that is new, not resumed. It may read files.

    Raises:
        InputError: the name is not allowed; or, with ``once``, see ``resume``.
    """
    refuse_odd_name(name, "--name")
    if once and (stem / name / CONFIG).is_file():
        return resume(stem, name, config, "last")
    config = complete(config)
    stem.mkdir(parents=True, exist_ok=True)
    _sweep_starts(stem)
    made = stem / f".{name}.{unique_digits()}"
    made.mkdir()
    number = 1
    while True:
        folder = stem / (name if number == 1 else f"{name}-{number}")
        for file_name, text in config.with_options(name=folder.name).files().items():
            atomic_write(made / file_name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
        try:
            os.rename(made, folder)  # fails if the folder exists and is not empty
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
    """Finds the run to resume, and locks it unless it is finished.

    Args:
        stem: logs/<data set>/<method>.
        name: the name of the run; None for the newest unfinished one.
        config: the configuration of this start.
        ckpt_path: "last", "best", or a file in the folder ``checkpoints`` of a run.

    Raises:
        InputError: there is no such run or file, another process has locked the run, or an option that can change the
            result differs from the run's.
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
            raise InputError(f"{path} is not in the checkpoints of a run: give a file in a run's folder checkpoints")
        if path.name not in (
            "last.ckpt",
            "best.ckpt",
        ):  # a ModelCheckpoint writes at times from which a run cannot go on
            raise InputError(f"{path} is not last.ckpt or best.ckpt: resume from these, or give it as --start_from")
    run = Run(folder).hold()  # first of all, because a process that has the lock may change the files
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
    if not last:  # training after this checkpoint is dropped: a later resume starts from it, too
        run.summary.unlink(missing_ok=True)
        run.resume_from = atomic_link(path, run.checkpoints / "last.ckpt")


def refuse_changes(old: RunConfig, new: RunConfig, run: Run) -> None:
    """Refuses to resume a run with another value of an option that can change the result.

    The path of a teacher may differ: SoftTargets compares its weights with those that the checkpoint knows. The path of
        a
    folder of pictures may differ too, because the pictures are compared when they are read; but a finished run reads no
    pictures, so there the paths are compared.

    Args:
        old: the configuration in the run's folder.
        new: the configuration of this start.
        run: the run.

    Raises:
        InputError: there is such an option. The message names the first one.
    """
    before, now, folder = _listed(old.result_options), _listed(new.result_options), run.folder
    if run.finished:
        before, now = before | old.pictures, now | new.pictures
    in_old, in_new = _listed(old.flat_options), _listed(new.flat_options)
    for key in [*now, *before]:
        if run.resume_from is not None and "teacher" in key.split("."):
            continue
        if key in in_old and key in in_new and in_old[key] == in_new[key]:
            continue  # it counts in one of the two configurations only, and has the same value
        if by_run(before.get(key), identity) != by_run(now.get(key), identity):
            if key.startswith("trainer.callbacks.") and key.endswith(".class_path") and key not in now:
                name = str(before[key]).rpartition(".")[2]
                raise InputError(f"{folder} was started with the callback {name}, which is missing now: add it")
            raise InputError(
                f"{key} is {now.get(key)}, but {folder} was started with {before.get(key)}: "
                f"resume it with the old value, or give --start_from {folder} for a new run that starts from it"
            )


def _listed(options: dict[str, Any]) -> dict[str, Any]:
    """Options by full name, with a single callback named as the first of a list, and without what is empty."""
    stem = "trainer.callbacks."
    single = f"{stem}class_path" in options
    named = {k.replace(stem, f"{stem}0.", 1) if single and k.startswith(stem) else k: v for k, v in options.items()}
    empty = (stem[:-1], "init_args")
    return {key: value for key, value in named.items() if value not in (None, [], {}) or not key.endswith(empty)}


def find(stem: Path, name: str | None, finished: bool | None = None) -> Path:
    """Finds the folder of a run.

    Args:
        stem: logs/<data set>/<method>.
        name: the name of the run; None for the newest run.
        finished: False looks only at unfinished runs, if there is no name; None looks at all.

    Raises:
        InputError: there is no such run, or the name is not allowed.
    """
    if name is not None:
        refuse_odd_name(name, "--name")
        if not (stem / name / CONFIG).is_file():
            raise InputError(f"there is no run {stem / name}: leave --ckpt_path out to start it, or change --name")
        return stem / name
    found = [config.parent for config in stem.glob(f"[!.]*/{CONFIG}")]
    if finished is False:
        found = [folder for folder in found if not Run(folder).summary.exists()]
    if not found:
        what = "unfinished run" if finished is False else "run"
        raise InputError(f"there is no {what} in {stem}: leave --ckpt_path out to start one, or give a --name")
    return max(found, key=lambda folder: (folder / CONFIG).stat().st_mtime)

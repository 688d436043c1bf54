"""Who started this process, a study or SLURM, and which versions it runs."""

import os
import platform
import subprocess
import sys
from pathlib import Path

from distill_lightning.version import __version__

OF_STUDY = "DISTILL_STUDY"
"""Set for the runs of a study: the process ID of the worker that started the run, which is the study itself on this
machine. If the worker ends, a run saves a checkpoint and exits.
"""


def slurm_job() -> str | None:
    """The ID of this SLURM job or array task, in the form for ``scontrol requeue``. None outside SLURM."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def was_requeued() -> bool:
    """Whether this SLURM job was requeued after an earlier start."""
    return slurm_job() is not None and int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def requeue() -> None:
    """Requeues this job if it is a SLURM job."""
    if job := slurm_job():
        try:
            subprocess.run(["scontrol", "requeue", job], check=False)
        except FileNotFoundError:
            print("distill: scontrol is not there: this job is not requeued", file=sys.stderr)


def commit() -> str | None:
    """The commit of this program, with "+changes" if files differ from it; None if it does not run from a git
    repository of its own.
    """
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def versions(**libraries: str) -> dict[str, str]:
    """The versions of this program and of Python, with those of libraries by name between them, and the commit."""
    found = commit()
    return {
        "distill_lightning": __version__,
        **({"commit": found} if found else {}),
        **libraries,
        "python": platform.python_version(),
    }

"""Jobs of SLURM that are put back into the queue."""

import os
import subprocess
import sys
from pathlib import Path

from distill_lightning.runs.config import RunConfig

MARK = "slurm_job_id"


def slurm_job() -> str | None:
    """The number of the job, or of the task of an array, as ``scontrol requeue`` takes it."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def folder_of_job(stem: Path, config: RunConfig) -> Path | None:
    """The folder that an earlier start of this job made with these options, if the job was requeued.

    Args:
        stem: logs/<data set>/<method>.
        config: of this start.
    """
    job = slurm_job()
    if job is None or not int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        return None
    for mark in stem.glob(f"[!.]*/{MARK}"):
        if mark.read_text().strip() == job and RunConfig.read(mark.parent).result_options == config.result_options:
            return mark.parent
    return None


def mark_folder(folder: Path) -> None:
    """Writes down which job a run belongs to, where it belongs to one."""
    if job := slurm_job():
        (folder / MARK).write_text(job)


def requeue() -> None:
    """Puts this job back into the queue, where it is one."""
    if job := slurm_job():
        try:
            subprocess.run(["scontrol", "requeue", job], check=False)
        except FileNotFoundError:
            print("distill: scontrol is not there: this job is not requeued", file=sys.stderr)

"""Finds the run of a SLURM job that was put back into the queue."""

from pathlib import Path

from distill_lightning.environment import slurm_job, was_requeued
from distill_lightning.runs.config import RunConfig

MARK = "slurm_job_id"
"""The file in a run's folder with the id of its job."""


def folder_of_job(stem: Path, config: RunConfig) -> Path | None:
    """The run folder that this job made before it was requeued, with the same options; None if there is none.

    Args:
        stem: logs/<data set>/<method>.
        config: the configuration of this start.
    """
    if not was_requeued():
        return None
    for mark in stem.glob(f"[!.]*/{MARK}"):
        same_job = mark.read_text().strip() == slurm_job()
        if same_job and RunConfig.read(mark.parent).result_options == config.result_options:
            return mark.parent
    return None


def mark_folder(folder: Path) -> None:
    """Writes the id of the SLURM job into a run's folder, if the run belongs to a job."""
    if job := slurm_job():
        (folder / MARK).write_text(job)

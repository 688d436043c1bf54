"""The run of a job that was put back into the queue."""

from pathlib import Path

from distill_lightning.environment import slurm_job, was_requeued
from distill_lightning.runs.config import RunConfig

MARK = "slurm_job_id"


def folder_of_job(stem: Path, config: RunConfig) -> Path | None:
    """The folder that an earlier start of this job made with these options, if the job was requeued.

    Args:
        stem: logs/<data set>/<method>.
        config: of this start.
    """
    if not was_requeued():
        return None
    for mark in stem.glob(f"[!.]*/{MARK}"):
        same_job = mark.read_text().strip() == slurm_job()
        if same_job and RunConfig.read(mark.parent).result_options == config.result_options:
            return mark.parent
    return None


def mark_folder(folder: Path) -> None:
    """Writes down which job a run belongs to, where it belongs to one."""
    if job := slurm_job():
        (folder / MARK).write_text(job)

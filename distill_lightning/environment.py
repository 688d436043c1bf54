"""What the environment says of who started this process: a study, or SLURM."""

import os
import subprocess
import sys

OF_STUDY = "DISTILL_STUDY"
"""Set for the runs of a study: the number of its process. A run whose study is gone saves and leaves."""


def slurm_job() -> str | None:
    """The number of the job, or of the task of an array, as ``scontrol requeue`` takes it."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def was_requeued() -> bool:
    """Whether this job was put back into the queue after an earlier start."""
    return slurm_job() is not None and int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def requeue() -> None:
    """Puts this job back into the queue, where it is one."""
    if job := slurm_job():
        try:
            subprocess.run(["scontrol", "requeue", job], check=False)
        except FileNotFoundError:
            print("distill: scontrol is not there: this job is not requeued", file=sys.stderr)

"""Jobs in the queue of a cluster: their options, their scripts, and a queue of this machine that runs them."""

import os
import sys
from pathlib import Path

import pytest
import yaml
from studies_program import events, planned, write_program

from distill_lightning.errors import InputError
from distill_lightning.studies import Display
from distill_lightning.studies.queues import Queue, read_queue
from distill_lightning.studies.resources import Resources
from distill_lightning.studies.training import Training
from distill_lightning.studies.workers import job_script, queued_workers

pytest.importorskip("dask_jobqueue")
NEEDED = Resources(cores=2, gpus=1, memory=8 * 10**9, minutes=30)


def read(name: str, needed: Resources = NEEDED, **options) -> Queue:
    Path("options.yaml").write_text(yaml.safe_dump(options))
    return read_queue(name, Path("options.yaml"), needed, Path("logs/studies/small"))


@pytest.mark.parametrize(
    ("name", "options", "lines"),
    [
        ("slurm", {}, ["SBATCH --cpus-per-task=2", "SBATCH --mem=8G", "SBATCH -t 00:35:00", "SBATCH --gres=gpu:1"]),
        ("lsf", {}, ["BSUB -n 2", "BSUB -W 00:35", "BSUB -gpu num=1"]),
        (
            "pbs",
            {"resource_spec": "select=1:ncpus=2:ngpus=1"},
            ["PBS -l select=1:ncpus=2:ngpus=1", "walltime=00:35:00"],
        ),
        ("sge", {"job_extra_directives": ["-l gpu=1"]}, ["$ -l h_rt=00:35:00", "$ -l gpu=1"]),
    ],
)
def test_a_job_requests_what_a_run_needs(name, options, lines):
    script = job_script(read(name, **options))
    for line in lines:
        assert f"#{line}" in script or line in script
    # one run in each job; the keys of its connection are files of the user's own
    assert "--nthreads 1 --no-dashboard --resources 'gpus=1 cores=2 memory=8000000000' --lifetime 2040s" in script
    assert "distributed.cli.dask_worker tls://" in script and "--tls-key" in script


def test_the_file_of_options_wins(capfd):
    options = {"cores": 8, "memory": "32 GB", "processes": 4, "walltime": "04:00:00", "queue": "gpu", "security": False}
    queue = read(
        "slurm", job_extra_directives=["--gres=gpu:a100:4"], worker_extra_args=["--preload", "mine"], **options
    )
    assert queue.offered == {"cores": 2, "gpus": 1, "memory": 8 * 10**9} and queue.processes == 4
    script = job_script(queue)
    for words in ("-p gpu", "-t 04:00:00", "gres=gpu:a100:4", "--nworkers 4", "--preload mine", "dask_worker tcp://"):
        assert words in script
    assert script.count("gpu:") == 1 and "--lifetime" not in script and "tls" not in script
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "needed", "options", "message"),
    [
        ("slurm", NEEDED, {"walltme": "1:00"}, "SLURMCluster has no option walltme; did you mean walltime?"),
        ("slurm", NEEDED, {"n_workers": 3}, "SLURMCluster has no option n_workers"),
        ("slurm", Resources(), {}, "needs the cores of a job: give cores in the file of --cluster_options"),
        ("slurm", Resources(cores=2), {}, "needs the memory of a job"),
        ("slurm", NEEDED, {"processes": 0}, "processes is 0"),
        ("slurm", NEEDED, {"memory": "much"}, "memory is much: expected a number, or a size such as 8 GB"),
        ("pbs", NEEDED, {}, "how a job requests GPUs depends on the cluster: give resource_spec"),
    ],
)
def test_wrong_options_are_one_line(name, needed, options, message):
    with pytest.raises(InputError) as error:
        read(name, needed, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_no_options():
    with pytest.raises(InputError, match="there is no file nowhere.yaml"):
        read_queue("slurm", Path("nowhere.yaml"), NEEDED, Path("logs"))
    Path("list.yaml").write_text("[1, 2]")
    with pytest.raises(InputError, match="list.yaml holds no options by name"):
        read_queue("slurm", Path("list.yaml"), NEEDED, Path("logs"))
    with pytest.raises(InputError, match="the options of the slurm cluster are wrong: "):
        job_script(read("slurm", scheduler_options={"prot": 3}))


def test_without_dask_jobqueue(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(InputError, match=r"--cluster needs dask-jobqueue: pip install 'distill_lightning\[clusters\]'"):
        read("slurm")


def test_without_the_command_of_the_queue(monkeypatch):
    monkeypatch.setenv("PATH", "nowhere")
    with pytest.raises(InputError, match="there is no sbatch here"):
        read("slurm").check()


SUBMIT = """#!/bin/sh
if [ -e broken ]; then echo "sbatch: error: invalid partition" >&2; exit 1; fi
cp "$1" job.sh && setsid sh job.sh > job.out 2>&1 &
echo "Submitted batch job $!"
"""
CANCEL = '#!/bin/sh\nkill -- "-$1"\n'


def test_jobs_train_the_runs(monkeypatch):
    """A queue that starts each job at once on this machine."""
    for name, script in {"sbatch": SUBMIT, "scancel": CANCEL}.items():
        (path := Path(name)).write_text(script)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path.cwd()}:{os.environ['PATH']}")
    queue = read("slurm", Resources(cores=1, memory=10**9))
    queue.check()
    runs = [planned("a"), planned("b", cores=1)]
    Path("study").mkdir()
    with queued_workers(queue, 1) as workers:
        monkeypatch.chdir("study")  # the worker has started elsewhere, and has the real program
        write_program()
        made = Training(runs, workers, Path("output"), Display())
        assert made.run() == 0 and made.in_state("done") == runs
        with pytest.raises(InputError, match="the run c needs 2 cores: a job of slurm has at most 1 core"):
            Training([planned("c", cores=2)], workers, Path("output"), Display()).run()
    assert len(events()) == 4
    monkeypatch.chdir("..")
    Path("broken").touch()
    with pytest.raises(InputError, match="sbatch cannot submit a job: .*invalid partition"), queued_workers(queue, 1):
        pass

"""Jobs of dask-jobqueue: each is a worker in the queue of a cluster (SLURM, PBS, LSF, SGE)."""

import contextlib
import inspect
import math
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_lightning.errors import InputError, nearest
from distill_lightning.files import read_yaml
from distill_lightning.studies.resources import Resources

CLUSTERS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
"""The class of dask_jobqueue for each queue."""
GPUS = {"slurm": "--gres=gpu:{}", "lsf": "-gpu num={}"}
"""How a job requests GPUs. With PBS and SGE, that depends on the cluster."""
OURS = {"self", "n_workers", "job_cls", "loop", "asynchronous", "name", "scheduler", "scheduler_cls", "silence_logs"}
"""Arguments of these classes that the study gives itself."""
GONE = {"extra", "job_extra", "env_extra", "header_skip", "dashboard_address", "host"}
"""Arguments that dask_jobqueue has under other names now."""
NO_DASHBOARD = {"dashboard": False, "dashboard_address": ":0"}
SPARE_MINUTES = 5
"""How much longer a job may take than a run: the time that it starts in, and a checkpoint is saved in."""


@dataclass(frozen=True)
class Queue:
    """The queue of a cluster, and the options of its jobs."""

    name: str
    options: dict[str, Any]
    """The arguments of the class of dask_jobqueue."""
    offered: dict[str, float]
    """What a worker has: cores, gpus, memory."""

    @property
    def place(self) -> str:
        """Where the workers are, in words."""
        return f"a job of {self.name}"

    @property
    def processes(self) -> int:
        """How many runs a job trains at once."""
        return int(self.options["processes"])

    @property
    def submit_command(self) -> str:
        """The command of the cluster that submits a job."""
        return str(_class(self.name).job_cls.submit_command)

    @contextlib.contextmanager
    def cluster(self) -> Iterator[Any]:
        """A scheduler in this process, for jobs that are submitted later.

        Raises:
            InputError: an option is wrong.
        """
        if (folder := self.options.get("shared_temp_directory")) is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            made = _class(self.name)(silence_logs=False, **self.options)
        except (TypeError, ValueError, AttributeError, RuntimeError, OSError, ImportError) as error:
            raise InputError(f"the options of the {self.name} cluster are wrong: {error}") from error
        try:
            yield made
        finally:
            with contextlib.suppress(AssertionError):  # of jobs that were not submitted
                made.close()

    def check(self) -> None:
        """Checks that jobs can be submitted from here.

        Raises:
            InputError: they cannot.
        """
        if shutil.which(self.submit_command) is None:
            raise InputError(f"there is no {self.submit_command} here: start the study where jobs are submitted")


def read_queue(name: str, file: Path | None, needed: Resources, folder: Path) -> Queue:
    """Puts the options of jobs together: what a file gives, what the runs need, and what dask is configured to.

    Args:
        name: "slurm", "pbs", "lsf" or "sge".
        file: a YAML file with arguments of the class of dask_jobqueue; None for none.
        needed: the most that one of the runs needs.
        folder: the folder for what the jobs print, and for the keys of their connections.

    Raises:
        InputError: dask_jobqueue is not installed, or an option is unknown, wrong or missing.
    """
    from dask import config

    given = {} if file is None else _read_options(name, file)
    configured = config.get(f"jobqueue.{_class(name).job_cls.config_name}")
    defaults: dict[str, Any] = {"processes": 1, "job_name": folder.name, "scheduler_options": NO_DASHBOARD}
    defaults |= {"log_directory": str(folder.absolute() / "jobs")}
    minutes = (needed.minutes or 0) + SPARE_MINUTES
    if needed.minutes is not None:
        defaults |= {"walltime": _walltime(name, minutes)}
    if config.get("distributed.comm.tls.ca-file", None) is None:
        defaults |= {"security": True, "shared_temp_directory": str(folder.absolute() / "keys")}
    options, where = defaults | given, file or f"--cluster {name}"
    processes = options["processes"]
    if type(processes) is not int or processes < 1:
        raise InputError(f"{where}: processes is {processes}: expected a number of 1 or more")
    if options.get("security") is False:
        del options["security"]
    offered = {"gpus": float(needed.gpus or 0)}
    for key, each in (("cores", needed.cores), ("memory", needed.memory)):
        of_job = options.get(key, configured[key]) or (each and each * processes)
        if of_job is None:
            raise InputError(
                f"--cluster {name} needs the {key} of a job: give {key} in the file of --cluster_options, or in the "
                "resources of the study"
            )
        options[key] = of_job
        offered[key] = _number(of_job, f"{where}: {key}") // processes
    directives = options.get("job_extra_directives", configured["job-extra-directives"]) or []
    if needed.gpus and "gpu" not in f"{directives} {options.get('resource_spec')}":
        if name not in GPUS:
            raise InputError(
                f"--cluster {name}: how a job requests GPUs depends on the cluster: give resource_spec or "
                "job_extra_directives in the file of --cluster_options"
            )
        options["job_extra_directives"] = [*directives, GPUS[name].format(needed.gpus * processes)]
    offer = " ".join(f"{key}={amount:.0f}" for key, amount in offered.items() if amount)
    extra = options.get("worker_extra_args", configured["worker-extra-args"]) or []
    # one run in each process, whatever its cores are
    options["worker_extra_args"] = [*extra, "--nthreads", "1", "--no-dashboard", "--resources", shlex.quote(offer)]
    if "walltime" in options and options["walltime"] == defaults.get("walltime"):
        # a worker that ends by itself lets its run save a checkpoint; another job goes on with the run
        options["worker_extra_args"] += ["--lifetime", f"{60 * (minutes - 1):.0f}s"]
    return Queue(name, options, offered)


def _class(name: str) -> Any:
    """The class of dask_jobqueue.

    Raises:
        InputError: dask_jobqueue is not installed.
    """
    try:
        import dask_jobqueue
    except ImportError as error:
        raise InputError("--cluster needs dask-jobqueue: pip install 'distill_lightning[clusters]'") from error
    return getattr(dask_jobqueue, CLUSTERS[name])


def _read_options(name: str, file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"there is no file {file}: --cluster_options is a YAML file with options of jobs")
    given = read_yaml(file)
    if not isinstance(given, dict):
        raise InputError(f"{file} holds no options by name, as in cores: 4")
    classes = [_class(name), *_class(name).job_cls.__mro__]
    known = {word for one in classes if one is not object for word in inspect.signature(one.__init__).parameters}
    known |= {word for one in _class(name).__mro__[:2] for word in inspect.signature(one.__init__).parameters}
    known -= OURS | GONE | {"args", "kwargs", "job_kwargs", "base_class_kwargs"}
    for key in given:
        if key not in known:
            raise InputError(f"{file}: {CLUSTERS[name]} has no option {key}{nearest(str(key), known)}")
    return given


def _number(given: Any, where: str) -> float:
    """A number of cores, or a size in bytes."""
    from dask.utils import parse_bytes

    try:
        return float(parse_bytes(given) if isinstance(given, str) else given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} is {given}: expected a number, or a size such as 8 GB") from error


def _walltime(name: str, minutes: float) -> str:
    """A time as the queue writes it: hours and minutes, and seconds but for LSF."""
    whole = math.ceil(minutes)
    return f"{whole // 60:02}:{whole % 60:02}" + ("" if name == "lsf" else ":00")

"""What ``distill study`` and ``distill search`` have in common: the arguments of a command that trains several runs,
and the workers that train them.
"""

import argparse
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from distill_lightning.config_files import find_in
from distill_lightning.errors import InputError, LineParser
from distill_lightning.studies.queues import CLUSTERS, Queue, read_queue
from distill_lightning.studies.resources import Resources, largest
from distill_lightning.studies.workers import Workers, local_workers, queued_workers, workers_at


def parser_of(verb: str, folder: str, example: str, description: str) -> LineParser:
    """The parser of a command for a file of runs, without the options that only this command has.

    Args:
        verb: the command, and the name of its first argument.
        folder: the folder of the shipped files.
        example: one of them.
        description: what the command does.
    """
    parser = LineParser(
        prog=f"distill {verb}",
        description=description,
        epilog="Any other option is given to every run, for example --data.root DIR or --trainer.accelerator gpu.",
        allow_abbrev=False,
    )
    what = f"the YAML file, or the name of a shipped {verb}, for example {example}"
    parser.add_argument("file", type=Path, metavar=verb, help=what)
    jobs = "how many runs to train at once; they share cores and GPUs. With --cluster, how many jobs to submit (1)"
    parser.add_argument("--jobs", type=int, help=jobs)
    parser.add_argument("--log_dir", default="logs", help="the folder that runs are written to")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="the workers of this dask scheduler train the runs, as tcp://HOST:8786"
    )
    parser.add_argument("--cluster", choices=sorted(CLUSTERS), help="jobs in the queue of a cluster train the runs")
    parser.add_argument(
        "--cluster_options", type=Path, metavar="FILE", help="a YAML file with options of the jobs, for dask-jobqueue"
    )
    parser.set_defaults(folder=folder)
    return parser


def parsed(parser: LineParser, args: list[str]) -> tuple[argparse.Namespace, list[str], Path]:
    """The arguments, those for every run, and the file.

    Raises:
        InputError: an argument is wrong.
    """
    given, for_runs = parser.parse_known_args(args)
    if given.jobs is not None and given.jobs < 1:
        raise InputError(f"--jobs is {given.jobs}: it must be 1 or more")
    if given.scheduler and given.cluster:
        raise InputError("--scheduler and --cluster: give one of them, the workers of a scheduler or jobs in a queue")
    if given.scheduler and given.jobs is not None:
        raise InputError("--jobs: the workers at --scheduler say how many runs are trained at once: leave it out")
    if given.cluster_options is not None and not given.cluster:
        raise InputError(f"--cluster_options needs --cluster, one of {', '.join(sorted(CLUSTERS))}")
    return given, for_runs, find_in(given.folder, str(given.file))


def queue_of(given: argparse.Namespace, needed: Iterable[Resources], folder: Path) -> Queue:
    """The queue that ``--cluster`` names.

    Args:
        given: the arguments.
        needed: what the runs need.
        folder: the folder of the study.

    Raises:
        InputError: the file of options is wrong, or dask-jobqueue is not installed.
    """
    return read_queue(given.cluster, given.cluster_options, largest([*needed]), folder)


def workers_of(
    given: argparse.Namespace, needed: Iterable[Resources], gpus: Callable[[], list[str]], folder: Path
) -> AbstractContextManager[Workers]:
    """The workers that the arguments ask for, as a context.

    Args:
        given: the arguments.
        needed: what the runs need.
        gpus: gives the names of the GPUs of this machine, as CUDA_VISIBLE_DEVICES takes them.
        folder: the folder of the study.

    Raises:
        InputError: there are no such workers, here or when the context is entered.
    """
    if given.scheduler:
        return workers_at(given.scheduler)
    if given.cluster:
        queue = queue_of(given, needed, folder)
        queue.check()
        return queued_workers(queue, given.jobs or 1)
    return local_workers(given.jobs or 1, tuple(gpus()))

"""The dask workers of a study: in this process, on a scheduler that exists, or jobs in the queue of a cluster."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import dask
from distributed import CancelledError, Client, Future, KilledWorker, Scheduler, SpecCluster, Worker

from distill_lightning.errors import InputError
from distill_lightning.studies import process, task
from distill_lightning.studies.plan import PlannedRun
from distill_lightning.studies.resources import in_words

if TYPE_CHECKING:
    from distill_lightning.studies.queues import Queue

CONNECT_S = 5
"""Seconds to wait for the answer of a scheduler."""
RESULT_S = 5
"""Seconds to wait for a result that a worker has."""
LOGGERS: tuple[str, ...] = (
    "distributed",
    "distributed.client",
    "distributed.gc",
    "dask_jobqueue",
    "tornado",
    "tornado.application",
)
LOGGERS += ("asyncio",)
SETTINGS: dict[str, object] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.enabled": False,
}
"""Settings of dask. Schedulers and workers serve no web pages, keep no profile, and look at themselves once a second. A
waiting study takes 1 % of a core from the runs that it trains, instead of 4 to 6 %.
"""


class Workers:
    """Workers that train runs. Several studies and searches may use the same ones, one after the other or at once.

    Args:
        client: the connection to their scheduler.
        place: where the scheduler is, in words.
        slots: how many runs are trained at once.
        gpus: names of the GPUs to share; None for those that each worker has.
        offers: what each worker offers, for each kind of worker; None if it is not known before the workers are there.
        keep: is called once a second; it replaces workers that are gone.
    """

    def __init__(
        self,
        client: Client,
        place: str,
        slots: int,
        gpus: tuple[str, ...] | None = None,
        offers: list[dict[str, float]] | None = None,
        keep: Callable[[], object] = lambda: None,
    ) -> None:
        self.client, self.place, self.slots, self.gpus, self.offers, self.keep = (
            client, place, slots, gpus, offers, keep,
        )  # fmt: skip

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Checks that some worker can train each run.

        Raises:
            InputError: a run needs more than each worker offers.
        """
        offers = self._seen() if self.offers is None else self.offers
        for run in runs:
            lacks = [run.resources.lacking(offer) for offer in offers]
            if lacks and all(lacks) and not run.finished():
                raise InputError(f"the run {run.name} needs {lacks[0]}: {self._most(offers)}")

    def _most(self, offers: list[dict[str, float]]) -> str:
        """What there is at most, in words, or how a worker says what it has."""
        most = {name: max(offer.get(name, 0) for offer in offers) for name in ("cores", "gpus", "memory")}
        if not any(most.values()):
            return f"start a worker that says what it has: dask worker {self.place} --resources 'cores=8 gpus=1'"
        return f"{self.place} has at most {', '.join(in_words(name, amount) for name, amount in most.items())}"

    def count(self) -> int:
        """The number of workers that are there now."""
        return len(self._info())

    def lost(self) -> bool:
        """Whether the scheduler is gone."""
        return self.client.status != "running"

    def submit(self, given: task.Task, priority: int) -> "Future[Any]":
        """Hands a run to the scheduler. The one with the highest priority starts first."""
        needs = given.resources.reserved() or None
        return self.client.submit(task.train, given, key=given.key, priority=priority, resources=needs, pure=False)

    def outcome(self, future: "Future[task.Outcome]") -> task.Outcome | None:
        """The outcome of a run that has been handed over and has ended; None if it cannot be had now."""
        if future.cancelled():  # with its scheduler, see `lost`
            return task.Outcome("left")
        try:
            outcome: task.Outcome = future.result(timeout=RESULT_S)
        except TimeoutError:  # the worker has died with it: the task is run again, and finds the run finished
            return None
        except (CancelledError, KilledWorker):  # dask also counts deaths of workers that had not started the run
            return task.Outcome("left")
        except Exception as error:
            return task.Outcome("ended", f"{type(error).__name__}: {error}")
        return outcome

    def send(self, mark: str, number: int) -> set[str]:
        """Sends a signal to runs, see `distill_lightning.studies.task.send`.

        Returns:
            The keys of the tasks that are running.
        """
        try:
            answers = self.client.run(task.send, mark, number, on_error="ignore")
        except OSError:  # the scheduler is gone, which is noticed soon
            answers = {}
        return {key for keys in answers.values() for key in keys}

    def _info(self) -> dict[str, Any]:
        try:
            return dict(self.client.scheduler_info(n_workers=-1)["workers"])
        except OSError:
            return {}

    def _seen(self) -> list[dict[str, float]]:
        return [one["resources"] for one in self._info().values()]


@contextlib.contextmanager
def local_workers(jobs: int, gpus: tuple[str, ...]) -> Iterator[Workers]:
    """One worker in this process, which trains several runs at once. It can be reached from this machine alone: tasks
    stay within the process, and the only ports, which serve nothing, are of 127.0.0.1.

    Args:
        jobs: how many runs are trained at once. They share the cores and GPUs of this machine.
        gpus: names of the GPUs.
    """
    offered = {"cores": process.available_cores(), "gpus": len(gpus), "memory": process.memory_bytes()}
    shared = {"protocol": "inproc://", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    of_worker = {"nthreads": jobs, "resources": offered, "memory_limit": 0}
    with (
        _quiet(),
        SpecCluster(
            scheduler={"cls": Scheduler, "options": shared},
            workers={0: {"cls": Worker, "options": shared | of_worker}},
            silence_logs=False,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Workers(client, "this machine", jobs, gpus, [{name: float(n) for name, n in offered.items()}])


@contextlib.contextmanager
def workers_at(address: str) -> Iterator[Workers]:
    """The workers of a scheduler that is running.

    Args:
        address: its address, as tcp://host:8786.

    Raises:
        InputError: no scheduler answers there.
    """
    with _quiet():
        try:
            client = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"no scheduler answers at {address}: start one with dask scheduler, and give its address as tcp://HOST:8786"
            ) from error
        with contextlib.closing(client):
            info = client.scheduler_info(n_workers=-1)["workers"]
            slots = sum(one["nthreads"] for one in info.values())
            yield Workers(client, address, max(1, slots))


@contextlib.contextmanager
def queued_workers(queue: "Queue", jobs: int) -> Iterator[Workers]:
    """Workers that are jobs in the queue of a cluster. Jobs that end before the study are replaced.

    Args:
        queue: the queue, with the options of jobs.
        jobs: the number of jobs.

    Raises:
        InputError: the jobs cannot be submitted.
    """
    with _quiet(), queue.cluster() as cluster:

        async def submitted() -> None:
            await cluster
            for job in cluster.workers.values():
                await job  # which raises the error of a job that was not submitted

        cluster.scale(jobs=jobs)
        try:
            cluster.sync(submitted)
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"{queue.submit_command} cannot submit a job: {' '.join(str(error).split())}") from error
        with Client(cluster, set_as_default=False) as client:
            slots = jobs * queue.processes
            yield Workers(client, queue.place, slots, None, [queue.offered], lambda: cluster.scale(jobs=jobs))


def job_script(queue: "Queue") -> str:
    """The script of a job, as it would be submitted.

    Raises:
        InputError: an option is wrong.
    """
    with _quiet(), queue.cluster() as cluster:
        return str(cluster.job_script())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A context in which dask says nothing, unless the user's configuration of dask has asked for its log."""
    loggers = [logging.getLogger(name) for name in LOGGERS] if "logging" not in dask.config.config else []
    levels = [logger.level for logger in loggers]
    with dask.config.set(SETTINGS), warnings.catch_warnings():
        # other versions of dask on the workers: what is exchanged is small and plain
        warnings.filterwarnings("ignore", module="distributed|dask_jobqueue")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

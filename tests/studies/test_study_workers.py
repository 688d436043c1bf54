"""Runs on the workers of a scheduler: workers that die or leave, a scheduler that dies, a study that is gone."""

import signal
import time
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from studies_program import events, planned, write_program

from distill_lightning.errors import InputError
from distill_lightning.studies import Display, workers
from distill_lightning.studies.training import Training
from distill_lightning.studies.workers import local_workers, workers_at

QUIET = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}, "silence_logs": 60}


@pytest.fixture(autouse=True)
def _program():
    write_program()


@pytest.fixture(scope="module")
def cluster() -> LocalCluster:
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", **QUIET) as made:
        yield made


def trained(address: str, *runs, **options) -> Training:
    with workers_at(address) as found:
        made = Training(runs, found, Path("output"), Display(), **options)
        made.ended_by = made.run()
    return made


def wait_for(event: str) -> None:
    until = time.monotonic() + 30
    while event not in events():
        assert time.monotonic() < until, events()
        time.sleep(0.02)


def test_a_run_whose_worker_dies_is_trained_again(cluster):
    runs = [planned("a", "kill once"), planned("b", "nap")]
    assert trained(cluster.scheduler_address, *runs).in_state("done") == runs
    assert events().count("started a") == 2 and events().count("ended a") == events().count("ended b") == 1


def test_a_run_whose_workers_die_three_times_has_failed(cluster, capsys):
    a, b = planned("a", "kill"), planned("b")
    made = trained(cluster.scheduler_address, a, b)
    assert made.in_state("failed") == [a] and made.in_state("done") == [b]
    assert made.last_words(a) == "3 workers died while they trained it"
    assert 3 <= events().count("started a") <= 4  # the fourth is ended as soon as it is seen
    assert "failed  a: 3 workers died" in capsys.readouterr().err


def test_workers_that_wait_do_nothing_many_times_a_second():
    with local_workers(1, ()) as found:
        servers = [found.client.cluster.scheduler, *found.client.cluster.workers.values()]
        every_ms = {name: one.callback_time for server in servers for name, one in server.periodic_callbacks.items()}
    assert every_ms["tick"] == 1000
    assert "profile" not in every_ms and min(every_ms.values()) >= 100, every_ms


def test_an_interrupt_reaches_the_runs_on_all_workers(cluster):
    sent = []

    def interrupt(run) -> bool:
        if not sent and len(events()) == 2:
            sent.append(signal.raise_signal(signal.SIGINT))
        return False

    runs = [planned(name, "wait") for name in "abc"]
    made = trained(cluster.scheduler_address, *runs, should_prune=interrupt)
    assert made.ended_by == signal.SIGINT and made.in_state("waiting") == runs
    assert [event.split()[0] for event in events()] == ["started", "started", "saved", "saved"]


def test_a_worker_that_leaves_lets_its_run_save(cluster):
    retired = []

    def retire(run) -> bool:  # called once a second for each run that is being trained
        if not retired and "started a" in events():
            with Client(cluster, set_as_default=False) as client:
                (busy,) = [address for address, tasks in client.processing().items() if tasks]
                retired.append(busy)
                client.retire_workers([busy])
        return False

    a = planned("a", *["nap"] * 8)
    assert trained(cluster.scheduler_address, a, should_prune=retire).in_state("done") == [a]
    assert retired and sorted(events()) == ["ended a", "saved a", "started a", "started a"]


def test_the_runs_of_a_study_that_is_gone_save_and_end(cluster):
    run = planned("a", "wait")
    with workers_at(cluster.scheduler_address) as found:
        made = Training([run], found, Path("output"), Display())
        made._submit(run)
        wait_for("started a")
    wait_for("saved a")


def test_what_no_worker_has_is_said(cluster):
    with pytest.raises(InputError, match=r"the run a needs 1 gpu: start a worker .* dask worker tcp://.* --resources"):
        trained(cluster.scheduler_address, planned("a", gpus=1))


def test_a_scheduler_that_dies_ends_the_study():
    run = planned("a", "wait")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),  # the cluster closes its scheduler once more
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", **QUIET) as mortal,
    ):

        def kill(run) -> bool:
            if "started a" in events():
                mortal.sync(mortal.scheduler.close)
            return False

        with pytest.raises(
            InputError, match=r"the scheduler at tcp://.* is gone: .* the same command goes on from here"
        ):
            trained(mortal.scheduler_address, run, should_prune=kill)
        wait_for("saved a")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1", "nowhere://x", "localhost"])
def test_where_no_scheduler_answers(address, monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_S", 0.3)
    with pytest.raises(InputError, match=f"no scheduler answers at {address}: start one with dask scheduler"):
        trained(address, planned("a"))

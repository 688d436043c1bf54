"""The order in which runs are trained, with workers in this process and a program that trains nothing."""

import signal
from pathlib import Path

import psutil
import pytest
from studies_program import events, planned, write_program

from distill_lightning.errors import InputError
from distill_lightning.runs import Run
from distill_lightning.studies import Display, process, task, training
from distill_lightning.studies.process import StartedRun, available_cores, share_of_gpus
from distill_lightning.studies.training import Training
from distill_lightning.studies.workers import Workers, local_workers


@pytest.fixture(autouse=True)
def _program():
    write_program()


@pytest.fixture(scope="module")
def workers() -> Workers:
    with local_workers(2, ("0", "1")) as made:
        yield made


def trained(workers: Workers, *runs, **options) -> Training:
    made = Training(runs, workers, Path("output"), Display(), **options)
    before = signal.getsignal(signal.SIGINT)
    made.ended_by = made.run()
    assert signal.getsignal(signal.SIGINT) is before
    return made


def test_each_run_starts_after_what_it_needs(workers):
    a = planned("a", "nap")
    b = planned("b", needs=(a,))
    runs = [a, planned("d", needs=(a, b)), b, planned("c")]
    made = trained(workers, *runs)
    assert made.ended_by == 0 and made.in_state("done") == runs
    seen = events()
    assert sorted(seen) == sorted(f"{what} {run.entry}" for run in runs for what in ("started", "ended"))
    assert seen.index("ended a") < seen.index("started b") and seen.index("ended b") < seen.index("started d")
    assert seen.index("started c") < seen.index("ended a")  # at the same time


def test_a_failure_blocks_what_needs_it(workers, capsys):
    a = planned("a", "fail")
    b = planned("b", needs=(a,))
    made = trained(workers, a, b, planned("c", needs=(b,)), planned("d"))
    assert made.ended_by == 0
    assert [run.entry for run in made.in_state("failed")] == ["a"]
    assert [run.entry for run in made.in_state("blocked")] == ["b", "c"]
    assert "failed  a: distill: it does not work" in capsys.readouterr().err
    assert made.log(a).read_text() == "distill: it does not work\n"


def test_a_signal_reaches_the_runs_and_nothing_more_starts(workers):
    runs = [planned("a", "interrupt", "wait"), planned("b", "wait"), planned("c")]
    made = trained(workers, *runs)
    assert made.ended_by == signal.SIGINT
    assert made.in_state("waiting") == runs
    assert "saved a" in events() and "started c" not in events()


def test_a_second_signal_kills(workers):
    made = trained(workers, planned("a", "deaf", "interrupt", "nap", "nap", "interrupt", "wait"))
    assert made.ended_by == signal.SIGINT and events() == ["started a"]


def test_an_error_ends_the_runs(workers):
    def fail(run):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        trained(workers, planned("b", "wait"), planned("a", "nap"), when_done=fail)
    assert "saved b" in events()


def test_what_is_done_is_not_started(workers):
    a = planned("a")
    a.folder.mkdir(parents=True)
    (a.folder / "summary.json").write_text('{"wall_time_s": 5.0}')
    made = trained(workers, a)
    assert made.ended_by == 0 and not events()
    assert made.snapshot().durations_s == {"a": (5.0,)}


def test_a_run_that_is_worse_is_ended(workers, monkeypatch, capsys):
    monkeypatch.setattr(training, "LOOK_ELSEWHERE_S", -1.0)
    bad, good = planned("bad", "wait"), planned("good", "nap")
    made = trained(workers, bad, good, should_prune=lambda run: run is bad and "started bad" in events())
    assert made.in_state("pruned") == [bad] and made.in_state("done") == [good]
    assert "pruned  logs/d/m/bad" in capsys.readouterr().err and "saved bad" in events()


def test_a_run_that_another_process_trains_is_awaited(workers):
    a, b = planned("a"), planned("b", "nap")
    a.folder.mkdir(parents=True)
    (a.folder / "config.yaml").touch()
    held = Run(a.folder).hold()
    made = trained(workers, a, b, when_done=lambda run: held.release())
    assert made.in_state("done") == [a, b]
    assert events().index("ended b") < events().index("started a")


def test_cores_are_reserved(workers):
    runs = [planned(name, "nap", cores=available_cores()) for name in "ab"]
    trained(workers, *runs, planned("c"))
    assert [line for line in events() if line[-1] != "c"][1].startswith("ended")  # one after the other


def test_more_than_the_machine_has_is_refused(workers):
    for name, amount in {"cores": 10**4, "gpus": 3, "memory": 10**18}.items():
        with pytest.raises(InputError, match=r"the run a needs .*: this machine has at most \d+ core.*, 2 gpus, .* GB"):
            trained(workers, planned("a", **{name: amount}))
    assert not events()


def test_a_run_is_ended_after_its_minutes(workers):
    made = trained(workers, planned("a", "wait", minutes=0.002))
    assert made.last_words(*made.in_state("failed")) == "ended after the 0.002 minutes of its resources"
    assert "saved a" in events()


def test_a_run_that_hangs_is_killed_after_its_minutes(workers, monkeypatch):
    monkeypatch.setattr(task, "PATIENCE_S", 0.5)
    made = trained(workers, planned("a", "hang", minutes=0.002))
    assert made.last_words(*made.in_state("failed")) == "ended after the 0.002 minutes of its resources"
    assert "saved a" not in events()


@pytest.mark.parametrize(
    ("requested", "stated", "expected"),
    [(1, None, "0"), (-1, None, "0,1"), (None, None, "None"), (1, 0, ""), (1, 2, "0,1")],
)
def test_a_run_sees_its_gpus_and_has_its_threads(workers, monkeypatch, requested, stated, expected):
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    trained(workers, planned("a", "env", requested=requested, gpus=stated))
    assert events()[1] == f"{expected} {max(1, available_cores() // 2)} a"


def test_runs_share_the_gpus_when_there_are_more_runs():
    with share_of_gpus(("3", "5"), 1) as first, share_of_gpus(("3", "5"), 1) as second:
        assert (first, second) == ("3", "5")
        with share_of_gpus(("3", "5"), 1) as third, share_of_gpus(("3", "5"), -1) as every:
            assert (third, every) == ("3", "3,5")
    with share_of_gpus(("3", "5"), 1) as again:
        assert again == "3"


def test_an_old_error_is_not_given_as_the_cause(tmp_path):
    class Ended:
        def __init__(self, returncode: int) -> None:
            self.returncode = returncode

    log = tmp_path / "a.log"
    log.write_text("distill: old error\n" + "x" * 5 + "\nmore\n")
    assert StartedRun(Ended(-9), log, 20).last_words() == "killed by signal 9"
    assert StartedRun(Ended(1), log, 0).last_words() == "distill: old error"


def listening() -> set[tuple[str, int]]:
    of_process = psutil.Process().net_connections("inet")
    return {tuple(one.laddr) for one in of_process if one.status == psutil.CONN_LISTEN}


def test_nothing_but_this_machine_can_reach_the_workers():
    before = listening()
    with local_workers(1, ()) as made:
        assert {address for address, _ in listening() - before} == {"127.0.0.1"}
        assert made.client.scheduler.address.startswith("inproc://")


def test_a_run_does_not_count_the_processes_of_its_studys_job(monkeypatch, tmp_path):
    """A worker may be a task of a SLURM job; its runs are not."""
    given = {}
    monkeypatch.setattr(process.subprocess, "Popen", lambda words, **options: given.update(options))
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "RANK", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "3")
    process.start(("fit",), tmp_path, tmp_path / "log", {})
    assert "SLURM_JOB_ID" in given["env"]
    assert not {"SLURM_NTASKS", "SLURM_PROCID", "RANK"} & given["env"].keys()

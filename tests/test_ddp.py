"""Two processes give the same results as one."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import BRANCHED, CONFIGS, METHODS, TAUGHT, assert_same_run, distill, load, rows, rows_of_any_world, start

import distill_lightning as dl
from distill_lightning.data.digits import Digits

NET = ["--model.network", "LeNet300100", "--model.optimizer.lr", 0.03, "--trainer.accelerator", "cpu"]
OF_EACH = ("byot", "dist", "sp", "rkd", "pkt", "one", "fitnets", "ofd", "reviewkd", "simkd", "srrl")
"""Methods that relate the samples of a batch, or have batch norm outside the network, on each process's own rows."""
SHORT = ["--trainer.max_epochs", 2, "--data.train_part", 320, "--trainer.log_every_n_steps", 2]


def run(name: str, *given, **env) -> str:
    process = start("fit", *given, "--name", name, **env)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    return out


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("teacher"))
    assert distill("fit", "--config", CONFIGS / "digits" / "baseline.yaml", "--trainer.max_epochs", 1) == 0
    path = next(Path().resolve().glob("logs/*/*/*/checkpoints/last.ckpt"))
    os.chdir(before)
    return path


LIKE_OTHERS = ("nkd", "wsld", "ctkd", "ca_mkd", "cs_kd", "tf_kd_self", "okddip")
"""Their losses are a mean over the rows, without a memory, as those of KD, DDGSD and Branches: they are tested with the
long tests."""


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.long if name in LIKE_OTHERS else ())
        for name in METHODS
        if name not in OF_EACH
    ],
)
def test_weights_and_numbers_agree_to_rounding(method, teacher):
    """Without batch norm and dropout; an uneven validation split, counted once. Banks and queues get all rows."""
    given = ["--config", CONFIGS / "digits" / f"{method}.yaml", *NET, *SHORT, "--data.val_size", 101]
    # in double precision: else rounding may decide which of two pixels a pool takes, or the bin of a confidence
    given += ["--trainer.precision", "64-true"]
    if method in TAUGHT:
        given += ["--trainer.callbacks.teacher", f"[{teacher}, {teacher}]" if method == "ca_mkd" else teacher]
    if method == "cat_kd":  # of a map whose mean the classifier has, without batch norm
        given += ["--model.network", "ConvNet", "--model.network.norm", "false"]
    if method in ("at", "vid", "nst"):  # of maps without batch norm
        given += ["--model.network", "Conv2", "--model.layers", '["1", "3"]']
        given += ["--model.teacher_layers", "[stage1, stage1]"]
    if method == "at":
        given += ["--trainer.callbacks.mode", "table", "--trainer.callbacks.views", 2]  # both processes fill it
        given += ["--model.attention_weight", 30]  # its 1,000 would magnify what is only rounded otherwise
    if method == "seed":  # the same, for its map; its 0.07 would magnify rounding
        given += ["--model.network", "Conv2", "--model.layers", '[pooled, "3"]', "--model.queue_length", 100]
        given += ["--model.student_temperature", 1, "--model.teacher_temperature", 1]
    if method in BRANCHED:
        given += ["--model.network", "Conv2", "--model.shared_layer", 4]
    if method == "mr_kd":
        given += ["--model.every_n_steps", 3]
    if method == "ddgsd":
        given += ["--model.feature_weight", 0.05]  # a square of a mean: over all processes, not each one's
    if method in ("dml", "kdcl"):
        given += ["--model.peers", '["LeNet300100"]']
    if method == "snapshot":
        given += ["--model.cycles", 2]
    if method == "baseline":
        given += ["--data.keep_last", "true", "--data.train_part", 311]  # 55 samples in the last batch
    assert distill("fit", *given, "--name", "on-1", "--trainer.devices", 1) == 0
    run("on-2", *given, "--trainer.devices", 2)
    one, two = (Path(f"logs/digits/{method}/on-{devices}") for devices in (1, 2))
    first, second = (load(r)["state_dict"] for r in (one, two))
    for key, value in first.items():
        assert (value - second[key]).abs().max() < 2e-6, key
    assert [row[:2] for row in rows(one)] == [row[:2] for row in rows(two)]
    for (_, tag, a), (_, _, b) in zip(rows_of_any_world(one), rows_of_any_world(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6), tag
    counted = json.loads((two / "summary.json").read_text())
    assert counted["processes"] == 2
    assert counted["exposures"] == json.loads((one / "summary.json").read_text())["exposures"]


@pytest.mark.parametrize(
    "method",
    [
        "fitnets",
        "simkd",
        pytest.param("reviewkd", marks=pytest.mark.long),
        pytest.param("srrl", marks=pytest.mark.long),
    ],
)
def test_two_processes_train_what_is_beside_the_network(method, teacher):
    """Nothing that is trained is left out of the loss, which would stop them in the second step."""
    given = ["--config", CONFIGS / "digits" / f"{method}.yaml", *SHORT, "--trainer.accelerator", "cpu"]
    run("two", *given, "--trainer.callbacks.teacher", teacher, "--trainer.devices", 2)
    assert load(Path(f"logs/digits/{method}/two"))["global_step"] == 10


@pytest.mark.parametrize(
    "more", [[], ["--config", CONFIGS / "callbacks" / "lottery.yaml", "--trainer.callbacks.rounds", 1]]
)
def test_a_run_of_one_process_goes_on_with_two(more):
    """Where nothing depends on how many there are: running sums and rounds go on."""
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", *more, *NET, *SHORT, "--trainer.log_every_n_steps", 4]
    given += ["--checkpoint.every_n_steps", 1]
    run("whole", *given)
    checkpoint = Path("logs/digits/baseline/cut/checkpoints/last.ckpt")
    process = start("fit", *given, "--name", "cut")
    while not checkpoint.exists():
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run("cut", *given, "--ckpt_path", "last", "--trainer.devices", 2)
    one, two = (Path("logs/digits/baseline") / name for name in ("whole", "cut"))
    first, second = (load(path)["state_dict"] for path in (one, two))
    for key, value in first.items():
        assert (value - second[key]).abs().max() < 2e-5, key
    assert [row[:2] for row in rows(one)] == [row[:2] for row in rows(two)]
    for (_, tag, a), (_, _, b) in zip(rows_of_any_world(one), rows_of_any_world(two), strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4), tag


def test_all_processes_evaluate_what_is_saved():
    """Each process has seen other samples, so its batch norm has other statistics: those of the first one are saved."""
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", *SHORT, "--trainer.accelerator", "cpu"]
    given += ["--trainer.callbacks", "EMA", "--trainer.callbacks.decay", 0.8]
    run("two", *given, "--trainer.devices", 2)
    data = Digits()
    data.setup("test")
    data.read_test_part()
    measured = {tag: value for _, tag, value in rows(Path("logs/digits/baseline/two"))}
    for use_ema in (False, True):
        network = dl.load("logs/digits/baseline/two", use_ema=use_ema).network.eval()
        with torch.no_grad():
            logits = network(data.normaliser(data.test.source.images))
        nll = torch.nn.functional.cross_entropy(logits, data.test.labels).item()
        assert measured["test/nll_ema" if use_ema else "test/nll"] == pytest.approx(nll, rel=1e-5)


FITS = """
import sys
import distill_lightning as dl

quiet = {{"accelerator": "cpu", "enable_progress_bar": False, "limit_train_batches": 2}}
for name, devices in {fits}:
    result = dl.Trainer(1, name=name, devices=devices, **quiet).fit(dl.Baseline(dl.models.LeNet300100), dl.Digits())
    print(name, result.metrics["test/accuracy"], flush=True)
"""


def of_script(*fits: tuple[str, int]) -> tuple[int, str]:
    Path("fits.py").write_text(FITS.format(fits=list(fits)))
    process = start(program=[sys.executable, "fits.py"])
    try:
        out, err = process.communicate(timeout=200)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out + err


def test_each_fit_of_a_script_has_its_own_run():
    """All processes run the whole script, the second fit included."""
    status, said = of_script(("a", 2), ("b", 2))
    assert status == 0, said
    one, two = (json.loads((Path("logs/digits/baseline") / name / "summary.json").read_text()) for name in "ab")
    assert one["processes"] == two["processes"] == 2
    assert one["metrics"] == two["metrics"]
    assert len(list(Path("logs/digits/baseline").iterdir())) == 2


@pytest.mark.parametrize(
    ("fits", "words"),
    [
        ([("a", 2), ("b", 1)], "the 2 processes of an earlier fit all run this one, which is for 1"),
        ([("a", 1), ("b", 2)], "new processes run the script from its top, so they would repeat the fit before"),
    ],
)
def test_a_fit_that_the_processes_of_a_script_cannot_run_is_refused(fits, words):
    status, said = of_script(*fits)
    assert status == 1 and f"InputError: {words}" in said, said
    (only,) = Path("logs/digits/baseline").iterdir()
    assert only.name == "a" and load(only)["global_step"] == 2 and (only / "summary.json").exists()


OWN = """
from distill_lightning import Baseline, InputError

class Own(Baseline):
    def training_loss(self, batch, position):
        if position.step == 2 and self.trainer.global_rank == 1:
            raise InputError("3.png is truncated: replace or remove it")
        return super().training_loss(batch, position)
"""


def test_an_error_that_only_another_process_meets_is_shown():
    """A picture of its share, for example. The run's folder is the first one's to remove."""
    Path("own.py").write_text(OWN)
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", "--model", "own.Own", *SHORT, "--name", "run"]
    process = start("fit", *given, "--trainer.accelerator", "cpu", "--trainer.devices", 2)
    out, err = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "distill: process 1: 3.png is truncated: replace or remove it" in err.splitlines(), out + err
    assert [*Path("logs").glob("*/*/run/config.yaml")]


def test_two_processes_resume_exactly():
    """DLB's memory and the running sums are each process's own."""
    given = ["--config", CONFIGS / "digits" / "dlb.yaml", "--trainer.accelerator", "cpu", "--trainer.max_epochs", 12]
    given += ["--trainer.devices", 2, "--checkpoint.every_n_steps", 3, "--data.train_part", 320]
    run("whole", *given)
    killed = Path("logs/digits/dlb/killed")
    process = start("fit", *given, "--name", "killed")
    while not (killed / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "summary.json").exists()
    run("killed", *given, "--ckpt_path", "last")
    assert_same_run(Path("logs/digits/dlb/whole"), killed)


@pytest.mark.parametrize("to_all", [True, False])
def test_sigterm_stops_all_processes(to_all):
    """Whether each process gets the signal, or the first alone."""
    given = ["--config", CONFIGS / "digits" / "dlb.yaml", "--trainer.accelerator", "cpu", "--trainer.max_epochs", 500]
    process = start("fit", *given, "--trainer.devices", 2, "--name", "stopped")
    checkpoint = Path("logs/digits/dlb/stopped/checkpoints/last.ckpt")
    while not checkpoint.exists():
        time.sleep(0.05)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert load(checkpoint.parent.parent)["global_step"] > 0


def test_two_slurm_tasks_share_a_folder():
    """SLURM as its environment variables show it: both processes start by themselves, and the first decides."""
    job = {"SLURM_JOB_ID": "15207", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"}
    given = [
        "--config",
        CONFIGS / "digits" / "dlb.yaml",
        *SHORT,
        "--trainer.accelerator",
        "cpu",
        "--trainer.devices",
        2,
    ]
    tasks = [start("fit", *given, **job, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]
    outputs = [task.communicate(timeout=200) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert [out.count("run: ") for out, _ in outputs] == [2, 0]
    (folder,) = Path("logs/digits/dlb").glob("[!.]*")
    assert json.loads((folder / "summary.json").read_text())["processes"] == 2


def test_batch_size_must_divide():
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", "--trainer.accelerator", "cpu"]
    process = start("fit", *given, "--trainer.devices", 2, "--data.batch_size", 63)
    _out, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert err.strip().splitlines()[-1] == (
        "distill: batch_size 63 cannot be shared out evenly over 2 processes: use 62"
    )

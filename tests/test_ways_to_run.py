"""Other ways to run: compiled, with torchrun, on two simulated machines, with synchronised batch norm, with
every_minutes."""

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import CONFIGS, distill, fit, load, make, rows, start
from lightning.pytorch.plugins import TorchSyncBatchNorm

import distill_lightning as dl
from distill_lightning.checkpoints import AtomicCheckpointIO
from distill_lightning.methods.checks import depends_on_process_count, refuse_unlike_batch_norms
from distill_lightning.models.convnet import ConvNet

BASE = [
    "--config",
    str(CONFIGS / "digits" / "baseline.yaml"),
    "--data.train_part",
    "320",
    "--trainer.accelerator",
    "cpu",
]
NO_NORM = ["--model.network", "LeNet300100", "--model.optimizer.lr", "0.03", "--trainer.max_epochs", "1"]


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def assert_close_runs(one: Path, two: Path) -> None:
    """Equal to rounding."""
    for name, value in load(one)["state_dict"].items():
        assert (value - load(two)["state_dict"][name]).abs().max() < 2e-6, name
    assert [row[:2] for row in rows(one)] == [row[:2] for row in rows(two)]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++")
def test_a_compiled_network_saves_plain_keys_and_learns_the_same(monkeypatch):
    torch.compiler.reset()
    small = ["--model.network.width", 4, "--trainer.max_epochs", 1, "--data.train_part", 128]
    plain = fit("digits/baseline.yaml", *small, "--name", "plain")
    compiled = fit("digits/baseline.yaml", *small, "--name", "compiled", "--model.compile", "true")
    first, second = load(plain)["state_dict"], load(compiled)["state_dict"]
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4)
    assert distill("test", "--ckpt_path", compiled / "checkpoints" / "last.ckpt") == 0


SLURM = {"SLURM_JOB_ID": "15207", "SLURM_JOB_NAME": "train", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
SLURM |= {"SLURM_NODELIST": "localhost", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize("job", [{}, {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}], ids=["", "in a SLURM job"])
def test_torchrun_starts_it(job):
    assert distill("fit", *BASE, *NO_NORM, "--name", "alone") == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    words = [*BASE, *NO_NORM, "--name", "together", "--trainer.devices", "2"]
    process = start("fit", *words, program=[*torchrun, "-m", "distill_lightning"], **job)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("run: logs/digits/baseline/together\n") == 2  # the first process alone speaks
    assert json.loads(Path("logs/digits/baseline/together/summary.json").read_text())["processes"] == 2
    assert_close_runs(Path("logs/digits/baseline/alone"), Path("logs/digits/baseline/together"))


def test_a_job_with_fewer_processes_than_devices_is_refused():
    """As an sbatch script without srun: one process would train alone, and the other devices would stand idle."""
    process = start("fit", *BASE, "--trainer.devices", "2", **SLURM, SLURM_NTASKS="1", SLURM_PROCID="0")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "the job has started 1 processes, and the run has 2 devices" in err and "--trainer.devices 1" in err


def test_a_task_of_a_job_may_train_alone():
    """As several seeds under one srun: each task is a run of its own, and the first process of it."""
    job = {**SLURM, "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}
    process = start("fit", *BASE, "--trainer.devices", "1", "--name", "fourth", **job)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    run = Path("logs/digits/baseline/fourth")
    assert f"run: {run}" in out and (run / "summary.json").is_file() and len(rows(run)) > 3


def test_forked_processes_are_refused():
    """They train in copies of this process, and what they have trained stays there."""
    trainer = dl.Trainer(max_epochs=1, devices=2, accelerator="cpu", strategy="ddp_fork", logger=False)
    with pytest.raises(dl.InputError, match="forked or spawned, as in a notebook, do not bring the trained network"):
        trainer.fit(dl.Baseline(dl.models.LeNet300100), dl.Digits())


def test_batch_norms_that_do_more_are_not_synchronised():
    """torch would put a plain batch norm in their place, without the activation that they hold."""
    timm = pytest.importorskip("timm")
    with pytest.raises(dl.InputError, match=r"sync_batchnorm would replace bn1, a BatchNormAct2d, by a plain batch no"):
        refuse_unlike_batch_norms(timm.create_model("mobilenetv3_small_050", num_classes=10))
    refuse_unlike_batch_norms(timm.create_model("resnet18", num_classes=10))


def test_two_computers_share_one_run():
    """One process on each, started by hand: they decide together which run it is."""
    assert distill("fit", *BASE, *NO_NORM, "--name", "alone") == 0
    words = [*BASE, *NO_NORM, "--trainer.num_nodes", "2", "--trainer.devices", "1"]
    port = free_port()
    env = [{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": str(rank)} for rank in range(2)]
    processes = [start("fit", *words, **of_node) for of_node in env]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    assert sorted(folder.name for folder in Path("logs/digits/baseline").iterdir()) == ["alone", "lenet300100-seed0"]
    assert_close_runs(Path("logs/digits/baseline/alone"), Path("logs/digits/baseline/lenet300100-seed0"))


def test_several_processes_on_several_computers_want_a_launcher(capsys):
    words = [*BASE, *NO_NORM, "--trainer.num_nodes", "2", "--trainer.devices", "2"]
    assert distill("fit", *words) == 2
    assert "torchrun or SLURM" in capsys.readouterr().err
    assert not list(Path("logs").glob("digits/*/*"))


def test_batch_norm_over_all_processes_keeps_the_keys():
    method = make("baseline", ConvNet(width=4))
    keys = method.state_dict().keys()
    assert depends_on_process_count(method, synchronised=False) == "batch norm"
    assert depends_on_process_count(method, synchronised=True) is None
    synchronised = TorchSyncBatchNorm().apply(method)
    assert synchronised.state_dict().keys() == keys
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in synchronised.model.modules())


def test_checkpoints_by_minutes(monkeypatch):
    steps = []
    write = AtomicCheckpointIO.save_checkpoint

    def watched(self, checkpoint, path, storage_options=None):
        steps.append(checkpoint["global_step"])
        write(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", watched)
    assert distill("fit", *BASE, *NO_NORM, "--checkpoint.every_minutes", "1e-9") == 0
    assert steps == [1, 2, 3, 4, 5]  # each step takes longer
    steps.clear()
    assert distill("fit", *BASE, *NO_NORM, "--checkpoint.every_minutes", "1000") == 0
    assert steps == [5]


def test_a_run_with_the_default_optimizer_is_opened_by_every_verb(capsys):
    """Its configuration has the optimizer's class and numbers, as that of a run in Python."""
    given = ["--model", "Baseline", "--model.network", "ConvNet", "--data", "Digits", "--data.train_part", 200]
    assert distill("fit", *given, "--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false") == 0
    run = Path("logs/digits/baseline/convnet-seed0")
    optimizer = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD" and optimizer["init_args"]["lr"] == 0.1
    assert distill("fit", "--ckpt_path", run / "checkpoints" / "last.ckpt") == 0
    assert "(finished already)" in capsys.readouterr().out
    assert distill("lr", run, "--steps", 10) == 0

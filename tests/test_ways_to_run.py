"""Other ways to run: compiled, with torchrun, on two simulated machines, with synchronised batch norm, with
every_minutes."""

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, distill, fit, load, make, rows, start
from lightning.pytorch.plugins import TorchSyncBatchNorm

from distill_lightning.checkpoints import AtomicCheckpointIO
from distill_lightning.methods.checks import depends_on_process_count
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


def test_torchrun_starts_it():
    assert distill("fit", *BASE, *NO_NORM, "--name", "alone") == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    words = [*BASE, *NO_NORM, "--name", "together", "--trainer.devices", "2"]
    process = start("fit", *words, program=[*torchrun, "-m", "distill_lightning"])
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("run: logs/digits/baseline/together\n") == 2  # the first process alone speaks
    assert json.loads(Path("logs/digits/baseline/together/summary.json").read_text())["processes"] == 2
    assert_close_runs(Path("logs/digits/baseline/alone"), Path("logs/digits/baseline/together"))


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

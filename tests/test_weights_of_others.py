"""Files of weights of every origin: read into a network with a report, or refused in one line."""

import argparse
import collections
import copy
import struct
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import same
from torch import nn

from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.errors import InputError
from distill_lightning.models.convnet import ConvNet
from distill_lightning.weights import Report, Source, match, put_weights, read_source
from distill_lightning.weights.adapting import adapt_channels, adapt_positions
from distill_lightning.weights.matching import common_prefix


def trained(**options) -> nn.Module:
    torch.manual_seed(5)
    network = ConvNet(**options)
    network(torch.randn(4, options.get("in_channels", 1), 8, 8))  # moves the running statistics
    return network


STATE = trained().state_dict()
FIRST, HEAD = next(iter(STATE)), [*STATE][-2:]
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
ARGS = argparse.Namespace(lr=0.1, model="convnet", opt_betas=None, data_path="/data")


def named(prefix: str, state=STATE):
    return {prefix + name: value for name, value in state.items()}


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"lr": 0.1})
        self.backbone, self.criterion = trained(), nn.CrossEntropyLoss(weight=torch.ones(10))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch):
        return self.backbone(batch).sum()

    def train_dataloader(self):
        return [torch.zeros(4, 1, 8, 8)]


def of_lightning(path: Path) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=0, **quiet)
    trainer.fit(Module())
    trainer.save_checkpoint(path)


def of_timm(path: Path) -> None:
    content = {"epoch": 3, "arch": "convnet", "state_dict": STATE, "optimizer": OPTIMIZER, "version": 2, "args": ARGS}
    torch.save(content | {"state_dict_ema": named("module."), "amp_scaler": {"scale": 65536.0}, "metric": 71.2}, path)


def of_torchvision(path: Path) -> None:
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD([nn.Parameter(torch.ones(1))]), [3, 5])
    ema = {"n_averaged": torch.tensor(7)} | named("module.", trained(width=16).state_dict())
    content = {"model": STATE, "optimizer": OPTIMIZER, "lr_scheduler": schedule.state_dict(), "epoch": 5, "args": ARGS}
    torch.save(content | {"model_ema": ema}, path)


def of_ours(path: Path) -> None:
    parts = {"hyper_parameters": {}, "method": {}, "epoch": 1, "global_step": 5}
    torch.save({"state_dict": named("model.") | {"heads.0.weight": torch.zeros(3, 3)}, **parts}, path)


def parallel(path: Path) -> None:
    torch.save(nn.DataParallel(trained()).state_dict(), path)


def halves(path: Path) -> None:
    safetensors.torch.save_file({k: v.half() if v.is_floating_point() else v for k, v in STATE.items()}, path)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


READ = {  # the writer, the suffix, and what the report says
    "plain": (lambda p: torch.save(STATE, p), ".pt", "tensors, 100.0% of the parameters"),
    "old_format": (lambda p: torch.save(STATE, p, _use_new_zipfile_serialization=False), ".pth", "100.0%"),
    "safetensors": (lambda p: safetensors.torch.save_file(STATE, p), ".safetensors", "100.0%"),
    "safetensors_as_bin": (lambda p: safetensors.torch.save_file(STATE, p, {"format": "pt"}), ".bin", "100.0%"),
    "torch_as_safetensors": (lambda p: torch.save(STATE, p), ".safetensors", "100.0%"),
    "state_dict": (lambda p: torch.save({"state_dict": STATE, "epoch": 3}, p), ".tar", "(state_dict)"),
    "model": (lambda p: torch.save({"model": STATE, "optimizer": OPTIMIZER}, p), ".pth", "(model)"),
    "net": (lambda p: torch.save({"net": STATE, "acc": 93.1, "epoch": 1}, p), ".pth", "(net)"),
    "another_entry": (lambda p: torch.save({"student": STATE}, p), ".pth", "(student)"),
    "two_levels": (lambda p: torch.save({"model": {"state_dict": STATE}}, p), ".pth", "(model.state_dict)"),
    "data_parallel": (parallel, ".pth", "without the prefix module."),
    "compiled": (lambda p: torch.save(named("_orig_mod."), p), ".pt", "100.0%"),
    "compiled_within": (lambda p: torch.save(named("module._orig_mod.model."), p), ".pt", "the prefix module.model."),
    "backbone": (lambda p: torch.save(named("backbone."), p), ".bin", "without the prefix backbone."),
    "odd_prefix": (lambda p: torch.save(named("encoder_q.0."), p), ".pt", "without the prefix encoder_q.0."),
    "lightning": (of_lightning, ".ckpt", "without the prefix backbone.; left out: criterion.weight"),
    "timm": (of_timm, ".pth.tar", "(state_dict)"),
    "torchvision": (of_torchvision, ".pth", "(model)"),
    "ours": (of_ours, ".ckpt", "without the prefix model.; left out: heads.0.weight"),
    "half": (halves, ".safetensors", "float16 to float32"),
    "bfloat16": (lambda p: torch.save({k: v.bfloat16() for k, v in STATE.items()}, p), ".pt", "bfloat16 to float32"),
    "no_counters": (
        lambda p: torch.save({k: v for k, v in STATE.items() if not k.endswith("num_batches_tracked")}, p),
        ".pth",
        "100.0% of the parameters",
    ),
    "more": (lambda p: torch.save(STATE | {"aux.weight": torch.ones(3)}, p), ".pth", "left out: aux.weight"),
    "parameters": (lambda p: torch.save({**dict(trained().named_parameters()), **dict(trained().named_buffers())}, p),
        ".pth", "100.0%"),
}  # fmt: skip


@pytest.mark.parametrize("style", READ)
def test_files_of_every_style_are_read(style, tmp_path):
    write, suffix, words = READ[style]
    write(tmp_path / f"weights{suffix}")
    network = ConvNet()
    report = put_weights(network, read_source(tmp_path / f"weights{suffix}"), complete=True)
    assert words in report.line() and "\n" not in report.line()
    assert report.share == 1 and not report.new and not report.adapted
    for name, value in network.state_dict().items():
        if "tracked" not in name:
            torch.testing.assert_close(value, STATE[name], rtol=1e-2, atol=1e-2)
            assert value.dtype == STATE[name].dtype
    if style not in ("half", "bfloat16", "no_counters"):
        assert same(dict(network.state_dict()), dict(STATE))


REFUSED = {  # the writer and what the one line says
    "whole_network": (
        lambda p: torch.save(trained(), p),
        "holds an object of 'distill_lightning.models.convnet.ConvNet'",
    ),
    "code": (lambda p: torch.save({"state_dict": STATE, "x": Evil()}, p), "holds an object of"),
    "numpy": (lambda p: torch.save({"model": STATE, "metric": np.float64(0.7)}, p), "numpy"),
    "no_weights": (lambda p: torch.save({"epoch": 3, "lr": 0.1}, p), "holds no weights, but the entries epoch, lr"),
    "a_list": (lambda p: torch.save([1, 2], p), "holds no weights, but a list"),
    "empty": (lambda p: p.write_bytes(b""), "is torn, or no file of weights"),
    "text": (lambda p: p.write_text("weights: none\n"), "is torn, or no file of weights"),
    "npz": (lambda p: np.savez(p.open("wb"), a=np.zeros(3)), "weights.pth"),
    "torn": (lambda p: (torch.save(STATE, p), p.write_bytes(p.read_bytes()[:-100])), "torn"),
    "torn_safetensors": (
        lambda p: (safetensors.torch.save_file(STATE, p), p.write_bytes(p.read_bytes()[:-8])),
        "is torn, or no file of weights",
    ),
    "header_of_nothing": (lambda p: p.write_bytes(struct.pack("<Q", 20) + b"{" + b" " * 30), "is torn, or no file"),
    "another_network": (
        lambda p: torch.save(nn.Sequential(nn.Linear(64, 99), nn.Linear(99, 10)).state_dict(), p),
        "0% of the parameters of this ConvNet: it is of another network",
    ),
    "wider": (lambda p: torch.save(ConvNet(width=32).state_dict(), p), "of another network"),
    "other_classes": (
        lambda p: torch.save(ConvNet(num_classes=7).state_dict(), p),
        "is for 7 classes, this ConvNet has 10",
    ),
    "no_head": (
        lambda p: torch.save({k: v for k, v in STATE.items() if k not in HEAD}, p),
        f"lacks {HEAD[0]} of this ConvNet (2 such)",
    ),
    "no_statistics": (
        lambda p: torch.save({k: v for k, v in STATE.items() if "running" not in k}, p),
        "without which batch norm cannot be evaluated",
    ),
    "integers": (lambda p: torch.save({k: v.long() for k, v in STATE.items()}, p), f"holds {FIRST} as torch.int64"),
    "folder": (lambda p: p.mkdir(), "is a folder without checkpoints/last.ckpt"),
    "missing": (lambda p: None, "there is no file of weights"),
}


def test_a_teacher_needs_the_statistics_of_a_norm_without_weights(tmp_path):
    def network():
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, affine=False), nn.Linear(64, 10))

    torch.save({k: v for k, v in network().state_dict().items() if "running" not in k}, tmp_path / "net.pth")
    source = read_source(tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"lacks 1\.running_mean, without which batch norm"):
        put_weights(network(), source, complete=True)
    put_weights(network(), source)  # a new layer of a student may lack them


@pytest.mark.parametrize("style", REFUSED)
def test_other_files_are_refused_in_one_line(style, tmp_path):
    write, words = REFUSED[style]
    write(tmp_path / "weights.pth")
    network = ConvNet()
    before = copy.deepcopy(dict(network.state_dict()))
    with pytest.raises(InputError) as refusal:
        put_weights(network, read_source(tmp_path / "weights.pth"), complete=True)
    line = str(refusal.value).replace(str(tmp_path), "")
    assert words in line and "\n" not in line and len(line) < 200
    assert same(before, dict(network.state_dict())) and not Path("executed").exists()


def test_a_run_folder_stands_for_its_last_checkpoint(tmp_path, capsys):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    of_ours(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert read_source(tmp_path / "run").name.endswith("last.ckpt")
    assert "is a folder: its checkpoints/last.ckpt is taken" in capsys.readouterr().err


# What does not fit exactly


def put(network: nn.Module, state, **options) -> Report:
    return put_weights(network, Source("a file", {"": state}), **options)


def test_the_report_is_a_partition_of_the_names():
    network = ConvNet(num_classes=7, in_channels=3)
    given = {k: v for k, v in STATE.items() if not k.startswith("1.bias")} | {"extra": torch.zeros(2)}
    report = match(network, Source("a file", {"": given})).report
    of_network = [*report.matched, *(text.split()[0] for text in report.adapted), *report.new]
    counters = [n for n in network.state_dict() if n.endswith("num_batches_tracked") and n not in report.matched]
    assert sorted(of_network + counters) == sorted(network.state_dict())
    assert report.left_out == ("extra",) and report.head == (7, 10)
    assert set(HEAD) < set(report.new) and "1.bias" in report.new
    assert report.adapted == (f"{FIRST} 1 to 3 channels",)
    assert "the head has 7 classes, in the file 10" in report.line()
    assert 0.5 < report.share < 1


def test_a_new_head_keeps_the_networks_own_draw():
    network = ConvNet(num_classes=7)
    own = network.state_dict()[HEAD[0]].clone()
    put(network, STATE)
    assert network.state_dict()[HEAD[0]].equal(own)
    assert network.state_dict()[FIRST].equal(STATE[FIRST])


def test_less_than_half_needs_the_users_word():
    some = {name: STATE[name] for name in [*STATE][:6]}
    with pytest.raises(InputError, match=r"% of the parameters of this ConvNet"):
        put(ConvNet(), some)
    assert put(ConvNet(), some, partial=True).share < 0.5


def test_of_two_networks_in_a_file_the_one_that_fits_is_taken():
    wide = {k: torch.zeros(2 * len(v), *v.shape[1:]) if v.ndim else v for k, v in STATE.items()}
    network = ConvNet()
    assert put(network, named("teacher.", wide) | named("student.")).prefix == "student."
    twice = put(network, named("other.", {k: v + 1 for k, v in STATE.items()}) | named("model."))
    assert twice.prefix == "model." and network.state_dict()[FIRST].equal(STATE[FIRST])


def test_a_prefix_of_the_network_is_added():
    network = nn.Module()
    network.backbone = ConvNet()
    assert "with the prefix backbone." in put(network, STATE).line()
    assert network.backbone.state_dict()[FIRST].equal(STATE[FIRST])


def test_another_block_is_no_prefix():
    """The names stages.1.* of a file are not those of stages.2.* in the network."""
    block = {f"stages.1.{n}": v for n, v in nn.Linear(3, 3).state_dict().items()}
    own = {f"network.stages.2.{n}": v for n, v in nn.Linear(3, 3).state_dict().items()}
    assert common_prefix(own, block) == ("", "")
    wrapped = {f"1.{n}": v for n, v in nn.Linear(3, 3).state_dict().items()}
    assert common_prefix(nn.Linear(3, 3).state_dict(), wrapped) == ("1.", "")


def test_channels_as_timm_does():
    weight = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    wanted = {1: [7.0], 2: [1.5, 3.0], 4: [0.75, 1.5, 3.0, 0.75], 6: [0.5, 1.0, 2.0, 0.5, 1.0, 2.0]}
    for channels, values in wanted.items():
        adapted = adapt_channels(weight, torch.zeros(1, channels, 1, 1))
        assert adapted is not None and adapted.flatten().tolist() == values
    grey = adapt_channels(torch.full((1, 1, 1, 1), 3.0), torch.zeros(1, 3, 1, 1))
    assert grey is not None and grey.flatten().tolist() == [1.0, 1.0, 1.0]
    assert adapt_channels(weight, torch.zeros(1, 4, 3, 3)) is None


def test_positions_keep_their_prefix_and_a_constant():
    values = torch.cat([torch.full((1, 1, 4), 9.0), torch.full((1, 49, 4), 2.0)], 1)
    adapted = adapt_positions(values, torch.zeros(1, 17, 4))
    assert adapted is not None and adapted.shape == (1, 17, 4)
    assert adapted[0, 0].eq(9).all() and torch.allclose(adapted[0, 1:], torch.tensor(2.0))
    assert adapt_positions(values, torch.zeros(1, 17, 5)) is None
    table = adapt_positions(torch.ones(169, 3), torch.zeros(49, 3))
    assert table is not None and torch.allclose(table, torch.ones(49, 3))


def test_tied_weights_that_a_file_holds_once():
    def tied() -> nn.Sequential:
        network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
        network[2].weight = network[0].weight
        return network

    report = put(tied(), {"0.weight": torch.ones(4, 4)}, complete=True)
    assert report.matched == ("0.weight", "2.weight")


def test_a_teacher_says_once_what_was_read(tmp_path, capsys):
    of_timm(tmp_path / "a.pth")
    PlainNetwork(ConvNet(), weights=str(tmp_path / "a.pth"))
    said = capsys.readouterr().err
    assert said.count("weights from") == 1 and said.count("\n") == 1


def test_the_classes_of_training_scripts_are_not_allowed_elsewhere(tmp_path):
    from distill_lightning.tensor_files import read_tensors

    of_timm(tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"argparse\.Namespace"):
        read_tensors(tmp_path / "a.pth", "checkpoint")
    torch.save({"state_dict": STATE, "c": collections.Counter([1, 2])}, tmp_path / "b.pth")
    assert read_source(tmp_path / "b.pth").entries.keys() == {"state_dict"}

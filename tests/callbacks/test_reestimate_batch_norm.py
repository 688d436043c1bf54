"""Batch norm's statistics, estimated anew before a test."""

from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, bare_trainer, distill, fit, same
from torch import nn

import distill_lightning as dl
from distill_lightning.callbacks.reestimate_batch_norm import batch_norms, reestimate
from distill_lightning.methods.ensemble import Ensemble

SMALL = ["--trainer.max_epochs", 2, "--data.train_part", 300, "--model.schedule", "Constant"]


def with_norm() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.Flatten(), nn.Linear(144, 10))


def test_equal_batches_give_what_torchs_update_bn_gives_and_others_are_weighted():
    images, precision = torch.randn(60, 1, 8, 8), bare_trainer().precision_plugin
    method, reference = dl.Baseline(with_norm()), with_norm()
    method.eval()
    layers = batch_norms(method.model)
    batches = [dl.Batch(part, torch.zeros(len(part)), torch.arange(len(part)), len(part)) for part in images.split(20)]
    assert reestimate(method, layers, batches, precision) == 60
    torch.optim.swa_utils.update_bn(images.split(20), reference)
    for name in ("running_mean", "running_var"):
        assert torch.allclose(getattr(layers[0], name), getattr(reference[1], name), atol=1e-6), name
    assert layers[0].momentum == 0.1 and not any(module.training for module in method.modules())
    uneven = [dl.Batch(part, torch.zeros(len(part)), torch.arange(len(part)), len(part)) for part in images.split(59)]
    assert reestimate(method, layers, uneven, precision) == 59  # a single picture has no variance
    mean = method.model[0](images[:59]).mean((0, 2, 3))
    assert torch.allclose(layers[0].running_mean, mean, atol=1e-6)


def test_the_option_of_test_and_validate(capsys):
    run = fit("digits/baseline.yaml", *SMALL)
    file = run / "checkpoints" / "last.ckpt"
    content = file.read_bytes()
    shown = {}
    for verb, more in (("test", []), ("test", ["--reestimate_batch_norm", 270]), ("validate", []),
                       ("validate", ["--reestimate_batch_norm", 100])):  # fmt: skip
        capsys.readouterr()
        assert distill(verb, run, *more) == 0
        out, err = capsys.readouterr()
        shown[verb, bool(more)] = out
        assert ("batch norm: the statistics of 3 layers are those of" in err) == bool(more)
    assert shown["test", True] != shown["test", False] and shown["validate", True] != shown["validate", False]
    assert file.read_bytes() == content
    for given, words in ((0, "reestimate_batch_norm is 0"), (1, "2 or more"), ("many", "reestimate_batch_norm")):
        assert distill("test", run, "--reestimate_batch_norm", given) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1 and len(err) < 200


def test_the_network_has_its_own_statistics_again_and_the_members_of_an_ensemble_are_included():
    data = dl.Digits(batch_size=50, train_part=300)
    options = {"enable_progress_bar": False, "accelerator": "cpu"}
    method = dl.Baseline(dl.models.ConvNet, optimizer=lambda p: torch.optim.SGD(p, lr=0.3))
    file = dl.Trainer(max_epochs=1, **options).fit(method, data).folder / "checkpoints" / "last.ckpt"
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    again = dl.Trainer(callbacks=[dl.ReestimateBatchNorm(200)], **options)
    plain = dl.Trainer(**options).test(method, data)
    alone = again.test(method, data)
    assert same(dict(method.model.state_dict()), before)
    assert alone != plain and dl.Trainer(**options).test(method, data) == plain
    ensemble = Ensemble([str(file), str(file)])
    assert again.test(ensemble, data)["test/nll"] == pytest.approx(alone["test/nll"], rel=1e-5)


def test_a_network_without_batch_norm_is_refused(capsys):
    given = ["--config", CONFIGS / "digits" / "baseline.yaml", *SMALL, "--trainer.callbacks", "ReestimateBatchNorm"]
    assert distill("fit", *given, "--model.network", "LeNet300100", "--trainer.max_epochs", 1) == 2
    assert "LeNet300100 has no batch norm with running statistics" in capsys.readouterr().err
    assert Path("logs").exists()

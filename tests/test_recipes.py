"""Every recipe of ``configs/recipes/`` runs through the real command, in a small form: less data, one epoch, and a
smaller network where the own one is large.
"""

import json
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, fit, load
from torchvision import models

ONE_EPOCH = ["--trainer.max_epochs", 1, "--trainer.check_val_every_n_epoch", 1]


def metrics(run: Path) -> dict[str, float]:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["epochs"] == 1
    assert 0 <= summary["metrics"]["test/accuracy"] <= 1
    return summary["metrics"]


def test_each_recipe_has_a_test_here_and_a_place_on_the_page():
    names = {path.stem for path in (CONFIGS / "recipes").glob("*.yaml")}
    assert names == {"digits_cpu", "cifar10_gpu", "cifar100_cnn", "cifar100_vit", "cifar100_patient", "folder_finetune"}
    page = (CONFIGS.parent / "docs" / "how_to" / "recipes.md").read_text()
    assert not [name for name in names if f"recipes/{name}" not in page]


def test_digits_on_a_cpu():
    assert metrics(fit("recipes/digits_cpu", *ONE_EPOCH))["test/accuracy"] > 0.3


def test_a_resnet_on_a_gpu_also_gets_averaged_weights(cifar10):
    small = ["--data.root", cifar10, "--data.train_part", 64, "--data.batch_size", 32, "--model.network", "ResNet8"]
    run = fit("recipes/cifar10_gpu", *small, *ONE_EPOCH)
    assert {"test/accuracy_ema", "test/nll_ema"} <= metrics(run).keys()
    groups = load(run)["optimizer_states"][0]["param_groups"]
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 5e-4]  # norms and biases do not decay


def test_a_vit_is_taught_by_the_cnn_of_its_own_recipe(cifar100):
    pytest.importorskip("timm")
    small = ["--data.root", cifar100, "--data.train_part", "1 per class", "--data.val_size", 0.25]
    small += ["--data.batch_size", 32, "--trainer.precision", "32-true"]  # bf16 is slow on many CPUs
    fit("recipes/cifar100_cnn", *small, *ONE_EPOCH, "--model.network", "ResNet8")
    student = fit("recipes/cifar100_vit", *small, *ONE_EPOCH, "--model.network.dict_kwargs.depth", 1)
    assert metrics(student)["train/epoch_loss_soft"] > 0
    assert load(student)["state_dict"]["model.pos_embed"].shape == (1, 1 + 8 * 8, 192)


def test_a_small_resnet_learns_from_the_cnn_without_labels_on_mixed_pictures(cifar100):
    small = ["--data.root", cifar100, "--data.train_part", "1 per class", "--data.val_size", 0.25]
    small += ["--data.batch_size", 32, "--trainer.precision", "32-true", "--model.network", "ResNet8"]
    assert fit("recipes/cifar100_cnn", *small, *ONE_EPOCH) == Path("logs/cifar100/baseline/cnn")
    found = metrics(fit("recipes/cifar100_patient", *small, *ONE_EPOCH))
    assert found["train/epoch_loss"] > 0
    assert found["train/epoch_loss_soft"] == pytest.approx(found["train/epoch_loss"])


def test_trained_weights_are_kept_while_the_head_learns(pictures, tmp_path, monkeypatch, capsys):
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(3)
    given = models.resnet18().state_dict()
    torch.save(given, hub / Path(models.ResNet18_Weights.IMAGENET1K_V1.url).name)
    run = fit("recipes/folder_finetune", "--data.root", pictures, "--data.image_size", 32, *ONE_EPOCH)
    metrics(run)
    assert "new: fc.weight, fc.bias (the head has 3 classes, in the file 1000)" in capsys.readouterr().err
    trained = load(run)["state_dict"]  # of one epoch; the body is trained from the fourth on
    assert [k for k in given if not k.startswith("fc.") and not trained[f"model.{k}"].equal(given[k])] == []

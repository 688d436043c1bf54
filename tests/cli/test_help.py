"""The help pages: readable in a terminal of 80 columns, complete, and made of docstrings and type hints."""

import pytest
from helpers import distill

SCREENS = {"kd": 60, "fit": 150}
"""Lines: about two screens of a class, and five of a verb with all its methods and data sets."""


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def page(capsys, *args: str) -> list[str]:
    assert distill(*args) == 0
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert max(map(len, lines)) <= 80
    return lines


def test_a_class_has_its_own_options_first_with_ranges_and_defaults(capsys):
    lines = page(capsys, "fit", "--model.help", "KD")
    assert len(lines) <= SCREENS["kd"]
    text = "\n".join(lines)
    assert text.index("--model.temperature  float, above 0") < text.index("--model.optimizer  Optimizer")
    assert "(default: 4.0)" in text and "torch.nn" not in text
    assert "distill fit --model.network.help" in text


def test_the_help_of_a_verb(capsys):
    lines = page(capsys, "fit", "--help")
    assert len(lines) <= SCREENS["fit"]
    text = "\n".join(lines)
    for shown in ("--config", "  KD  ", "  Digits  ", "--trainer.max_epochs", "distill fit --trainer.help"):
        assert shown in text
    assert text.index("--config") < text.index("  KD ") < text.index("--trainer.max_epochs")
    assert "Taught" not in text  # a base class
    assert "--data.pictures" in "\n".join(page(capsys, "predict", "--help"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--trainer.help"], ["--trainer.limit_train_batches", "--trainer.detect_anomaly"]),
        (["--checkpoint.help"], ["--checkpoint.every_n_steps  int, 1 or more"]),
        (["--data.help"], ["Digits", "CIFAR100"]),
        (["--data.help", "Digits"], ["int, 8 or more", "--data.batch_size  int, 1 or more"]),
        (["--data.augment.help"], ["takes a list of these", "RandomCrop"]),
        (["--model.optimizer.help", "SGD"], ["--model.optimizer.momentum"]),
        (["--model.network.help"], ["ResNet20", "torchvision.models.resnet18"]),
        (["--model.network.help", "torchvision.models.resnet18"], ["--model.network.weights"]),
        (["--trainer.callbacks.help"], ["SoftTargets", "EarlyStopping"]),
        (["--trainer.callbacks.help=Lottery"], ["--trainer.callbacks.linear  float, from 0 to below 1"]),
    ],
    ids=lambda given: " ".join(given),
)
def test_help_of_an_option(given, shown, capsys):
    text = "\n".join(page(capsys, "fit", *given))
    for words in shown:
        assert words in text
    assert "--model.optimizer.params" not in text  # the method gives them

"""Runs opened for use: what they predict is what `distill predict` writes, for pictures of every kind."""

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import distill, write_pictures
from PIL import Image

import distill_lightning as dl


def quick(**options):
    return dl.Trainer(**{"max_epochs": 1, "enable_progress_bar": False} | options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on a folder of pictures, one on digits, and an ensemble."""
    before = Path.cwd()
    where = tmp_path_factory.mktemp("runs")
    os.chdir(where)
    try:
        write_pictures(where / "pictures/train", 3, 12)
        write_pictures(where / "pictures/test", 3, 3, seed=1)
        data = dl.ImageFolder("pictures", image_size=32, batch_size=8)
        folder = quick(log_dir=str(where / "logs")).fit(dl.Baseline(dl.models.ResNet8), data).folder
        digits = [
            quick(seed=seed, log_dir=str(where / "logs")).fit(dl.Baseline(dl.models.ConvNet), dl.Digits()).folder
            for seed in (0, 1)
        ]
        members = [str(run / "checkpoints/last.ckpt") for run in digits]
        together = quick(log_dir=str(where / "logs")).fit(dl.Ensemble(members), dl.Digits()).folder
    finally:
        os.chdir(before)
    return {"folder": folder, "digits": digits[0], "ensemble": together, "pictures": where / "pictures"}


def test_it_predicts_what_the_command_predicts(runs, capsys):
    file = runs["folder"] / "checkpoints/last.ckpt"
    pictures = runs["pictures"] / "test"
    found = dl.load(runs["folder"]).predict(pictures)
    assert distill("predict", "--ckpt_path", file, "--data.pictures", pictures) == 0
    with open(runs["folder"] / "predictions-test.csv") as table:
        written = list(csv.DictReader(table))
    assert [Path(name).name for name in found.files] == [Path(row["file"]).name for row in written]
    assert found.classes == [row["predicted"] for row in written]
    for mine, row in zip(found.probs, written, strict=True):
        assert mine == pytest.approx([float(value) for key, value in row.items() if key.startswith("prob_")], abs=1e-5)


def test_every_form_of_a_picture(runs):
    classifier = dl.load(runs["folder"] / "checkpoints/last.ckpt")
    files = sorted((runs["pictures"] / "test").rglob("*.png"))[:4]
    expected = classifier.predict(files).probs
    pillow = [Image.open(file) for file in files]
    arrays = np.stack([np.asarray(picture) for picture in pillow])
    for given in (
        [str(file) for file in files],
        pillow,
        arrays,
        list(arrays),
        arrays.transpose(0, 3, 1, 2),
        torch.from_numpy(arrays.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(arrays).float() / 255,
        [torch.from_numpy(array).permute(2, 0, 1) for array in arrays],
    ):
        assert classifier.predict(given, batch_size=3).probs == pytest.approx(expected, abs=1e-6)
    assert classifier.predict(files[0]).probs == pytest.approx(expected[:1], abs=1e-6)
    assert len(classifier.predict(Image.new("RGB", (50, 70)))) == 1


def test_grey_pictures_are_told_from_one_picture_with_channels(runs):
    classifier = dl.load(runs["digits"])
    assert len(classifier.predict(np.zeros((3, 8, 8), np.uint8))) == 3
    assert len(classifier.predict(torch.zeros(8, 8))) == 1
    assert classifier.class_names == [str(digit) for digit in range(10)]
    assert classifier.info.name == "digits"
    assert classifier.to("cpu").device == torch.device("cpu")
    assert "digits" in repr(classifier)


def test_an_ensemble_is_the_mean_of_its_members(runs):
    pictures = np.random.default_rng(0).integers(0, 255, (5, 8, 8), dtype=np.uint8)
    whole = dl.load(runs["ensemble"])
    members = [dl.load(runs["digits"].with_name(f"convnet-seed{seed}")) for seed in (0, 1)]
    logits = torch.stack([torch.tensor(member.predict(pictures).probs).log() for member in members])
    # logits differ from log-probabilities by a constant for each member and picture, which softmax removes
    assert whole.predict(pictures).probs == pytest.approx(logits.mean(0).softmax(1).numpy(), abs=1e-5)


def test_a_network_of_one_s_own_needs_trust(tmp_path, monkeypatch):
    Path("own_net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes=10):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_net

    folder = quick().fit(dl.Baseline(own_net.Net), dl.Digits()).folder
    with pytest.raises(dl.InputError, match=r"own_net\.Net"):
        dl.load(folder)
    assert dl.load(folder, trust=own_net.Net).class_names == dl.load(folder, trust="own_net.Net").class_names
    assert len(dl.load(folder, trust=["own_net.Net"]).predict(np.zeros((2, 8, 8), np.uint8))) == 2
    sys.modules.pop("own_net")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((2, 8, 8)) + 7, "values from 7 to 7"),
        (np.zeros((2, 8, 8), np.int32), "uint8"),
        (np.zeros((2, 2, 8, 8, 1), np.uint8), "shape"),
        ([], "picture"),
        ("nowhere.png", "nowhere.png"),
        (3, "int"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_line(runs, given, words):
    with pytest.raises(dl.InputError, match=words) as raised:
        dl.load(runs["digits"]).predict(given)
    assert "\n" not in str(raised.value)


def test_predictions_are_a_table(runs):
    found = dl.load(runs["digits"]).predict(np.zeros((2, 8, 8), np.uint8))
    assert found.probs.shape == (2, 10)
    assert found[0].name in found.class_names
    assert found[0].prob == pytest.approx(float(found.probs[0].max()))
    assert found._repr_html_().startswith("<table>")

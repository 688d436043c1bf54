"""What can be exported and opened: averaged weights, ensembles with own networks, programs, runs of other folders."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import distill, fit, load, rows, write_pictures
from PIL import Image
from torch import nn

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import distill_lightning as dl
from distill_lightning.exporting import parity
from distill_lightning.exporting.opening import normaliser_of, open_source
from distill_lightning.exporting.run_data import home_of
from distill_lightning.tensor_files import write_tensors

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8)
QUIET = ("--trainer.enable_progress_bar", "false")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(parity, "TIMED_S", 0.0)


def logged(run: Path, tag: str) -> float:
    return next(value for _, name, value in rows(run) if name == tag)


# Averaged weights


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> Path:
    """A run with the callback EMA, whose average is far from the last weights."""
    folder, before = tmp_path_factory.mktemp("ema"), Path.cwd()
    os.chdir(folder)
    try:
        ema = ("--trainer.callbacks", "EMA", "--trainer.callbacks.decay", 0.95)
        fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--name", "ema", *ema, *QUIET)
    finally:
        os.chdir(before)
    return folder / "logs/digits/baseline/ema"


@pytest.mark.parametrize("verb", ["test", "export", "load"])
def test_the_averaged_weights_give_the_accuracy_that_was_logged(verb, averaged, capsys, tmp_path):
    raw, average = (logged(averaged, tag) for tag in ("test/accuracy", "test/accuracy_ema"))
    assert abs(raw - average) > 0.01
    if verb == "test":
        assert distill("test", averaged, "--use_ema") == 0
        assert f"{average:.4f}" in capsys.readouterr().out
        assert distill("test", "--use_ema", averaged) == 0  # the option takes no value
    elif verb == "export":
        for given, expected in (({"use_ema": True}, average), ({}, raw)):
            report = dl.export(averaged, out=tmp_path / "m.onnx", pictures=10**6, **given)
            assert report.parity.accuracy["file"] == pytest.approx(expected)
            assert report.as_dict()["lineage"]["use_ema"] is bool(given)
    else:
        weights = load(averaged)["callbacks"]["EMA"]["weights"]
        opened = dl.load(averaged, use_ema=True).network.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in opened.items())
        raws = load(averaged)["state_dict"]
        opened = dl.load(averaged).network.state_dict()
        assert all(torch.equal(value, raws[f"model.{name}"]) for name, value in opened.items())


def test_predictions_with_the_averaged_weights_have_a_name_of_their_own(averaged, photos, capsys):
    assert distill("predict", averaged, photos, "--use_ema") == 0
    table = list(csv.reader((averaged / "predictions-photos-ema.csv").open()))
    expected = dl.load(averaged, use_ema=True).predict(photos).probs
    np.testing.assert_allclose(np.array([row[3:] for row in table[1:]], float), expected, atol=1e-5)
    assert distill("export", averaged, "--use_ema", "--pictures", 0) == 0
    assert "model-ema.onnx\n" in capsys.readouterr().out
    assert (averaged / "model-ema.onnx").exists()
    assert not (averaged / "model.onnx").exists()


@pytest.mark.parametrize("verb", ["test", "predict", "export", "load"])
def test_a_run_without_an_average_is_refused(verb, run, capsys):
    if verb == "load":
        with pytest.raises(dl.InputError, match="has no averaged weights"):
            dl.load(run, use_ema=True)
        return
    assert distill(verb, run, "--use_ema") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"distill: {run}/checkpoints/last.ckpt has no averaged weights: its run had no callback EMA")
    assert not list(run.glob("*ema*"))


def test_an_average_of_other_weights_is_refused(averaged, tmp_path):
    content = load(averaged)
    content["callbacks"]["EMA"]["weights"].popitem()
    write_tensors(tmp_path / "bad.ckpt", {key: value for key, value in content.items() if key != "digest"})
    with pytest.raises(dl.InputError, match="averaged weights of another network"):
        dl.load(tmp_path / "bad.ckpt", use_ema=True)


# Ensembles with networks of the user's own


class Own(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))


def ensemble(members: list, name: str) -> Path:
    return dl.Trainer(name=name, enable_progress_bar=False).fit(dl.Ensemble(members), dl.Digits()).folder


def test_an_ensemble_with_own_networks_is_the_mean_of_all(run, tmp_path):
    """Of a checkpoint, of a network made in Python as it is, and of one with its own normalisation."""
    own, other = Own(), Own()
    members = [dl.PlainNetwork(own), str(run / "checkpoints/last.ckpt"), dl.PlainNetwork(other, mean=[0.2], std=[0.4])]
    folder = ensemble(members, "own")
    with pytest.raises(dl.InputError, match=r"member 0 of .* is a .*\.Own that was made in Python"):
        dl.export(folder, out=tmp_path / "e.onnx")
    with pytest.raises(dl.InputError, match="has 2 members that were made in Python, not 3"):
        dl.load(folder, network=[own, other, other])
    assert not list(tmp_path.glob("e.onnx*"))
    report = dl.export(folder, out=tmp_path / "e.onnx", network=[own, other], pictures=10**6)
    assert report.parity.accuracy["file"] == pytest.approx(logged(folder, "test/accuracy"))
    normalise = normaliser_of(open_source(run).info)
    pixels = torch.from_numpy(PIXELS)[:, None]
    with torch.no_grad():
        each = [own(normalise(pixels)), dl.load(run).network(normalise(pixels)), other((pixels / 255 - 0.2) / 0.4)]
    np.testing.assert_allclose(dl.load(report.file).run(pixels.numpy())[0], torch.stack(each).mean(0), atol=1e-4)


def test_an_ensemble_made_in_python_is_a_run_like_others(run, capsys):
    member = str(run / "checkpoints/last.ckpt")
    folder = dl.Trainer(enable_progress_bar=False).fit(dl.Ensemble([member, member]), dl.Digits()).folder
    options = yaml.safe_load((folder / "config.yaml").read_text())
    assert "optimizer" not in options["model"]["init_args"]
    assert distill("test", "--config", folder / "config.yaml") == 0
    capsys.readouterr()
    assert distill("compress", folder, "--keep", 0.5) == 2
    assert "is an ensemble: give --network, the class of the student" in capsys.readouterr().err


def test_an_ensemble_of_probabilities_over_views_is_what_was_tested(folder_run):
    """Each member is averaged over the views first: the order matters where probabilities are averaged."""
    torch.manual_seed(0)
    root, networks = folder_run.parents[3] / "pictures", [nn.Sequential(nn.Flatten(), nn.Linear(192, 3)) for _ in "ab"]
    data = dl.ImageFolder(root, image_size=8, test_views=dl.CropViews(resize=1.5))
    ensemble = dl.Ensemble([dl.PlainNetwork(one) for one in networks], average="probs")
    folder = dl.Trainer(name="views", enable_progress_bar=False).fit(ensemble, data).folder
    found = dl.load(folder, network=networks)
    labels = data.test.labels
    probs = found.predict(data.test.source.images.permute(0, 2, 3, 1).numpy()).probs
    nll = -np.log(probs[np.arange(len(labels)), labels]).mean()
    assert nll == pytest.approx(logged(folder, "test/nll"), rel=1e-4)


class Two(nn.Module):
    """A network with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Flatten(), nn.Linear(64, 10)

    def forward(self, images):
        features = self.body(images)
        return self.head(features), features


def test_a_network_with_several_outputs_ships_its_logits(tmp_path):
    network = Two()
    folder = dl.Trainer(max_epochs=1, enable_progress_bar=False).fit(dl.Baseline(network), dl.Digits()).folder
    assert dl.load(folder, network=network).predict(PIXELS).probs.shape == (9, 10)
    report = dl.export(folder, out=tmp_path / "two.onnx", network=network, pictures=10**6)
    assert report.parity.accuracy["file"] == pytest.approx(logged(folder, "test/accuracy"))


def test_what_was_tested_with_other_statistics_says_so(capsys):
    given = ("--trainer.max_epochs", 1, "--trainer.callbacks+", "ReestimateBatchNorm")
    folder = fit("digits/baseline.yaml", *given, "--trainer.enable_progress_bar", "false")
    words = "has the running statistics of batch norm. The test of its run estimated them anew"
    for use in (lambda: dl.load(folder), lambda: distill("test", folder), lambda: distill("predict", folder)):
        capsys.readouterr()
        use()
        assert words in capsys.readouterr().err
    assert distill("test", folder, "--reestimate_batch_norm", 1000) == 0
    assert words not in capsys.readouterr().err


def test_files_that_are_no_pictures_are_passed_over(run, tmp_path):
    for number in range(2):
        Image.fromarray(PIXELS[number]).save(tmp_path / f"{number}.png")
    for name in ("notes.pdf", "z.h5", "read.me"):
        (tmp_path / name).write_text("text")
    assert len(dl.load(run).predict(tmp_path).probs) == 2


def test_an_ensemble_of_a_file_s_own_networks_needs_trust(run, tmp_path, monkeypatch):
    Path("nets.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n"
        "    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save(Own().state_dict(), "own.pt")
    plain = {"class_path": "PlainNetwork", "init_args": {"network": {"class_path": "nets.Net"}, "weights": "own.pt"}}
    model = {"class_path": "Ensemble", "init_args": {"members": [plain, str(run)]}}
    Path("e.yaml").write_text(json.dumps({"model": model, "data": {"class_path": "Digits"}}))
    assert distill("fit", "--config", "e.yaml", "--name", "e") == 0
    folder = Path("logs/digits/ensemble/e").resolve()
    os.chdir(run.resolve().parent)  # the paths of the members are those of the folder in which the run was started
    with pytest.raises(dl.InputError, match=r"asks for nets\.Net, .* add --trust nets\.Net"):
        dl.export(folder, pictures=0)
    expected = dl.load(folder, trust="nets.Net").predict(PIXELS).probs
    assert distill("export", folder, "--trust", "nets.Net", "--out", "e.onnx") == 0
    np.testing.assert_allclose(dl.load("e.onnx").predict(PIXELS).probs, expected, atol=1e-4)
    sys.modules.pop("nets")


def test_an_ensemble_that_needs_its_data_says_so(folder_run, tmp_path, monkeypatch):
    monkeypatch.chdir(folder_run.parents[3])
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    data = dl.ImageFolder("pictures", image_size=16, batch_size=8)
    trainer = dl.Trainer(name="plain", log_dir=tmp_path / "logs", enable_progress_bar=False)
    folder = trainer.fit(dl.Ensemble([dl.PlainNetwork(network)]), data).folder
    accuracy = logged(folder, "test/accuracy")
    assert dl.export(folder, out=tmp_path / "m.onnx", network=network).parity.accuracy["run"] == pytest.approx(accuracy)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        dl.InputError, match="pictures, the folder .* does not exist: it says how the members' pictures"
    ):
        dl.load(folder, network=network)


def test_an_ensemble_has_no_average_of_its_own(run):
    with pytest.raises(dl.InputError, match="is an ensemble, which has no averaged weights of its own"):
        dl.export(ensemble([str(run)], "single"), use_ema=True)


class Singular(Own):
    def forward(self, images):
        return super().forward(images) + torch.linalg.svdvals(images)[:, 0, :1]


def test_an_operator_of_a_member_is_named_and_nothing_is_left(run, tmp_path):
    network = Singular()
    folder = ensemble([dl.PlainNetwork(network), str(run)], "singular")
    words = r"the ensemble of ConvNet \+ Singular cannot be exported: its operator aten\._linalg_svd"
    with pytest.raises(dl.InputError, match=words):
        dl.export(folder, out=tmp_path / "m.onnx", network=[network], pictures=0)
    assert not list(tmp_path.glob("m.onnx*"))


@pytest.mark.parametrize("kind", ["ensemble", "pruned", "ema"])
def test_a_parity_that_is_not_met_leaves_nothing(kind, run, averaged, tmp_path, monkeypatch):
    source = run
    if kind == "ensemble":
        source = ensemble([str(run)], "single")
    elif kind == "pruned":
        content = load(run)
        for value in content["state_dict"].values():
            value[value.abs() < value.abs().float().median()] = 0
        source = tmp_path / "pruned.ckpt"
        write_tensors(source, {key: value for key, value in content.items() if key != "digest"})
    nothing = np.zeros((1000, 10), np.float32)
    monkeypatch.setattr(parity, "run_of", lambda module: lambda pixels: (nothing[: len(pixels)],) * 2)
    Path("m.onnx").write_text("what was there before")
    with pytest.raises(dl.InputError, match="differs from the run by .* more than --tolerance"):
        dl.export(averaged if kind == "ema" else source, out="m.onnx", use_ema=kind == "ema", pictures=0)
    assert Path("m.onnx").read_text() == "what was there before"
    assert not Path("m.onnx.json").exists()


# Programs


def test_a_program_predicts_what_the_run_predicts_but_needs_trust(run, photos, capsys, monkeypatch):
    report = dl.export(run, "torch-export", "m.pt2", pictures=70)
    read = []
    monkeypatch.setattr(
        torch.export, "load", lambda *a, load=torch.export.load, **k: (read.append(a), load(*a, **k))[1]
    )
    with pytest.raises(dl.InputError, match=r"m\.pt2 is a program, which can run code .* --trust torch\.export\.load"):
        dl.load(report.file)
    assert distill("predict", "m.pt2", photos) == 2
    assert "is a program" in capsys.readouterr().err
    assert not read
    opened = dl.load(report.file, trust="torch.export.load")
    assert repr(opened) == "ExportedProgram(10 classes, torch-export, made from a)"
    expected = dl.load(run).predict(photos)
    np.testing.assert_allclose(opened.predict(photos).probs, expected.probs, atol=1e-5)
    assert distill("predict", "m.pt2", photos, "--trust", "torch.export.load", "--threads", 1) == 0
    written = Path("predictions-photos.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in written[1:]] == expected.classes
    for content in (b"text", Path("m.pt2").read_bytes()[:1000]):
        Path("bad.pt2").write_bytes(content)
        with pytest.raises(dl.InputError, match=r"bad\.pt2 is damaged, or no \.pt2"):
            dl.load("bad.pt2", trust="torch.export.load")
    with pytest.raises(dl.InputError, match="no file none"):
        dl.load("none.pt2")


# The data of a run


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory) -> Path:
    """A run on a folder of pictures that was given by a relative path, with evaluation of its own."""
    where, before = tmp_path_factory.mktemp("started"), Path.cwd()
    os.chdir(where)
    try:
        write_pictures(where / "pictures/train", 3, 8)
        write_pictures(where / "pictures/test", 3, 3, seed=1)
        data = dl.ImageFolder(
            "pictures", image_size=16, batch_size=8, bit_depth=12, eval_transforms=[dl.ResizeAndCenterCrop(1.25)],
            test_views=dl.FlipViews(), cache=str(where / "cache"),
        )  # fmt: skip
        trainer = dl.Trainer(max_epochs=1, enable_progress_bar=False)
        return where / trainer.fit(dl.Baseline(dl.models.ConvNet), data).folder
    finally:
        os.chdir(before)


def test_a_relative_root_is_found_from_any_folder(folder_run, tmp_path):
    report = dl.export(folder_run, out=tmp_path / "m.onnx")
    assert report.parity.pictures == 9
    assert home_of(folder_run, {"log_dir": "other"}) == Path()


def test_a_missing_root_is_named_with_the_option_to_give(folder_run, tmp_path, capsys):
    copied = tmp_path / "run.ckpt"
    copied.write_bytes((folder_run / "checkpoints/last.ckpt").read_bytes())
    assert distill("export", copied, "--out", "m.onnx") == 2
    expected = (
        f"distill: pictures, the folder of the pictures of {copied}, does not exist: give --root FOLDER (root=), or "
        "--pictures 0 to compare on random pixels\n"
    )
    assert capsys.readouterr().err == expected
    assert not list(tmp_path.glob("m.onnx*"))
    root = folder_run.parents[3] / "pictures"
    assert dl.export(copied, out="m.onnx", root=str(root)).parity.pictures == 9
    report = dl.export(copied, out="m.onnx", pictures=0)
    assert (report.parity.part, report.parity.accuracy, report.as_dict()["accuracy_lost"]) == ("random", {}, None)
    assert not any(row[0].startswith("accuracy") for row in report.rows)
    with pytest.raises(dl.InputError, match="onnx-int8 is calibrated and compared on pictures"):
        dl.export(copied, "onnx-int8", pictures=0)


def test_the_file_evaluates_pictures_as_the_run_does(folder_run, tmp_path):
    """Bit depth, transforms and views of evaluation: the accuracy, and predictions for files, are those of the run."""
    report = dl.export(folder_run, out=tmp_path / "m.onnx", pictures=10**6)
    assert report.parity.accuracy["run"] == pytest.approx(logged(folder_run, "test/accuracy"))
    file, pictures = dl.load(report.file), folder_run.parents[3] / "pictures/test"
    assert file.info.bit_depth == 12
    assert distill("predict", folder_run, pictures) == 0
    with open(folder_run / "predictions-test.csv") as opened:
        written = [[float(value) for value in row[3:]] for row in list(csv.reader(opened))[1:]]
    np.testing.assert_allclose(dl.load(folder_run).predict(pictures).probs, written, atol=2e-6)
    # a pixel that the crop puts between two levels may be rounded to the other one
    np.testing.assert_allclose(file.predict(pictures).probs, written, atol=1e-4)
    content = load(folder_run)
    crop = "distill_lightning.data.random_crops.ResizeAndCenterCrop"
    assert crop in content["config"]
    random = content["config"].replace(crop, "distill_lightning.data.augment.RandomFlip")
    content["config"] = re.sub(r"RandomFlip\n(\s+)init_args:\n\s+resize: 1.25", r"RandomFlip\n\1init_args: {}", random)
    write_tensors(tmp_path / "random.ckpt", {key: value for key, value in content.items() if key != "digest"})
    with pytest.raises(dl.InputError, match=r"evaluates with data\.eval_transforms RandomFlip: only"):
        dl.load(tmp_path / "random.ckpt")

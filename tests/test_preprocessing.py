"""Preprocessing: golden values, the fit, and runs with it."""

import base64
import json
import math
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import CONFIGS, Kill, assert_same_run, distill, fit, load, run_on, without_scripts
from PIL import Image
from sklearn.decomposition import PCA as SklearnPCA
from torch import Tensor

import distill_lightning as dl
from distill_lightning import checkpoints
from distill_lightning.data.base import ImageData
from distill_lightning.data.sources import MemorySource
from distill_lightning.errors import InputError
from distill_lightning.preprocessing import (
    GCN,
    PCA,
    ZCA,
    Fitted,
    MeanPicture,
    PatchZCA,
    PCAWhitening,
    PixelStandardise,
    covariance,
    fit_all,
    principal_components,
    whitening,
)
from distill_lightning.preprocessing.fitting import FitSet
from distill_lightning.preprocessing.steps import Contrast, Filter
from distill_lightning.teachers import FrozenNetwork

X = torch.tensor([[2, 0, 1], [0, 1, 3], [1, 2, 0], [4, 3, 2]], dtype=torch.float64)


def near(a: Tensor, b, tolerance: float = 1e-6) -> bool:
    return bool((a - torch.as_tensor(b, dtype=torch.float64)).abs().max() < tolerance)


def pictures(count: int = 60, shape=(2, 3, 3), seed: int = 0) -> Tensor:
    """uint8 pictures whose pixels depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shape)
    mixed = torch.randn(count, size, generator=generator) @ torch.randn(size, size, generator=generator)
    return (mixed / mixed.std() * 40 + 120).clamp(0, 255).to(torch.uint8).view(count, *shape)


def fit_set(images: Tensor, chunk: int = 500) -> FitSet:
    scaled = images.double() / 255
    mean, std = scaled.mean((0, 2, 3)), scaled.std((0, 2, 3), correction=0)
    return FitSet(lambda: iter(scaled.split(chunk)), len(images), tuple(images.shape[1:]), mean, std)


# Golden values


def test_golden_components_and_whitening():
    mean, matrix, count = covariance([X[:3], X[3:]])
    assert count == 4 and near(mean, [1.75, 1.5, 1.5], 1e-12)
    assert near(matrix, [[2.1875, 0.875, -0.125], [0.875, 1.25, 0], [-0.125, 0, 1.25]], 1e-12)
    values, rows = principal_components(matrix)
    assert near(values, [2.719238, 1.25, 0.718262])
    components = [[0.856890, 0.510318, -0.072903], [0, 0.141421, 0.989949], [-0.515499, 0.848278, -0.121183]]
    assert near(rows, components)
    scores = [[-0.514803, -0.707107], [-1.864071, 1.414214], [-0.278155, -1.414214], [2.657029, 0.707107]]
    assert near((X - mean) @ rows[:2].T, scores)
    pca = (X - mean) @ whitening(values, rows, 0.0, zca=False).T
    white = [[-0.312189, -0.632456, -1.581941], [-1.130417, 1.264911, 0.349510], [-0.168680, -1.264911, 1.171131]]
    assert near(pca, [*white, [1.611286, 0.632456, 0.061301]])
    zca = whitening(values, rows, 0.0, zca=True)
    rows_of_zca = [[0.758829, -0.250789, 0.035827], [-0.250789, 1.024870, -0.018635], [0.035827, -0.018635, 0.897089]]
    assert near(zca, rows_of_zca)
    white = [[0.547978, -1.590684, -0.411636], [-1.148815, -0.101505, 1.292254], [-0.748257, 0.728479, -1.381822]]
    assert near((X - mean) @ zca, [*white, [1.349094, 0.963711, 0.501204]])
    regularised = whitening(values, rows, 0.1, zca=True)
    assert near(regularised[0], [0.731076, -0.222979, 0.031854])
    assert near(regularised[1:, 1:], [[0.967796, -0.015305], [-0.015305, 0.862849]])
    assert near(((X - mean) @ regularised)[0], [0.501311, -1.499787, -0.400504])


def test_as_scikit_learn():
    mean, matrix, _ = covariance([X])
    values, rows = principal_components(matrix)
    theirs = SklearnPCA(whiten=True).fit(X.numpy())
    assert near(values * 4 / 3, theirs.explained_variance_, 1e-9)
    ours = (X - mean) @ whitening(values, rows, 0.0, zca=False).T * math.sqrt(3 / 4)
    assert near(ours.abs(), np.abs(theirs.transform(X.numpy())), 1e-9)
    assert near(ours[0], [-0.270364, -0.547723, -1.370001])
    assert near(values / values.sum(), [0.580104, 0.266667, 0.153229])


def test_golden_contrast():
    step = Contrast(numbers=torch.tensor([1.0, 10.0, 1e-8], dtype=torch.float64))
    wanted = [[0.306186, -0.306186, 0], [-0.392232, -0.098058, 0.490290], [0, 0.306186, -0.306186]]
    wanted.append([0.306186, 0, -0.306186])
    assert near(step(X.view(4, 3, 1, 1)).flatten(1), wanted)
    assert step(torch.full((1, 3, 2, 2), 0.3, dtype=torch.float64)).abs().max() < 1e-12


def test_zca_whitens_along_each_component():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(500, 8, generator=generator).double() @ torch.randn(8, 8, generator=generator).double()
    mean, matrix, _ = covariance(rows.split(77))
    values, components = principal_components(matrix)
    for eps in (0.0, 0.3):
        white = (rows - mean) @ whitening(values, components, eps, zca=True)
        _, found, _ = covariance([white])
        assert near(components @ found @ components.T, torch.diag(values / (values + eps)), 1e-9)


# The fit


def test_one_pass_equals_two_and_the_chunks_do_not_matter():
    rows = pictures(200).flatten(1).double() / 255
    mean, matrix, _ = covariance(rows.split(50))
    centred = rows - rows.mean(0)
    assert near(matrix, centred.T @ centred / 200, 1e-10)
    other_mean, other, _ = covariance(rows.split(7))
    assert near(mean, other_mean, 1e-12) and near(matrix, other, 1e-12)


def test_zca_has_a_standard_deviation_of_1_and_mean_0():
    images = pictures()
    white = ZCA(0.05).fit(fit_set(images))(images.double() / 255)
    assert abs(float(white.std(correction=0)) - 1) < 1e-9 and white.mean(0).abs().max() < 1e-9


def test_pca_whitening_has_the_components_in_the_place_of_pixels():
    images = pictures()
    white = PCAWhitening(0.05).fit(fit_set(images))(images.double() / 255).flatten(1)
    _, matrix, _ = covariance([images.flatten(1).double() / 255])
    values, _ = principal_components(matrix)
    assert near(white.T @ white / len(white), torch.diag(values / (values + 0.05)), 1e-9)


def test_mean_picture_and_pixels():
    images = pictures()
    scaled = images.double() / 255
    found = MeanPicture().fit(fit_set(images))(scaled)
    std = scaled.std((0, 2, 3), correction=0)[:, None, None]
    assert near(found, (scaled - scaled.mean(0)) / std, 1e-12)
    assert near(MeanPicture(2.0).fit(fit_set(images))(scaled), 2 * (scaled - scaled.mean(0)), 1e-12)
    found = PixelStandardise().fit(fit_set(images))(scaled)
    assert near(found, (scaled - scaled.mean(0)) / (scaled.std(0, correction=0) + 1e-2), 1e-9)


def test_pca_with_all_components_is_the_usual_normalisation():
    images, given = pictures(), fit_set(pictures())
    scaled = images.double() / 255
    usual = (scaled - given.mean[:, None, None]) / given.std[:, None, None]
    assert near(PCA(18).fit(given)(scaled), usual, 1e-9)
    few = PCA(3).fit(given)(scaled) * given.std[:, None, None] + given.mean[:, None, None]
    assert torch.linalg.matrix_rank((few - scaled.mean(0)).flatten(1)) == 3


def test_patch_zca_is_zca_of_the_patch_around_a_pixel():
    images = pictures(300, (2, 7, 7))
    step = PatchZCA(3, patches=6000).fit(fit_set(images))
    assert isinstance(step, Filter) and step.weight.shape == (2, 2, 3, 3)
    scaled = images.double() / 255
    inside = (step.weight.flatten(1) @ scaled[0, :, 2:5, 3:6].flatten() + step.bias).flatten()
    assert near(step(scaled)[0, :, 3, 4], inside, 1e-9)
    assert abs(float(step(scaled)[:, :, 1:-1, 1:-1].std()) - 1) < 0.05
    again = PatchZCA(3, patches=6000).fit(fit_set(images, chunk=17))
    assert near(step.weight, again.weight, 1e-9)


def test_several_are_fitted_one_after_another_and_written_as_plain_data():
    images = pictures()
    fitted = fit_all([GCN(), ZCA()], fit_set(images))
    scaled = images.double() / 255
    contrast = GCN().fit(fit_set(images))
    second = ZCA().fit(fit_set(images).after(contrast))
    assert near(fitted(scaled).double(), second(contrast(scaled)), 1e-4)
    assert fitted.words == "GCN(), then ZCA()" and len(list(fitted.spectra)) == 1
    read = Fitted.from_dict(fitted.as_dict(), (2, 3, 3), "x")
    assert torch.equal(read(scaled), fitted(scaled)) and read.digest == fitted.digest
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fitted(scaled), read(scaled))
        assert fitted(scaled).dtype == torch.float32


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["steps"][0].update(kind="os.system"),
        lambda d: d["steps"][0].pop("bias"),
        lambda d: d["steps"][0].update(more=torch.zeros(1)),
        lambda d: d["steps"][0].update(weight=torch.full((18, 18), math.nan)),
        lambda d: d["steps"][0].update(weight=torch.zeros(17, 18)),
        lambda d: d["steps"][0].update(bias=[0.0] * 18),
        lambda d: d.update(steps=3),
        lambda d: d.update(steps=[d["steps"][0]] * 100_000),
        lambda d: d.pop("words"),
    ],
)
def test_a_damaged_state_is_one_line(change):
    content = fit_all([ZCA()], fit_set(pictures())).as_dict()
    change(content)
    with pytest.raises(InputError, match="^x has a") as error:
        Fitted.from_dict(content, (2, 3, 3), "x")
    assert "\n" not in str(error.value)


class Large(ImageData):
    channels, image_size, num_classes = 3, 40, 2

    def read(self, part):
        return (MemorySource(pictures(20, (3, 40, 40))), torch.arange(20) % 2) if part == "train" else None


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (ZCA(), "ZCA: pictures of 3x40x40 have a covariance of 184,320,000 bytes; .* or PatchZCA"),
        (PCA(21), "PCA.k is 21: 18 pictures of 4800 values have at most 18 components"),
        (PatchZCA(41), "PatchZCA.size is 41: pictures of 40x40 are smaller"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(one, words):
    with pytest.raises(InputError, match=f"^{words}$") as error:
        Large(preprocess=one, batch_size=2).setup("fit")
    assert len(str(error.value)) < 200


def test_fewer_pictures_than_dimensions_are_said(capsys):
    data = dl.Digits(preprocess=ZCA(), train_part=30)
    data.setup("fit")
    assert "ZCA: 30 pictures have fewer dimensions than the 64 of a picture" in capsys.readouterr().err
    assert data.preprocessed(torch.zeros(2, 1, 8, 8)).isfinite().all()
    with pytest.raises(InputError, match="even|odd"):
        PatchZCA(4)


def test_only_the_samples_that_are_taken_are_read():
    data = dl.Digits(preprocess=ZCA(), train_part=100)
    data.setup("fit")
    first = data.preprocessing.digest
    other = dl.Digits(preprocess=ZCA(), train_part=100)
    read = other.read

    def changed(part):
        if part != "train":
            return read(part)
        source, labels = read(part)
        images = source.images.clone()
        images[~torch.isin(torch.arange(len(images)), data.train.taken)] = 255
        return MemorySource(images), labels

    other.read = changed
    other.setup("fit")
    assert other.preprocessing.digest == first


def test_without_preprocessing_a_batch_is_the_same_tensor():
    data = dl.Digits()
    data.setup("fit")
    images = torch.randn(2, 1, 8, 8)
    assert data.preprocessed(images) is images and data.info.preprocessing == ""


# Runs

GIVEN = ["digits/baseline.yaml", "--trainer.max_epochs", 2, "--data.train_part", 1000]
WITH_ZCA = [*GIVEN, "--data.preprocess", "ZCA", "--data.preprocess.eps", 0.05]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        yield fit(*WITH_ZCA, "--name", "zca").resolve()


def test_the_run_says_it_and_every_way_to_open_it_applies_it(run, capsys, tmp_path):
    options = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["preprocess"]
    assert options["init_args"] == {"eps": 0.05}
    last = run / "checkpoints" / "last.ckpt"
    trained_on = checkpoints.trained_on(checkpoints.read(last), "")
    assert trained_on.info.preprocessing.startswith("ZCA(eps=0.05) ")
    accuracy = json.loads((run / "summary.json").read_text())["metrics"]["test/accuracy"]
    assert accuracy > 0.3
    assert distill("test", "--ckpt_path", last) == 0
    assert f"{accuracy:.4f}" in capsys.readouterr().out

    data = dl.Digits()
    data.read_test_part()
    images, labels = data.test.source.images, data.test.labels
    probs = torch.from_numpy(dl.load(run).predict(images).probs)
    assert abs(float((probs.argmax(1) == labels).double().mean()) - accuracy) < 1e-6
    by_hand = dl.load(run).network(trained_on.preprocessing(images.float() / 255)).softmax(1)
    assert (by_hand - probs).abs().max() < 1e-5
    report = dl.export(run, "torch-export", tmp_path / "net.pt2")
    assert report.parity.accuracy["file"] == report.parity.accuracy["run"]
    with pytest.raises(InputError, match="safetensors cannot hold the ZCA"):
        dl.export(run, "safetensors", tmp_path / "net.safetensors")


def test_an_onnx_file_contains_it(run, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    report = dl.export(run, "onnx", tmp_path / "net.onnx")
    assert report.parity.accuracy["file"] == report.parity.accuracy["run"]


def test_a_run_that_is_killed_and_resumed_is_bitwise_the_same(run, monkeypatch):
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_end", 6)
        assert distill("fit", "--config", *WITH_ZCA, "--name", "killed", "--checkpoint.every_n_steps", 1) == 1
    assert distill("fit", "--config", *WITH_ZCA, "--name", "killed", "--ckpt_path", "last") == 0
    assert_same_run(run, Path("logs/digits/baseline/killed"))
    assert load(run)["data"]["preprocessing"]["words"] == "ZCA(eps=0.05)"


@pytest.mark.parametrize("mode", ["online", "table"])
@pytest.mark.parametrize("mix", [[], ["--data.mix", "CutMix"]], ids=["plain", "cutmix"])
def test_teacher_of_one_kind_student_of_another(run, mode, mix, tmp_path, monkeypatch):
    """The teacher gets the augmented and mixed picture, and does with it what its own run did."""
    seen: list[tuple[Tensor, Tensor]] = []
    forward = FrozenNetwork.forward

    def watched(self, images):
        logits = forward(self, images)
        seen.append((images.clone(), logits.clone()))
        return logits

    monkeypatch.setattr(FrozenNetwork, "forward", watched)
    student = fit(
        "digits/kd.yaml", "--trainer.max_epochs", 1, "--data.train_part", 300, "--data.preprocess", "GCN",
        "--trainer.callbacks.teacher", run, "--trainer.callbacks.mode", mode, *mix,
    )  # fmt: skip
    checkpoint = checkpoints.read(run / "checkpoints" / "last.ckpt")
    network, trained_on = checkpoints.open_network(run, checkpoint), checkpoints.trained_on(checkpoint, "")
    mean, std = (torch.tensor(x)[:, None, None] for x in (trained_on.info.mean, trained_on.info.std))
    assert seen
    for images, logits in seen[:3]:
        with torch.no_grad():
            alone = network(trained_on.preprocessing(images * std + mean))
        assert (alone - logits).abs().max() < 1e-5
        assert (network(images) - logits).abs().max() > 1e-2
    assert load(student)["data"]["preprocessing"]["words"] == "GCN()"


def test_the_network_gets_the_mixture_whitened_not_a_mixture_of_whitened(monkeypatch):
    data = dl.Digits(preprocess=GCN(), mix=dl.Mixup(), batch_size=16, train_part=100)
    method = dl.Baseline(dl.models.ConvNet)
    given: list[Tensor] = []
    forward = dl.models.ConvNet.forward
    monkeypatch.setattr(dl.models.ConvNet, "forward", lambda self, x: (given.append(x.detach()), forward(self, x))[1])
    dl.Trainer(max_epochs=1, enable_progress_bar=False).fit(method, data)
    means = torch.stack([x.mean((1, 2, 3)).abs().max() for x in given if len(x) == 16])
    stds = torch.cat([x.std((1, 2, 3), correction=0) for x in given if len(x) == 16 and x.count_nonzero()])
    assert means.max() < 1e-5 and (stds - 1).abs().max() < 0.05


def test_two_processes_as_one(run):
    given = [*WITH_ZCA[1:], "--model.network", "LeNet300100"]
    states = []
    for devices in (1, 2):
        run_on(devices, "fit", "--config", CONFIGS / GIVEN[0], *given, "--name", f"on-{devices}")
        states.append(load(Path(f"logs/digits/baseline/on-{devices}")))
    first, second = (state["data"]["preprocessing"]["steps"][0] for state in states)
    assert all(first[name].equal(second[name]) for name in ("weight", "bias"))
    for name, value in states[0]["state_dict"].items():
        assert (value - states[1]["state_dict"][name]).abs().max() < 2e-6, name


def test_an_ensemble_of_members_with_their_own(run):
    other = fit(*GIVEN, "--name", "plain")
    members = json.dumps([str(run / "checkpoints" / "last.ckpt"), str((other / "checkpoints" / "last.ckpt").resolve())])
    ensemble = fit("digits/ensemble.yaml", "--model.members", members)
    assert json.loads((ensemble / "summary.json").read_text())["metrics"]["test/member_accuracy"] > 0.3
    given = ["--config", CONFIGS / "digits/ensemble.yaml", "--model.members", members]
    assert distill("fit", *given, "--data.preprocess", "ZCA") == 2


def test_tensorboard_the_folder_and_the_report_have_a_picture(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run), size_guidance={"images": 0})
    reader.Reload()
    assert "preprocessing" in reader.Tags()["images"]
    content = (run / "preprocessing.png").read_bytes()
    assert Image.open(BytesIO(content)).size[0] >= 8 * 72
    assert distill("report", run, "--out", tmp_path / "r.html") == 0
    page = without_scripts(tmp_path / "r.html")
    assert page.count("<h3>Preprocessing</h3>") == 1 and base64.b64encode(content).decode() in page
    folder = shutil.copytree(run, tmp_path / "copy")
    (folder / "preprocessing.png").write_text("<svg/>")
    assert distill("report", folder, "--out", tmp_path / "r.html") == 2

"""Classes of different sizes: weights, a balanced order, and metrics that count classes equally."""

import copy
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import FEATURE_TAUGHT, METHODS, batch_of, data_info, distill, fit, make, train_loader, write_pictures
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score
from torch import nn

from distill_lightning import confusion, losses
from distill_lightning.data.digits import Digits
from distill_lightning.data.evaluation_views import CropViews, FlipViews
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.imbalance import balanced_order, class_weights
from distill_lightning.errors import InputError
from distill_lightning.evaluation import Evaluation
from distill_lightning.values import BatchNeeds, TeacherOutput

LABELS = torch.tensor([0] * 30 + [1] * 12 + [2] * 3 + [4] * 5)
FAST = ("--trainer.max_epochs", 1, "--data.train_part", 300)


def test_weights_of_classes():
    counts = LABELS.bincount(minlength=6)
    inverse = class_weights("inverse", counts)
    assert inverse.tolist() == pytest.approx([50 / 4 / 30, 50 / 4 / 12, 50 / 4 / 3, 0, 50 / 4 / 5, 0])
    effective = class_weights("effective 0.9", counts)
    assert (effective[0] / effective[2]).item() == pytest.approx((1 - 0.9**3) / (1 - 0.9**30))
    for weights in (inverse, effective):
        assert weights[LABELS].mean().item() == pytest.approx(1)
    assert class_weights({1: 5.0, 3: 0}, counts).tolist() == [1, 5, 1, 0, 1, 1]


@pytest.mark.parametrize("wrong", ["inversed", "effective 1.5", "effective", {"1": -1}, {"1": float("nan")}])
def test_odd_weights_are_refused(wrong):
    with pytest.raises(InputError):
        Digits(class_weights=wrong)


def test_weights_name_a_class_that_exists():
    data = Digits(class_weights={"eleven": 2})
    data.setup("fit")
    with pytest.raises(InputError, match="has no class eleven"):
        data.samples  # noqa: B018


def test_the_weighted_loss():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, weights = torch.tensor([0, 1, 2, 4, 4, 3]), torch.tensor([0.5, 2, 1, 0, 3])
    each = F.cross_entropy(logits, labels, reduction="none")
    weighted = losses.cross_entropy(logits, labels, class_weights=weights)
    assert weighted.item() == pytest.approx((weights[labels] * each).mean().item())
    probs = F.one_hot(labels, 5).float()
    assert losses.cross_entropy(logits, probs, class_weights=weights).item() == pytest.approx(weighted.item())
    ones = losses.cross_entropy(logits, labels, 0.1, torch.ones(5))
    assert ones.item() == pytest.approx(losses.cross_entropy(logits, labels, 0.1).item())
    # a batch is the mean of its halves, so that gradients do not depend on how it is shared out
    halves = [losses.cross_entropy(logits[i : i + 3], labels[i : i + 3], class_weights=weights) for i in (0, 3)]
    assert (sum(halves) / 2).item() == pytest.approx(weighted.item())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in FEATURE_TAUGHT])
def test_every_method_weighs_its_labels(name):
    """Weights of 1 change nothing; others change the loss with labels."""
    from helpers import at

    info = data_info(num_samples=6)
    rng = torch.Generator().manual_seed(0)
    method = make(name)
    method.build_once(info)
    views = method.needs.views + method.needs.pairs_classes
    labels = torch.randint(0, 10, (6,), generator=rng).repeat(views)
    images = torch.randn(6 * views, 1, 8, 8, generator=rng)
    teacher = TeacherOutput(torch.randn(6 * views, 10, generator=rng), (), torch.randn(2, 6 * views, 10, generator=rng))
    batch = batch_of(images, labels, num_new=6, view=torch.zeros_like(labels), teacher=teacher)

    def terms(weights, plugin=None):
        torch.manual_seed(0)
        one, given = copy.deepcopy(method), batch._replace(class_weights=weights)
        if plugin is None:
            return one.training_loss(given, at()).terms
        with plugin.forward_context():
            one, given = plugin.convert_module(one), plugin.convert_input(given)
            return one.training_loss(given, at()).terms

    plain = terms(None)
    ones, doubled = terms(torch.ones(10)), terms(torch.full((10,), 2.0))
    for key, value in plain.items():
        assert ones[key].item() == pytest.approx(value.item(), rel=1e-5)
    assert any(doubled[key].item() == pytest.approx(2 * value.item(), rel=1e-4) for key, value in plain.items())
    double, half = terms(torch.ones(10), DoublePrecision()), terms(torch.ones(10), HalfPrecision("bf16-true"))
    for key, value in plain.items():
        assert double[key].dtype == torch.float64 and half[key].dtype == torch.float32
        assert double[key].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
        assert half[key].item() == pytest.approx(value.item(), rel=0.1, abs=0.1)


def test_the_balanced_order_shows_all_classes_equally_often():
    epochs = [balanced_order(LABELS, 0, epoch) for epoch in range(30)]
    for rows, shown in epochs:
        assert len(rows) == len(LABELS)
        assert sorted(LABELS[rows].bincount()[[0, 1, 2, 4]].tolist()) == [12, 12, 13, 13]
        pairs = list(zip(rows.tolist(), shown.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)  # never the same view twice
    rows = torch.cat([rows for rows, _ in epochs])
    for label in (0, 1, 2, 4):  # the samples of a class equally often as well
        counts = rows.bincount()[label == LABELS]
        assert counts.max() - counts.min() <= 1
    again, other = balanced_order(LABELS, 0, 7), balanced_order(LABELS, 1, 7)
    assert again[0].equal(epochs[7][0]) and again[1].equal(epochs[7][1])
    assert not other[0].equal(epochs[7][0])


def uneven(root: Path) -> Path:
    write_pictures(root, 3, 24, size=16)
    for number in range(4, 24):
        (root / "class_002" / f"{number:03d}.png").unlink()
    return root


@pytest.mark.parametrize("needs", [BatchNeeds(), BatchNeeds(views=2), BatchNeeds(repeats_last_batch=True)])
def test_balanced_batches_are_pure_and_shared_out(tmp_path, needs):
    root = uneven(tmp_path / "p")

    def loader(**more):
        data = ImageFolder(str(root), image_size=16, batch_size=8, val_size=0, balanced=True)
        data.setup("fit")
        return train_loader(data, needs=needs, **more)

    alone = list(loader(start=(2, 0)))
    resumed = list(loader(start=(2, 3)))
    assert len(alone) == 52 // 8
    for a, b in zip(alone[3:], resumed, strict=True):
        assert a.images.equal(b.images) and a.view.equal(b.view)
    halves = [list(loader(rank=rank, world=2, start=(2, 0))) for rank in range(2)]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert whole.index[:8:2].equal(first.index[:4]) and whole.index[1:8:2].equal(second.index[:4])
    counts = torch.cat([batch.labels[: batch.num_new] for batch in alone]).bincount()
    assert counts.max() - counts.min() <= 4
    if needs.repeats_last_batch:
        for last, batch in itertools.pairwise(alone):
            assert batch.index[8:].equal(last.index[:8])
            assert not set(batch.view[8:].tolist()) & set(last.view[:8].tolist())


def test_macro_metrics_as_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.choice([0, 1, 2, 4], 200, p=[0.7, 0.2, 0.05, 0.05]), rng.integers(0, 5, 200)
    evaluation = Evaluation(6, torch.device("cpu"), {})
    logits = F.one_hot(torch.from_numpy(predicted), 6).float()
    for part in range(0, 200, 50):
        evaluation.update(logits[part : part + 50], torch.from_numpy(labels)[part : part + 50])
    results = evaluation.compute()
    assert results["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert results["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert evaluation.confusion == confusion_matrix(labels, predicted, labels=range(6)).tolist()
    of_class = confusion.by_class(torch.tensor(evaluation.confusion))
    assert of_class["accuracy"][1].item() == pytest.approx((predicted == labels)[labels == 1].mean())
    assert of_class["accuracy"][3].isnan()
    assert of_class["count"].tolist() == [*np.bincount(labels, minlength=6)]
    evaluation.update(logits[:10], torch.from_numpy(predicted)[:10])
    assert evaluation.compute()["balanced_accuracy"] == 1.0  # the sums begin anew


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_picture_of_the_matrix(classes):
    counts = torch.eye(classes, dtype=torch.int64) * 5
    counts[0, 1] = 5
    drawn = confusion.draw(counts, [f"class {k}" for k in range(classes)])
    assert drawn.dtype == np.uint8 and drawn.shape[0] == drawn.shape[1] > 300
    cell, margin = 640 // classes, 120 if classes <= 40 else 30
    assert drawn[margin + 1, margin + cell + 1].tolist() == [128, 166, 223]  # a half
    assert drawn[-2, -2].tolist() == [0, 77, 191]  # all


def test_a_run_leaves_metrics_of_classes(tmp_path):
    run = fit("digits/baseline.yaml", *FAST, "--data.class_weights", "inverse", "--data.balanced", "true")
    summary = json.loads((run / "summary.json").read_text())
    classes = summary["classes"]
    assert list(classes) == [str(k) for k in range(10)]
    assert sum(row["count"] for row in classes.values()) == 360
    right = sum(row["accuracy"] * row["count"] for row in classes.values())
    assert right / 360 == pytest.approx(summary["metrics"]["test/accuracy"])
    mean = sum(row["accuracy"] for row in classes.values()) / 10
    assert mean == pytest.approx(summary["metrics"]["test/balanced_accuracy"])
    assert {"val/macro_f1", "test/macro_f1", "val/balanced_accuracy"} <= summary["metrics"].keys()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run), size_guidance={"images": 0})
    reader.Reload()
    assert "test/confusion" in reader.Tags()["images"]


def test_weights_and_balance_change_what_is_learned(tmp_path):
    """Of a class with few pictures more are found."""
    root = uneven(tmp_path / "p")
    shutil.copytree(root, tmp_path / "all" / "train")
    write_pictures(tmp_path / "all" / "test", 3, 8, size=16, seed=3)
    given = ["--data.root", tmp_path / "all", "--data.image_size", 16, "--data.batch_size", 8, "--data.val_size", 0,
             "--model.network", "ConvNet", "--trainer.max_epochs", 2, "--data.augment", "[]"]  # fmt: skip
    runs = {
        name: fit("folder/baseline.yaml", *given, "--name", name, *more)
        for name, more in {"plain": (), "weighted": ("--data.class_weights", "inverse"),
                           "balanced": ("--data.balanced", "true")}.items()
    }  # fmt: skip
    weights = {
        name: torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name, run in runs.items()
    }
    first = next(iter(weights["plain"]))
    assert not weights["plain"][first].equal(weights["weighted"][first])
    assert not weights["plain"][first].equal(weights["balanced"][first])


# Test-time averaging


def test_views_of_evaluation():
    images = torch.randn(2, 3, 16, 16)
    same, mirrored = FlipViews()(images)
    assert same.equal(images) and mirrored.equal(images.flip(3))
    views = list(CropViews(1.5)(images))
    assert len(views) == 10 and len(list(CropViews(1.5, flips=False)(images))) == 5
    larger = F.interpolate(images, (24, 24), mode="bilinear", antialias=True)
    assert views[0].equal(larger[:, :, :16, :16]) and views[1].equal(views[0].flip(3))
    assert views[6].equal(larger[:, :, 8:, 8:]) and views[8].equal(larger[:, :, 4:20, 4:20])
    with pytest.raises(InputError):
        CropViews(1.0)


def test_logits_of_views_are_averaged_in_test_and_predict(capsys, tmp_path):
    run = fit("digits/baseline.yaml", *FAST, "--name", "plain")
    plain = json.loads((run / "summary.json").read_text())["metrics"]
    twice = fit("digits/baseline.yaml", *FAST, "--name", "twice", "--data.test_views", "FlipViews")
    flipped = json.loads((twice / "summary.json").read_text())["metrics"]
    assert {k: v for k, v in flipped.items() if k.startswith("val/")} == {
        k: v for k, v in plain.items() if k.startswith("val/")
    }
    assert flipped["test/nll"] != plain["test/nll"]
    last = run / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    assert distill("test", "--ckpt_path", last, "--data.test_views", "FlipViews") == 0
    assert f"{flipped['test/nll']:.4f}" in capsys.readouterr().out
    assert distill("predict", "--ckpt_path", last, "--data.test_views", "FlipViews") == 0
    averaged = np.genfromtxt(run / "predictions.csv", delimiter=",", skip_header=1)[:, 3:]
    data = Digits()
    data.setup("test")
    images = (data.test.source.images[data.test.taken].float() / 255 - data.normaliser.mean.view(1, 1, 1)) / (
        data.normaliser.std.view(1, 1, 1)
    )
    from distill_lightning.models.convnet import ConvNet

    network = ConvNet().eval()
    state = torch.load(last, weights_only=True)["state_dict"]
    network.load_state_dict({k.removeprefix("model."): v for k, v in state.items()})
    with torch.no_grad():
        expected = ((network(images) + network(images.flip(3))) / 2).softmax(1)
    assert np.abs(averaged - expected.numpy()).max() < 1e-4
    assert isinstance(network, nn.Module)

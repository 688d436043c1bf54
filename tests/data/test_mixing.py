"""Mixed pictures: their partners, their shares, and that teacher and student see the same ones."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, assert_same_run, bare_trainer, distill, fit, kill_and_resume, train_loader

from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.data.augment import Draws, RandomCrop
from distill_lightning.data.digits import Digits
from distill_lightning.data.loaders import TrainLoader
from distill_lightning.data.mixing import CutMix, Mixup
from distill_lightning.errors import InputError
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.cs_kd import CSKD
from distill_lightning.methods.ddgsd import DDGSD
from distill_lightning.methods.dlb import DLB
from distill_lightning.methods.kd import KD
from distill_lightning.models.convnet import ConvNet

MIXES = {"Mixup": Mixup, "CutMix": CutMix}
INDEX = torch.arange(5000)


def draws(count: int = 5000) -> Draws:
    return Draws(0, torch.zeros(count, dtype=torch.long), INDEX[:count])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_moments_of_beta(alpha):
    share = Mixup(alpha).shares(draws())
    assert share.min() >= 0 and share.max() <= 1
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


@pytest.mark.parametrize("mix", MIXES.values())
def test_the_share_is_that_of_the_pixels(mix):
    images, others = torch.ones(5000, 1, 8, 8), torch.zeros(5000, 1, 8, 8)
    mixed, share = mix()(images, others, draws())
    assert torch.allclose(mixed.mean((1, 2, 3)), share, atol=1e-6)
    assert len(share.unique()) > 10


def test_cutmix_cuts_one_rectangle_and_mixup_none():
    mixed, _ = CutMix()(torch.ones(100, 1, 8, 8), torch.zeros(100, 1, 8, 8), draws(100))
    for picture in mixed[:, 0]:
        rows, columns = (picture == 0).any(1).nonzero().flatten(), (picture == 0).any(0).nonzero().flatten()
        if len(rows):
            assert (picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 0).all()
    mixed, _share = Mixup()(torch.ones(100, 1, 8, 8), torch.zeros(100, 1, 8, 8), draws(100))
    assert mixed.flatten(1).std(1).max() < 1e-6


@pytest.mark.parametrize("mix", MIXES.values())
def test_never_at_probability_0(mix):
    images = torch.rand(50, 1, 8, 8)
    mixed, share = mix(probability=0)(images, torch.rand(50, 1, 8, 8), draws(50))
    assert mixed.equal(images) and share.eq(1).all()
    assert 0.4 < mix(probability=0.5).shares(draws()).eq(1).float().mean() < 0.6


@pytest.mark.parametrize("bad", [{"alpha": 0}, {"probability": 1.5}])
def test_bad_options(bad):
    with pytest.raises(InputError):
        CutMix(**bad)


def test_partners_are_training_samples_each_as_likely():
    taken = torch.arange(10, 60)
    partners = Mixup().partners(draws(), taken)
    assert partners.min() >= 10 and partners.bincount()[10:].min() > 60 and len(partners.bincount()) == 60


def loader(rank: int = 0, world: int = 1, **options) -> TrainLoader:
    data = Digits(batch_size=60, train_part=300, seed=5, mix=Mixup(), augment=[RandomCrop(1)], **options)
    data.setup("fit")
    return train_loader(data, rank, world)


def test_processes_share_the_same_global_batch():
    whole = next(iter(loader()))
    for rank in range(2):
        share = next(iter(loader(rank, 2)))
        for key in ("images", "label_probs", "index"):
            assert getattr(share, key).equal(getattr(whole, key)[rank::2])


def test_labels_are_mixed_as_the_pictures():
    one = loader()
    plan = one.plan(2, 1)
    ((images, _),) = one.images.stream([plan])
    batch = one.build(images, plan)
    share = one.renderer.render(images, plan)[1]
    probs, split = batch.label_probs, one.samples.split
    own, other = split.labels[plan.index], split.labels[plan.partner]
    assert torch.allclose(probs.sum(1), torch.ones(60))
    differ = own != other
    assert torch.allclose(probs[INDEX[:60], own][differ], share[differ])
    assert probs[INDEX[:60], own][~differ].allclose(torch.ones(1))
    assert not plan.partner.equal(one.plan(3, 1).partner)
    assert torch.isin(plan.partner, split.taken).all()


def train(method, mix, callbacks=(), epochs=2, **options):
    """The batches as the method saw them, and the data."""
    batches, original = [], method.training_loss
    method.training_loss = lambda batch, position: (batches.append(batch), original(batch, position))[1]
    data = Digits(batch_size=50, train_part=150, seed=5, mix=mix, **options)
    bare_trainer(max_epochs=epochs, callbacks=list(callbacks)).fit(method, datamodule=data)
    return batches, data


@pytest.mark.parametrize("mix", MIXES.values())
def test_dlb_repeats_the_same_mixture(mix):
    """Without augmentation the repeated half is the last fresh half, pixel for pixel, across epochs too."""
    batches, _ = train(DLB(ConvNet(width=4)), mix())
    for last, now in itertools.pairwise(batches):
        assert now.images[50:].equal(last.images[:50])
        assert now.label_probs[50:].equal(last.label_probs[:50])


def test_two_views_are_of_one_mixture():
    batches, _ = train(DDGSD(ConvNet(width=4)), Mixup())
    for batch in batches:
        first, second = batch.images.split(50)
        assert first.equal(second)  # nothing but the mixture
    batches, _ = train(DDGSD(ConvNet(width=4)), Mixup(), augment=[RandomCrop(1)])
    first, second = batches[0].images.split(50)
    assert not first.equal(second)
    assert batches[0].label_probs[:50].equal(batches[0].label_probs[50:])


@pytest.mark.parametrize("mix", MIXES.values())
def test_a_table_of_soft_targets_is_of_the_mixtures_that_the_student_sees(mix):
    fit("digits/baseline.yaml", "--trainer.max_epochs", 1, "--name", "teacher")
    teacher = "logs/digits/baseline/teacher/checkpoints/last.ckpt"
    runs = {}
    for mode in ("online", "table"):
        torch.manual_seed(0)
        callback = SoftTargets(teacher, mode, 3)
        runs[mode], _ = train(KD(ConvNet(width=4)), mix(), [callback], epochs=4, augment=[RandomCrop(1)])
    for online, table in zip(runs["online"][:9], runs["table"][:9], strict=True):
        assert online.images.equal(table.images)
        assert torch.allclose(online.teacher.logits, table.teacher.logits, atol=1e-4)
    again, first = runs["table"][9], runs["table"][0]  # views come round again, and mixtures with them
    rows = {int(i): n for b in runs["table"][:3] for n, i in enumerate(b.index)}
    assert len(rows) == 150 and first.images.shape == again.images.shape
    seen = {int(i): image for batch in runs["table"][:3] for i, image in zip(batch.index, batch.images, strict=True)}
    assert all(seen[int(i)].equal(image) for i, image in zip(again.index, again.images, strict=True))


def test_methods_of_one_class_refuse():
    with pytest.raises(InputError, match="CSKD needs pictures of one sample each"):
        train(CSKD(ConvNet(width=4)), CutMix())


def test_training_accuracy_counts_the_larger_share():
    method = Baseline(ConvNet(width=4))
    batches, _ = train(method, Mixup(), epochs=1)
    dominant = torch.cat([b.label_probs.argmax(1) != b.labels for b in batches]).float().mean()
    assert 0.3 < dominant < 0.6  # the other label, in about half of those that are mixed of two classes


@pytest.mark.parametrize("method", ["baseline", "dlb"])
def test_a_cut_run_goes_on_with_the_same_mixtures(method, monkeypatch):
    options = (
        "--data.mix",
        "CutMix",
        "--trainer.max_epochs",
        3,
        "--data.train_part",
        300,
        "--checkpoint.every_n_steps",
        2,
    )
    given = ["--config", CONFIGS / "digits" / f"{method}.yaml", *options]
    assert distill("fit", *given, "--name", "whole") == 0
    kill_and_resume(given, random.Random(0), monkeypatch, times=4, reach=6)
    assert_same_run(*(Path(f"logs/digits/{method}/{name}") for name in ("whole", "killed")))

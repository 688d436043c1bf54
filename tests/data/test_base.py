"""Splits, batches and their shares."""

import itertools

import pytest
import torch
from helpers import bare_trainer, sgd, train_loader

from distill_lightning import orders
from distill_lightning.data.augment import RandomCrop
from distill_lightning.data.base import ImageData
from distill_lightning.data.digits import Digits
from distill_lightning.data.loaders import EvalLoader, TrainLoader
from distill_lightning.data.provenance import refuse_other
from distill_lightning.data.sources import MemorySource, mean_and_std
from distill_lightning.data.splits import Split
from distill_lightning.data.training_samples import Share
from distill_lightning.errors import InputError
from distill_lightning.methods.dlb import DLB
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.values import Batch, BatchNeeds, PlainTimeline, TrainedOn

REPEATS = BatchNeeds(repeats_last_batch=True)


def digits(**options) -> Digits:
    data = Digits(**{"batch_size": 60, **options})
    data.setup("fit")
    return data


@pytest.fixture(params=[orders.LARGE, 64])
def large(request, monkeypatch) -> None:
    """Orders in memory, and orders that are computed place by place."""
    monkeypatch.setattr(orders, "LARGE", request.param)


def epoch(data: ImageData, number: int, rank: int = 0, world: int = 1, start: int = 0, **more) -> list[Batch]:
    return list(train_loader(data, rank, world, (number, start), **more))


def test_batches_say_who_is_in_them():
    data = digits()
    source, labels = data.read("train")
    for batch in epoch(data, 0):
        assert batch.images.dtype == torch.float32
        assert batch.labels.equal(labels[batch.index])
        assert batch.images.equal(data.normaliser(source.images[batch.index]))
        assert batch.num_new == 60
        assert batch.weight == 1.0


@pytest.mark.usefixtures("large")
def test_an_epoch_is_one_pass():
    data = digits(keep_last=True)
    seen = torch.cat([batch.index for batch in epoch(data, 3)])
    assert seen.sort().values.equal(data.train.taken)


def test_last_partial_batch_is_dropped_unless_kept():
    assert {len(b.index) for b in epoch(digits(), 0)} == {60}
    assert len(epoch(digits(keep_last=True), 0)) == len(epoch(digits(), 0)) + 1


@pytest.mark.usefixtures("large")
def test_starting_in_the_middle_gives_the_same_batches():
    data = digits(augment=[RandomCrop(1)])
    whole, rest = epoch(data, 2), epoch(data, 2, start=7)
    for a, b in zip(whole[7:], rest, strict=True):
        assert a.images.equal(b.images)
        assert a.index.equal(b.index)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("keep_last", [False, True])
def test_global_batch_is_the_same_on_any_number_of_processes(keep_last):
    data = digits(augment=[RandomCrop(1)], keep_last=keep_last)
    alone = epoch(data, 1)
    shares = [epoch(data, 1, rank, 3) for rank in range(3)]
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        parts = [part for part in parts if part.weight]
        order = torch.cat([part.index for part in parts]).argsort()
        assert torch.cat([part.images for part in parts])[order].equal(batch.images[batch.index.argsort()])
        weights = sum(part.weight * part.num_new / len(part.index) for part in parts)
        assert weights == pytest.approx(3)


@pytest.mark.usefixtures("large")
def test_unequal_shares_are_weighted_so_that_the_mean_is_exact():
    data = digits(keep_last=True, train_part=121)
    parts = [epoch(data, 0, rank, 3)[-1] for rank in range(3)]
    alone = epoch(data, 0)[-1]
    assert len(alone.index) == 1  # two of three processes have nothing, and take the step all the same
    mean = sum(part.weight * part.images.mean() for part in parts) / 3
    assert mean.item() == pytest.approx(alone.images.mean().item())


@pytest.mark.usefixtures("large")
def test_last_batch_is_repeated_under_another_view():
    data = digits(augment=[RandomCrop(1)])
    first, second = epoch(data, 0, needs=REPEATS), epoch(data, 1, needs=REPEATS)
    assert len(first[0].index) == 60  # there is none before the very first
    for before, batch in [*itertools.pairwise(first), (first[-1], second[0])]:
        assert batch.num_new == 60
        assert batch.index[60:].equal(before.index[:60])
        assert not batch.images[60:].equal(before.images[:60])
        assert (batch.view[60:] == before.view[:60] + 1).all()


def test_a_limit_on_batches_moves_the_end_of_an_epoch():
    data = digits()
    loader = TrainLoader(data.samples, data.renderer, REPEATS, PlainTimeline(5, 2), Share(), lambda: (0, 0))
    assert loader.plan(1, 0).index[60:].equal(loader.plan(0, 4).index[:60])


@pytest.mark.parametrize(("limit", "batches"), [(5, 5), (0.2, 4), (1.0, 23)])
def test_a_method_repeats_the_last_batch_that_was_trained_on(limit, batches):
    seen = []

    class Kept(DLB):
        def training_loss(self, batch, position):
            seen.append(batch)
            return super().training_loss(batch, position)

    method = Kept(LeNet300100(image_size=8), optimizer=sgd)
    bare_trainer(max_epochs=2, limit_train_batches=limit).fit(method, datamodule=Digits(batch_size=56))
    assert len(seen) == 2 * batches
    assert seen[batches].index[56:].equal(seen[batches - 1].index[:56])


def test_views_come_round_again():
    data = digits(augment=[RandomCrop(1)])
    assert {int(b.view[0]) for e in range(4) for b in epoch(data, e, view_cycle=2)} == {0, 1}


def test_validation_split_is_the_same_in_every_run(monkeypatch):
    splits = []
    for seed in ("0", "17"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        splits.append(digits().val.taken)
    assert splits[0].equal(splits[1])
    assert not digits(split_seed=1).val.taken.equal(splits[0])


def test_a_part_keeps_names_and_leaves_validation_alone():
    whole, part = digits(), digits(train_part=0.25)
    assert part.val.taken.equal(whole.val.taken)
    assert torch.isin(part.train.taken, whole.train.taken).all()
    assert not torch.isin(part.train.taken, part.val.taken).any()
    labels = whole.train.labels
    for batch in epoch(part, 0):
        assert batch.labels.equal(labels[batch.index])


def test_classes_are_left_out_of_training_alone():
    data, whole = digits(leave_out=[3, "7"]), digits()
    assert set(data.train.labels[data.train.taken].tolist()) == set(range(10)) - {3, 7}
    kept = [i for i in whole.train.taken.tolist() if whole.train.labels[i] not in (3, 7)]
    assert data.train.taken.tolist() == kept  # under the same names
    assert torch.equal(data.val.taken, whole.val.taken)
    assert torch.equal(data.normaliser.mean, whole.normaliser.mean)
    with pytest.raises(InputError, match="no class 12"):
        digits(leave_out=[12])
    with pytest.raises(InputError, match="no training samples"):
        digits(leave_out=list(range(10)))


def test_so_many_of_each_class():
    data = digits(train_part="7 per class")
    assert data.train.labels[data.train.taken].bincount().tolist() == [7] * 10


@pytest.mark.parametrize("total", [359, 360, 361, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_counts_every_sample_once(total, world):
    data = digits()
    split = Split(data.val.source, torch.arange(total), data.val.labels)
    loaders = [EvalLoader(split, 100, data.normaliser, Share(rank, world)) for rank in range(world)]
    assert len({len(loader) for loader in loaders}) == 1
    seen = torch.cat([batch.index for loader in loaders for batch in loader])
    assert seen.sort().values.equal(torch.arange(total))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"val_size": 1.0},
        {"val_size": -1},
        {"val_size": 5000},
        {"train_part": 0.0},
        {"train_part": 10**6},
        {"train_part": "seven per class"},
        {"train_part": "900 per class"},
    ],
)
def test_bad_options(options):
    with pytest.raises(InputError):
        digits(**options)


def test_labels_out_of_range_are_named():
    class Odd(Digits):
        def read(self, part):
            source, labels = super().read("train")
            return None if part == "val" else (source, labels + 1)

    with pytest.raises(InputError, match="labels from 1 to 10"):
        Odd().setup("fit")


def test_mean_and_std_are_exact():
    images = torch.randint(0, 256, (2500, 3, 5, 5), dtype=torch.uint8)
    mean, std = mean_and_std(images.split(1000))
    scaled = images.double() / 255
    assert torch.allclose(mean.double(), scaled.mean((0, 2, 3)), atol=1e-7)
    assert torch.allclose(std.double(), scaled.std((0, 2, 3), correction=0), atol=1e-7)
    assert MemorySource(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8)).mean_and_std()[1].item() == 1


def test_label_noise_is_the_same_everywhere_and_training_alone_has_it():
    clean, noisy = digits(), digits(label_noise=0.4)
    wrong = noisy.train.labels != clean.train.labels
    assert torch.equal(noisy.clean_labels, clean.train.labels)
    assert wrong.float().mean() == pytest.approx(0.4, abs=0.04)
    assert torch.equal(noisy.train.labels, digits(label_noise=0.4, train_part=100, seed=9).train.labels)  # by index
    assert torch.equal(noisy.val.labels, clean.train.labels) and torch.equal(noisy.train.taken, clean.train.taken)
    assert noisy.fingerprint == clean.fingerprint  # the same pictures: a teacher of one may teach the other
    shifts = (noisy.train.labels - clean.train.labels)[wrong] % 10
    assert shifts.bincount(minlength=10)[1:].float().std() / shifts.bincount(minlength=10)[1:].float().mean() < 0.3
    fewer = digits(label_noise=0.2).train.labels != clean.train.labels
    assert not (fewer & ~wrong).any()  # more noise is the same noise and more
    batch = epoch(noisy, 0)[0]
    assert torch.equal(batch.clean_labels, clean.train.labels[batch.index])
    assert epoch(clean, 0)[0].clean_labels is None


def test_a_class_that_is_left_out_is_nobodys_label():
    data = digits(label_noise=0.4, leave_out=[3])
    taken = data.train.taken
    assert not (data.train.labels[taken] == 3).any() and not (data.clean_labels[taken] == 3).any()
    assert (data.train.labels[taken] != data.clean_labels[taken]).any()


def test_no_noise_is_a_level_of_noise():
    """A study from 0 on: a map may stand there, and the clean labels are known."""
    none = digits(label_noise=0.0, noise_map={4: 9})
    assert torch.equal(none.train.labels, none.clean_labels)
    with pytest.raises(InputError, match="4 is mistaken for itself"):
        digits(label_noise=0.1, noise_map={"4": 4})


def test_a_run_is_not_gone_on_with_under_other_noise():
    data = digits(label_noise=0.2)
    trained_on = TrainedOn(data.info, data.held_out)
    refuse_other(digits(label_noise=0.2).info, trained_on)
    with pytest.raises(InputError, match="label_noise, noise_map and noise_seed were"):
        refuse_other(digits(label_noise=0.4).info, trained_on)


def test_label_noise_by_a_map():
    clean, noisy = digits().train.labels, digits(label_noise=0.5, noise_map={4: 9, "3": "8"}).train.labels
    assert set(zip(clean[clean != noisy].tolist(), noisy[clean != noisy].tolist(), strict=True)) == {(4, 9), (3, 8)}
    assert (noisy[clean == 4] == 9).float().mean() == pytest.approx(0.5, abs=0.12)
    for wrong in ({"label_noise": 1.5}, {"noise_map": {4: 9}}, {"label_noise": 0.1, "noise_map": {4: 12}}):
        with pytest.raises(InputError):
            digits(**wrong)

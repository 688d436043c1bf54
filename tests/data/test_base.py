"""Splits, batches and their shares."""

import pytest
import torch

from distill_lightning.data.augment import RandomCrop
from distill_lightning.data.base import EvalLoader, ImageData, TrainLoader
from distill_lightning.data.digits import Digits
from distill_lightning.data.sources import MemorySource, mean_and_std
from distill_lightning.errors import InputError


def digits(**options) -> Digits:
    data = Digits(**{"batch_size": 60, **options})
    data.setup("fit")
    return data


def epoch(data: ImageData, number: int, rank: int = 0, world: int = 1, start: int = 0) -> list[dict]:
    return list(TrainLoader(data, rank, world, lambda: (number, start)))


def test_batches_say_who_is_in_them():
    data = digits()
    source, labels = data.read("train")
    for batch in epoch(data, 0):
        assert batch["image"].dtype == torch.float32
        assert batch["label"].equal(labels[batch["index"]])
        assert batch["image"].equal(data.normalise(source.images[batch["index"]]))
        assert batch["fresh"] == 60
        assert batch["weight"] == 1.0


def test_an_epoch_is_one_pass():
    data = digits(keep_last=True)
    seen = torch.cat([batch["index"] for batch in epoch(data, 3)])
    assert seen.sort().values.equal(data.train.taken)


def test_last_partial_batch_is_dropped_unless_kept():
    assert {len(b["index"]) for b in epoch(digits(), 0)} == {60}
    assert len(epoch(digits(keep_last=True), 0)) == len(epoch(digits(), 0)) + 1


def test_starting_in_the_middle_gives_the_same_batches():
    data = digits(augment=[RandomCrop(1)])
    whole, rest = epoch(data, 2), epoch(data, 2, start=7)
    for a, b in zip(whole[7:], rest, strict=True):
        assert a["image"].equal(b["image"])
        assert a["index"].equal(b["index"])


@pytest.mark.parametrize("keep_last", [False, True])
def test_global_batch_is_the_same_on_any_number_of_processes(keep_last):
    data = digits(augment=[RandomCrop(1)], keep_last=keep_last)
    alone = epoch(data, 1)
    shares = [epoch(data, 1, rank, 3) for rank in range(3)]
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        parts = [part for part in parts if part["weight"]]
        order = torch.cat([part["index"] for part in parts]).argsort()
        assert torch.cat([part["image"] for part in parts])[order].equal(batch["image"][batch["index"].argsort()])
        weights = sum(part["weight"] * part["fresh"] / len(part["index"]) for part in parts)
        assert weights == pytest.approx(3)


def test_unequal_shares_are_weighted_so_that_the_mean_is_exact():
    data = digits(keep_last=True, train_part=121)
    parts = [epoch(data, 0, rank, 3)[-1] for rank in range(3)]
    alone = epoch(data, 0)[-1]
    assert len(alone["index"]) == 1  # two of three processes have nothing, and take the step all the same
    mean = sum(part["weight"] * part["image"].mean() for part in parts) / 3
    assert mean.item() == pytest.approx(alone["image"].mean().item())


def test_last_batch_is_repeated_under_another_view():
    data = digits(augment=[RandomCrop(1)])
    data.repeats_last_batch, data.views_per_epoch = True, 2
    first, second = epoch(data, 0), epoch(data, 1)
    assert len(first[0]["index"]) == 60  # there is none before the very first
    for before, batch in [*zip(first, first[1:], strict=False), (first[-1], second[0])]:
        assert batch["fresh"] == 60
        assert batch["index"][60:].equal(before["index"][:60])
        assert not batch["image"][60:].equal(before["image"][:60])
        assert (batch["view"][60:] == before["view"][:60] + 1).all()


def test_a_limit_on_batches_moves_the_end_of_an_epoch():
    class Trainer:
        num_training_batches = 5
        world_size, global_rank = 1, 0

    data = digits()
    data.repeats_last_batch, data.views_per_epoch = True, 2
    data.trainer = Trainer()
    data.trainer.strategy = type("Strategy", (), {"root_device": torch.device("cpu")})
    loader = TrainLoader(data, 0, 1, lambda: (0, 0))
    assert loader.plan(1, 0).index[60:].equal(loader.plan(0, 4).index[:60])


def test_views_come_round_again():
    data = digits(augment=[RandomCrop(1)])
    data.view_cycle = 2
    assert {int(b["view"][0]) for e in range(4) for b in epoch(data, e)} == {0, 1}


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
    labels = whole.labels
    for batch in epoch(part, 0):
        assert batch["label"].equal(labels[batch["index"]])


def test_classes_are_left_out_of_training_alone():
    data, whole = digits(leave_out=[3, "7"]), digits()
    assert set(data.labels[data.train.taken].tolist()) == set(range(10)) - {3, 7}
    kept = [i for i in whole.train.taken.tolist() if whole.labels[i] not in (3, 7)]
    assert data.train.taken.tolist() == kept  # under the same names
    assert torch.equal(data.val.taken, whole.val.taken)
    assert torch.equal(data.mean, whole.mean)
    with pytest.raises(InputError, match="no class 12"):
        digits(leave_out=[12])
    with pytest.raises(InputError, match="no training samples"):
        digits(leave_out=list(range(10)))


def test_so_many_of_each_class():
    data = digits(train_part="7 per class")
    assert data.labels[data.train.taken].bincount().tolist() == [7] * 10


@pytest.mark.parametrize("total", [359, 360, 361, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_counts_every_sample_once(total, world):
    data = digits(eval_batch_size=100)
    data.val.taken = torch.arange(total)
    loaders = [EvalLoader(data, data.val, data.labels, rank, world) for rank in range(world)]
    assert len({len(loader) for loader in loaders}) == 1
    seen = torch.cat([batch["index"] for loader in loaders for batch in loader])
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
    wrong = noisy.labels != clean.labels
    assert torch.equal(noisy.clean_labels, clean.labels)
    assert wrong.float().mean() == pytest.approx(0.4, abs=0.04)
    assert torch.equal(noisy.labels, digits(label_noise=0.4, train_part=100, seed=9).labels)  # by index
    assert torch.equal(noisy.val_labels, clean.labels) and torch.equal(noisy.train.taken, clean.train.taken)
    assert noisy.fingerprint == clean.fingerprint  # the same pictures: a teacher of one may teach the other
    shifts = (noisy.labels - clean.labels)[wrong] % 10
    assert shifts.bincount(minlength=10)[1:].float().std() / shifts.bincount(minlength=10)[1:].float().mean() < 0.3
    fewer = digits(label_noise=0.2).labels != clean.labels
    assert not (fewer & ~wrong).any()  # more noise is the same noise and more
    batch = epoch(noisy, 0)[0]
    assert torch.equal(batch["clean_label"], clean.labels[batch["index"]])
    assert "clean_label" not in epoch(clean, 0)[0]


def test_a_class_that_is_left_out_is_nobodys_label():
    data = digits(label_noise=0.4, leave_out=[3])
    taken = data.train.taken
    assert not (data.labels[taken] == 3).any() and not (data.clean_labels[taken] == 3).any()
    assert (data.labels[taken] != data.clean_labels[taken]).any()


def test_no_noise_is_a_level_of_noise():
    """A study from 0 on: a map may stand there, and the clean labels are known."""
    none = digits(label_noise=0.0, noise_map={4: 9})
    assert torch.equal(none.labels, none.clean_labels)
    with pytest.raises(InputError, match="4 is mistaken for itself"):
        digits(label_noise=0.1, noise_map={"4": 4})


def test_a_run_is_not_gone_on_with_under_other_noise():
    state = digits(label_noise=0.2).state_dict()
    digits(label_noise=0.2).load_state_dict(state)
    with pytest.raises(InputError, match="label_noise, noise_map and noise_seed were"):
        digits(label_noise=0.4).load_state_dict(state)


def test_label_noise_by_a_map():
    clean, noisy = digits().labels, digits(label_noise=0.5, noise_map={4: 9, "3": "8"}).labels
    assert set(zip(clean[clean != noisy].tolist(), noisy[clean != noisy].tolist(), strict=True)) == {(4, 9), (3, 8)}
    assert (noisy[clean == 4] == 9).float().mean() == pytest.approx(0.5, abs=0.12)
    for wrong in ({"label_noise": 1.5}, {"noise_map": {4: 9}}, {"label_noise": 0.1, "noise_map": {4: 12}}):
        with pytest.raises(InputError):
            digits(**wrong)

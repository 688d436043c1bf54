"""Training pictures without labels: their positions, order and views, what they may not change, and the loss of KD."""

import math
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from helpers import (
    CONFIGS,
    Kill,
    assert_same_run,
    at,
    bare_trainer,
    distill,
    fit,
    kill_and_resume,
    load,
    rows,
    rows_of_any_world,
    run_on,
    sgd,
    train_loader,
    write_pictures,
)

from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.data.augment import RandomCrop
from distill_lightning.data.digits import Digits
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.mixing import Mixup
from distill_lightning.data.training_part import read_training_part
from distill_lightning.data.unlabelled import START
from distill_lightning.errors import InputError
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.kd import KD
from distill_lightning.models.lenet import LeNet300100
from distill_lightning.values import NO_LABEL, Batch, BatchNeeds, TeacherOutput

FEW = {"train_part": "5 per class", "batch_size": 40}


def digits(**options) -> Digits:
    data = Digits(**{"unlabelled": "rest", **FEW, **options})
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """30 grey pictures without labels."""
    return write_pictures(tmp_path_factory.mktemp("more"), 3, 10, size=8)


def batches(data, epoch: int = 0, **options) -> list[Batch]:
    return list(train_loader(data, start=(epoch, 0), **options))


def test_a_batch_has_its_share_of_pictures_without_labels_at_its_end():
    data = digits(unlabelled_share=0.75)
    (loader,) = [batches(data)]
    assert len(loader) == 5  # an epoch is one pass through the pictures with labels
    for batch in loader:
        assert (len(batch.index), batch.num_new, batch.num_unlabelled) == (40, 10, 30)
        assert batch.labels[batch.labelled].equal(data.training_split.labels[batch.index[:10]])
        assert (batch.labels[10:] == NO_LABEL).all()
        assert batch.images.equal(data.normaliser(data.training_split.source.images[batch.index]))
    assert torch.cat([b.index[:10] for b in loader]).sort().values.equal(data.training_split.taken)


def test_the_rest_is_what_is_neither_trained_on_nor_held_out_nor_left_out():
    data = digits(leave_out=["3"])
    rest, taken, labels = data.unlabelled_part.index, data.training_split.taken, data.clean_labels
    held_out = data.held_out.long()
    left = torch.tensor([i for i in range(len(labels)) if labels[i] != 3])
    assert torch.cat([rest, taken, held_out[labels[held_out] != 3]]).sort().values.equal(left)


def test_all_are_shown_once_before_one_is_shown_again_also_across_epochs():
    data = digits(augment=[RandomCrop(1)])
    count = len(data.unlabelled_part.index)
    index, view = [], []
    for epoch in range(2 * math.ceil(count / 40)):
        for batch in batches(data, epoch):
            index.append(batch.index[20:])
            view.append(batch.view[20:])
    index, view = torch.cat(index), torch.cat(view)
    for turn in (0, 1):
        assert index[turn * count : (turn + 1) * count].sort().values.equal(data.unlabelled_part.index)
        assert (view[turn * count : (turn + 1) * count] == turn).all()
    assert not index[:count].equal(index[count : 2 * count])


def test_batches_are_the_same_from_the_middle_and_on_two_processes(more):
    for unlabelled in ("rest", str(more)):
        data = digits(unlabelled=unlabelled, augment=[RandomCrop(1)])
        alone = batches(data, 3)
        for a, b in zip(alone[1:], train_loader(data, start=(3, 1)), strict=True):
            assert a.images.equal(b.images) and a.index.equal(b.index)
        shares = [batches(data, 3, rank=rank, world=2) for rank in range(2)]
        for batch, *parts in zip(alone, *shares, strict=True):
            assert {part.num_unlabelled for part in parts} == {10}
            index = torch.cat([part.index for part in parts])
            assert index.sort().values.equal(batch.index.sort().values)
            images = torch.cat([part.images for part in parts])
            assert images[index.argsort(stable=True)].equal(batch.images[batch.index.argsort(stable=True)])


def test_a_folder_has_positions_of_its_own_that_do_not_move(more, tmp_path):
    grown = write_pictures(tmp_path / "grown", 4, 10, size=8)  # class_003 comes after the other pictures
    few, many, larger = (
        digits(unlabelled=str(more)),
        digits(unlabelled=str(more), train_part=400),
        digits(unlabelled=str(grown)),
    )
    assert few.unlabelled_part.index.tolist() == list(range(START, START + 30))
    assert many.unlabelled_part.index.equal(few.unlabelled_part.index)
    assert larger.unlabelled_part.index[:30].equal(few.unlabelled_part.index)
    for a, b in zip(batches(few), batches(larger), strict=True):  # the pictures with labels are not affected
        assert a.index[:20].equal(b.index[:20]) and a.images[:20].equal(b.images[:20])
    assert few.info.fingerprint == larger.info.fingerprint
    assert few.info.unlabelled != larger.info.unlabelled


@pytest.mark.parametrize("how", ["rest", "folder"])
def test_labels_of_pictures_without_labels_cannot_matter(how, more, monkeypatch):
    """Other labels for the rest, and other class folders for a folder, give the same batches and the same weights."""

    def trained(data) -> list[torch.Tensor]:
        network = LeNet300100(image_size=8)
        torch.manual_seed(0)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.05)
        trainer = bare_trainer(max_epochs=2, callbacks=[SoftTargets(teacher)])
        trainer.fit(KD(network, optimizer=sgd), datamodule=data)
        return [p.detach().clone() for p in network.parameters()]

    torch.manual_seed(1)
    teacher = LeNet300100(image_size=8)
    if how == "folder":
        flat = more.parent / "flat"
        flat.mkdir(exist_ok=True)
        for number, file in enumerate(sorted(more.rglob("*.png"))):
            (flat / f"{number:02d}.png").write_bytes(file.read_bytes())
        assert all(a.equal(b) for a, b in zip(*(trained(digits(unlabelled=str(f))) for f in (more, flat)), strict=True))
        return
    right = trained(digits())

    def scrambled(data):
        part = read_training_part(data)
        gone = torch.ones(len(part.train.labels), dtype=torch.bool)
        gone[part.train.taken] = False
        gone[part.held_out.long()] = False
        part.train.labels[gone] = (part.train.labels[gone] + 1) % 10
        return part

    monkeypatch.setattr("distill_lightning.data.base.read_training_part", scrambled)
    data = digits()
    assert (data.training_split.labels != Digits().read("train")[1]).any()
    assert all(a.equal(b) for a, b in zip(right, trained(data), strict=True))


def test_the_loss_of_kd_has_two_denominators():
    """By hand, with T = 2: two pictures, of which the first has a label."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    network[1].weight.data = torch.eye(2)
    s = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    t = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    batch = Batch(
        s[:, None, None], torch.tensor([0, NO_LABEL]), torch.tensor([0, START]), 1, teacher=TeacherOutput(t),
        num_unlabelled=1,
    )  # fmt: skip
    output = KD(network, temperature=2.0, soft_weight=0.5, hard_weight=3.0).training_loss(batch, at())

    def kl(t: list[float], s: list[float]) -> float:
        p, q = ([math.exp(x / 2) / sum(math.exp(y / 2) for y in z) for x in z] for z in (t, s))
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    assert output.terms["hard"].item() == pytest.approx(3 * math.log(1 + math.exp(-1)), rel=1e-6)
    soft = 0.5 * 4 * (kl([0, 0], [1, 0]) + kl([3, 1], [0, 2])) / 2
    assert output.terms["soft"].item() == pytest.approx(soft, rel=1e-6)
    assert output.logits.shape == (1, 2)  # train accuracy is of the picture with a label
    assert output.agrees.tolist() == [True, False]  # and agreement of both: 0 and 0, 1 and 0


def test_train_accuracy_is_of_the_pictures_with_labels():
    trainer = bare_trainer(max_epochs=1, callbacks=[SoftTargets(LeNet300100(image_size=8))])
    method = KD(LeNet300100(image_size=8), optimizer=sgd)
    seen = []
    method.log_metrics = lambda part, values, step: seen.append((part, values))
    trainer.fit(method, datamodule=digits())
    (epoch,) = [values for part, values in seen if "epoch_accuracy" in values]
    assert epoch["exposures"] == 2 * 40
    assert (epoch["epoch_accuracy"] * 40) == pytest.approx(round(epoch["epoch_accuracy"] * 40))
    assert (epoch["epoch_agreement"] * 80) == pytest.approx(round(epoch["epoch_agreement"] * 80))


@pytest.mark.parametrize("how", ["rest", "folder"])
def test_a_table_gives_each_picture_its_own_soft_targets(how, more, tmp_path):
    data = digits(unlabelled="rest" if how == "rest" else str(more), augment=[RandomCrop(1)])
    torch.manual_seed(1)
    teacher, seen = LeNet300100(image_size=8), []

    class Kept(KD):
        def training_loss(self, batch, position):
            seen.append(batch)
            return super().training_loss(batch, position)

    table = SoftTargets(teacher, mode="table", views=2, folder=str(tmp_path / "tables"))
    bare_trainer(max_epochs=4, callbacks=[table]).fit(Kept(LeNet300100(image_size=8), optimizer=sgd), datamodule=data)
    assert len(seen) == 8
    for batch in seen:
        with torch.no_grad():
            assert torch.allclose(batch.teacher.logits, teacher.eval()(batch.images), atol=1e-5)
    manifests = list((tmp_path / "tables").glob("*/manifest.json"))
    assert len(manifests) == 1 and "unlabelled" in manifests[0].read_text()


def test_pictures_of_files_are_joined_with_pictures_in_memory(more):
    """A folder whose files are decoded when they are needed gives the same batches; so does one of both kinds."""
    made = [
        ImageFolder(
            str(more), image_size=8, batch_size=8, val_size=0, unlabelled=str(more), from_files=from_files,
            augment=[RandomCrop(1)], num_workers=0,
        )
        for from_files in (False, True)
    ]  # fmt: skip
    for data in made:
        data.setup("fit")
    made[1].normaliser = made[0].normaliser
    for a, b in zip(*map(batches, made), strict=True):
        assert a.images.equal(b.images) and a.index.equal(b.index) and a.labels.equal(b.labels)


def test_a_damaged_picture_is_replaced_by_one_of_its_own_kind(tmp_path):
    with_labels = write_pictures(tmp_path / "with", 2, 10, size=8)
    without = write_pictures(tmp_path / "without", 2, 10, size=8)
    for root in (with_labels, without):
        (root / "class_000" / "003.png").write_bytes(b"nothing")
    data = ImageFolder(
        str(with_labels), image_size=8, batch_size=20, val_size=0, unlabelled=str(without), from_files=True,
        bad_pictures="skip",
    )  # fmt: skip
    data.setup("fit")
    seen = torch.cat([b.index for e in range(2) for b in batches(data, e)])
    assert not torch.isin(seen, torch.tensor([3, START + 3])).any()
    assert int((seen >= START).sum()) == int((seen < START).sum()) == 40
    assert sorted(data.bad_files()) == ["class_000/003.png"]


# Exact, and on any number of processes


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("teacher"))
    run = fit("digits/baseline.yaml", "--trainer.max_epochs", 1).resolve()
    os.chdir(before)
    return run / "checkpoints" / "last.ckpt"


def run_of(teacher: Path, *more) -> list:
    return [
        "--config", CONFIGS / "digits" / "kd_unlabelled.yaml", "--trainer.callbacks.teacher", teacher,
        "--model.network", "LeNet300100", "--model.optimizer.lr", 0.03, "--trainer.max_epochs", 3,
        "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", 2, "--data.train_part", "8 per class",
        "--data.batch_size", 20, *more,
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["rest", "folder"])
def test_a_run_that_is_killed_goes_on_exactly(how, more, teacher, monkeypatch):
    options = ["--checkpoint.every_n_steps", 1]
    if how == "folder":
        options += ["--data.unlabelled", more, "--trainer.callbacks.mode", "table", "--trainer.callbacks.views", 3]
    given = run_of(teacher, *options)
    assert distill("fit", *given, "--name", "whole") == 0
    kill_and_resume(given, random.Random(0), monkeypatch, times=5, reach=9)
    (whole,) = Path("logs").glob("*/*/whole")
    assert_same_run(whole, whole.with_name("killed"))


def test_a_run_is_not_resumed_with_other_pictures(more, teacher, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "pictures"
    shutil.copytree(more, folder)
    given = run_of(teacher, "--data.unlabelled", folder, "--name", "killed", "--checkpoint.every_n_steps", 1)
    with monkeypatch.context() as patch:
        Kill(patch, "on_train_batch_end", 3)
        assert distill("fit", *given) == 1
    (folder / "class_002" / "009.png").unlink()
    capsys.readouterr()
    assert distill("fit", *given, "--ckpt_path", "last") == 2
    assert "the pictures of data.unlabelled are not those that this run was trained on" in capsys.readouterr().err


def test_two_processes_give_the_numbers_of_one(teacher):
    for devices in (1, 2):
        run_on(devices, "fit", *run_of(teacher, "--trainer.max_epochs", 2), "--name", f"on-{devices}")
    one, two = (next(Path("logs").glob(f"*/*/on-{devices}")) for devices in (1, 2))
    first, second = (load(run)["state_dict"] for run in (one, two))
    for key, value in first.items():
        assert (value - second[key]).abs().max() < 2e-6, key
    assert [row[:2] for row in rows(one)] == [row[:2] for row in rows(two)]
    for (_, tag, a), (_, _, b) in zip(rows_of_any_world(one), rows_of_any_world(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6), tag


# Refused


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mix": Mixup()}, "mix"),
        ({"keep_last": True}, "keep_last"),
        ({"unlabelled_share": 0.01}, "at least one with a label and one without"),
        ({"train_part": None}, "train_part takes all"),
        ({"unlabelled": "nowhere"}, "data.unlabelled: there are no pictures in nowhere"),
        ({"batch_size": 100, "unlabelled_share": 0.5, "unlabelled": "{more}"}, "there are only 30"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options, match, more):
    options = {key: str(more) if value == "{more}" else value for key, value in options.items()}
    with pytest.raises(InputError, match=match) as error:
        digits(**options).begin_fit(BatchNeeds(), None)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="there are no pictures in"):
        digits(unlabelled=str(tmp_path))


def test_processes_need_even_shares_of_both():
    with pytest.raises(InputError, match="15 unlabelled pictures"):
        digits(batch_size=35, unlabelled_share=15 / 35).samples.check_batches(2, False)
    with pytest.raises(InputError, match="less unlabelled pictures, 15, cannot"):
        digits(batch_size=35, unlabelled_share=20 / 35).samples.check_batches(2, False)


@pytest.mark.parametrize("method", [Baseline, KD])
def test_methods_that_need_labels_for_all_are_refused(method):
    options = {"soft_weight": 0.0} if method is KD else {}
    callbacks = [SoftTargets(LeNet300100(image_size=8))] if method is KD else []
    with pytest.raises(InputError, match=f"{method.__name__} needs a label for each picture"):
        bare_trainer(max_epochs=1, callbacks=callbacks).fit(
            method(LeNet300100(image_size=8), **options), datamodule=Digits(unlabelled="rest", **FEW)
        )


def test_pictures_that_are_also_tested_are_counted(tmp_path):
    root = write_pictures(tmp_path / "own" / "train", 2, 10, size=8).parent
    write_pictures(root / "test", 2, 3, size=8, seed=1)
    extra = write_pictures(tmp_path / "extra", 2, 3, size=8, seed=1)
    data = ImageFolder(str(root), batch_size=4, val_size=0, unlabelled=str(extra))
    data.setup("fit")
    lines = "\n".join(data.overview())
    assert "unlabelled: 6 pictures, of" in lines and "PNG 100%; 8x8" in lines and "2 of the 4 in a batch" in lines
    assert "6 pictures of test are also in unlabelled" in lines


def test_the_screen_before_training_shows_them(capsys):
    assert distill("data", "digits/kd_unlabelled", "--count", 0) == 0
    assert (
        "unlabelled: 1,193 pictures, the rest of the training part; 32 of the 64 in a batch" in capsys.readouterr().out
    )

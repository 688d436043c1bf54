"""Tar files in the form of webdataset: the index, what is wrong with a shard, and runs that are killed or shared."""

import io
import pickle
import random
from pathlib import Path

import pytest
import torch
from helpers import (
    assert_same_run,
    fit,
    kill_and_resume,
    on_two_processes,
    rows,
    train_loader,
    write_pictures,
    write_shard,
)
from PIL import Image

from distill_lightning.data.augment import RandomFlip
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.shards import LocalShards
from distill_lightning.errors import InputError


def png(colour: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (colour, 0, 0)).save(file, "png")
    return file.getvalue()


def shard(file: Path, labels: list, end: str = "cls", first: int = 0) -> Path:
    return write_shard(file, [(f"{first + i:04}", {"png": png(i), end: label}) for i, label in enumerate(labels)])


def opened(root: Path, **options) -> ImageFolder:
    data = ImageFolder(str(root), **{"image_size": 16, "batch_size": 4, "val_size": 0, **options})
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> tuple[Path, Path]:
    """Class folders, and the same pictures in five shards, out of order."""
    folder = tmp_path_factory.mktemp("made")
    plain = write_pictures(folder / "plain", 3, 20, size=16)
    samples = [(f"{f.parent.name}/{f.stem}", {"png": f.read_bytes(), "cls": f.parent.name}) for f in plain.glob("*/*")]
    samples.sort(key=lambda sample: random.Random(sample[0]).random())
    for number in range(5):
        write_shard(folder / "shards" / f"{number:06}.tar", samples[number::5])
    return plain, folder / "shards"


# The index


@pytest.mark.parametrize(
    ("labels", "end", "names"),
    [
        ([10, 9, 2, 10], "cls", ["2", "9", "10"]),
        (["dog", " cat\n"], "cls", ["cat", "dog"]),
        (['{"label": 1, "id": 7}', '{"label": 0}'], "json", ["0", "1"]),
        (['{"class_name": "dog"}', '{"class_name": "cat"}'], "json", ["cat", "dog"]),
        (["3", "-1", "4"], "cls", ["3", "4"]),
        (["01", "1", "0"], "cls", ["0", "1"]),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, labels, end, names):
    shard(tmp_path / "s" / "0.tar", labels, end)
    assert opened(tmp_path / "s", batch_size=2).class_names == names


def test_numbers_get_the_names_of_a_file(tmp_path):
    shard(tmp_path / "s" / "0.tar", [2, 0, 2])
    (tmp_path / "s" / "classes.txt").write_text("ant\nbee\ncow\n")
    data = opened(tmp_path / "s", batch_size=2)
    assert data.class_names == ["ant", "cow"]
    assert data.train.labels.tolist() == [0, 1, 1]


def test_a_number_and_its_name_are_one_class(tmp_path):
    shard(tmp_path / "s" / "0.tar", ["bee", "1", "01", "ant", "0"])
    (tmp_path / "s" / "classes.txt").write_text("ant\nbee\n")
    data = opened(tmp_path / "s", batch_size=2)
    assert data.class_names == ["ant", "bee"]
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("9" * 5000, "holds no label"),
        ("-2", "has the label -2"),
        ("a\0b", "holds no label"),
        ("x" * 201, "holds no label"),
    ],
)
def test_an_odd_label_is_refused(tmp_path, label, words):
    shard(tmp_path / "s" / "0.tar", [label, "1"])
    with pytest.raises(InputError, match=words):
        opened(tmp_path / "s")


def test_a_name_that_is_too_long_is_refused(tmp_path):
    """The index would give each picture as much room."""
    write_shard(tmp_path / "s" / "0.tar", [("y" * 5000, {"png": png(), "cls": "1"})])
    with pytest.raises(InputError, match="a name has more than 1,000 bytes"):
        opened(tmp_path / "s")


def test_an_index_is_made_once_and_is_small_for_a_worker(pictures, tmp_path, monkeypatch):
    first = opened(pictures[1], cache=str(tmp_path / "c"))
    monkeypatch.setattr(LocalShards, "open", None)
    again = opened(pictures[1], cache=str(tmp_path / "c"))
    names = again.layout.parts["train"].names
    assert [*names] == [*first.layout.parts["train"].names]
    assert names[:3] == [names[0], names[1], names[2]]
    assert [*pickle.loads(pickle.dumps(names))] == [*names]
    assert len(pickle.dumps(names)) < 500


def test_an_index_is_not_needed(pictures, tmp_path):
    (tmp_path / "file").write_text("")
    without = opened(pictures[1], cache=str(tmp_path / "file" / "no_folder"))
    names = without.layout.parts["train"].names
    assert [*pickle.loads(pickle.dumps(names))] == [*opened(pictures[1]).layout.parts["train"].names]


@pytest.mark.parametrize("end", ["npy", "json"])
@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: data[:200] + b"?" + data[201:]])
def test_a_damaged_index_is_made_again(pictures, tmp_path, capsys, end, damage):
    names = [*opened(pictures[1], cache=str(tmp_path / "c")).layout.parts["train"].names]
    (index,) = (tmp_path / "c").glob(f"shards-*.{end}")
    index.write_bytes(damage(index.read_bytes()))
    assert [*opened(pictures[1], cache=str(tmp_path / "c")).layout.parts["train"].names] == names
    assert capsys.readouterr().err.count("is damaged: it is indexed again") == 1


def test_shards_that_have_changed_are_indexed_again(tmp_path, capsys):
    shard(tmp_path / "s" / "0.tar", [0, 1])
    assert len(opened(tmp_path / "s", batch_size=2).train) == 2
    shard(tmp_path / "s" / "1.tar", [0, 1, 1], first=2)
    assert len(opened(tmp_path / "s", batch_size=2).train) == 5
    assert "its tar files have changed: it is indexed again" in capsys.readouterr().err


def test_parts_are_told_by_names_or_by_the_option(tmp_path):
    for name in ("imagenet-train-0", "imagenet-validation-0", "more/0", "draft"):
        shard(tmp_path / "s" / f"{name}.tar", [0, 1])

    def counts(**given) -> dict[str, int]:
        return {part: len(rows) for part, rows in opened(tmp_path / "s", batch_size=2, **given).layout.parts.items()}

    assert counts() == {"train": 6, "val": 2}
    assert counts(parts={"test": "more", "ignore": "draft.tar"}) == {"train": 2, "val": 2, "test": 2}
    for wrong, words in (({"tset": "more"}, "takes train, val, test"), ({"test": "mor"}, "no tar file in")):
        with pytest.raises(InputError, match=words):
            opened(tmp_path / "s", parts=wrong)


# Damage


def header_damaged(data: bytes) -> bytes:
    place = data.index(b"0002.png")
    return data[:place] + b"!" + data[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:700], "is damaged"),
        (lambda data: data[: data.index(b"0002.png")], "is damaged, or was cut, after"),
        (header_damaged, "is damaged, or was cut, after"),
        (lambda data: b"", "is damaged"),
    ],
)
def test_a_damaged_shard_is_named(tmp_path, damage, words):
    file = shard(tmp_path / "s" / "train-7.tar", [0, 1, 0, 1])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=rf"train-7\.tar {words}[^/]*$"):
        opened(tmp_path / "s")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"png": png()}, "1 of 2 pictures have no label, such as 9: put NAME.cls or NAME.json"),
        ({"png": png(), "jpg": png(), "cls": 0}, "has two pictures of the sample 9: keep one"),
        ({"png": png(), "cls": ""}, "9.cls holds no label"),
        ({"png": png(), "json": "{"}, "9.json is no JSON"),
        ({"png": png(), "json": '{"label": [1, 2]}'}, "9.json holds no label"),
        ({"png": png(), "cls": 5}, "has the label 5, but there are 2 class names"),
        ({"png": png(), "cls": "dog"}, "has the label dog, which is no class name"),
    ],
)
def test_a_wrong_sample_is_named(tmp_path, files, words):
    write_shard(tmp_path / "s" / "0.tar", [("1", {"png": png(), "cls": 0}), ("9", files)])
    (tmp_path / "s" / "classes.txt").write_text("ant\nbee")
    with pytest.raises(InputError, match=words):
        opened(tmp_path / "s")


def test_labels_without_pictures_are_said(tmp_path):
    write_shard(tmp_path / "s" / "0.tar", [(str(i), {"png": png(), "cls": i}) for i in range(4)] + [("x", {"cls": 1})])
    assert "1 labels in tar files have no picture: not used" in opened(tmp_path / "s").layout.warnings


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_gone_or_cut_while_training_is_named(pictures, tmp_path, workers):
    folder = tmp_path / "s"
    for file in pictures[1].iterdir():
        (folder / file.name).parent.mkdir(exist_ok=True)
        (folder / file.name).write_bytes(file.read_bytes())
    data = opened(folder, from_files=True, num_workers=workers, bad_pictures="skip")
    (folder / "000003.tar").write_bytes(b"short")
    with pytest.raises(InputError, match=r"000003\.tar is shorter than when it was indexed: restore it"):
        list(train_loader(data))
    (folder / "000003.tar").unlink()
    with pytest.raises(InputError, match=r"000003\.tar cannot be read .*: restore it"):
        list(train_loader(data))


# Runs

GIVEN = [
    "--config", "folder/baseline", "--data.image_size", 16, "--data.batch_size", 8, "--data.val_size", 0.2,
    "--data.augment", "[RandomFlip]", "--data.from_files", "true", "--data.num_workers", 1,
    "--model.network", "ConvNet",
    "--trainer.max_epochs", 2, "--trainer.accelerator", "cpu", "--checkpoint.every_n_steps", 1,
]  # fmt: skip


def test_a_run_from_shards_is_the_run_from_folders_and_goes_on_exactly(pictures, monkeypatch):
    plain, shards = pictures
    from_folders = fit("folder/baseline.yaml", *GIVEN[2:], "--data.root", plain, "--name", "folders")
    whole = fit("folder/baseline.yaml", *GIVEN[2:], "--data.root", shards, "--name", "whole")
    assert rows(whole) == rows(from_folders)
    kill_and_resume([*GIVEN, "--data.root", shards], random.Random(0), monkeypatch, times=3, reach=5)
    assert_same_run(whole, whole.with_name("killed"))


CODE = """
import os, torch, torch.distributed as dist
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.augment import RandomFlip
from distill_lightning.data.loaders import TrainLoader
from distill_lightning.data.training_samples import Share
from distill_lightning.values import BatchNeeds, PlainTimeline

rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
more = dict(from_files=True, num_workers=1, augment=[RandomFlip()], cache={cache!r})
data = ImageFolder({root!r}, 16, batch_size=8, val_size=0, **more)
data.setup("fit")
for epoch in range(2):
    share, start = Share(rank, 2), lambda: (epoch, 3)
    for batch in TrainLoader(data.samples, data.renderer, BatchNeeds(), PlainTimeline(7, 2), share, start):
        both = [torch.empty_like(batch.images) for _ in range(2)]
        dist.all_gather(both, batch.images)
        print(float(torch.stack(both, 1).flatten(0, 1).double().sum((1, 2, 3)).mul(torch.arange(1, 9)).sum()))
"""


def test_two_processes_share_the_batches_of_one(pictures, tmp_path):
    """From the middle of each epoch on; they make the index at the same time."""
    root, cache = str(pictures[1]), str(tmp_path / "c")
    first, second = on_two_processes(CODE.format(root=root, cache=cache))
    assert first == second and len(first.splitlines()) == 8
    alone = ImageFolder(root, 16, batch_size=8, val_size=0, from_files=True, augment=[RandomFlip()])
    alone.setup("fit")
    batches = [batch for epoch in range(2) for batch in train_loader(alone, start=(epoch, 3))]
    weights = torch.arange(1, 9)
    sums = [float(batch.images.double().sum((1, 2, 3)).mul(weights).sum()) for batch in batches]
    assert list(map(float, first.splitlines())) == sums

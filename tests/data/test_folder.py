"""Folders of pictures, whole and broken."""

from pathlib import Path

import pytest
import torch
from conftest import write_pictures
from PIL import Image

from distill_lightning.data import folder
from distill_lightning.data.base import TrainLoader
from distill_lightning.data.folder import FileSource, ImageFolder, decode
from distill_lightning.errors import InputError


def opened(root: Path, **options) -> ImageFolder:
    data = ImageFolder(str(root), **{"image_size": 16, "batch_size": 8, **options})
    data.setup("fit")
    return data


def test_parts_and_classes(pictures):
    data = opened(pictures)
    data.setup("test")
    assert (data.name, data.num_classes, data.channels) == ("pictures", 3, 3)
    assert data.class_names == ["class_000", "class_001", "class_002"]
    assert (len(data.train), len(data.val), len(data.test)) == (108, 12, 18)


def test_class_folders_alone_are_a_training_part(tmp_path):
    data = opened(write_pictures(tmp_path / "plain", 3, 10))
    data.setup("test")
    assert (len(data.train), len(data.val), data.test) == (27, 3, None)


def test_a_validation_folder_is_used(tmp_path):
    root = tmp_path / "own"
    write_pictures(root / "train", 3, 10)
    write_pictures(root / "val", 3, 5)
    data = opened(root)
    assert (len(data.train), len(data.val)) == (30, 15)


def test_workers_and_memory_give_the_same_batches(pictures, monkeypatch):
    def batches(data):
        return list(TrainLoader(data, 0, 1, lambda: (1, 3)))

    held = opened(pictures)
    monkeypatch.setattr(folder, "LARGEST_IN_MEMORY", 0)
    streamed = opened(pictures, num_workers=2)
    assert isinstance(streamed.train.source, FileSource)
    streamed.mean, streamed.std = held.mean, held.std
    for a, b in zip(batches(held), batches(streamed), strict=True):
        assert a["image"].equal(b["image"])
        assert a["label"].equal(b["label"])


def test_the_cache_knows_when_it_is_stale(tmp_path):
    root = write_pictures(tmp_path / "p", 2, 5)
    first = opened(root, cache=str(tmp_path / "c")).train.source.images
    assert len(list((tmp_path / "c").glob("*.npy"))) == 1
    again = opened(root, cache=str(tmp_path / "c")).train.source.images
    assert again.equal(first)
    Image.new("RGB", (40, 40), "red").save(root / "class_000" / "000.png")
    changed = opened(root, cache=str(tmp_path / "c")).train.source.images
    assert not changed.equal(first)
    assert len(list((tmp_path / "c").glob("*.npy"))) == 1  # the stale one is gone


def test_a_damaged_cache_is_made_anew(tmp_path):
    root = write_pictures(tmp_path / "p", 2, 5)
    first = opened(root, cache=str(tmp_path / "c")).train.source.images
    (file,) = (tmp_path / "c").glob("*.npy")
    file.write_bytes(file.read_bytes()[:50])
    assert opened(root, cache=str(tmp_path / "c")).train.source.images.equal(first)


def test_shorter_side_is_resized_and_the_centre_cut_out(tmp_path):
    picture = Image.new("RGB", (60, 20), "black")
    picture.paste((255, 255, 255), (20, 0, 40, 20))
    picture.save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", 3, 10)[:, :, 1:-1] == 255).all()
    assert decode(tmp_path / "wide.png", 1, 10).shape == (1, 10, 10)


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        opened(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="2 or more"):
        opened(tmp_path / "empty")
    root = tmp_path / "lacks"
    write_pictures(root / "train", 3, 4)
    write_pictures(root / "test", 2, 4)
    with pytest.raises(InputError, match="lacks the class class_002"):
        opened(root).setup("test")
    hollow = write_pictures(tmp_path / "hollow", 2, 4)
    (hollow / "class_zzz").mkdir()
    with pytest.raises(InputError, match="class_zzz holds no pictures"):
        opened(hollow)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    root = write_pictures(tmp_path / "p", 2, 4)
    (root / "class_001" / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt is no picture"):
        opened(root)
    (root / "class_001" / "notes.txt").rename(root / "class_001" / ".hidden")
    torn = root / "class_000" / "000.png"
    torn.write_bytes(torn.read_bytes()[:200])
    with pytest.raises(InputError, match=r"000\.png is no picture"):
        opened(root)


def test_all_pictures_are_seen_once_by_workers(pictures, monkeypatch):
    monkeypatch.setattr(folder, "LARGEST_IN_MEMORY", 0)
    data = opened(pictures, num_workers=1)
    seen = torch.cat([batch["index"] for batch in TrainLoader(data, 0, 1, lambda: (0, 0))])
    assert len(seen.unique()) == len(seen) == 104

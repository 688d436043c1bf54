"""Folders of pictures, valid and damaged."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import train_loader, write_pictures
from PIL import Image

from distill_lightning.data import picture_files
from distill_lightning.data.decoding import decode
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.picture_cache import default_cache
from distill_lightning.data.picture_files import FileSource
from distill_lightning.data.provenance import refuse_seen
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import BadPictureError
from distill_lightning.values import TrainedOn


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
    held = opened(pictures)
    monkeypatch.setattr(picture_files, "LARGEST_IN_MEMORY", 0)
    streamed = opened(pictures, num_workers=2)
    assert isinstance(streamed.train.source, FileSource)
    streamed.normaliser = held.normaliser
    for a, b in zip(train_loader(held, start=(1, 3)), train_loader(streamed, start=(1, 3)), strict=True):
        assert a.images.equal(b.images)
        assert a.labels.equal(b.labels)


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
    assert (decode((tmp_path / "wide.png").read_bytes(), 3, 10)[:, :, 1:-1] == 255).all()
    assert decode((tmp_path / "wide.png").read_bytes(), 1, 10).shape == (1, 10, 10)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_pictures_of_16_bits_keep_their_greys(tmp_path, mode):
    greys = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    kind = ">u2" if mode == "I;16B" else "<u2"
    path = tmp_path / "x.tif"
    Image.frombytes(mode, (16, 16), greys.astype(kind).tobytes()).save(path)
    assert decode((path).read_bytes(), 1, 16)[0].flatten().tolist() == list(range(256))
    assert decode((path).read_bytes(), 3, 16)[2].flatten().tolist() == list(range(256))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pictures_without_a_known_scale_are_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "x.tif")
    with pytest.raises(BadPictureError, match="values of 32 bits"):
        decode((tmp_path / "x.tif").read_bytes(), 1, 4)


def test_a_picture_that_is_too_large_is_named(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(BadPictureError, match="too large"):
        decode((tmp_path / "x.png").read_bytes(), 1, 4)


def test_links_are_followed_once_and_must_lead_somewhere(tmp_path):
    root, more = write_pictures(tmp_path / "p", 2, 4), write_pictures(tmp_path / "more", 1, 5) / "class_000"
    (root / "class_000" / "linked").symlink_to(more, target_is_directory=True)
    (root / "class_000" / "again").symlink_to(root / "class_000", target_is_directory=True)
    assert opened(root, val_size=0).train.source.shape == (3, 16, 16)
    assert len(opened(root, val_size=0).train) == 13
    (root / "class_001" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"gone\.png is a link to nothing"):
        opened(root)


def test_a_name_in_an_old_encoding(tmp_path):
    root = write_pictures(tmp_path / "p", 2, 4)
    odd = os.fsencode(root / "class_000") + b"/caf\xe9.png"
    os.rename(root / "class_000" / "000.png", odd)
    assert len(opened(root, val_size=0, cache=str(tmp_path / "c")).train) == 8
    Path(os.fsdecode(odd)).write_text("no picture")
    with pytest.raises(InputError, match=r"caf\\xe9\.png is no picture"):
        opened(root)


def test_parts_by_other_names(tmp_path):
    root = tmp_path / "kaggle"
    write_pictures(root / "Training", 3, 10)
    write_pictures(root / "Testing", 3, 4)
    data = opened(root)
    data.setup("test")
    assert (data.num_classes, len(data.test)) == (3, 12)
    # a class may be called so as well
    plain = write_pictures(tmp_path / "vehicles", 2, 6)
    (plain / "class_001").rename(plain / "train")
    assert opened(plain).class_names == ["class_000", "train"]


def test_another_order_of_the_pictures_is_told_apart(tmp_path, monkeypatch):
    """Labels, mean and std are the same; what remembers something of a sample would take it for another."""
    root = write_pictures(tmp_path / "p", 2, 6)

    def prints() -> list[str]:
        held = opened(root).fingerprint
        with monkeypatch.context() as patch:
            patch.setattr(picture_files, "LARGEST_IN_MEMORY", 0)
            return [held, opened(root).fingerprint]

    before = prints()
    assert prints() == before
    (root / "class_000" / "000.png").rename(root / "class_000" / "zzz.png")
    assert all(a != b for a, b in zip(before, prints(), strict=True))


def test_what_a_teacher_of_another_state_has_seen_cannot_be_known(tmp_path, capsys):
    root = write_pictures(tmp_path / "p", 2, 8)
    data = opened(root)
    said = TrainedOn(data.info, data.held_out)
    refuse_seen(data.info, data.held_out, said, "the teacher")
    assert not capsys.readouterr().err
    smaller = opened(root, image_size=8)
    refuse_seen(smaller.info, smaller.held_out, said, "the teacher")
    assert "the teacher was trained on other pictures of p, or at another size" in capsys.readouterr().err


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        opened(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="2 or more"):
        opened(tmp_path / "empty")
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
    monkeypatch.setattr(picture_files, "LARGEST_IN_MEMORY", 0)
    data = opened(pictures, num_workers=1)
    seen = torch.cat([batch.index for batch in train_loader(data)])
    assert len(seen.unique()) == len(seen) == 104


def test_pictures_are_pinned_for_a_gpu_alone():
    """Not for a run on the CPU of a machine with a GPU, where it would take memory of the GPU."""
    source = FileSource.__new__(FileSource)
    for device in ("cuda", "cpu"):
        assert source.on(torch.device(device)).pins == (device == "cuda")


def test_a_user_without_a_home_has_a_cache(monkeypatch, tmp_path):
    """As in containers with an arbitrary user id."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_cache() == tmp_path / "distill_lightning"

"""Shards behind a URL: the numbers of shards on this machine, what is kept, and what goes wrong."""

import os
import sys
import time
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from helpers import distill, train_loader, write_pictures, write_shard

from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.remote import RemoteShards
from distill_lightning.errors import InputError
from distill_lightning.files import locked
from distill_lightning.runs import RunConfig

GIVEN = {"image_size": 16, "batch_size": 8, "val_size": 0, "from_files": True}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Four shards, of 10 pictures each."""
    folder = tmp_path_factory.mktemp("made")
    samples = [(f.parent.name + f.stem, {"png": f.read_bytes(), "cls": f.parent.name})
               for f in sorted(write_pictures(folder / "plain", 2, 20, size=16).glob("*/*"))]  # fmt: skip
    for number in range(4):
        write_shard(folder / "shards" / f"{number}.tar", samples[number::4])
    return folder / "shards"


@pytest.fixture
def stored(shards) -> MemoryFileSystem:
    """The same in a store in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    for file in shards.iterdir():
        system.pipe(f"/bucket/shards/{file.name}", file.read_bytes())
    return system


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """The names of what is read from the store."""
    names: list[str] = []
    for method in ("cat_file", "open"):
        original = getattr(MemoryFileSystem, method)

        def wrapped(self, path, *args, original=original, **kwargs):
            names.append(f"{original.__name__} {path.rpartition('/')[2]}")
            return original(self, path, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, method, wrapped)
    return names


def opened(root: object, **options) -> ImageFolder:
    data = ImageFolder(str(root), **{**GIVEN, **options})
    data.setup("fit")
    return data


def test_shards_elsewhere_are_those_on_this_machine(shards, stored, tmp_path):
    here = opened(shards)
    batches = list(train_loader(here, start=(1, 2)))
    for url, workers in (("memory://bucket/shards", 0), (f"file://{shards}", 2), ("memory://bucket/shards/", 2)):
        for cache_bytes in (0, 10**9):
            data = opened(url, num_workers=workers, cache=str(tmp_path / "c"), cache_bytes=cache_bytes)
            assert (data.fingerprint, data.name) == (here.fingerprint, here.name)
            for a, b in zip(train_loader(data, start=(1, 2)), batches, strict=True):
                assert a.images.equal(b.images)


def test_a_picture_alone_is_fetched(stored, tmp_path, fetched):
    data = opened("memory://bucket/shards", cache=str(tmp_path / "c"))
    fetched.clear()
    list(train_loader(data))
    assert len(fetched) == 40 and {name.split()[0] for name in fetched} == {"cat_file"}


def test_a_store_whose_reads_take_a_version_first(stored, tmp_path, monkeypatch):
    """As that of s3fs: cat_file(path, version_id, start, end)."""
    original = MemoryFileSystem.cat_file

    def versioned(self, path, version_id=None, start=None, end=None):
        assert version_id is None
        return original(self, path, start, end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", versioned)
    shards = RemoteShards("memory://bucket/shards", tmp_path, 0)
    whole = stored.cat("/bucket/shards/0.tar")
    assert shards.read("0.tar", 512, 40) == whole[512:552]
    with shards.open("0.tar") as file:
        assert file.read() == whole


def test_shards_are_kept_as_far_as_they_fit(shards, stored, tmp_path, fetched):
    size = max(file.stat().st_size for file in shards.iterdir())
    data = opened("memory://bucket/shards", cache=str(tmp_path / "c"), cache_bytes=2 * size + 1)
    fetched.clear()
    list(train_loader(data))
    assert {name.split()[1] for name in fetched} == {"2.tar", "3.tar"}
    kept = sorted((tmp_path / "c").glob("shards-*/*.tar"))
    assert sum(file.stat().st_size for file in kept) <= 2 * size
    opened("memory://bucket/shards", cache=str(tmp_path / "c"), cache_bytes=size)
    assert len(list((tmp_path / "c").glob("shards-*/*.tar"))) == 1
    opened("memory://bucket/shards", cache=str(tmp_path / "c"))  # a test of a run, while another run trains
    assert len(list((tmp_path / "c").glob("shards-*/*.tar"))) == 1


def test_a_shard_that_has_changed_is_fetched_again(shards, stored, tmp_path, capsys):
    given = {"cache": str(tmp_path / "c"), "cache_bytes": 10**9}
    before = opened("memory://bucket/shards", **given)
    stored.pipe("/bucket/shards/0.tar", (shards / "1.tar").read_bytes())
    after = opened("memory://bucket/shards", **given)
    assert "its tar files have changed: it is indexed again" in capsys.readouterr().err
    assert after.fingerprint != before.fingerprint
    assert len(list((tmp_path / "c").glob("shards-*/*.tar"))) == 4


def test_what_another_process_fetches_is_not_waited_for(stored, tmp_path):
    remote = RemoteShards("memory://bucket/shards", tmp_path, 10**9)
    with locked(remote.kept["0.tar"].with_suffix(".lock")):
        assert remote.read("0.tar", 0, 4) == stored.cat_file("/bucket/shards/0.tar", 0, 4)
        assert not remote.kept["0.tar"].exists()
    torn = remote.kept["0.tar"].with_name(f".{remote.kept['0.tar'].name}.1.tmp")
    torn.write_text("of a process that was killed")
    os.utime(torn, (0, 0))
    assert remote.read("0.tar", 0, 4) == stored.cat_file("/bucket/shards/0.tar", 0, 4)
    assert remote.kept["0.tar"].exists() and not torn.exists()


def test_a_full_disk_is_said_and_nothing_is_lost(stored, tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("distill_lightning.data.remote.atomic_write", full)
    remote = RemoteShards("memory://bucket/shards", tmp_path, 10**9)
    for _ in range(2):
        assert remote.read("0.tar", 0, 4) == stored.cat_file("/bucket/shards/0.tar", 0, 4)
    assert capsys.readouterr().err.count("0.tar is not kept on this machine: No space left") == 1


def test_a_read_that_fails_is_tried_again(stored, tmp_path, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    fails = [True, True, False]
    original = MemoryFileSystem.cat_file

    def unsteady(*args, **kwargs):
        if fails.pop(0):
            raise ConnectionError("reset by peer")
        return original(*args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", unsteady)
    remote = RemoteShards("memory://bucket/shards", tmp_path, 0)
    assert len(remote.read("0.tar", 0, 4)) == 4
    assert waited == [1, 3]
    fails[:] = [True] * 4
    with pytest.raises(OSError, match="reset by peer"):
        remote.read("0.tar", 0, 4)


def test_a_store_that_does_not_answer_is_no_damage(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda s: None)
    fails, original = [False, True], MemoryFileSystem.cat_file

    def unsteady(*args, **kwargs):
        if fails and fails.pop(0):
            raise ConnectionError("reset by peer")
        return original(*args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", unsteady)
    assert len(opened("memory://bucket/shards", cache=str(tmp_path / "c")).train) == 40
    fails[:] = [False] + [True] * 4
    with pytest.raises(InputError, match=r"1\.tar cannot be read \(reset by peer\): start the same command again"):
        opened("memory://bucket/shards", cache=str(tmp_path / "d"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_gone_is_named(stored, tmp_path, workers):
    data = opened("memory://bucket/shards", cache=str(tmp_path / "c"), num_workers=workers)
    stored.rm("/bucket/shards/2.tar")
    with pytest.raises(InputError, match=r"memory://bucket/shards/2\.tar cannot be read .*: restore it"):
        list(train_loader(data))


@pytest.mark.parametrize(
    ("root", "options", "words"),
    [
        ("memory://bucket/nothing", {}, "memory://bucket/nothing cannot be listed"),
        ("memory://bucket/shards", {"pattern": "{class}_*"}, "only tar files of webdataset"),
        ("nostore://bucket", {}, "nostore://bucket cannot be opened: Protocol not known: nostore"),
        ("http://127.0.0.1:9/shards", {}, "http://127.0.0.1:9/shards cannot be listed"),
    ],
)
def test_a_url_that_cannot_be_read(stored, root, options, words):
    with pytest.raises(InputError, match=words):
        opened(root, **options)


def test_fsspec_is_named_if_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match=r"memory://other needs fsspec: pip install 'distill_lightning\[remote\]'"):
        RemoteShards("memory://other", tmp_path, 0)


def test_a_file_may_not_say_what_to_fetch(shards, tmp_path, capsys):
    given = ["--config", "folder/baseline", "--data.image_size", 16, "--data.batch_size", 8, "--data.root",
             f"file://{shards}", "--data.augment", "[]", "--model.network", "ConvNet", "--trainer.max_epochs", 1,
             "--trainer.accelerator", "cpu"]  # fmt: skip
    assert distill("fit", *given) == 0
    (run,) = Path().glob("logs/*/*/*/checkpoints/last.ckpt")
    assert RunConfig.read(run.parent.parent).declared.pictures == f"file://{shards}"
    capsys.readouterr()
    assert distill("validate", "--ckpt_path", os.fspath(run)) == 2
    assert "a file may not say what to fetch" in capsys.readouterr().err
    assert distill("validate", "--ckpt_path", os.fspath(run), "--data.root", f"file://{shards}") == 0

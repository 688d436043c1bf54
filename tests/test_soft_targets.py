"""The table of soft targets on disk: writing, continuing after an interruption, and refusing damaged tables."""

import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill_lightning.errors import InputError
from distill_lightning.soft_targets import BLOCK, SoftTargetTable

ROWS = 2 * BLOCK + 10


def table(tmp_path, **manifest) -> SoftTargetTable:
    made = SoftTargetTable(tmp_path, {"teacher": "a", **manifest}, views=2, rows=ROWS, classes=3)
    made.create()
    made.open()
    return made


def logits(view: int, rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([rows.float(), rows * 2.0 + view, -rows.float()], 1)


def fill(made: SoftTargetTable, count: int | None = None) -> None:
    for view, block in made.missing()[:count]:
        made.fill(view, block, logits(view, made.rows(block)))


def test_what_is_written_is_read(tmp_path):
    fill(table(tmp_path))
    again = table(tmp_path)
    assert again.missing() == []
    again.verify()
    for view in range(2):
        assert again.as_tensor()[view].equal(logits(view, torch.arange(ROWS)))


def test_generation_goes_on_where_it_stopped(tmp_path):
    fill(table(tmp_path), 4)
    again = table(tmp_path)
    assert again.missing() == [(1, 1), (1, 2)]
    fill(again)
    again.verify()


def test_another_manifest_is_another_table(tmp_path):
    assert table(tmp_path).folder != table(tmp_path, seed=1).folder


def test_a_torn_file_is_refused_by_name(tmp_path):
    made = table(tmp_path)
    fill(made)
    path = made.folder / "logits.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="logits.npy"):
        table(tmp_path)


def test_an_altered_file_is_refused(tmp_path):
    made = table(tmp_path)
    fill(made)
    made.logits[1, 300, 0] += 1
    made.logits.flush()
    again = table(tmp_path)
    with pytest.raises(InputError, match="view 1, block 1"):
        again.verify()


def test_an_incomplete_table_is_not_verified(tmp_path):
    made = table(tmp_path)
    fill(made, 5)
    with pytest.raises(InputError, match="checksum"):
        made.verify()


def test_another_shape_is_refused(tmp_path):
    made = table(tmp_path)
    np.save(made.folder / "logits.npy", np.zeros((2, 5, 3), np.float32))
    with pytest.raises(InputError, match="expected float32"):
        table(tmp_path)


def test_a_foreign_manifest_is_refused(tmp_path):
    made = table(tmp_path)
    (made.folder / "manifest.json").write_text('{"teacher": "b"}')
    with pytest.raises(InputError, match="manifest.json"):
        table(tmp_path)


def test_pickles_are_not_opened(tmp_path):
    made = table(tmp_path)
    np.save(made.folder / "logits.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="logits.npy"):
        table(tmp_path)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    made = table(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"could not write .*logits\.npy.*No space left"):
        fill(made)
    assert made.missing()[0] == (0, 0)


def test_a_table_that_the_disk_has_no_room_for_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * 10**9))
    table = SoftTargetTable(tmp_path, {}, 4, 50_000, 2_600)
    with pytest.raises(InputError, match=r"takes 2.1 GB, and .* has 2.0 GB left: give fewer views, or another folder"):
        table.create()
    assert not (table.folder / "logits.npy").exists()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    made = table(tmp_path)
    with made.alone():
        fill(made)
    made.verify()


def test_a_complete_table_needs_no_lock(tmp_path):
    """It may lie in a folder that can only be read."""
    made = table(tmp_path)
    assert made.is_complete() is False
    fill(made, 1)
    assert made.is_complete() is False
    fill(made)
    again = SoftTargetTable(tmp_path, {"teacher": "a"}, views=2, rows=ROWS, classes=3)
    assert again.is_complete() is True
    again.open("r")
    again.verify()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert again.as_tensor().shape == (2, ROWS, 3)

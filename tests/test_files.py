"""Files that are written as a whole or not at all."""

from pathlib import Path

import pytest

from distill_lightning.files import atomic_write, sweep


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file"
    atomic_write(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"could not write .*file.*No space left"):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert [f.name for f in path.parent.iterdir()] == ["file"]


def test_sweeping_takes_leftovers_alone(tmp_path):
    for name in (".last.ckpt.123.tmp", "last.ckpt", ".hidden"):
        Path(tmp_path / name).write_text("")
    sweep(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [".hidden", "last.ckpt"]

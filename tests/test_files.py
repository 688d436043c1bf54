"""Files that are written as a whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distill_lightning.files import atomic_write, locked, sweep


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


def test_processes_with_one_number_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    """Containers that share a disk have processes of the same numbers."""
    monkeypatch.setattr(os, "getpid", lambda: 1)

    def write_while_another_does(file):
        file.write(b"fir")
        atomic_write(tmp_path / "file", lambda other: other.write(b"second"))
        file.write(b"st")

    atomic_write(tmp_path / "file", write_while_another_does)
    assert (tmp_path / "file").read_bytes() == b"first"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_lock_does_not_live_on_in_a_forked_process(tmp_path):
    """As the workers of a data loader, which outlive a killed run by seconds."""
    path = tmp_path / "lock"
    reader, writer = os.pipe()
    code = f"""
import os, time
from pathlib import Path
from distill_lightning.files import locked
with locked(Path({str(path)!r})):
    if not os.fork():
        os.write({writer}, b"forked")
        time.sleep(60)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[writer], start_new_session=True)
    os.close(writer)
    try:
        assert os.read(reader, 6) == b"forked"
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        process.kill()
        process.wait()
        with locked(path, wait=False):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)

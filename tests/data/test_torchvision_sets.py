"""Published data sets: runs that begin at once download them once, and damaged files are named as such."""

import struct
import threading
import time
from pathlib import Path

import pytest
import torch

from distill_lightning.data.torchvision_sets import MNIST
from distill_lightning.errors import InputError


class _Downloaded:
    """A data set of one picture that is there when its download has ended. As torchvision's, it downloads what is not
    there.
    """

    def __init__(self, root, train, download=False):
        root = Path(root)
        of_part = root / f"{train}"
        if download and not of_part.exists():
            assert not (root / "begun").exists(), "two download at once"
            (root / "begun").touch()
            time.sleep(0.2)
            of_part.touch()
            (root / "begun").unlink()
            with (root / "downloads").open("a") as file:
                file.write("1")
        if not of_part.exists():
            raise RuntimeError("Dataset not found")
        self.data, self.targets = torch.zeros(1, 8, 8), [0]


def test_runs_that_begin_at_once_download_once(tmp_path, monkeypatch):
    """As do three runs of a study. A lock belongs to an open file, so threads play processes."""
    monkeypatch.setattr(MNIST, "dataset", _Downloaded)
    failed = []

    def prepare():
        try:
            MNIST(str(tmp_path)).prepare_data()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (tmp_path / "downloads").read_text() == "11"  # the training part, and the test part


def test_damaged_files_are_named(tmp_path):
    """A file that ends too early is not called missing, and is not read."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, head in (
        ("images-idx3", struct.pack(">4i", 0x803, 2, 28, 28)),
        ("labels-idx1", struct.pack(">2i", 0x801, 2)),
    ):
        for part in ("train", "t10k"):
            (raw / f"{part}-{name}-ubyte").write_bytes(head + bytes(2))
    with pytest.raises(InputError, match="MNIST is missing or damaged in .* and could not be downloaded"):
        MNIST(str(tmp_path)).prepare_data()

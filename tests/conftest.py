"""Small data with the real shapes, and fixtures that run the real command in this process."""

import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_pictures

torch.set_num_threads(1)
# a shell lets what it starts in the background ignore interrupts, and the tests send some
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Each test in a folder of its own, with a cache of its own; the order of tests does not matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the program adds the folder that it runs in
    before, here = set(sys.modules), str(tmp_path)
    yield
    for name in sys.modules.keys() - before:  # what the test itself wrote, and the next one may write again
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(here):
            del sys.modules[name]


def write_mnist(root: Path, train: int = 600, test: int = 100) -> Path:
    """Files in torchvision's layout, of the real format; brightness tells the class."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.clip(rng.integers(0, 60, (count, 28, 28)) + labels[:, None, None] * 20, 0, 255).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    return root


@pytest.fixture(scope="session")
def mnist(tmp_path_factory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist"))


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cifar10")
    write_pictures(root / "train", 10, 30)
    write_pictures(root / "test", 10, 4, seed=1)
    return root


@pytest.fixture(scope="session")
def cifar100(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cifar100")
    write_pictures(root / "train", 100, 4)
    write_pictures(root / "test", 100, 1, seed=1)
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "pictures"
    write_pictures(root / "train", 3, 40, size=20)
    write_pictures(root / "test", 3, 6, size=24, seed=1)
    return root

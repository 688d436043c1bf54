"""A trained run and a folder of pictures, made once for these tests."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import fit
from PIL import Image
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder with the runs logs/digits/baseline/a, trained for two epochs, and b, for one."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        for name, epochs, seed in (("a", 2, 0), ("b", 1, 1)):
            quiet = ("--trainer.enable_progress_bar", "false", "--seed_everything", seed)
            fit("digits/baseline.yaml", "--trainer.max_epochs", epochs, "--name", name, *quiet)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run a."""
    shutil.copytree(trained / "logs", tmp_path / "logs")
    return Path("logs/digits/baseline/a")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Seven digits as PNGs of other sizes."""
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    folder.mkdir()
    for number, digit in enumerate(load_digits().images[:7]):
        Image.fromarray((digit * 15.9).astype(np.uint8)).resize((20 + number, 31)).save(folder / f"{number}.png")
    return folder

"""20,000 made JPEGs: the loader is as fast as decoding alone, and a run that is killed and resumed is the same."""

import json
import random
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_run, distill, fit, kill_and_resume
from PIL import Image

from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.plans import BatchPlan
from distill_lightning.data.random_crops import RandomResizedCrop

pytestmark = pytest.mark.long


def write_jpegs(root: Path, count: int, width: int = 250, height: int = 188) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = root / f"class_{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        rough = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        rough.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=85)
    return root


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    return write_jpegs(tmp_path_factory.mktemp("many") / "pictures", 20_000)


def test_the_loader_is_as_fast_as_decoding_alone(many, capsys):
    data = ImageFolder(
        str(many), image_size=96, batch_size=100, val_size=0, from_files=True, num_workers=2,
        augment=[RandomResizedCrop()],
    )  # fmt: skip
    data.setup("fit")
    source = data.training_split.source
    plans = [BatchPlan.of_rows(rows) for rows in data.training_split.taken.split(100)]

    def rate(stream, pictures: int) -> float:
        next(stream)  # the start of the workers
        start = time.perf_counter()
        deque(stream, maxlen=0)
        return (pictures - 100) / (time.perf_counter() - start)

    alone = rate(iter(source.stream(plans, boxes=data.renderer.boxes)), 20_000)
    whole = rate(iter(data.train_loader_from(lambda: (0, 0))), 20_000)
    with capsys.disabled():
        print("\n" + json.dumps({"decode alone, pictures/s": round(alone), "loader, pictures/s": round(whole)}))


def test_a_run_from_files_that_is_killed_goes_on_exactly(many, monkeypatch):
    given = [
        "--config", "folder/baseline", "--data.root", many, "--data.image_size", 32, "--data.from_files", "true",
        "--data.num_workers", 2, "--data.train_part", 2000, "--data.batch_size", 100, "--data.val_size", 200,
        "--data.augment", "[RandomResizedCrop, RandomFlip]", "--data.balanced", "true", "--model.network", "ConvNet",
        "--trainer.max_epochs", 2, "--trainer.accelerator", "cpu", "--checkpoint.every_n_steps", 1,
    ]  # fmt: skip
    whole = fit("folder/baseline.yaml", *given[2:], "--name", "whole")
    kill_and_resume(given, random.Random(0), monkeypatch, times=6, reach=9)
    assert_same_run(whole, whole.with_name("killed"))
    assert distill("test", "--ckpt_path", whole / "checkpoints" / "last.ckpt") == 2  # there is no test part

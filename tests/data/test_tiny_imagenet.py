"""Tiny-ImageNet's own folders."""

import numpy as np
import pytest
from PIL import Image

from distill_lightning.data.tiny_imagenet import TinyImageNet
from distill_lightning.errors import InputError


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """As the archive unpacks, with three pictures a class."""
    root = tmp_path_factory.mktemp("tiny")
    folder = root / "tiny-imagenet-200"
    names = [f"n{number:08d}" for number in range(200)]

    def picture(path, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), value, np.uint8)).save(path)

    lines = []
    for label, name in enumerate(names):
        for number in range(3):
            picture(folder / "train" / name / "images" / f"{name}_{number}.png", label)
        lines.append(f"val_{199 - label}.png\t{name}\t0\t0\t62\t62")
        picture(folder / "val" / "images" / f"val_{199 - label}.png", label)
        (folder / "train" / name / f"{name}_boxes.txt").write_text("")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("size", [64, 32])
def test_pictures_and_labels_belong_together(archive, size):
    data = TinyImageNet(str(archive), image_size=size, val_size=0.2)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert data.train.source.shape == (3, size, size) and data.class_names[5] == "n00000005"
    assert len(data.train) + len(data.val) == 600 and len(data.test) == 200
    for source, labels in ((data.train.source, data.train.labels), (data.test.source, data.test.labels)):
        assert (source.images[:, 0, 0, 0].long() == labels).all()
    inside = TinyImageNet(str(archive / "tiny-imagenet-200"))
    assert inside.class_names == data.class_names


def test_where_it_is_missing_the_error_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="unpack .*tiny-imagenet-200.zip"):
        TinyImageNet(str(tmp_path)).prepare_data()

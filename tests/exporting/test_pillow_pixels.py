"""Pixels without torch are those of the data modules, for every kind of picture and of input."""

import numpy as np
import pytest
import torch
from PIL import Image

from distill_lightning.data.decoding import decode as decode_for_training
from distill_lightning.errors import InputError
from distill_lightning.pillow_pixels import decode, read_pictures


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((5, 5)).resize(size, Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 257)
    return smooth.convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (33, 20), (20, 29), (8, 8)], ids=str)
@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGB", "png"), ("L", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png"), ("LA", "png"), ("I;16", "png"),
     ("RGB", "webp"), ("RGB", "bmp"), ("P", "gif"), ("L", "jpg"), ("CMYK", "jpg")],
)  # fmt: skip
def test_a_file_has_the_pixels_of_training(mode, ending, size, channels, tmp_path):
    file = tmp_path / f"x.{ending}"
    picture(mode, size).save(file)
    found, expected = decode(file, channels, 16), decode_for_training(file.read_bytes(), channels, 16).numpy()
    assert found.dtype == np.uint8
    assert found.shape == (channels, 16, 16)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(30, 20), (64, 48), (200, 150)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_has_nearly_the_pixels_of_training(size, channels, tmp_path):
    picture("RGB", size).save(tmp_path / "x.jpg")
    found = decode(tmp_path / "x.jpg", channels, 16)
    expected = decode_for_training((tmp_path / "x.jpg").read_bytes(), channels, 16)
    assert np.abs(found.astype(int) - expected.numpy()).mean() < 1.5


def test_a_picture_is_turned_upright(tmp_path):
    upright = picture("RGB", (20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.png", exif=exif)
    upright.save(tmp_path / "y.png")
    assert np.array_equal(decode(tmp_path / "x.png", 3, 16), decode(tmp_path / "y.png", 3, 16))


def all_of(pictures, channels=3, size=8, batch_size=2):
    batches, names = read_pictures(pictures, channels, size, batch_size)
    return np.concatenate(list(batches)), names


def test_every_kind_of_input_is_the_same_picture(tmp_path):
    drawn = picture("RGB", (8, 8))
    drawn.save(tmp_path / "x.png")
    array = np.asarray(drawn)
    first = array.transpose(2, 0, 1)
    for given in (
        drawn,
        [drawn],
        [array],
        [first],
        [array / 255],
        array[None],
        first[None],
        tmp_path / "x.png",
        str(tmp_path / "x.png"),
    ):
        pixels, _ = all_of(given)
        assert np.array_equal(pixels[0], first), given
    assert all_of(tmp_path)[1] == ["x.png"]
    assert all_of([tmp_path / "x.png"])[1] == [str(tmp_path / "x.png")]
    assert all_of(array[None])[1] is None


def test_three_dimensions_are_grey_pictures():
    array = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    pixels, _ = all_of(array, channels=1)
    assert np.array_equal(pixels, array[:, None])
    pixels, _ = all_of(array, channels=3)
    assert np.array_equal(pixels, np.repeat(array[:, None], 3, 1))


def test_files_below_a_folder_are_sorted_without_hidden_ones(tmp_path):
    for name in ("b/2.png", "a/10.png", "a/.hidden.png", ".cache/1.png", "c.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture("L", (8, 8)).save(tmp_path / name, "PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    assert all_of(tmp_path)[1] == ["a/10.png", "b/2.png", "c.PNG"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.full((8, 8), 3.0), "values from 3 to 3: give 0 to 1"),
        (np.zeros((8, 8), np.int64), "holds int64: give uint8"),
        (np.zeros((1, 8, 8, 4), np.uint8), r"shape \(8, 8, 4\)"),
        (np.zeros(8, np.uint8), r"shape \(8,\)"),
        ([], "there are no pictures"),
        (np.zeros((0, 8, 8), np.uint8), "there are no pictures"),
        (5, "pictures are a int"),
        ("nowhere", "no picture or folder nowhere"),
        (Image.new("F", (8, 8)), "32 bits"),
        (torch.zeros(1, 8, 8), "pictures are a Tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_picture_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        all_of(given)

"""Pixels without torch are those of the data modules, for every kind of picture and of input."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from distill_lightning.data.decoding import decode as decode_for_training
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import decode
from distill_lightning.pillow_pixels import Form, read_pictures


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((5, 5)).resize(size, Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 257)
    return smooth.convert(mode)


def png(values: np.ndarray, kind: int) -> bytes:
    """A PNG with 16 bits of a colour type, whose rows are filtered by "Sub"."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    high, wide, channels = values.shape
    rows = values.astype(">u2").reshape(high, -1).view(np.uint8)
    filtered = rows.copy()
    filtered[:, 2 * channels :] -= rows[:, : -2 * channels]
    content = zlib.compress(b"".join(b"\1" + row.tobytes() for row in filtered))
    header = struct.pack(">IIBBBBB", wide, high, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def every_kind(size: tuple[int, int]) -> dict[str, bytes]:
    """The content of a file of each kind: 8 and 16 bits, grey, palette, alpha, turned, CMYK."""
    found = {}
    for mode, form in (
        ("RGB", "png"), ("L", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png"), ("LA", "png"), ("I;16", "png"),
        ("I;16", "tiff"), ("RGB", "webp"), ("RGB", "bmp"), ("P", "gif"), ("L", "jpeg"), ("RGB", "jpeg"),
        ("CMYK", "jpeg"),
    ):  # fmt: skip
        for orientation in (1, 6) if form in ("png", "jpeg", "tiff", "webp") else (1,):
            file, exif = io.BytesIO(), Image.Exif()
            exif[0x0112] = orientation
            picture(mode, size).save(file, form, **({"exif": exif} if orientation > 1 else {}))
            found[f"{mode} {form} {orientation}"] = file.getvalue()
    for kind, channels in ((0, 1), (2, 3), (4, 2), (6, 4)):
        values = np.random.default_rng(kind).integers(0, 4096, (size[1], size[0], channels))
        found[f"16 bits, colour type {kind}"] = png(values, kind)
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (33, 20), (20, 29), (8, 8), (117, 81)], ids=str)
@pytest.mark.parametrize("bits", [12, 16])
def test_a_file_of_every_kind_has_the_pixels_of_training(size, channels, bits):
    for name, data in every_kind(size).items():
        found, expected = decode(data, channels, 16, bits), decode_for_training(data, channels, 16, bits).numpy()
        assert found.dtype == np.uint8
        assert found.shape == (channels, 16, 16)
        assert np.array_equal(found, expected), name


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_are_those_of_torchvision(kind, channels):
    values = np.random.default_rng(0).integers(0, 65536, (16, 16, channels))
    data = png(values, kind)
    read = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    assert np.array_equal(read.permute(1, 2, 0).to(torch.int64).numpy(), values)  # the file is what it should be
    expected = values[:, :, :1].repeat(3, 2) if channels < 3 else values[:, :, :3]
    assert np.array_equal(decode(data, 3, 16, 14), (expected * 255 // (2**14 - 1)).clip(0, 255).transpose(2, 0, 1))


def test_a_picture_is_turned_upright():
    upright, files = picture("RGB", (20, 30)), [io.BytesIO(), io.BytesIO()]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(files[0], "PNG", exif=exif)
    upright.save(files[1], "PNG")
    assert np.array_equal(*(decode(file.getvalue(), 3, 16) for file in files))


def all_of(pictures, channels=3, size=8, batch_size=2):
    batches, names = read_pictures(pictures, Form(channels, size), batch_size)
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
        (Image.new("F", (8, 8)), "values of 32 bits"),
        (torch.zeros(1, 8, 8), "pictures are a Tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_picture_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        all_of(given)

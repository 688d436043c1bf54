"""Decodes the bytes of a picture file. The result depends on the bytes and the arguments alone, not on the machine.

JPEGs near their final size are decoded by torchvision, which is faster than Pillow and gives the same values. JPEGs
that are at least twice as large are decoded by Pillow at 1/2, 1/4 or 1/8 of their size (``draft``). PNGs with 16 bits
are decoded by torchvision, since Pillow drops the low bits of colours. Pillow decodes all other formats. Pictures with
an EXIF orientation are turned upright by all of them.
"""

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, decode_jpeg

DECODER = 3
"""The version of the decoder. A cache that another version wrote is not used."""
ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""
TURNED = (5, 6, 7, 8)
"""The orientations that exchange width and height."""
Box = tuple[int, int, int, int]
"""Left, top, width and height of a part of a picture, in pixels of the upright picture."""
ChooseBox = Callable[[int, int], Box]
"""Chooses a box from the width and height of the upright picture."""
Kind = Literal["empty", "no picture", "truncated", "too large", "of unknown scale", "a link to nothing"]


class BadPictureError(Exception):
    """A file that cannot be decoded.

    Args:
        kind: what is wrong with it.
        detail: more about it, in one line; may be empty.
    """

    def __init__(self, kind: Kind, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a picture file say.

    Args:
        width, height: in pixels, upright.
        format: Pillow's name of the format, "JPEG" for example.
        mode: Pillow's name of the kind of pixels, "RGB" for example.
        deep: whether values have 16 bits.
    """

    width: int
    height: int
    format: str
    mode: str
    deep: bool


def read_header(file: BinaryIO) -> Header:
    """Reads the header of a picture file, and not its pixels.

    Args:
        file: the open file, which can be searched.

    Raises:
        BadPictureError: the bytes are no picture.
    """
    picture = _open(file)
    wide, high = _upright_size(picture)
    file.seek(0)
    return Header(wide, high, picture.format or "", picture.mode, _is_deep(picture, file.read(25)))


def decode(data: bytes, channels: int, size: int, bits: int = 16, box: ChooseBox | None = None) -> Tensor:
    """Decodes a picture. Without a box, the shorter side is resized to ``size``, and the centre is cropped.

    Args:
        data: the content of the file.
        channels: 1 for grey, 3 for RGB.
        size: the side of the result in pixels.
        bits: 8 to 16: how many bits the values of a picture with 16 bits use. Larger values are cut to white.
        box: chooses the part of the upright picture that is resized to the result, whatever its shape.

    Returns:
        uint8 (channels, size, size).

    Raises:
        BadPictureError: the bytes are no picture, or one that cannot be decoded.
    """
    opened = _open(io.BytesIO(data))
    if opened.mode in ("I", "F") and not _is_deep(opened, data):
        raise BadPictureError("of unknown scale", "values of 32 bits: save it with 8 or 16 bits")
    wide, high = _upright_size(opened)
    place = None if box is None else box(wide, high)
    side = min(wide, high) if place is None else min(place[2], place[3])
    try:
        plain_jpeg = opened.format == "JPEG" and opened.mode in ("RGB", "L")
        if plain_jpeg and side < 2 * size and data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda"):
            # the markers of the end and of the last scan: torchvision would read a torn file as a grey picture
            if place is not None:
                return _cut(
                    _by_torchvision(data, ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB), place, size
                )
            upright = _by_torchvision(data, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
            picture = Image.fromarray(upright[:, :, 0] if upright.shape[2] == 1 else upright)
        elif _is_deep(opened, data):
            picture = _scaled(opened, data, bits)
        else:
            if plain_jpeg and side >= 2 * size:
                shrink = side // size
                opened.draft(None, (-(-opened.width // shrink), -(-opened.height // shrink)))
            picture = ImageOps.exif_transpose(opened)
        picture = picture.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, RuntimeError, struct.error, EOFError, KeyError, IndexError) as error:
        raise BadPictureError("truncated", str(error).splitlines()[0] if str(error) else "") from error
    except Image.DecompressionBombError as error:
        raise BadPictureError("too large", str(error)) from error
    if place is None:
        return _as_tensor(_centre(picture, size, wide, high))
    x, y, width, height = (v * picture.size[i % 2] / (wide, high)[i % 2] for i, v in enumerate(place))
    part = picture.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + width, y + height))
    return _as_tensor(part)


def deepest_value(data: bytes) -> int:
    """The largest value in a picture with 16 bits; 0 for other pictures and for those that cannot be decoded."""
    try:
        opened = _open(io.BytesIO(data))
        return int(_deep_values(opened, data).max()) if _is_deep(opened, data) else 0
    except (BadPictureError, OSError, ValueError, SyntaxError, RuntimeError):
        return 0


def _open(file: BinaryIO) -> Image.Image:
    begins = file.read(4)
    file.seek(0)
    if not begins:
        raise BadPictureError("empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only the error refuses a picture
            return Image.open(file)
    except Image.DecompressionBombError as error:
        raise BadPictureError("too large", str(error)) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error, EOFError) as error:
        known = begins.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*"))
        raise BadPictureError("truncated" if known else "no picture") from error


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    wide, high = picture.size
    if picture.format == "TIFF":  # some versions of Pillow have turned the size already
        tags = picture.tag_v2  # type: ignore[attr-defined]
        wide, high = tags.get(256, wide), tags.get(257, high)
    return (high, wide) if _orientation(picture) in TURNED else (wide, high)


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError):
        return 1  # damaged EXIF data: the picture itself may be fine
    return value if isinstance(value, int) else 1


def _is_deep(picture: Image.Image, data: bytes) -> bool:
    """Whether the values have 16 bits. Byte 24 of a PNG is its bit depth."""
    return picture.mode.startswith("I;16") or (picture.format == "PNG" and data[24:25] == b"\x10")


def _by_torchvision(data: bytes, mode: ImageReadMode) -> Tensor:
    content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    decoded: Tensor = decode_jpeg(content, mode=mode, apply_exif_orientation=True)
    return decoded


def _deep_values(picture: Image.Image, data: bytes) -> Any:
    """The values of a picture with 16 bits: (H, W) or (H, W, 3), not turned."""
    if picture.format != "PNG":
        return np.asarray(picture).astype(np.int64)
    content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    values = decode_image(content, mode=ImageReadMode.UNCHANGED).to(torch.int64).permute(1, 2, 0).numpy()
    return values[:, :, 0] if values.shape[2] <= 2 else values[:, :, :3]


def _scaled(picture: Image.Image, data: bytes, bits: int) -> Image.Image:
    values = _deep_values(picture, data) * 255 // (2**bits - 1)
    scaled = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    scaled.getexif()[ORIENTATION] = _orientation(picture)
    return ImageOps.exif_transpose(scaled)


def _centre(picture: Image.Image, size: int, width: int, height: int) -> Image.Image:
    """Resizes the shorter side and crops the centre. The picture may be a reduced one of the given width and height."""
    if picture.size == (size, size):
        return picture
    shorter = min(width, height)
    wide, high = round(width * size / shorter), round(height * size / shorter)
    left, top = (wide - size) // 2, (high - size) // 2
    return picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def _as_tensor(picture: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _cut(picture: Tensor, place: Box, size: int) -> Tensor:
    x, y, width, height = place
    part = picture[None, :, y : y + height, x : x + width]
    cut = torch.nn.functional.interpolate(part, (size, size), mode="bilinear", antialias=True)
    return cut[0]

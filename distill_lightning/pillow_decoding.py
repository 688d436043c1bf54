"""Decodes the bytes of a picture file with Pillow and numpy alone: the rules are these for training and for prediction.

1. A picture with an EXIF orientation is turned upright.
2. A JPEG whose shorter side is at least twice the wanted size is decoded at 1/2, 1/4 or 1/8 of its size (``draft``).
3. Values with 16 bits are scaled to 8 by the number of bits that the training pictures use. Pillow drops the low bits
   of colours, so these are read apart.
4. Alpha is dropped, palettes and CMYK become RGB, and RGB becomes grey if one channel is wanted.
5. The shorter side is resized to the wanted size, bilinear with antialiasing, and the centre is cropped.

The result depends on the bytes and the arguments alone. ``data.decoding`` does the same with a faster decoder for some
JPEGs.
"""

import io
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]
BITS_PER_SAMPLE = 258
"""The tag of TIFF."""
ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""
TURNED = (5, 6, 7, 8)
"""The orientations that exchange width and height."""
HALVES = {2: ("RGB;16B", "RGB;16L"), 6: ("RGBA;16B", "RGBA;16L")}
"""How Pillow reads the upper and the lower byte of a PNG's values with 16 bits, by the colour type."""
WITHOUT_PIXELS = ("BUFR", "GRIB", "HDF5", "MPEG")
"""Formats that Pillow recognises, and whose pixels it cannot read."""
GREY_AND_ALPHA = 4
"""The colour type of such a PNG. Its four bytes of a pixel are read as four channels."""
Box = tuple[int, int, int, int]
"""Left, top, width and height of a part of a picture, in pixels of the upright picture."""
ChooseBox = Callable[[int, int], Box]
"""Chooses a box from the width and height of the upright picture."""
Kind = Literal[
    "empty", "no picture", "not read", "truncated", "too large", "of unknown scale", "a deep TIFF", "a link to nothing"
]


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
        deep: whether values have 16 bits, also where Pillow reads the upper byte alone.
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
    picture = open_picture(file)
    wide, high = upright_size(picture)
    file.seek(0)
    deep = is_deep(picture, file.read(25)) or _is_deep_colour_tiff(picture)
    return Header(wide, high, picture.format or "", picture.mode, deep)


def decode(data: bytes, channels: int, size: int, bits: int = 16) -> Pixels:
    """Decodes a picture. The shorter side is resized to ``size``, and the centre is cropped.

    Args:
        data: the content of the file.
        channels: 1 for grey, 3 for RGB.
        size: the side of the result in pixels.
        bits: 8 to 16: how many bits the values of a picture with 16 bits use. Larger values are cut to white.

    Returns:
        uint8 (channels, size, size).

    Raises:
        BadPictureError: the bytes are no picture, or one that cannot be decoded.
    """
    opened = open_picture(io.BytesIO(data))
    return as_pixels(decoded_by_pillow(opened, data, channels, size, bits, None))


def decoded_by_pillow(
    opened: Image.Image, data: bytes, channels: int, size: int, bits: int, place: Box | None
) -> Image.Image:
    """An opened picture as a square one, see ``decode``.

    Args:
        opened: what ``open_picture`` gave.
        data: the content of the file.
        channels: see ``decode``.
        size: see ``decode``.
        bits: see ``decode``.
        place: the part of the upright picture that is resized to the square; None for the centre.

    Raises:
        BadPictureError: it cannot be decoded.
    """
    if opened.mode in ("I", "F") and not is_deep(opened, data):
        raise BadPictureError("of unknown scale", "values of 32 bits: save it with 8 or 16 bits")
    if bits < 16 and _is_deep_colour_tiff(opened):
        raise BadPictureError("a deep TIFF", "save it as PNG, or give data.bit_depth 16")
    wide, high = upright_size(opened)
    with damage_refused():
        if is_deep(opened, data):
            picture = _scaled(opened, data, bits)
        else:
            shrink = (min(wide, high) if place is None else min(place[2:])) // size
            if is_plain_jpeg(opened) and shrink >= 2:
                opened.draft(None, (-(-opened.width // shrink), -(-opened.height // shrink)))
            picture = ImageOps.exif_transpose(opened)
        picture = in_channels(picture, channels)
    if place is None:
        return centre(picture, size, wide, high)
    x, y, width, height = (v * picture.size[i % 2] / (wide, high)[i % 2] for i, v in enumerate(place))
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + width, y + height))


def of_picture(picture: Image.Image, channels: int, size: int, bits: int = 16) -> Pixels:
    """The same for a picture in memory, see ``decode``."""
    if picture.mode in ("I", "F"):
        raise BadPictureError("of unknown scale", "values of 32 bits: save it with 8 or 16 bits")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = _in_eight_bits(np.asarray(picture).astype(np.int64), bits)
    picture = in_channels(picture, channels)
    return as_pixels(centre(picture, size, *picture.size))


DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    struct.error,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
)
"""The errors of Pillow's decoders at damaged files."""


@contextmanager
def damage_refused() -> Iterator[None]:
    """Turns the errors of decoders into one.

    Raises:
        BadPictureError: within this block, a decoder found damage.
    """
    try:
        yield
    except DAMAGE as error:
        raise BadPictureError("truncated", str(error).splitlines()[0] if str(error) else "") from error
    except Image.DecompressionBombError as error:
        raise BadPictureError("too large", str(error)) from error


def deepest_value(data: bytes) -> int:
    """The largest value in a picture with 16 bits; 0 for other pictures and for those that cannot be decoded."""
    try:
        opened = open_picture(io.BytesIO(data))
        if _is_deep_colour_tiff(opened):
            return int(np.asarray(opened).max()) * 256 + 255
        return int(_deep_values(opened, data).max()) if is_deep(opened, data) else 0
    except (BadPictureError, OSError, ValueError, SyntaxError, RuntimeError):
        return 0


def open_picture(file: BinaryIO) -> Image.Image:
    """Opens a picture, and reads no pixels.

    Raises:
        BadPictureError: the bytes are no picture.
    """
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
    except DAMAGE as error:
        known = begins.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*"))
        raise BadPictureError("truncated" if known else "no picture") from error


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of a picture when it is turned upright."""
    wide, high = picture.size
    if picture.format == "TIFF":  # some versions of Pillow have turned the size already
        tags = picture.tag_v2  # type: ignore[attr-defined]
        wide, high = tags.get(256, wide), tags.get(257, high)
    return (high, wide) if orientation(picture) in TURNED else (wide, high)


def orientation(picture: Image.Image) -> int:
    """The orientation of a picture, 1 to 8, as EXIF or XMP say it."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError):
        return 1  # damaged EXIF data: the picture itself may be fine
    return value if isinstance(value, int) else 1


def is_picture_name(name: str) -> bool:
    """Whether a name has the extension of a picture format that Pillow reads."""
    end = "." + name.rpartition(".")[2].lower()
    read = Image.registered_extensions().get(end)
    return "." in name.rpartition("/")[2] and read in Image.OPEN and read not in WITHOUT_PIXELS


def _is_deep_colour_tiff(picture: Image.Image) -> bool:
    """Whether it is a TIFF with colours of 16 bits. Pillow reads the upper byte of each."""
    is_colour_tiff = picture.format == "TIFF" and picture.mode in ("RGB", "RGBA", "RGBX")
    return is_colour_tiff and max(picture.tag_v2.get(BITS_PER_SAMPLE, (8,))) > 8  # type: ignore[attr-defined]


def is_deep(picture: Image.Image, data: bytes) -> bool:
    """Whether the values have 16 bits. Byte 24 of a PNG is its bit depth."""
    return picture.mode.startswith("I;16") or (picture.format == "PNG" and data[24:25] == b"\x10")


def is_plain_jpeg(opened: Image.Image) -> bool:
    """Whether a picture is a JPEG in RGB or grey, and not CMYK for example."""
    return opened.format == "JPEG" and opened.mode in ("RGB", "L")


def in_channels(picture: Image.Image, channels: int) -> Image.Image:
    """A picture in grey or RGB."""
    return picture.convert("L" if channels == 1 else "RGB")


def _deep_values(picture: Image.Image, data: bytes) -> Any:
    """The values of a picture with 16 bits: (H, W) or (H, W, 3), not turned."""
    kind = data[25] if picture.format == "PNG" else 0
    if kind in HALVES:
        upper, lower = (_raw(data, form)[:, :, :3] for form in HALVES[kind])
        return upper * 256 + lower
    if kind == GREY_AND_ALPHA:
        four = _raw(data, "RGBA")
        return four[:, :, 0] * 256 + four[:, :, 1]
    return np.asarray(picture).astype(np.int64)


def _raw(data: bytes, form: str) -> Any:
    """The channels of a PNG whose bytes are read in a raw mode of Pillow, (H, W, C)."""
    picture: Any = Image.open(io.BytesIO(data))
    (codec, extents, offset, _), *_ = picture.tile
    picture.tile = [(codec, extents, offset, form)]
    return np.asarray(picture).astype(np.int64)


def _scaled(picture: Image.Image, data: bytes, bits: int) -> Image.Image:
    scaled = _in_eight_bits(_deep_values(picture, data), bits)
    scaled.getexif()[ORIENTATION] = orientation(picture)
    return ImageOps.exif_transpose(scaled)


def _in_eight_bits(values: Any, bits: int) -> Image.Image:
    return Image.fromarray((values * 255 // (2**bits - 1)).clip(0, 255).astype(np.uint8))


def centre(picture: Image.Image, size: int, width: int, height: int) -> Image.Image:
    """Resizes the shorter side and crops the centre. The picture may be a reduced one of the given width and height."""
    if picture.size == (size, size):
        return picture
    shorter = min(width, height)
    wide, high = round(width * size / shorter), round(height * size / shorter)
    left, top = (wide - size) // 2, (high - size) // 2
    return picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def as_pixels(picture: Image.Image) -> Pixels:
    """The pixels of a picture: uint8 (C, H, W)."""
    pixels = np.array(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

"""Turns pictures into the uint8 pixels that networks take, with Pillow and numpy alone.

An exported file predicts with this module where there is no torch. The pixels are those that the data modules decode
for the same file: equal for every format that Pillow decodes in both, see tests/exporting/test_pillow_pixels.py.
"""

import os
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from distill_lightning.errors import InputError

Pixels = npt.NDArray[np.uint8]
DecodeFile = Callable[[str | Path, int, int], Pixels]


def decode(path: str | Path, channels: int, size: int) -> Pixels:
    """Decodes a picture file. It is turned upright, the shorter side is resized to ``size``, and the centre is cropped.

    Args:
        path: the file. Values with 16 bits are reduced to 8 bits.
        channels: 1 for grey, 3 for RGB.
        size: the side of the result in pixels.

    Returns:
        (channels, size, size).

    Raises:
        InputError: the file cannot be read as a picture, is too large, or has 32-bit values, whose scale is unknown.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only the error refuses a picture
            opened = Image.open(path)
        with opened:
            if opened.format == "JPEG" and opened.mode in ("RGB", "L"):
                _draft(opened, channels, size)
            return _checked(ImageOps.exif_transpose(opened), channels, size, printable(path))
    except FileNotFoundError as error:
        raise InputError(f"there is no picture {printable(path)}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{printable(path)} is too large: {error}") from error
    except InputError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, struct.error, KeyError) as error:
        raise InputError(f"{printable(path)} is no picture that can be read: remove or replace it") from error


def _draft(opened: Any, channels: int, size: int) -> None:
    """Lets the JPEG decoder scale a picture that is twice as large or more; and give the luma, if that is asked for."""
    shrink = min(opened.size) // size
    if shrink >= 2:
        opened.draft(None, (-(-opened.width // shrink), -(-opened.height // shrink)))
    elif channels == 1:
        opened.draft("L", None)


def _checked(picture: Image.Image, channels: int, size: int, what: str) -> Pixels:
    if picture.mode in ("I", "F"):
        raise InputError(f"{what} has values of 32 bits, whose scale is unknown: save it with 8 or 16 bits")
    return pixels_of(picture, channels, size)


def pixels_of(picture: Image.Image, channels: int, size: int) -> Pixels:
    """Pixels (channels, size, size) of a Pillow picture: the shorter side is resized, and the centre is cropped."""
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (size, size):
        width, height = picture.size
        shorter = min(width, height)
        wide, high = round(width * size / shorter), round(height * size / shorter)
        left, top = (wide - size) // 2, (high - size) // 2
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def pictures_below(folder: Path) -> list[Path]:
    """The picture files in a folder and its subfolders, sorted by path, without hidden ones. A picture is a file with
    the extension of a format that Pillow knows.

    Raises:
        InputError: there are none.
    """
    known = Image.registered_extensions()
    found = [
        Path(parent, name)
        for parent, folders, names in os.walk(folder, followlinks=False)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in known
        if not any(part.startswith(".") for part in Path(parent).relative_to(folder).parts)
    ]
    if not found:
        raise InputError(f"there are no pictures in {printable(folder)}: give a folder that holds some")
    return sorted(found)


def picture_files(given: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """The files that paths of files and folders name.

    Args:
        given: the paths.

    Returns:
        The files, and the name of each: as it was given or, of the files in a single folder, relative to the folder.

    Raises:
        InputError: a path does not exist, or a folder has no pictures.
    """
    files: list[Path] = []
    for path in map(Path, given):
        if not path.exists():
            raise InputError(f"there is no picture or folder {printable(path)}: give one that exists")
        files += pictures_below(path) if path.is_dir() else [path]
    single = len(given) == 1 and Path(given[0]).is_dir()
    return files, [str(file.relative_to(given[0]) if single else file) for file in files]


def read_pictures(
    pictures: Any, channels: int, size: int, batch_size: int, decode_file: DecodeFile = decode
) -> tuple[Iterator[Pixels], list[str] | None]:
    """Reads pictures of any kind, in batches.

    Args:
        pictures: the path of a file or of a folder; a Pillow picture; an array (H, W), (N, H, W) of N grey pictures,
            (N, C, H, W) or (N, H, W, C); or a list of paths, pictures and arrays (H, W), (H, W, C) or (C, H, W). Values
            are 0 to 255 as uint8, or 0 to 1 as floating-point numbers.
        channels: 1 for grey, 3 for RGB.
        size: the side of the pictures in pixels. Others are resized and cropped, see ``decode``.
        batch_size: the largest number of pictures in a batch.
        decode_file: decodes a file, as ``decode`` does.

    Returns:
        Batches (B, channels, size, size), which are read when they are needed; and the names of the files, or None if
        the pictures are not files.

    Raises:
        InputError: there are no pictures, or one cannot be read.
    """
    if isinstance(pictures, str | Path | Image.Image):
        pictures = [pictures]
    elif isinstance(pictures, np.ndarray):
        pictures = _rows(_as_bytes(pictures))
    elif not isinstance(pictures, list | tuple):
        raise InputError(f"pictures are a {type(pictures).__name__}: give paths, Pillow pictures or uint8 arrays")
    are_paths = [isinstance(one, str | Path) for one in pictures]
    if len(pictures) == 0:
        raise InputError("there are no pictures: give one or more")
    names = None
    if all(are_paths):
        pictures, names = picture_files(pictures)

    def batches() -> Iterator[Pixels]:
        for start in range(0, len(pictures), batch_size):
            rows = pictures[start : start + batch_size]
            yield np.stack([_one(row, channels, size, decode_file) for row in rows])

    return batches(), names


def _as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array of fractions as uint8; another one as it is."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise InputError(
            f"the pictures have values from {array.min():.3g} to {array.max():.3g}: give 0 to 1, or 0 to 255 as uint8, "
            "before any normalisation"
        )
    found: Pixels = np.rint(array * 255).astype(np.uint8)
    return found


def _rows(array: npt.NDArray[Any]) -> list[Any]:
    """The pictures of an array, each (H, W) or (H, W, C)."""
    if array.ndim == 2:
        return [array]
    if array.ndim == 3:
        return list(array)
    if array.ndim != 4:
        raise InputError(
            f"an array of pictures has the shape {array.shape}: give (N, C, H, W), (N, H, W, C), (N, H, W)"
        )
    return list(array.transpose(0, 2, 3, 1) if array.shape[1] in (1, 3) else array)


def _one(picture: Any, channels: int, size: int, decode_file: DecodeFile) -> Pixels:
    if isinstance(picture, str | Path):
        return decode_file(picture, channels, size)
    if isinstance(picture, Image.Image):
        return _checked(ImageOps.exif_transpose(picture), channels, size, "a picture")
    array = _as_bytes(np.asarray(picture))
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        raise InputError(f"an array of pictures holds {array.dtype}: give uint8, with values from 0 to 255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        raise InputError(f"a picture has the shape {array.shape}: give (H, W) or (H, W, 3)")
    return pixels_of(Image.fromarray(np.ascontiguousarray(array)), channels, size)


def printable(path: str | Path) -> str:
    """The path with escapes for bytes that are not UTF-8, as in file names of an old encoding."""
    return os.fsencode(path).decode(errors="backslashreplace")

"""Turns pictures into the uint8 pixels that networks take, with Pillow and numpy alone.

An exported file predicts with this module where there is no torch. The pixels are those that the data modules decode
for the same file, see ``pillow_decoding``.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import BadPictureError, Pixels, decode, is_picture_name, of_picture

DecodeFile = Callable[[bytes, int, int, int], Pixels]


@dataclass(frozen=True, slots=True)
class Form:
    """What pictures are decoded to, see ``pillow_decoding.decode``.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: the side of the pictures in pixels. Others are resized and cropped.
        bits: how many bits the values of pictures with 16 bits use.
    """

    channels: int
    size: int
    bits: int = 16


def read_file(path: str | Path, form: Form, decode_file: DecodeFile = decode) -> Pixels:
    """Decodes a picture file: (channels, size, size).

    Raises:
        InputError: the file cannot be read as a picture, is too large, or has 32-bit values, whose scale is unknown.
    """
    try:
        return decode_file(Path(path).read_bytes(), form.channels, form.size, form.bits)
    except FileNotFoundError as error:
        raise InputError(f"there is no picture {printable(path)}") from error
    except (BadPictureError, OSError) as error:
        if isinstance(error, BadPictureError) and error.kind in ("too large", "of unknown scale", "a deep TIFF"):
            raise InputError(f"{printable(path)} is {error.kind}: {error.detail}") from error
        raise InputError(f"{printable(path)} is no picture that can be read: remove or replace it") from error


def pictures_below(folder: Path) -> list[Path]:
    """The picture files in a folder and its subfolders, sorted by path, without hidden ones. A picture is a file with
    the extension of a format that Pillow knows.

    Raises:
        InputError: there are none.
    """
    found = [
        Path(parent, name)
        for parent, folders, names in os.walk(folder, followlinks=False)
        for name in names
        if not name.startswith(".") and is_picture_name(name)
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
    pictures: Any,
    form: Form,
    batch_size: int,
    decode_file: DecodeFile = decode,
    unread: dict[str, str] | None = None,
) -> tuple[Iterator[Pixels], list[str] | None]:
    """Reads pictures of any kind, in batches.

    Args:
        pictures: the path of a file or of a folder; a Pillow picture; an array (H, W), (N, H, W) of N grey pictures,
            (N, C, H, W) or (N, H, W, C); or a list of paths, pictures and arrays (H, W), (H, W, C) or (C, H, W). Values
            are 0 to 255 as uint8, or 0 to 1 as floating-point numbers.
        form: what they are decoded to.
        batch_size: the largest number of pictures in a batch.
        decode_file: decodes the bytes of a file, as ``decode`` does.
        unread: gets the files that cannot be read, by name, with a sentence on each; they are left out of the batches.
            By default such a file is an error.

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
            rows = []
            for position in range(start, min(start + batch_size, len(pictures))):
                try:
                    rows.append(_one(pictures[position], form, decode_file))
                except InputError as error:
                    if unread is None or names is None:
                        raise
                    unread[names[position]] = str(error)
            if rows:
                yield np.stack(rows)

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


def _one(picture: Any, form: Form, decode_file: DecodeFile) -> Pixels:
    if isinstance(picture, str | Path):
        return read_file(picture, form, decode_file)
    if isinstance(picture, Image.Image):
        return _of_picture(picture, form)
    array = _as_bytes(np.asarray(picture))
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        raise InputError(f"an array of pictures holds {array.dtype}: give uint8, with values from 0 to 255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        raise InputError(f"a picture has the shape {array.shape}: give (H, W) or (H, W, 3)")
    return _of_picture(Image.fromarray(np.ascontiguousarray(array)), form)


def _of_picture(picture: Image.Image, form: Form) -> Pixels:
    try:
        return of_picture(picture, form.channels, form.size, form.bits)
    except BadPictureError as error:
        raise InputError(f"a picture is {error.kind}: {error.detail}") from error


def printable(path: str | Path) -> str:
    """The path with escapes for bytes that are not UTF-8, as in file names of an old encoding."""
    return os.fsencode(path).decode(errors="backslashreplace")

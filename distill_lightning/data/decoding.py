"""Decodes the bytes of a picture file for training, by the rules of ``pillow_decoding``.

JPEGs near their final size are decoded by torchvision, which is faster than Pillow and gives the same values. Pillow
decodes the others.
"""

import io

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from distill_lightning import pillow_decoding
from distill_lightning.pillow_decoding import Box, ChooseBox

DECODER = 4
"""The version of the decoder. A cache that another version wrote is not used."""

FLIPPED = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}
"""The axes, of (C, H, W), that are flipped for an orientation of EXIF, after height and width were exchanged if need
be."""


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
    opened = pillow_decoding.open_picture(io.BytesIO(data))
    wide, high = pillow_decoding.upright_size(opened)
    orientation = pillow_decoding.orientation(opened)
    place = None if box is None else box(wide, high)
    side = min(wide, high) if place is None else min(place[2:])
    # the markers of the end and of the last scan: torchvision would read a torn file as a grey picture
    is_whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    if not (pillow_decoding.is_plain_jpeg(opened) and is_whole and side < 2 * size):
        return _as_tensor(pillow_decoding.decoded_by_pillow(opened, data, channels, size, bits, place))
    with pillow_decoding.damage_refused():
        if place is not None:
            mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
            return _cut(_by_torchvision(data, mode, orientation), place, size)
        upright = _by_torchvision(data, ImageReadMode.UNCHANGED, orientation).permute(1, 2, 0).numpy()
        picture = Image.fromarray(upright[:, :, 0] if upright.shape[2] == 1 else upright)
        return _as_tensor(pillow_decoding.centre(pillow_decoding.in_channels(picture, channels), size, wide, high))


def _by_torchvision(data: bytes, mode: ImageReadMode, orientation: int) -> Tensor:
    """The picture, turned upright as Pillow turns it: torchvision does not find each orientation that Pillow finds."""
    decoded: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=mode)
    if orientation in pillow_decoding.TURNED:
        decoded = decoded.transpose(1, 2)
    flipped = FLIPPED.get(orientation)
    return decoded.flip(flipped) if flipped else decoded


def _as_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(pillow_decoding.as_pixels(picture))


def _cut(picture: Tensor, place: Box, size: int) -> Tensor:
    x, y, width, height = place
    part = picture[None, :, y : y + height, x : x + width]
    cut = torch.nn.functional.interpolate(part, (size, size), mode="bilinear", antialias=True)
    return cut[0]

"""A sheet of training pictures as the network sees them: augmented, mixed, and with the normalisation taken back."""

import io

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from distill_lightning.data.base import ImageData
from distill_lightning.values import NO_LABEL, BatchNeeds, PlainTimeline

COLUMNS = 8
SMALLEST = 96
"""Smaller pictures are enlarged to at least this side, by a whole number."""
TEXT = 14
"""The height of the line with the class below each picture, in pixels."""


def contact_sheet(data: ImageData, count: int = 64) -> bytes:
    """A PNG of the first training pictures of the first epoch, with their classes.

    Args:
        data: the data, after ``setup("fit")``.
        count: the largest number of pictures.
    """
    data.begin_fit(BatchNeeds(), PlainTimeline(data.samples.batches, 1))
    images: list[Tensor] = []
    words: list[str] = []
    for batch in data.train_loader_from(lambda: (0, 0)):
        images += list(as_pixels(batch.images, data))
        words += ["" if k == NO_LABEL else data.class_names[k] for k in batch.labels.tolist()]
        if len(images) >= count:
            break
    images, words = images[:count], words[:count]
    enlarge = max(1, -(-SMALLEST // data.image_size))
    side = enlarge * data.image_size
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (side + 4), rows * (side + TEXT + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (image, word) in enumerate(zip(images, words, strict=True)):
        down, across = divmod(place, COLUMNS)
        x, y = across * (side + 4), down * (side + TEXT + 4)
        array = (image if len(image) == 3 else image[:1].expand(3, -1, -1)).permute(1, 2, 0).contiguous().numpy()
        sheet.paste(Image.fromarray(array).resize((side, side), Image.Resampling.NEAREST), (x, y))
        text = "".join(c if c.isprintable() and ord(c) < 256 else "?" for c in word)
        draw.text((x, y + side), text[: side // 6], fill="black")
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def as_pixels(images: Tensor, data: ImageData) -> Tensor:
    """Takes the normalisation back: float (B, C, H, W) to uint8 of the same shape. Floats, which have none, are shown
    from their smallest to their largest.
    """
    if data.info.has_floats:
        low, high = images.amin(), images.amax()
        return (255 * (images - low) / (high - low).clamp(min=1e-9)).round().to(torch.uint8)
    assert data.normaliser is not None
    mean, std = (x[:, None, None].to(images.device) for x in (data.normaliser.mean, data.normaliser.std))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

"""Numbers and a picture from a confusion matrix."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

MOST_NAMED = 40
"""The largest number of classes whose names are written beside the matrix."""
SIDE = 640
"""The side of the picture of the matrix in pixels, about."""


def by_class(counts: Tensor) -> dict[str, Tensor]:
    """The metrics of each class.

    Args:
        counts: (K, K) integers, the number of pictures by true class (row) and predicted class (column).

    Returns:
        ``count`` (K,) int64, and ``accuracy`` (recall), ``precision`` and ``f1``, (K,) float64. The accuracy of a class
        without pictures is nan, as the precision of a class that is never predicted, and the F1 of one that is neither.
    """
    right, true, predicted = counts.diag().double(), counts.sum(1).double(), counts.sum(0).double()
    return {
        "count": counts.sum(1),
        "accuracy": right / true,
        "precision": right / predicted,
        "f1": 2 * right / (true + predicted),
    }


def over_classes(counts: Tensor) -> dict[str, float]:
    """Balanced accuracy and macro F1, fractions of 1: means over the classes that occur, as scikit-learn has them.

    Args:
        counts: see ``by_class``.
    """
    of_class = by_class(counts)
    names = {"balanced_accuracy": "accuracy", "macro_f1": "f1"}
    return {name: float(of_class[of][~of_class[of].isnan()].mean()) for name, of in names.items()}


def draw(counts: Tensor, names: Sequence[str]) -> np.ndarray:
    """A picture of a confusion matrix, (H, W, 3) uint8. Each row is divided by its sum; darker means more.

    Args:
        counts: see ``by_class``.
        names: the names of the K classes.
    """
    cell = max(1, SIDE // len(counts))
    shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    named = len(names) <= MOST_NAMED
    margin = 120 if named else 30
    side = cell * len(counts)
    picture = Image.new("RGB", (margin + side, margin + side), "white")
    colours = torch.stack([255 * (1 - shares), 255 * (1 - 0.7 * shares), 255 * (1 - 0.25 * shares)], 2)
    cells = Image.fromarray(colours.round().to(torch.uint8).numpy()).resize((side, side), Image.Resampling.NEAREST)
    picture.paste(cells, (margin, margin))
    draw_on = ImageDraw.Draw(picture)
    draw_on.text((4, 4), "true (rows), predicted (columns)", fill="black")
    if named:
        for number, name in enumerate(names):
            text = "".join(c if c.isprintable() and ord(c) < 256 else "?" for c in name)[:18]
            place = margin + cell * number + cell // 2
            draw_on.text((4, place - 6), text, fill="black")
            column = Image.new("RGB", (margin - 24, 14), "white")
            ImageDraw.Draw(column).text((0, 0), text, fill="black")
            picture.paste(column.rotate(90, expand=True), (place - 7, 22))
            if cell >= 24:
                for other in range(len(names)):
                    share = float(shares[number, other])
                    where = (margin + cell * other + cell // 2 - 10, place - 6)
                    draw_on.text(where, f"{100 * share:.0f}", fill="white" if share > 0.6 else "black")
    return np.array(picture)

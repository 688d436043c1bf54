"""Which part of a picture a channel needs: a square of the mean colour is moved over it."""

from collections.abc import Callable

import torch
from torch import Tensor


def square_of(side: int) -> tuple[int, int]:
    """The side of the square and its step for pictures of a size, in pixels: a quarter, and a sixteenth or 1."""
    return max(2, side // 4), max(1, side // 16)


def occlusion_map(answer: Callable[[Tensor], Tensor], picture: Tensor, colour: Tensor) -> Tensor:
    """How much less a channel answers when a square of the picture is covered.

    Args:
        answer: gives the answer of the channel, (B,), to uint8 pictures (B, C, H, W).
        picture: (C, H, W) uint8.
        colour: (C,) uint8, the colour of the square.

    Returns:
        (n, m) float32: the answer to the whole picture minus that to the picture with the square at each place. Above 0
        where the channel needs what is covered.
    """
    _, height, width = picture.shape
    square, step = square_of(min(height, width))
    rows, columns = range(0, height - square + 1, step), range(0, width - square + 1, step)
    whole = answer(picture[None])[0]
    covered = []
    for top in rows:
        pictures = picture.repeat(len(columns), 1, 1, 1)
        for number, left in enumerate(columns):
            pictures[number, :, top : top + square, left : left + square] = colour[:, None, None]
        covered.append(whole - answer(pictures))
    return torch.stack(covered).float()

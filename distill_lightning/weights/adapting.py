"""Adapts weights to other numbers of channels and other picture sizes, as timm does."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

POSITIONS = ("pos_embed", "pos_embedding", "position_embedding", "position_embeddings", "positional_embedding")
"""The names of position embeddings."""
BIASES = ("relative_position_bias_table",)
"""The names of tables of relative positions, of shape ((2h - 1)(2w - 1), heads)."""


def adapt_channels(weight: Tensor, like: Tensor) -> Tensor | None:
    """Weights of a first convolution for another number of channels (timm/models/_manipulate.py, adapt_input_conv).

    Args:
        weight: (out, C, k, k), the weights in the file.
        like: (out, n, k, k), the weights of the network.

    Returns:
        (out, n, k, k). For n = 1 it is the sum over the channels, which equals feeding a grey picture as C equal
        channels. Otherwise the channels are repeated, and multiplied by C/n, so that a constant picture gives the same
        output. None if other sizes than C differ.
    """
    if weight.ndim != like.ndim or weight.ndim < 3 or weight.shape[0] != like.shape[0]:
        return None
    if weight.shape[2:] != like.shape[2:] or not weight.is_floating_point():
        return None
    channels, wanted = weight.shape[1], like.shape[1]
    weight = weight.float()
    if wanted == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-wanted // channels)
    tiled = weight.repeat(1, repeats, *([1] * (weight.ndim - 2)))[:, :wanted]
    return tiled * (channels / wanted)


def is_position(name: str) -> bool:
    """Whether a tensor with this name may hold position embeddings or a table of relative positions."""
    return name.rpartition(".")[2] in POSITIONS + BIASES or name.rpartition(".")[0].rpartition(".")[2] in POSITIONS


def adapt_positions(values: Tensor, like: Tensor) -> Tensor | None:
    """Position embeddings for another picture size (timm/layers/pos_embed.py, resample_abs_pos_embed).

    Args:
        values: (1, p + h*h, D) with p tokens that stand for no position; (1, D, h, w) or (1, h, w, D); or (n, heads), a
            table of relative positions.
        like: the network's own, with the same D or heads.

    Returns:
        The embeddings on the grid of ``like``, by bicubic interpolation with antialiasing in float32. None if the
        shapes are no square grids or differ in more than the grid.
    """
    values = values.float()
    if values.ndim == 4 and like.ndim == 4:
        if values.shape[:2] == like.shape[:2]:
            return _resize(values, (like.shape[2], like.shape[3]))
        if values.shape[3] == like.shape[3]:
            return _resize(values.permute(0, 3, 1, 2), (like.shape[1], like.shape[2])).permute(0, 2, 3, 1)
        return None
    if values.ndim == 2 and like.ndim == 2:  # a table, or embeddings without the leading 1
        resized = adapt_positions(values[None], like[None])
        return None if resized is None else resized[0]
    if values.ndim != 3 or like.ndim != 3 or values.shape[2] != like.shape[2]:
        return None
    for prefix in (0, 1, 2):
        sides = [math.isqrt(max(tensor.shape[1] - prefix, 0)) for tensor in (values, like)]
        if all(side and side**2 == t.shape[1] - prefix for side, t in zip(sides, (values, like), strict=True)):
            old, new = sides
            grid = values[:, prefix:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
            resized = _resize(grid, (new, new)).permute(0, 2, 3, 1).reshape(1, new * new, -1)
            return torch.cat([values[:, :prefix], resized], 1)
    return None


def _resize(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(grid, size=size, mode="bicubic", antialias=True)

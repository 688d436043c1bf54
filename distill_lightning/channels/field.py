"""The receptive field of each cell of a layer: the pixels that it depends on."""

import torch
from torch import Tensor

from distill_lightning.channels.taps import Tap
from distill_lightning.errors import InputError

AT_ONCE = 16
"""The number of pictures that the network gets at once."""


def receptive_field(tap: Tap, shape: tuple[int, int, int]) -> Tensor:
    """The smallest rectangle of pixels that holds all that a cell depends on, for each cell of a layer.

    One row of a picture after another is set to NaN. A cell that becomes NaN depends on this row: NaN passes through
    weights of 0, through ReLU and through max-pooling, where a gradient would be 0. The same for columns. This is exact
    for any network whose layers pass NaN on; a layer that averages over the whole picture (group norm,
    squeeze-and-excitation, attention) makes it the whole picture, and rightly so.

    Args:
        tap: the layer. The network must be on the CPU.
        shape: (C, H, W) of what the network gets.

    Returns:
        (H', W', 4) int64: for each cell the first and the last row and the first and the last column, within the
        picture. They are H, -1, W, -1 for a cell that depends on no pixel.

    Raises:
        InputError: the layer gives NaN for a picture without NaN.
    """
    channels, height, width = shape
    clean = torch.linspace(-1, 1, channels * height * width).view(1, *shape)
    if bool(tap(clean).isnan().any()):
        raise InputError(f"the layer {tap.layer} gives NaN: train the network again, with a smaller learning rate")
    found = torch.empty(*tap.shape[1:], 4, dtype=torch.int64)
    # fast convolutions (Winograd, FFT) would spread NaN over a whole tile
    with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        for side, length in enumerate((height, width)):
            first = torch.full(tap.shape[1:], length)
            last = torch.full(tap.shape[1:], -1)
            for start in range(0, length, AT_ONCE):
                lines = range(start, min(start + AT_ONCE, length))
                pictures = clean.repeat(len(lines), 1, 1, 1)
                for row, line in enumerate(lines):
                    pictures[row].select(1 + side, line).fill_(torch.nan)
                for line, cells in zip(lines, tap(pictures).isnan().any(1), strict=True):
                    first[cells & (first == length)] = line
                    last[cells] = line
            found[..., 2 * side], found[..., 2 * side + 1] = first, last
    return found

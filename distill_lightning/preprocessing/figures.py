"""A picture of a preprocessing: pictures before and after it, and the spectrum."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, GAP, PLOT = 72, 8, 200
INK, BLUE = (28, 31, 36), (0, 114, 178)


def draw_preprocessing(before: Tensor, after: Tensor, spectra: list[Tensor], words: str) -> Tensor:
    """Draws pictures before and after a preprocessing, and below them the eigenvalues of the covariance.

    Args:
        before: (N, C, H, W) uint8. Pictures with 3 channels are shown in colour, all others by their first channel.
        after: the same pictures, float. Each is drawn from its lowest to its highest value.
        spectra: eigenvalues, the largest first; each gets a curve with a logarithmic axis over their number.
        words: the name of the preprocessing.

    Returns:
        uint8 (height, width, 3).
    """
    width = max(GAP + len(before) * (SIDE + GAP), 360)
    canvas = Image.new("RGB", (width, 24 + 2 * (SIDE + GAP) + len(spectra) * (PLOT + 2 * GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    draw.text((GAP, 4), f"before, and after {words}", INK, font)
    low, high = after.amin((1, 2, 3), keepdim=True), after.amax((1, 2, 3), keepdim=True)
    scaled = (255 * (after - low) / (high - low).clamp(min=1e-9)).round().to(torch.uint8)
    for row, pictures in enumerate((before, scaled)):
        for column, image in enumerate(pictures):
            channels = image if len(image) == 3 else image[:1].expand(3, -1, -1)
            drawn = Image.fromarray(channels.permute(1, 2, 0).contiguous().numpy())
            place = (GAP + column * (SIDE + GAP), 24 + row * (SIDE + GAP))
            canvas.paste(drawn.resize((SIDE, SIDE), Image.Resampling.NEAREST), place)
    top = 24 + 2 * (SIDE + GAP)
    for values in spectra:
        logs = values.double().clamp(min=float(values[0]) * 1e-9 + 1e-30).log10()
        lowest, span = float(logs.min()), float(logs.max() - logs.min()) or 1.0
        across = torch.linspace(GAP, width - GAP, len(logs)).tolist()
        down = (top + 20 + (PLOT - 20) * (1 - (logs - lowest) / span)).tolist()
        draw.line([*zip(across, down, strict=True)], BLUE, 2)
        ends = f"eigenvalues 1 to {len(values)}: {float(values[0]):.3g} to {float(values[-1]):.3g}, logarithmic"
        draw.text((GAP, top), ends, INK, font)
        top += PLOT + 2 * GAP
    return torch.from_numpy(np.asarray(canvas).copy())

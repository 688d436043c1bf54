"""Pictures for TensorBoard that show what a teacher predicts."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TEMPERATURES = (1, 2, 5, 10, 20)
PICTURE, PANEL, BAR, GAP = 112, 170, 20, 14
INK, SOFT, BLUE, GREEN = (28, 31, 36), (110, 116, 128), (0, 114, 178), (0, 158, 115)


def draw_soft_targets(images: Tensor, logits: Tensor, labels: Tensor, names: list[str], rows: int = 6) -> Tensor:
    """Draws a teacher's probabilities for some pictures at several temperatures (Hinton et al. 2015, section 2).

    Args:
        images: (N, C, H, W) uint8; or floats, which are shown from their smallest to their largest. Pictures with 3
            channels are shown in colour, all others by their first channel.
        logits: the teacher's logits, (N, K).
        labels: (N,). The bar of the true class is green.
        names: the names of the K classes.
        rows: the number of pictures that are shown, evenly spaced from the lowest to the highest entropy.

    Returns:
        The drawing, uint8 (height, width, 3). Each row shows a picture and its five most probable classes at
        T = 1, 2, 5, 10, 20.
    """
    probs = logits.softmax(1)
    entropy = -(probs * probs.clamp(min=1e-12).log()).sum(1)
    chosen = entropy.argsort()[torch.linspace(0, len(images) - 1, min(rows, len(images))).long()].tolist()
    height = 5 * BAR + 2 * GAP
    canvas = Image.new("RGB", (PICTURE + 2 * GAP + len(TEMPERATURES) * PANEL, len(chosen) * height + 2 * GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for column, temperature in enumerate(TEMPERATURES):
        draw.text((PICTURE + 2 * GAP + column * PANEL, 4), f"T = {temperature}", SOFT, font)
    for row, number in enumerate(chosen):
        top = 2 * GAP + row * height
        canvas.paste(_picture(images[number]), (GAP, top))
        best = logits[number].topk(min(5, logits.shape[1])).indices.tolist()
        for column, temperature in enumerate(TEMPERATURES):
            left = PICTURE + 2 * GAP + column * PANEL
            at = (logits[number].double() / temperature).softmax(0)
            for place, label in enumerate(best):
                y = top + place * BAR
                draw.text((left, y), names[label][:8], INK, font)
                width = round(60 * float(at[label]))
                draw.rectangle(
                    (left + 58, y + 3, left + 59 + width, y + BAR - 5), GREEN if label == labels[number] else BLUE
                )
                draw.text((left + 64 + width, y), f"{float(at[label]):.3f}", SOFT, font)
    return torch.from_numpy(np.asarray(canvas).copy())


def _picture(image: Tensor) -> Image.Image:
    if image.is_floating_point():
        low, high = image.min(), image.max()
        image = (255 * (image - low) / (high - low).clamp(min=1e-9)).round().to(torch.uint8)
    channels = image if len(image) == 3 else image[:1].expand(3, -1, -1)
    return Image.fromarray(channels.permute(1, 2, 0).contiguous().numpy()).resize(
        (PICTURE, PICTURE), Image.Resampling.NEAREST
    )

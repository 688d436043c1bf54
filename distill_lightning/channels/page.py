"""The page on the channels of a layer, which needs no other file and no network, and the figure for papers."""

import base64
import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from distill_lightning.channels.occlusion import square_of
from distill_lightning.channels.study import Study
from distill_lightning.plots import COLOURS
from distill_lightning.report.page import DARK_COLOURS
from distill_lightning.report.rendering import render
from distill_lightning.report.tables import Table

STRONGEST = 8
"""The number of pictures of a channel on the page."""
IN_FIGURE = (6, 5)
"""The largest number of channels in the figure, and of pictures of each."""
PER_CLASS = 4
"""The number of channels that are named for a class."""
LARGE = 128
"""Pictures with a longer side are stored as JPEG."""
HEAT = (213, 94, 0)
"""The colour of places that a channel needs: red, green, blue."""
FRAME = "#d55e00"
"""The colour of a region's frame in the figure."""


def page(study: Study) -> str:
    """The page as HTML, light or dark as the system is."""
    return render(
        "channels.html",
        title=f"Channels of {study.layer}",
        lead=f"{study.where}: {study.channels} channels, searched on {len(study.labels):,} pictures of the "
        f"{study.part} part.",
        counts=_counts(study),
        channels=[_shown(study, channel) for channel in study.chosen],
        side=study.pictures.shape[-2:],
        whole=study.largest_region() == tuple(study.pictures.shape[-2:]),
        by_class=_by_class(study),
        halves=_halves(study),
        colours=COLOURS,
        dark_colours=DARK_COLOURS,
    )


def words(study: Study) -> list[str]:
    """The most important results, a line each."""
    dead, duplicates = int(study.found.dead.sum()), int((study.found.duplicates >= 0).sum())
    high, wide = study.largest_region()
    lines = [
        f"{study.layer}: {study.channels} channels, {dead} dead, {duplicates} duplicates",
        f"a cell sees {high} x {wide} of {study.pictures.shape[-2]} x {study.pictures.shape[-1]} pixels; "
        f"{float(study.found.rim[~study.found.dead].mean()):.0%} of the largest values lie on the rim of the map",
    ]
    if (halves := study.halves) is not None:
        split = [
            name for name, is_split in zip(study.class_names, halves.split_classes().tolist(), strict=True) if is_split
        ]
        lines.append(
            f"halves of the channels: {100 * float(halves.half[0].mean()):.1f} % right, of rotated channels "
            f"{100 * float(halves.half[1].mean()):.1f} %; they differ on {100 * float(halves.differ[0].mean()):.1f} "
            f"and {100 * float(halves.differ[1].mean()):.1f} %"
        )
        some = ", ".join(split[:6]) + (", ..." if len(split) > 6 else "")
        lines.append(
            f"classes that split into views: {len(split)} of {len(study.class_names)}" + (f": {some}" * bool(split))
        )
    return lines


def draw(study: Study, path: Path) -> bytes:
    """A figure for papers: the strongest pictures of some channels with their regions, and what they need.

    Args:
        study: the study.
        path: the file; its suffix is the format: .svg, .png or .pdf.

    Returns:
        The content of the file.
    """
    from matplotlib import rc_context  # slow to import, and only needed here
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    channels, columns = study.chosen[: IN_FIGURE[0]], IN_FIGURE[1]
    kind = path.suffix.lower().removeprefix(".")
    pixels = "none" if kind == "svg" else "nearest"  # an SVG holds each pixel once, and is drawn with sharp pixels
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "distill", "font.family": "sans-serif", "font.size": 8}):
        figure = Figure((7.0, 1.15 * len(channels) + 0.3), layout="constrained", dpi=200)
        axes = figure.subplots(len(channels), columns + 1, squeeze=False)
        for row, channel in enumerate(channels):
            for place, picture in enumerate(study.found.strongest(channel, columns)):
                shown = axes[row, place]
                shown.imshow(_array(study.pictures[picture]), interpolation=pixels)
                top, bottom, left, right = study.region(channel, picture)
                frame = Rectangle((left - 0.5, top - 0.5), right - left + 1, bottom - top + 1, fill=False, color=FRAME)
                frame.set_path_effects([withStroke(linewidth=2.4, foreground="white")])  # to be seen on orange, too
                shown.add_patch(frame)
                shown.set_title(study.class_names[int(study.labels[picture])], fontsize=7, parse_math=False)
            first, heat = study.found.strongest(channel, 1)[0], study.occlusions[channel]
            square, step = square_of(min(study.pictures.shape[-2:]))
            start = (square - step) / 2 - 0.5
            extent = (start, start + step * heat.shape[1], start + step * heat.shape[0], start)
            last = axes[row, -1]
            last.imshow(_array(_grey(study.pictures[first])), interpolation=pixels)
            needed = _strength(heat).numpy()  # transparent where the channel needs nothing
            last.imshow(needed, cmap="inferno", alpha=0.8 * needed, extent=extent, interpolation="bilinear")
            last.set(xlim=axes[row, 0].get_xlim(), ylim=axes[row, 0].get_ylim())
            axes[row, 0].set_ylabel(f"channel {channel}")
        axes[0, -1].set_title("needed", fontsize=7)
        for one in axes.flat:
            one.set(xticks=[], yticks=[])
            one.spines[:].set_visible(False)
        file = io.BytesIO()
        metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
        figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()


def _shown(study: Study, channel: int) -> dict[str, Any]:
    """A channel as the template takes it."""
    pictures = []
    largest = study.largest_region()
    for picture in study.found.strongest(channel, STRONGEST):
        top, bottom, left, right = study.region(channel, picture)
        pixels = study.pictures[picture]
        crop = pixels[:, top : bottom + 1, left : right + 1]
        pictures.append(
            {
                "source": _source(pixels),
                "name": study.class_names[int(study.labels[picture])],
                "box": (left, top, right - left + 1, bottom - top + 1),
                "crop": _source(crop) if crop.numel() else "",
                "crop_at": (_beginning(left, crop.shape[2], largest[1]), _beginning(top, crop.shape[1], largest[0])),
                "largest": (largest[1], largest[0]),
                "value": f"{float(study.found.maxima[picture, channel]):.3g}",
            }
        )
    heat = study.occlusions[channel]
    square, step = square_of(min(study.pictures.shape[-2:]))
    alpha = (220 * _strength(heat)).round().to(torch.uint8)
    layer = torch.cat([torch.tensor(HEAT, dtype=torch.uint8).view(3, 1, 1).expand(3, *alpha.shape), alpha[None]])
    counts = study.found.classes_of_strongest(channel, study.labels, len(study.class_names))
    order = counts.sort(descending=True, stable=True).indices[:3].tolist()
    peak = float(study.found.maxima[study.found.strongest(channel, 1)[0], channel])
    return {
        "number": channel,
        "classes": ", ".join(f"{int(counts[k])} of {study.class_names[k]}" for k in order if counts[k]),
        "seen": int(counts.sum()),
        "pictures": pictures,
        "grey": _source(_grey(study.pictures[study.found.strongest(channel, 1)[0]])),
        "heat": _source(layer),
        "heat_box": ((square - step) / 2, (square - step) / 2, step * heat.shape[1], step * heat.shape[0]),
        "drop": f"{100 * float(heat.max()) / peak:.0f}" if peak > 0 else "",
        "rim": f"{float(study.found.rim[channel]):.0%}",
    }


def _beginning(first: int, size: int, largest: int) -> int:
    """Where a region begins in a square for the largest one: what lies outside the picture is left free."""
    return largest - size if first == 0 else 0


def _strength(heat: Tensor) -> Tensor:
    """How much each place is needed, from 0 to 1."""
    return heat.clamp(min=0) / heat.max().clamp(min=1e-12)


def _counts(study: Study) -> Table:
    dead = study.found.dead.nonzero().view(-1).tolist()
    twins = [(channel, of) for channel, of in enumerate(study.found.duplicates.tolist()) if of >= 0]
    high, wide = study.largest_region()
    rows = [
        ["channels", str(study.channels), ""],
        ["dead", str(len(dead)), _some(str(channel) for channel in dead)],
        ["duplicates", str(len(twins)), _some(f"{channel} of {of}" for channel, of in twins)],
        ["cells of a map", f"{study.field.shape[0]} x {study.width}", ""],
        ["region of a cell, pixels", f"{high} x {wide}", f"of {study.pictures.shape[-2]} x {study.pictures.shape[-1]}"],
        ["largest value on the rim of the map", f"{float(study.found.rim[~study.found.dead].mean()):.0%}", ""],
    ]
    note = (
        "A dead channel is above 0 for no picture, or always the same. A duplicate's largest values correlate with "
        "those of an earlier channel by more than 0.95. Neither is shown below. The region is exact: a pixel "
        "outside it cannot change the cell."
    )
    return Table("", ["", "", "which"], rows, note)


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:20]) + (", ..." if len(listed) > 20 else "")


def _by_class(study: Study) -> Table:
    by_class = study.found.by_class(study.labels, len(study.class_names))
    shown = study.found.distinct
    header = ["class", "channels (standard deviations above the mean)"]
    if study.halves is not None:
        header += ["one half alone is right, %", "of rotated channels, %", "difference", "splits"]
    rows = []
    for k, name in enumerate(study.class_names):
        order = by_class[k].masked_fill(~shown, -torch.inf).sort(descending=True, stable=True).indices
        best = order[: min(PER_CLASS, int(shown.sum()))].tolist()
        row = [name, ", ".join(f"{channel} ({float(by_class[k, channel]):.1f})" for channel in best)]
        if (halves := study.halves) is not None:
            mean, error = (float(value[k]) for value in halves.excess())
            own, rotated = (100 * float(halves.only_one[kind, :, k].mean()) for kind in (0, 1))
            difference = f"{100 * mean:+.1f} ± {100 * error:.1f}".replace("-", "\N{MINUS SIGN}")
            row += [f"{own:.1f}", f"{rotated:.1f}", difference, "yes" if halves.split_classes()[k] else "no"]
        rows.append(row)
    note = (
        "A class splits into views if its pictures are often right by one random half of the channels alone, more "
        "often than by one half of randomly rotated channels, by more than two standard errors over twenty draws."
    )
    return Table("", header, rows, note if study.halves is not None else "")


def _halves(study: Study) -> Table | None:
    halves = study.halves
    if halves is None:
        return None

    def percent(values: Tensor) -> str:
        return f"{100 * float(values.mean()):.1f} ± {100 * float(values.std()):.1f}"

    rows = [
        [name, percent(halves.half[kind]), percent(halves.both[kind]), percent(halves.differ[kind])]
        for kind, name in enumerate(("channels", "rotated channels"))
    ]
    note = (
        f"Linear classifiers on the mean of each channel, fitted to half of the pictures, scored on {halves.scored:,} "
        f"others; all channels together: {100 * halves.whole:.1f} %. "
        "Mean ± standard deviation over twenty draws of two halves. Halves of any code work somewhat: only what "
        "channels have more than rotated channels speaks for views."
    )
    return Table("", ["halves of", "one half, %", "sum of both, %", "they differ, %"], rows, note)


def _grey(picture: Tensor) -> Tensor:
    """A picture (C, H, W) uint8 without colours: (1, H, W)."""
    return picture.float().mean(0, keepdim=True).round().to(torch.uint8)


def _array(picture: Tensor) -> Any:
    return picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def _source(picture: Tensor) -> str:
    """A picture (C, H, W) uint8 of 1, 3 or 4 channels, as an address that holds it."""
    file, kind = io.BytesIO(), "png"
    if len(picture) == 4:
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy(), "RGBA").save(file, "PNG")
    elif max(picture.shape[1:]) > LARGE:
        kind = "jpeg"
        Image.fromarray(_array(picture)).save(file, "JPEG", quality=85)
    else:
        Image.fromarray(_array(picture)).save(file, "PNG")
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"

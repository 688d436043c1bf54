"""What gradients, activations and updates are in each layer of a network, drawn over the depth of the layer."""

import io
import math
from collections.abc import Mapping, Sequence

MEASURES = {
    "gradient_norm": "norm of the gradient",
    "activation_rms": "activations that reach the layer: RMS",
    "activation_std": "activations that reach the layer: std over samples",
    "update_ratio": "norm of the update / norm of the weights",
    "dead_units": "share of units without a gradient",
}
"""What is measured in each layer: the name in the tag ``train/<name>/<layer>``, and the words."""
MOST_LINES = 8
"""The largest number of measurements in a figure."""
VANISHES, EXPLODES = 0.7, 1.4
"""Below and above these factors for each layer, a gradient vanishes or explodes within some ten layers."""
SMALLEST = 1e-45
"""The smallest float32. What is 0 or smaller has no place on a logarithmic axis."""

Measurement = Mapping[str, Sequence[float]]
"""By the name of a measure, its value in each layer, from the input to the output; nan where there is none."""


def factor_by_layer(gradients: Sequence[float]) -> float:
    """The factor by which the gradient grows in each layer on its way from the output to the input.

        (|g_first| / |g_last|)^(1 / (L - 1))

    Args:
        gradients: the norm of the gradient in each of the L layers, from the input to the output.

    Returns:
        The factor; nan if there are fewer than two layers or a norm is 0.
    """
    if len(gradients) < 2 or not all(map(math.isfinite, gradients)) or not gradients[0] * gradients[-1]:
        return math.nan
    return float((gradients[0] / gradients[-1]) ** (1 / (len(gradients) - 1)))


def in_words(gradients: Sequence[float]) -> str:
    """A sentence about the gradients of the layers, from the input to the output."""
    if len(gradients) < 2:
        return ""
    ends = f"{gradients[-1]:.1e} in the last layer, {gradients[0]:.1e} in the first"
    factor = factor_by_layer(gradients)
    if math.isnan(factor):
        return f"Gradient: {ends}"
    kind = "vanishes" if factor < VANISHES else "explodes" if factor > EXPLODES else "keeps its size"
    return f"The gradient {kind}: {ends}, a factor of {factor:.2g} for each layer"


def draw(measured: Mapping[int, Measurement], kind: str) -> bytes:
    """Draws measurements by depth, one line for each step.

    Args:
        measured: the measurements by step.
        kind: "svg" or "png".

    Returns:
        The file. The same measurements always give the same file.
    """
    # slow to import, and only needed here
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "distill", "font.family": "sans-serif"}):
        figure = Figure((11.0, 7.0), layout="constrained", dpi=80)
        colours = colormaps["viridis"]
        *panels, legend = figure.subplots(2, 3).flat
        depth_of_all = max((len(v) for values in measured.values() for v in values.values()), default=1)
        for panel, (name, words) in zip(panels, MEASURES.items(), strict=True):
            for place, (step, values) in enumerate(measured.items()):
                here = [(n, v) for n, v in enumerate(values.get(name, ()), start=1) if math.isfinite(v)]
                if name != "dead_units":
                    here = [(n, v) for n, v in here if v >= SMALLEST]
                depth, sizes = [n for n, _ in here], [v for _, v in here]
                colour = colours(0.9 * place / max(1, len(measured) - 1))
                panel.plot(depth, sizes, color=colour, marker=".", label=f"step {step:,}")
            if name != "dead_units":
                panel.set_yscale("log")
            else:
                panel.set_ylim(-0.05, 1.05)
            panel.set_title(words, loc="left", fontsize=9)
            panel.set_xlabel("layer, from the input")
            panel.set_xlim(0.5, depth_of_all + 0.5)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
        legend.axis("off")
        legend.legend(*panels[0].get_legend_handles_labels(), loc="upper left", frameon=False)
        last = list(measured.values())[-1].get("gradient_norm", ()) if measured else ()
        figure.suptitle(in_words(last), x=0.01, ha="left", fontsize=11)
        file = io.BytesIO()
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return file.getvalue()

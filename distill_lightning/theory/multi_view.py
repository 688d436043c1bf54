"""Which views of a class a network has learned (Allen-Zhu & Li 2020, arXiv:2012.09816, section 3), on `MultiView`.

Neuron r of class c has learned the view v if <w_cr, v> is large. A view counts as learned by a network if its largest
correlation, max_r <w_cr, v>, is at least half of that of the class's stronger view. The theorem says that a network
learns one view of each class and memorises the samples that lack it, that an ensemble has both views among its members,
and that a student of the ensemble has both itself.
"""

import io

import torch
from torch import Tensor

from distill_lightning import checkpoints as checkpoint_files
from distill_lightning.data.multi_view import MultiView
from distill_lightning.errors import InputError
from distill_lightning.theory.computed import Computed

LEARNED = 0.5
"""The part of the stronger view's correlation from which on a view counts as learned."""
ENDS = "neurons.weight"
"""The end of the names of the weights of `MultiViewNet`; an average of networks has several."""


def views_learned(data: MultiView, networks: dict[str, str | list[str]]) -> Computed:
    """Counts the views that trained networks have learned, and draws which they are.

    Args:
        data: the data that they were trained on, or others with the same views.
        networks: checkpoints by a name for each group: the members of an ensemble, its student.

    Returns:
        ``views/<group>``, the mean number of views of a class that one network of the group has learned, 1 to 2;
        ``union/<group>``, the number that at least one of them has learned; the figure views.svg, with all networks of
        the first group, their union, and one network of each other group.

    Raises:
        InputError: there is no group, or a checkpoint has no `MultiViewNet` for these data.
    """
    if not networks or not all(networks.values()):
        raise InputError("networks: give the checkpoints of one network or more for each name")
    features = data.features
    metrics: dict[str, float] = {}
    panels: dict[str, Tensor] = {}
    for number, (group, given) in enumerate(networks.items()):
        paths = [given] if isinstance(given, str) else given
        found = torch.stack([_correlations(path, features) for path in paths])
        known = torch.stack([learned(one) for one in found])
        metrics[f"views/{group}"] = known.sum(2).double().mean().item()
        metrics[f"union/{group}"] = known.any(0).sum(1).double().mean().item()
        words = group.replace("_", "\n")
        if number == 0 and len(paths) > 1:
            panels |= {f"{words}\n{member}": one for member, one in enumerate(found)}
            panels["any of\nthem"] = found.amax(0)
        else:
            panels[words] = found[0]
    return Computed(metrics, files={"views.svg": draw(panels)})


def learned(correlations: Tensor) -> Tensor:
    """Whether each view counts as learned: bool (K, 2), for the largest correlations (K, 2)."""
    return correlations >= LEARNED * correlations.amax(1, keepdim=True)


def _correlations(path: str, features: Tensor) -> Tensor:
    """max_r <w_cr, v> of the network in a checkpoint; the largest of all networks of an average."""
    state = checkpoint_files.read(path)["state_dict"]
    weights = [value.float() for name, value in state.items() if name.endswith(ENDS)]
    classes, _, dimension = features.shape
    if not weights or any(w.shape[-1] != dimension or w.shape[0] % classes for w in weights):
        raise InputError(f"{path[-100:]} has no MultiViewNet for {classes} classes and patches of {dimension} numbers")
    found = [torch.einsum("krd,kvd->krv", w.unflatten(0, (classes, -1)), features).amax(1) for w in weights]
    return torch.stack(found).amax(0)


def draw(panels: dict[str, Tensor]) -> str:
    """Draws correlations (K, 2) as heat maps, one for each network: rows are classes, columns their two views.

    Returns:
        The figure as SVG. The same correlations always give the same text.
    """
    # slow to import, and only needed here
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    largest = max(float(values.max()) for values in panels.values())
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "distill", "font.family": "sans-serif"}):
        figure = Figure((1.0 + 1.05 * len(panels), 3.6), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for panel, (title, values) in zip(axes, panels.items(), strict=True):
            image = panel.imshow(values.numpy(), vmin=0, vmax=largest, cmap="Blues", aspect="auto")
            for (row, column), value in {
                (r, c): float(values[r, c]) for r in range(values.shape[0]) for c in range(values.shape[1])
            }.items():
                ink = "white" if value > 0.6 * largest else "black"
                panel.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=7)
            panel.set_title(title, fontsize=7)
            panel.set_xticks([0, 1], ["1", "2"], fontsize=7)
        axes[0].set_ylabel("class")
        axes[0].set_yticks(range(next(iter(panels.values())).shape[0]))
        figure.supxlabel("view", fontsize=9)
        figure.colorbar(image, ax=list(axes), label="largest correlation of a neuron", fraction=0.04)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()

"""What a function computes for a study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Computed:
    """The results of a function, which are kept as those of a run are.

    Args:
        metrics: the final numbers by tag, for example ``test/accuracy``; fractions of 1 for accuracies.
        curves: points (step, value) by tag, for metrics.csv.
        files: the text of further files by their name, for example a figure as SVG.
    """

    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

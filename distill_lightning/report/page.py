"""Makes one HTML file with tables and charts. It needs no other file and no network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from distill_lightning.depth_figures import MEASURES
from distill_lightning.plots import COLOURS, Plot
from distill_lightning.report import tickets
from distill_lightning.report.charts import FEWEST, by_density, by_depth, confusion, curve, reliability
from distill_lightning.report.comparisons import baseline
from distill_lightning.report.doctor import examined
from distill_lightning.report.groups import Group, by_data_set
from distill_lightning.report.page_charts import Chart, Legend, confusion_chart, figure, line_chart
from distill_lightning.report.rendering import read, render
from distill_lightning.report.run_tables import (
    all_runs,
    configurations,
    ensembles,
    in_common,
    mistakes,
    overview,
    results,
)
from distill_lightning.report.tables import Table

MOST = 10
"""The largest number of groups in a chart. With more lines, a reader could not tell them apart."""
CURVES = (
    "test/accuracy_by_members", "val/accuracy", "val/nll", "train/epoch_accuracy", "train/epoch_loss", "val/ece",
)  # fmt: skip
"""Tags whose curves are shown, in this order. All other curves are in a folded part of the page."""
OF_ROUNDS = ("early_stop_test_accuracy", "test_accuracy", "early_stop_step")
"""Metrics of the rounds of lottery tickets that are shown."""
DARK_COLOURS = ("#4fa8e0", "#ff8a3d", "#2cc295", "#e39ac2", "#dcae3c", "#86cdf5", "#a995ff", "#a3abb8")
"""The colours of `distill_lightning.plots.COLOURS` on a dark page."""


@dataclass(frozen=True)
class Page:
    """The content of a page.

    Args:
        title: the heading.
        lead: the paragraph below the heading.
        groups: the runs, in the order in which they are shown.
        notes: more paragraphs below the heading.
        tables: tables that are shown first.
        figures: plots that are shown below these tables.
        baselines: folders of runs that others are compared with, at most one for each data set.
        left_out: tables of runs that are not shown, with their headings.
    """

    title: str
    lead: str
    groups: Sequence[Group]
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Plot] = ()
    baselines: Sequence[Path] = ()
    left_out: Sequence[tuple[str, Table]] = ()

    def html(self) -> str:
        """The whole file."""
        figures = [figure(f"figure-{number}", plot) for number, plot in enumerate(self.figures, start=1)]
        letters = {group: letter(place) for place, group in enumerate(self.groups)}
        sections = [
            Section.of(f"part-{number}", name, groups, letters, self.baselines)
            for number, (name, groups) in enumerate(by_data_set(self.groups).items(), start=1)
        ]
        records = [record for group in self.groups for record in group.records]
        seen, ill = examined(records)
        charts = list(chain(figures, ill, *(section.charts for section in sections)))
        scripts = [_plotly(), read("page.js")] if charts else []
        places = {key[0]: key for section in sections for key in section.keys}
        return render(
            "page.html",
            title=self.title,
            lead=self.lead,
            notes=self.notes,
            tables=self.tables,
            figures=figures,
            overview=overview(self.groups) if self.groups else None,
            keys=[places[letters[group]] for group in self.groups],
            sections=sections,
            doctor=seen,
            doctor_charts=ill,
            runs=all_runs(self.groups) if self.groups else None,
            left_out=self.left_out,
            charts=[chart.data for chart in charts],
            scripts=scripts,
            digests=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
            colours=COLOURS,
            dark_colours=DARK_COLOURS,
            fewest=FEWEST,
        )


@dataclass(frozen=True)
class Section:
    """The part of the page for one data set."""

    id: str
    title: str
    keys: Sequence[tuple[str, int | None]]
    """The letter of each group, and the number of its colour; None for a group that is in no chart."""
    lines: Legend
    """The groups that are in charts."""
    results: Table
    ensembles: Table | None
    """How the members of ensembles differ."""
    differing: Table
    common: Table
    mistakes: Table | None
    mistake_keys: Sequence[tuple[str, int | None]]
    """The letter and the colour of each row of ``mistakes``."""
    curves: Sequence[Chart]
    more_curves: Sequence[Chart]
    depth: Sequence[Chart]
    """What gradients and activations are in each layer."""
    preprocessing: Sequence[tuple[str, str]]
    """For each group with a preprocessing its label, and the address of a picture of it, which holds the picture."""
    tickets: Sequence[Chart]
    confusion: Chart | None
    calibration: Chart | None

    @property
    def charts(self) -> list[Chart]:
        """All charts."""
        single = [chart for chart in (self.confusion, self.calibration) if chart]
        return [*self.curves, *self.more_curves, *self.depth, *self.tickets, *single]

    @classmethod
    def of(
        cls, scope: str, title: str, groups: Sequence[Group], letters: Mapping[Group, str], baselines: Sequence[Path]
    ) -> "Section":
        """The part for some groups.

        Args:
            scope: its place in the page.
            title: its heading.
            groups: the groups, of one data set.
            letters: the letter of each group.
            baselines: folders of runs that others are compared with.
        """
        shown, names = groups[:MOST], [letters[group] for group in groups]
        by_place = dict(enumerate(names[:MOST]))
        records = [record for group in shown for record in group.records]
        of_layers = {tag for record in records for tag in record.series if _is_of_layer(tag)}
        tags = [tag for tag in _tags(shown) if tag not in of_layers]
        found = {place: matrix for place, group in enumerate(shown) if (matrix := confusion(group))}
        matrices = list(found.values())
        densities = [by_density(key, shown) for key in OF_ROUNDS if any(record.by_density(key) for record in records)]
        between = tickets.between_seeds(shown)
        calibrated = any(record.summary.get("calibration") for record in records)

        def charts(name: str, plots: Sequence[Plot]) -> list[Chart]:
            return [line_chart(f"{scope}-{name}-{n}", plot, scope, by_place) for n, plot in enumerate(plots, start=1)]

        return cls(
            id=scope,
            title=title,
            keys=[(name, place if place < MOST else None) for place, name in enumerate(names)],
            lines=[(by_place[place], place, group.label) for place, group in enumerate(shown)],
            results=results(groups, baseline(groups, baselines)),
            ensembles=ensembles(groups),
            differing=configurations(groups, names),
            common=in_common(groups),
            mistakes=mistakes(matrices) if matrices else None,
            mistake_keys=[(by_place[place], place) for place in found],
            curves=charts("curve", [curve(tag, shown) for tag in CURVES if tag in tags]),
            more_curves=charts("more", [curve(tag, shown) for tag in tags if tag not in CURVES]),
            depth=charts("depth", _by_depth(shown) if of_layers else []),
            preprocessing=_preprocessing(shown),
            tickets=charts("tickets", [*densities, *([between] if between else [])]),
            confusion=confusion_chart(f"{scope}-confusion", matrices),
            calibration=charts("calibration", [reliability(shown)])[0] if calibrated else None,
        )


def _is_of_layer(tag: str) -> bool:
    """Whether a tag is train/<measure>/<layer>, as the callback GradientFlow logs."""
    first, _, rest = tag.partition("/")
    return first == "train" and "/" in rest and rest.partition("/")[0] in MEASURES


def _by_depth(groups: Sequence[Group]) -> list[Plot]:
    return [by_depth("gradient_norm", True, groups), *(by_depth(name, False, groups) for name in MEASURES)]


def _preprocessing(groups: Sequence[Group]) -> list[tuple[str, str]]:
    pictures = [(group.label, next(filter(None, (r.preprocessing for r in group.records)), None)) for group in groups]
    return [
        (label, f"data:image/png;base64,{base64.b64encode(picture).decode()}") for label, picture in pictures if picture
    ]


def letter(place: int) -> str:
    """The letter of a group: A to Z, then AA and so on."""
    rest, last = divmod(place, 26)
    return (letter(rest - 1) if rest else "") + chr(ord("A") + last)


def _plotly() -> str:
    """The script of the chart library."""
    from plotly.offline import get_plotlyjs  # slow to import, and only needed when a page is written

    script: str = get_plotlyjs()
    return script


def _tags(groups: Sequence[Group]) -> list[str]:
    """The tags that have a curve: those with two points or more, without rates."""
    found: dict[str, None] = {}
    for group in groups:
        for record in group.records:
            for tag, points in record.series.items():
                if len(points) > 1 and not tag.endswith("_per_s"):
                    found[tag] = None
    return list(found)

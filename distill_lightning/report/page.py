"""The page: one HTML file with tables and pictures, which opens without a network."""

import html
from collections.abc import Sequence

from distill_lightning.plots import Line, plot
from distill_lightning.report.records import Group, Record, differences
from distill_lightning.report.statistics import mean, std
from distill_lightning.report.tables import Table, Unit, spread_text

MOST = 10
"""Groups in a picture: more lines than this tell nothing."""
FEWEST = 10
"""Pictures in a bin of a reliability diagram: the accuracy of fewer is noise."""
FIRST = ("test/accuracy", "test/nll", "test/ece", "parameters", "exposures", "wall_time_s")
LABELS = {
    "test/accuracy": "accuracy, %", "test/nll": "NLL, nats", "test/ece": "ECE", "wall_time_s": "time, s",
    "test/disagreement": "disagreement, %",
}  # fmt: skip
CURVES = (
    "val/accuracy", "val/nll", "val/ece", "train/epoch_accuracy", "train/epoch_loss", "test/accuracy_by_members",
)  # fmt: skip
"""What is shown first; the rest is folded away."""
STYLE = """
:root{color-scheme:light dark;--ink:#1c1f24;--soft:#5b616e;--line:#e3e5e9;--paper:#fff;--raised:#f7f8fa}
@media (prefers-color-scheme:dark){:root{--ink:#eceef2;--soft:#a4aab6;--line:#31353d;--paper:#15171b;--raised:#1d2025}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:24px 20px 64px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.2rem;margin:2em 0 .6em}h3{font-size:1rem;margin:1.4em 0 .5em}
p{margin:.4em 0}.note,.lead{color:var(--soft);max-width:72ch}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.92rem}
th,td{padding:7px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600;background:var(--raised)}
th:first-child,td:first-child{text-align:left;white-space:normal;min-width:11rem}
tbody tr:last-child td{border-bottom:0}
tbody tr:hover{background:var(--raised)}
.figures{display:grid;gap:20px;margin-top:20px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))}
.figures svg{width:100%;height:auto;display:block;border:1px solid var(--line);border-radius:8px;padding:6px}
details{margin:1em 0}summary{cursor:pointer;color:var(--soft)}
"""


def page(title: str, lead: str, parts: Sequence[str]) -> str:
    """The whole file. ``parts`` are HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p class=lead>{html.escape(lead)}</p>{''.join(parts)}</body></html>\n"
    )


def figures(pictures: Sequence[str]) -> str:
    return f"<div class=figures>{''.join(pictures)}</div>" if pictures else ""


def of_groups(groups: list[Group]) -> list[str]:
    """What every report has: results, curves, tickets, calibration, configurations, runs."""
    from distill_lightning.report import tickets  # which draws with what is here

    parts = ["<h2>Results</h2>", results(groups).html()]
    tags = _tags(groups)
    main = [tag for tag in tags if tag in CURVES]
    others = [tag for tag in tags if tag not in main]
    shown = groups[:MOST]
    if len(groups) > MOST:
        parts.append(f"<p class=note>Pictures show the first {MOST} of {len(groups)} rows.</p>")
    if main:
        parts += ["<h2>Curves</h2><p class=note>Mean over seeds; the band is one standard deviation.</p>"]
        parts.append(figures([curve(tag, shown) for tag in main]))
    if others:
        parts.append(f"<details><summary>More curves</summary>{figures([curve(t, shown) for t in others])}</details>")
    if any(record.rounds for group in shown for record in group.records):
        keys = ("early_stop_test_accuracy", "test_accuracy", "early_stop_step")
        between = tickets.between_seeds(shown)
        keys = [key for key in keys if any(record.by_density(key) for group in shown for record in group.records)]
        pictures = [by_density(key, shown) for key in keys] + ([between] if between else [])
        parts += ["<h2>Lottery tickets</h2>", figures(pictures)]
    if any(record.summary.get("calibration") for group in shown for record in group.records):
        note = f"Test pictures of all seeds, in 15 bins of confidence; bins with fewer than {FEWEST} are left out."
        parts += [f"<h2>Calibration</h2><p class=note>{note}</p>", figures([reliability(shown)])]
    parts += ["<h2>What differs</h2>", configurations(groups).html()]
    parts.append(f"<details><summary>All runs</summary>{all_runs(groups).html()}</details>")
    return parts


def results(groups: list[Group]) -> Table:
    """One row a group: final metrics, mean ± std over its finished runs."""
    names = [name for name in (*FIRST[:3], "test/disagreement", *FIRST[3:]) if any(g.values(name) for g in groups)]
    units = {name: Unit(name) for name in names}
    rows = [
        [g.label, str(sum(bool(r.summary) for r in g.records)), *(cell(g.values(n), units[n]) for n in names)]
        for g in groups
    ]
    unfinished = sum(not record.summary for group in groups for record in group.records)
    note = f"{unfinished} unfinished runs are not in it." if unfinished else ""
    return Table("", ["", "runs", *(LABELS.get(n, n) for n in names)], rows, f"Mean ± standard deviation. {note}")


def cell(values: list[float], unit: Unit) -> str:
    return spread_text([unit(value) for value in values], unit)


def _tags(groups: list[Group]) -> list[str]:
    """Tags with a curve to show, the usual ones first."""
    found: dict[str, None] = {}
    for group in groups:
        for record in group.records:
            for tag, points in record.series.items():
                if len(points) > 1 and not tag.endswith("_per_s"):
                    found[tag] = None
    first = (
        "test/accuracy_by_members",
        "val/accuracy",
        "val/nll",
        "train/epoch_accuracy",
        "train/epoch_loss",
        "val/ece",
    )
    return [tag for tag in first if tag in found] + [tag for tag in found if tag not in first]


def curve(tag: str, groups: list[Group], title: str = "", x_label: str = "") -> str:
    """A tag against the step."""
    unit = Unit(tag)
    lines = [
        spread_line(group.label, [r.series.get(tag, []) for r in group.records], unit, place)
        for place, group in enumerate(groups)
    ]
    by_members = tag.endswith("by_members")
    x_label = x_label or ("members" if by_members else "step")
    return plot(title or tag, [line for line in lines if len(line.x) > 1], x_label, tag + unit.words)


def by_density(key: str, groups: list[Group]) -> str:
    """What the rounds came to, against the weights that were left."""
    unit = Unit(key)
    lines = [spread_line(g.label, [r.by_density(key) for r in g.records], unit, n) for n, g in enumerate(groups)]
    words = key.replace("_", " ")
    return plot(
        words.capitalize(), [line for line in lines if line.x], "weights left, %", words + unit.words, log_x=True
    )


def spread_line(label: str, series: list[list[tuple[float, float]]], unit: Unit, place: int | None = None) -> Line:
    """The mean of several series at each x, with their standard deviation."""
    at: dict[float, list[float]] = {}
    for points in series:
        for x, y in points:
            at.setdefault(x, []).append(unit(y))
    xs = sorted(at)
    return Line(label, xs, [mean(at[x]) for x in xs], [std(at[x]) for x in xs], place)


def reliability(groups: list[Group]) -> str:
    """Accuracy against confidence (Guo et al. 2017, figure 1), the test pictures of all seeds together."""
    lines = []
    for place, group in enumerate(groups):
        tables = [record.summary["calibration"] for record in group.records if record.summary.get("calibration")]
        if not tables:
            continue
        count, confidence, right = (
            [sum(values) for values in zip(*(table[key] for table in tables), strict=True)]
            for key in ("count", "confidence", "right")
        )
        bins = [k for k, n in enumerate(count) if n >= FEWEST]
        x, y = ([values[k] / count[k] for k in bins] for values in (confidence, right))
        lines.append(Line(group.label, x, y, place=place))
    return plot("Reliability on the test split", lines, "confidence", "accuracy", diagonal=True)


def configurations(groups: list[Group]) -> Table:
    """The settings that are not the same everywhere, a row each."""
    keys = differences(groups)
    rows = [[key, *(str(group.settings.get(key, "")) for group in groups)] for key in keys]
    return Table("", ["setting", *(group.label for group in groups)], rows, "" if keys else "Nothing but the seed.")


def all_runs(groups: list[Group]) -> Table:
    """One row a run."""

    def row(group: Group, record: Record) -> list[str]:
        accuracy = record.value("test/accuracy")
        done = "" if accuracy is None else Unit("test/accuracy").text(100 * accuracy)
        seed = str(record.config.get("seed_everything"))
        return [str(record.folder), group.label, seed, done if record.summary else "unfinished"]

    rows = [row(group, record) for group in groups for record in group.records]
    return Table("", ["folder", "", "seed", "test accuracy, %"], rows)

"""Makes one HTML file with tables and pictures. It needs no other file and no network."""

import html
from collections.abc import Sequence

from distill_lightning.report import tickets
from distill_lightning.report.groups import Group
from distill_lightning.report.pictures import FEWEST, by_density, curve, reliability
from distill_lightning.report.run_tables import all_runs, configurations, results

MOST = 10
"""The largest number of groups in a picture. With more lines, a reader could not tell them apart."""
CURVES = (
    "test/accuracy_by_members", "val/accuracy", "val/nll", "train/epoch_accuracy", "train/epoch_loss", "val/ece",
)  # fmt: skip
"""Tags whose curves are shown, in this order. All other curves are in a folded part of the page."""
OF_ROUNDS = ("early_stop_test_accuracy", "test_accuracy", "early_stop_step")
"""Metrics of the rounds of lottery tickets that are shown."""
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
    """The whole file.

    Args:
        title: the heading, as text.
        lead: the paragraph below the heading, as text.
        parts: the rest of the page, as HTML.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p class=lead>{html.escape(lead)}</p>{''.join(parts)}</body></html>\n"
    )


def figures(pictures: Sequence[str]) -> str:
    """HTML that shows SVG pictures side by side; empty without pictures."""
    return f"<div class=figures>{''.join(pictures)}</div>" if pictures else ""


def of_groups(groups: Sequence[Group]) -> list[str]:
    """The parts of every report, as HTML: results, curves, lottery tickets, calibration, configurations, all runs."""
    parts = ["<h2>Results</h2>", results(groups).html()]
    tags = _tags(groups)
    main = [tag for tag in CURVES if tag in tags]
    others = [tag for tag in tags if tag not in CURVES]
    shown = groups[:MOST]
    if len(groups) > MOST:
        parts.append(f"<p class=note>Pictures show the first {MOST} of {len(groups)} rows.</p>")
    if main:
        parts += ["<h2>Curves</h2><p class=note>Mean over seeds; the band is one standard deviation.</p>"]
        parts.append(figures([curve(tag, shown) for tag in main]))
    if others:
        parts.append(f"<details><summary>More curves</summary>{figures([curve(t, shown) for t in others])}</details>")
    if any(record.rounds for group in shown for record in group.records):
        between = tickets.between_seeds(shown)
        keys = [key for key in OF_ROUNDS if any(record.by_density(key) for group in shown for record in group.records)]
        pictures = [by_density(key, shown) for key in keys] + ([between] if between else [])
        parts += ["<h2>Lottery tickets</h2>", figures(pictures)]
    if any(record.summary.get("calibration") for group in shown for record in group.records):
        note = f"Test pictures of all seeds, in 15 bins of confidence; bins with fewer than {FEWEST} are left out."
        parts += [f"<h2>Calibration</h2><p class=note>{note}</p>", figures([reliability(shown)])]
    parts += ["<h2>What differs</h2>", configurations(groups).html()]
    parts.append(f"<details><summary>All runs</summary>{all_runs(groups).html()}</details>")
    return parts


def _tags(groups: Sequence[Group]) -> list[str]:
    """The tags that have a curve: those with two points or more, without rates."""
    found: dict[str, None] = {}
    for group in groups:
        for record in group.records:
            for tag, points in record.series.items():
                if len(points) > 1 and not tag.endswith("_per_s"):
                    found[tag] = None
    return list(found)

"""What the doctor says of the runs of a page: a table, and a figure for each illness that it sees."""

from collections.abc import Sequence
from dataclasses import replace

from distill_lightning.doctor import examine, picture
from distill_lightning.report.page_charts import Chart, figure
from distill_lightning.report.records import Record
from distill_lightning.report.tables import Table

MOST_FIGURES = 10
"""The largest number of figures."""
NO_ILLNESS = ("healthy", "unsure")


def examined(records: Sequence[Record]) -> tuple[Table | None, list[Chart]]:
    """The table of verdicts, and a figure for each of the first illnesses, which marks the place of its sentence.

    Args:
        records: the runs. Those without a curve of the training loss are left out.

    Returns:
        The table, None if no run has curves, and the figures.
    """
    folders = [record.folder for record in records if (record.folder / "metrics.csv").is_file()]
    found = [(curves, diagnosis) for curves, diagnosis in examine(folders) if len(curves.loss)]
    if not found:
        return None, []
    header = ["", "verdict", "what the curves show", "what to try"]
    rows = [[one.file, one.words, one.evidence, one.advice] for _, one in found]
    ill = [(curves, one) for curves, one in found if one.verdict not in NO_ILLNESS]
    charts = []
    for number, (curves, one) in enumerate(ill[:MOST_FIGURES], start=1):
        plot = picture(curves, one)
        charts.append(figure(f"doctor-{number}", replace(plot, title=f"{one.file}: {plot.title}")))
    note = f"Figures of the first {MOST_FIGURES} of {len(ill)} runs with a finding." if len(ill) > MOST_FIGURES else ""
    return Table("", header, rows, note), charts

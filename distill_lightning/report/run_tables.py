"""Tables of groups of runs: results, settings that differ, all runs."""

from collections.abc import Sequence

from distill_lightning.report.groups import Group, differences
from distill_lightning.report.records import Record
from distill_lightning.report.tables import Table
from distill_lightning.report.units import LABELS, Unit, spread_text

COLUMNS = ("test/accuracy", "test/nll", "test/ece", "test/disagreement", "parameters", "exposures", "wall_time_s")


def results(groups: Sequence[Group]) -> Table:
    """A table with one row for each group: its final metrics, mean ± standard deviation over its finished runs."""
    names = [name for name in COLUMNS if any(group.values(name) for group in groups)]
    units = {name: Unit(name) for name in names}

    def row(group: Group) -> list[str]:
        finished = sum(bool(record.summary) for record in group.records)
        texts = [spread_text([units[name](v) for v in group.values(name)], units[name]) for name in names]
        return [group.label, str(finished), *texts]

    unfinished = sum(not record.summary for group in groups for record in group.records)
    note = f"{unfinished} unfinished runs are not in it." if unfinished else ""
    header = ["", "runs", *(LABELS.get(name, name) for name in names)]
    return Table("", header, [row(group) for group in groups], f"Mean ± standard deviation. {note}")


def configurations(groups: Sequence[Group]) -> Table:
    """A table with one row for each setting that is not the same in all groups."""
    keys = differences(groups)
    rows = [[key, *(str(group.settings.get(key, "")) for group in groups)] for key in keys]
    return Table("", ["setting", *(group.label for group in groups)], rows, "" if keys else "Nothing but the seed.")


def all_runs(groups: Sequence[Group]) -> Table:
    """A table with one row for each run."""

    def row(group: Group, record: Record) -> list[str]:
        accuracy = record.value("test/accuracy")
        done = "" if accuracy is None else Unit("test/accuracy").text(100 * accuracy)
        seed = str(record.config.get("seed_everything"))
        return [str(record.folder), group.label, seed, done if record.summary else "unfinished"]

    rows = [row(group, record) for group in groups for record in group.records]
    return Table("", ["folder", "", "seed", "test accuracy, %"], rows)

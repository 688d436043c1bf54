"""Tables of groups of runs: an overview, results, settings that differ, mistakes, all runs."""

from collections.abc import Sequence
from typing import Any

from distill_lightning.report.charts import Confusion
from distill_lightning.report.comparisons import NOTES, Difference, difference
from distill_lightning.report.groups import Group
from distill_lightning.report.labels import differences, shortened, word
from distill_lightning.report.records import Record
from distill_lightning.report.tables import Table
from distill_lightning.report.units import LABELS, Unit, spread_text
from distill_lightning.runs import SHAPE

COLUMNS = ("test/accuracy", "test/nll", "test/ece", "test/disagreement", "parameters", "exposures", "wall_time_s")
OF_MEMBERS = (
    "test/member_accuracy", "test/accuracy", "test/disagreement", "test/error_correlation", "test/members_kl",
    "test/members_needed",
)  # fmt: skip
CALIBRATED = ("test/temperature", "test/nll", "test/nll_calibrated", "test/ece", "test/ece_calibrated")
"""Columns of the table of ensembles."""
VALIDATION = ("val/accuracy", "val/nll", "val/ece")
"""Columns for runs without a test part."""
MOST_MISTAKES = 3
MOST_SETTINGS = 8
"""The largest number of settings that the overview names for a group."""


def overview(groups: Sequence[Group]) -> Table:
    """A table with one row for each group: data set, number of runs, accuracy, and what differs."""
    told: dict[Group, str] = {}
    for data_set in {group.data_set for group in groups}:
        alike = [group for group in groups if group.data_set == data_set]
        told |= dict(zip(alike, _what_differs([group.settings for group in alike]), strict=True))
    rows = [[group.label, group.data_set, _runs(group), _accuracy(group), told[group]] for group in groups]
    return Table("", ["", "data set", "runs", "accuracy, %", "settings that differ within the data set"], rows)


def _what_differs(settings: Sequence[dict[str, Any]]) -> list[str]:
    """For each of several groups, the settings that are not the same in all. Of many, the uncommon ones come first."""
    keys = [key for key in differences(settings) if key != "model" and key.rpartition(".")[2] not in SHAPE]
    values = {key: [str(one.get(key, "")) for one in settings] for key in keys}
    short = {key: shortened(values[key]) for key in keys}
    texts = []
    for group, own in enumerate(settings):
        named = [key for key in keys if key in own]
        if len(named) > MOST_SETTINGS:
            named.sort(key=lambda key: values[key].count(values[key][group]))
        words = [f"{word(key, keys)} {short[key][group]}".strip() for key in named]
        more = [f"and {len(words) - MOST_SETTINGS} more"] if len(words) > MOST_SETTINGS else []
        texts.append("; ".join([*words[:MOST_SETTINGS], *more]))
    return texts


def results(groups: Sequence[Group], baseline: Group | None = None) -> Table:
    """A table with one row for each group: its final metrics, mean ± standard deviation over its finished runs.

    Args:
        groups: the groups, of one data set.
        baseline: the group that others are compared with. None leaves the column of differences out.
    """
    untested = any(group.values("val/accuracy") and not group.values("test/accuracy") for group in groups)
    names = [name for name in (*(VALIDATION if untested else ()), *COLUMNS) if any(g.values(name) for g in groups)]
    units = {name: Unit(name) for name in names}
    compared = {} if baseline is None else {g: _compared(g, baseline) for g in groups if g is not baseline}

    def row(group: Group) -> list[str]:
        texts = [spread_text([units[name](v) for v in group.values(name)], units[name]) for name in names]
        if baseline is not None:
            found, of = compared.get(group, (None, ""))
            mark = " (validation)" if of == "val/accuracy" and "test/accuracy" in names else ""
            texts.insert(1, "baseline" if group is baseline else found.text(Unit(of)) + mark if found else "")
        return [group.label, _runs(group), *texts]

    header = ["", "runs", *(LABELS.get(name, name) for name in names)]
    notes = ["Mean ± standard deviation over runs."]
    if baseline is not None:
        header.insert(3, "difference, points")
        notes.append(f"Differences to {baseline.label} are paired by seed, with the 95\u00a0% t-interval.")
        seeds = {found.seeds for found, _ in compared.values() if found}
        notes += [NOTES[kind] for kind in NOTES if kind in seeds]
    if untested:
        notes.append(
            "Runs without a test part have numbers of the validation part only, which is not independent of "
            "choices that were made with it."
        )
    unfinished = sum(not record.summary for group in groups for record in group.records)
    if unfinished:
        notes.append(f"{unfinished} unfinished runs are not in it.")
    return Table("", header, [row(group) for group in groups], " ".join(notes))


def ensembles(groups: Sequence[Group]) -> Table | None:
    """A table of how the members of ensembles differ, and of the temperature; None if there is no ensemble."""
    with_members = [group for group in groups if group.values("test/error_correlation")]
    if not with_members:
        return None
    names = [name for name in (*OF_MEMBERS, *CALIBRATED) if any(group.values(name) for group in with_members)]
    units = {name: Unit(name) for name in names}
    rows = [
        [group.label, *(spread_text([units[n](v) for v in group.values(n)], units[n]) for n in names)]
        for group in with_members
    ]
    note = "Disagreement, correlation and KL are means over all pairs of members. "
    note += "The temperature is fitted on the validation split. "
    note += (
        "The gain is that of all members over the mean of one; 95 % of it are reached from this number of members on."
    )
    return Table("", ["", *(LABELS.get(name, name) for name in names)], rows, note)


def configurations(groups: Sequence[Group], names: Sequence[str]) -> Table:
    """A table with one row for each setting that is not the same in all groups, and a column for each group.

    Args:
        groups: the groups.
        names: the headings of their columns.
    """
    keys = differences([group.settings for group in groups])
    rows = [[key, *(str(group.settings.get(key, "")) for group in groups)] for key in keys]
    return Table("", ["setting", *names], rows, "" if keys else "Nothing but the seed.")


def in_common(groups: Sequence[Group]) -> Table:
    """A table with the settings that are the same in all groups."""
    differing = differences([group.settings for group in groups])
    rows = [[key, str(value)] for key, value in groups[0].settings.items() if key not in differing]
    return Table("", ["setting", "value"], rows)


def mistakes(matrices: Sequence[Confusion]) -> Table:
    """A table with the most frequent mistakes of each group."""
    rows = [
        [
            matrix.label,
            f"{matrix.total - matrix.right:,} of {matrix.total:,}",
            "; ".join(
                f"{true} → {predicted} ({count})" for true, predicted, count in matrix.most_confused(MOST_MISTAKES)
            ),
        ]
        for matrix in matrices
    ]
    return Table("", ["", "wrong", "true → predicted class (pictures)"], rows)


def all_runs(groups: Sequence[Group]) -> Table:
    """A table with one row for each run."""

    def row(group: Group, record: Record) -> list[str]:
        test, validation = (_percent(record.value(name)) for name in ("test/accuracy", "val/accuracy"))
        found = test or (f"{validation} (validation)" if validation else "")
        seed = str(record.config.get("seed_everything"))
        return [str(record.folder), group.label, seed, found if record.summary else "unfinished"]

    rows = [row(group, record) for group in groups for record in group.records]
    return Table("", ["folder", "", "seed", "test accuracy, %"], rows)


def folders(records: Sequence[Record]) -> Table:
    """A table with the folders of runs."""
    return Table("", ["folder"], [[str(record.folder)] for record in records])


def _runs(group: Group) -> str:
    """The number of finished runs."""
    return str(sum(bool(record.summary) for record in group.records))


def _accuracy(group: Group) -> str:
    for name, mark in (("test/accuracy", ""), ("val/accuracy", " (validation)")):
        if values := group.values(name):
            unit = Unit(name)
            return spread_text([unit(value) for value in values], unit) + mark
    return ""


def _compared(group: Group, baseline: Group) -> tuple[Difference | None, str]:
    """The difference to the baseline in test accuracy, or in validation accuracy if one of both has no test."""
    for name in ("test/accuracy", "val/accuracy"):
        if found := difference(group, baseline, name):
            return found, name
    return None, ""


def _percent(value: float | None) -> str:
    unit = Unit("test/accuracy")
    return "" if value is None else unit.text(unit(value))

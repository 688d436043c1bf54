"""``distill report FOLDER... --out report.html``: makes one HTML page from any run folders, without importing torch."""

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from distill_lightning.errors import InputError, LineParser
from distill_lightning.files import atomic_write
from distill_lightning.report.comparisons import refuse_unknown
from distill_lightning.report.groups import Group, grouped
from distill_lightning.report.page import Page
from distill_lightning.report.records import Record, find
from distill_lightning.report.run_tables import folders
from distill_lightning.report.statistics import mean


def main(args: list[str]) -> int:
    """Runs the command, and returns its exit status.

    Args:
        args: the words after ``report``.

    Raises:
        InputError: a folder or an option is wrong.
    """
    parser = LineParser(
        prog="distill report",
        description="Make one HTML page from runs: what differs, tables with differences to a baseline, curves, "
        "confusion matrices, calibration, lottery tickets. The page needs no network.",
        allow_abbrev=False,
    )
    parser.add_argument("folders", type=Path, nargs="+", help="run folders, or folders of these, such as logs/mnist")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write")
    parser.add_argument(
        "--baseline",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="the folder of a run with which the others of its data set are compared; by default a run of the method "
        "Baseline. Give it again for another data set",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    given = parser.parse_args(args)
    found = find(given.folders)
    records = [record for record in found if not record.is_trial]
    if not records:
        raise InputError(f"there are only trial runs (fast_dev_run) in {_names(given.folders)}: train without it")
    groups = grouped(records)
    groups.sort(key=_by_data_set_and_accuracy)
    refuse_unknown(groups, given.baseline)
    text = _page(found, records, groups, given.folders, given.baseline).html()
    # a folder's name may have bytes that are not UTF-8
    atomic_write(given.out, lambda file: file.write(text.encode(errors="replace")))
    print(f"report: {given.out}")
    if given.open and not webbrowser.open(given.out.resolve().as_uri()):
        print("no browser was found: open the page yourself")
    return 0


def _page(
    found: Sequence[Record],
    records: Sequence[Record],
    groups: Sequence[Group],
    places: Sequence[Path],
    baselines: Sequence[Path],
) -> Page:
    """The page.

    Args:
        found: all runs that were found.
        records: those of them that are no trials.
        groups: the groups of ``records``.
        places: the folders that were given.
        baselines: the baselines that were given.
    """
    kept = {record for group in groups for record in group.records}
    again = [record for record in records if record not in kept]
    trials = [record for record in found if record.is_trial]
    lead = f"{_count(len(kept), 'run')} of {_count(len(groups), 'configuration')} in {_names(places)}, best first."
    notes, left_out = [], []
    if again:
        notes.append(f"{_count(len(again), 'run')} left out: the same configuration and seed is there already.")
        left_out.append((f"{_count(len(again), 'run')} left out, with the same configuration and seed", folders(again)))
    if trials:
        notes.append(f"{_count(len(trials), 'trial run')} (fast_dev_run) left out.")
        left_out.append((f"{_count(len(trials), 'trial run')} (fast_dev_run) left out", folders(trials)))
    return Page("Runs", lead, groups, notes, baselines=baselines, left_out=left_out)


def _by_data_set_and_accuracy(group: Group) -> tuple[str, bool, float]:
    """Sorts groups by data set, and in it the best first. Validation accuracy counts if there is no test."""
    values = group.values("test/accuracy") or group.values("val/accuracy")
    return group.data_set, not values, -mean(values or [0.0])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _names(places: Sequence[Path]) -> str:
    return ", ".join(map(str, places))

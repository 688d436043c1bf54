"""``distill report FOLDER... --out report.html``: makes one HTML page from any run folders, without importing torch."""

from pathlib import Path

from distill_lightning.errors import LineParser
from distill_lightning.files import atomic_write
from distill_lightning.report import page
from distill_lightning.report.groups import grouped
from distill_lightning.report.records import find
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
        description="Make one HTML page from runs: a table, curves with spread over seeds, calibration, and settings.",
        allow_abbrev=False,
    )
    parser.add_argument("folders", type=Path, nargs="+", help="run folders, or folders of these, such as logs/mnist")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write")
    given = parser.parse_args(args)
    records = find(given.folders)
    groups = grouped(records)
    groups.sort(key=lambda group: -mean(group.values("test/accuracy") or [-1.0]))
    shown = sum(len(group.records) for group in groups)
    lead = f"{shown} runs of {len(groups)} configurations in {', '.join(map(str, given.folders))}, best first."
    if again := len(records) - shown:
        verb = "is" if again == 1 else "are"
        lead += f" {again} more with a configuration and a seed that are there already {verb} left out."
    text = page.page("Runs", lead, page.of_groups(groups))
    # a folder's name may have bytes that are not UTF-8
    atomic_write(given.out, lambda file: file.write(text.encode(errors="replace")))
    print(f"report: {given.out}")
    return 0

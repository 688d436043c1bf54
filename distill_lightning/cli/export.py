"""``distill export``: writes a trained classifier as a file for other programs."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.errors import LineParser
from distill_lightning.exporting import FORMATS, ExportReport, export
from distill_lightning.specs import trusting

EPILOG = """The graph takes uint8 pictures (B, C, H, W) with any B, normalises them, and gives logits and probabilities.
The file is compared with the run on real pictures, and written only if both agree. The documentation
(docs/how_to/ship.md) shows how other programs use it."""


def main(args: list[str]) -> int:
    """The command. Returns its exit status.

    Raises:
        InputError: see ``export.export``.
    """
    parser = LineParser(prog="distill export", description=OTHER_VERBS["export"], epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("source", metavar="RUN|CHECKPOINT", help="a run's folder (its last.ckpt), or a checkpoint")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="the format of the file (default: onnx)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the file (default: model.onnx and the like in the run's folder)"
    )
    parser.add_argument("--use_ema", action="store_true", help="the averaged weights of the callback EMA")
    parser.add_argument("--root", metavar="FOLDER", help="the folder of the data (default: the run's)")
    parser.add_argument(
        "--pictures",
        type=int,
        default=1000,
        metavar="N",
        help="compare on N pictures of the test part; 0 for random pixels, without data (default: 1000)",
    )
    parser.add_argument(
        "--calibration", type=int, default=256, metavar="N", help="onnx-int8: N training pictures (default: 256)"
    )
    parser.add_argument("--seed", type=int, default=0, help="onnx-int8: draws these pictures (default: 0)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="the largest difference of a probability (default: 1e-4)"
    )
    parser.add_argument(
        "--accuracy_loss", type=float, default=0.05, help="onnx-int8: the largest loss of accuracy (default: 0.05)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads for the comparison (default: 1)")
    parser.add_argument("--trust", action="append", default=[], metavar="NAME", help="a class of yours to build")
    given = vars(parser.parse_args(args))
    with trusting(given.pop("trust")):
        report = export(given.pop("source"), given.pop("format"), given.pop("out"), **given)
    show(report)
    return 0


def show(report: ExportReport) -> None:
    """Prints the table of a report, and the names of the files."""
    table = Table("", "torch", report.format)
    for row in report.rows:
        table.add_row(*row)
    Console().print(table)
    print(f"exported: {report.file}\nreport: {report.file}.json", flush=True)

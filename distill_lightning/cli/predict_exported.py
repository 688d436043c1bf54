"""``distill predict MODEL.onnx PICTURES...``: predicts with an exported file. It needs no torch."""

from pathlib import Path

from distill_lightning.cli.verbs import VERBS
from distill_lightning.errors import InputError, LineParser
from distill_lightning.exported import BATCH, ExportedClassifier
from distill_lightning.files import atomic_write


def main(args: list[str]) -> int:
    """The command. Returns its exit status.

    It writes predictions-<folder>.csv, or predictions.csv if not exactly one folder is given, into the current folder.

    Raises:
        InputError: the file or a picture cannot be read.
        OSError: the predictions cannot be written.
    """
    parser = LineParser(prog="distill predict", description=VERBS["predict"], allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL.onnx", help="a file that distill export wrote")
    parser.add_argument("pictures", nargs="+", metavar="PICTURES", help="picture files, and folders of such")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the CSV (default: predictions-<folder>.csv)")
    parser.add_argument("--batch_size", type=int, default=BATCH, help=f"pictures in a batch (default: {BATCH})")
    parser.add_argument("--threads", type=int, help="threads of onnxruntime (default: it decides)")
    given = parser.parse_args(args)
    if given.batch_size < 1 or (given.threads is not None and given.threads < 1):
        raise InputError("--batch_size and --threads must be 1 or more")
    predictions = ExportedClassifier(given.model, given.threads).predict(given.pictures, given.batch_size)
    alone = len(given.pictures) == 1 and Path(given.pictures[0]).is_dir()
    name = f"predictions-{Path(given.pictures[0]).resolve().name}.csv" if alone else "predictions.csv"
    target = given.out or Path(name)
    text = predictions.as_csv()
    atomic_write(target, lambda file: file.write(text.encode(errors="surrogateescape")))
    print(f"predictions: {target}", flush=True)
    return 0

"""``distill predict MODEL.onnx PICTURES...``: predicts with an exported file. Only a .pt2 needs torch."""

import sys
from pathlib import Path

from distill_lightning.cli.verbs import VERBS
from distill_lightning.errors import InputError, LineParser
from distill_lightning.exported import BATCH, Exported, ExportedClassifier
from distill_lightning.files import atomic_write


def main(args: list[str]) -> int:
    """The command. Returns its exit status.

    It writes predictions-<folder>.csv, or predictions.csv if not exactly one folder is given, into the current folder.
    Pictures that cannot be read are listed on stderr; the file has the others.

    Raises:
        InputError: the file or a picture cannot be read.
        OSError: the predictions cannot be written.
    """
    parser = LineParser(prog="distill predict", description=VERBS["predict"], allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL.onnx", help="a file that distill export wrote: .onnx or .pt2")
    parser.add_argument("pictures", nargs="+", metavar="PICTURES", help="picture files, and folders of such")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the CSV (default: predictions-<folder>.csv)")
    parser.add_argument("--batch_size", type=int, default=BATCH, help=f"pictures in a batch (default: {BATCH})")
    parser.add_argument("--threads", type=int, help="threads of onnxruntime or torch (default: it decides)")
    parser.add_argument("--trust", metavar="NAME", help="for a .pt2 that you made yourself: torch.export.load")
    given = parser.parse_args(args)
    if given.batch_size < 1 or (given.threads is not None and given.threads < 1):
        raise InputError("--batch_size and --threads must be 1 or more")
    unread: dict[str, str] = {}
    predictions = opened(given.model, given.threads, given.trust).predict(given.pictures, given.batch_size, unread)
    alone = len(given.pictures) == 1 and Path(given.pictures[0]).is_dir()
    name = f"predictions-{Path(given.pictures[0]).resolve().name}.csv" if alone else "predictions.csv"
    target = given.out or Path(name)
    text = predictions.as_csv()
    atomic_write(target, lambda file: file.write(text.encode(errors="surrogateescape")))
    print(f"predictions: {target}", flush=True)
    if unread:
        print(*unread.values(), sep="\n", file=sys.stderr)
        count = len(unread) + len(predictions)
        raise InputError(f"{len(unread):,} of {count:,} pictures could not be read: {target} has the others")
    return 0


def opened(model: str, threads: int | None, trust: str | None) -> Exported:
    """Opens an exported file.

    Args:
        model: the file.
        threads: the number of threads to compute with; None for the library's own choice.
        trust: the name that the user trusts, see ``exporting.torch_files``.

    Raises:
        InputError: the file cannot be read, or asks for trust.
    """
    if not model.lower().endswith(".pt2"):
        return ExportedClassifier(model, threads)
    import torch

    from distill_lightning.exporting.torch_files import ExportedProgram
    from distill_lightning.specs import trusting

    if threads is not None:
        torch.set_num_threads(threads)
    with trusting([trust] if trust else []):
        return ExportedProgram(model)

"""``distill channels RUN --layer NAME``: what the channels of a layer see, in any trained network."""

from pathlib import Path

from distill_lightning.channels.page import draw, page, words
from distill_lightning.channels.study import study
from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.errors import InputError, LineParser
from distill_lightning.exporting.opening import check_shape, open_data, open_source
from distill_lightning.files import atomic_write
from distill_lightning.specs import trusting

EPILOG = """A layer is a module path, as stages.1 or layer2.0, or stage1, stage2, ..., last_stage, pooled. Take the
output of a block, after its ReLU. docs/explanations/channels.md says how to read the page."""
SUFFIXES = (".svg", ".png", ".pdf")


def main(args: list[str]) -> int:
    """The command. Returns its exit status.

    Raises:
        InputError: the run cannot be opened, there is no such layer, or an option is wrong.
    """
    parser = LineParser(prog="distill channels", description=OTHER_VERBS["channels"], epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("source", metavar="RUN|CHECKPOINT", help="a run's folder (its last.ckpt), or a checkpoint")
    parser.add_argument("--layer", required=True, metavar="NAME", help="the layer")
    parser.add_argument("--count", type=int, default=16, metavar="N", help="how many channels to show (default: 16)")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="show the channels of this class")
    parser.add_argument(
        "--pictures", type=int, default=10_000, metavar="N", help="search N pictures of the test part (default: 10,000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the halves of the channels (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("channels.html"), metavar="FILE", help="the page to write")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="write a figure for papers, too: .svg, .png or .pdf"
    )
    parser.add_argument("--use_ema", action="store_true", help="the averaged weights of the callback EMA")
    parser.add_argument("--root", metavar="FOLDER", help="the folder of the data (default: the run's)")
    parser.add_argument("--trust", action="append", default=[], metavar="NAME", help="a class of yours to build")
    given = parser.parse_args(args)
    if min(given.count, given.pictures) < 1:
        raise InputError(f"--count is {given.count} and --pictures {given.pictures}: both must be 1 or more")
    if given.figure is not None and given.figure.suffix.lower() not in SUFFIXES:
        raise InputError(f"--figure {given.figure}: its name must end in one of {', '.join(SUFFIXES)}")
    for path in (given.out, given.figure):
        if path is not None and path.is_dir():
            raise InputError(f"{path} is a folder: give the name of a file")
    with trusting(given.trust):
        opened = open_source(given.source, None, given.use_ema, given.root)
        data = open_data(opened, given.root)
        check_shape(data, opened)
        found = study(opened, data, given.layer, given.count, given.pictures, given.class_name, given.seed)
    html = page(found)
    atomic_write(given.out, lambda file: file.write(html.encode(errors="replace")))
    print("\n".join(words(found)))
    print(f"page: {given.out}", flush=True)
    if given.figure is not None:
        drawn = draw(found, given.figure)
        atomic_write(given.figure, lambda file: file.write(drawn))
        print(f"figure: {given.figure}", flush=True)
    return 0

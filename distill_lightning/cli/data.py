"""``distill data CONFIG``: shows what the data of a configuration look like, and draws a sheet of training pictures."""

from collections.abc import Callable
from pathlib import Path

from distill_lightning.data.base import ImageData
from distill_lightning.data.contact_sheet import contact_sheet
from distill_lightning.data.folder import ImageFolder
from distill_lightning.errors import InputError, LineParser
from distill_lightning.files import atomic_write

MOST = 1000
"""The largest number of pictures on a sheet."""


def main(args: list[str], resolve: Callable[[list[str]], ImageData]) -> int:
    """Runs the command.

    Args:
        args: the words after ``data``.
        resolve: makes the data module from the arguments of ``distill fit``.

    Returns:
        The exit status.

    Raises:
        InputError: an argument is wrong, or the data cannot be read.
    """
    parser = LineParser(
        prog="distill data",
        description="Show parts, classes, counts, sizes and suspicious things, and draw a sheet of training pictures.",
        epilog="With a configuration, any option of distill fit can be given, for example --data.root DIR.",
        allow_abbrev=False,
    )
    parser.add_argument("config", help="a configuration; or a folder, zip or tar file of pictures")
    parser.add_argument("--sheet", type=Path, default=Path("contact_sheet.png"), help="the PNG of training pictures")
    parser.add_argument("--count", type=int, default=64, help="the number of pictures on it, 0 for no sheet")
    if "--config" in args[:-1]:  # as for fit
        at = args.index("--config")
        args = [args[at + 1], *args[:at], *args[at + 2 :]]
    given, rest = parser.parse_known_args(args)
    if not 0 <= given.count <= MOST:
        raise InputError(f"--count is {given.count}: give a number from 0 to {MOST:,}")
    if given.sheet.suffix.lower() != ".png":
        raise InputError(f"--sheet is {given.sheet}: give a file that ends in .png")
    path = Path(given.config)
    if path.is_dir() or path.suffix.lower() in (".zip", ".tar"):
        if rest:
            raise InputError(f"distill data takes no {rest[0]} with a folder: give a configuration and --data.root")
        data: ImageData = ImageFolder(given.config, batch_size=1, bad_pictures="skip")
    else:
        data = resolve(["fit", "--config", given.config, *rest])
    data.prepare_data()
    data.setup("fit")
    data.read_test_part()
    print("\n".join(data.overview()), flush=True)
    if given.count:
        sheet = contact_sheet(data, given.count)
        atomic_write(given.sheet, lambda file: file.write(sheet))
        print(f"sheet: {given.sheet}", flush=True)
    return 0

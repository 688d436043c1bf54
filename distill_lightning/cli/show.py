"""``distill show RUN``: what one run is, where it stands, what it was made from, and how to go on with it."""

import math
import shlex
import textwrap
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from distill_lightning.catalogue import RunInfo, list_runs, shipped
from distill_lightning.catalogue.columns import accuracy_text, epochs_text, short_names, time_text, value_text
from distill_lightning.catalogue.info import END_OF_EPOCH, read
from distill_lightning.catalogue.lineage import Origin, origins
from distill_lightning.cli.list import COLOURS
from distill_lightning.cli.tables import print_metrics
from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.errors import InputError, LineParser, nearest
from distill_lightning.files import printable
from distill_lightning.report.records import Record
from distill_lightning.runs import SHAPE
from distill_lightning.runs.config import RunConfig

LOGS = Path("logs")
"""Where a run is looked for by its name."""
CURVES = (("loss", ("train/epoch_loss", "val/nll")), ("accuracy", ("train/epoch_accuracy", "val/accuracy")))
"""The pictures: a title and the tags of its curves."""
LINE_COLOURS = ("bright_blue", "bright_red")
HEIGHT, WIDEST = 8, 90
"""The lines of a picture, and the largest number of columns of a paragraph or a picture."""
KNOWN_PACKAGES = ("distill_lightning", "lightning", "pytorch_lightning", "torch", "torchvision", "timm")
"""The packages whose classes are allowed or refused without ``--trust``."""
MARGIN = 18
"""The columns of a picture left and right of the curves."""
LARGEST_DRAWN = 1e30
"""Larger values are left out of pictures."""
MOST_FILES = 20
"""The largest number of files that are named."""

Curve = Sequence[tuple[float, float]]


def main(args: list[str]) -> int:
    """Runs the command, and returns its exit status.

    Args:
        args: the words after ``show``.

    Raises:
        InputError: there is no such run, or an option is wrong.
    """
    parser = LineParser(prog="distill show", description=OTHER_VERBS["show"], allow_abbrev=False)
    parser.add_argument("run", help="a run's folder, a file in it, or the end of its path below logs, as convnet-seed0")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the report page of this run to this file")
    parser.add_argument("--open", action="store_true", help="write this file, and open it in the browser")
    given = parser.parse_args(args)
    folder = find(given.run)
    if given.page is not None or given.open:
        return _make_page(folder, given.page or Path(f"{folder.absolute().name}.html"), given.open)
    info = read(folder)
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble(printable(info.folder), "  ", (info.state, COLOURS[info.state])))
    if info.note:
        _print_wrapped(info.note)
    if info.state == "damaged":
        _print_part("files", _files(folder))
        return 0
    _print_wrapped(_summary(info))
    if shown := {tag: value for tag, value in info.metrics.items() if "_by_" not in tag}:
        print_metrics({printable(tag): value for tag, value in shown.items()})
    _print_part("options that can change the result", [*_settings(info), *_unlike_shipped(info)])
    _print_part("made from", list(_tree(origins(info))), wrapped=False)
    _print_part("files", _files(folder))
    place = started_in(info)
    _print_part("next" if place == Path.cwd() else f"next, in {printable(place)}", next_commands(info), wrapped=False)
    _print_curves(Record(folder), console)
    return 0


def _make_page(folder: Path, page: Path, opens: bool) -> int:
    from distill_lightning.cli import report  # its libraries are slow to import

    status = report.main(["--out", str(page), "--", str(folder)])
    if opens and not webbrowser.open(page.resolve().as_uri()):
        print(f"there is no browser: open {printable(page)} yourself")
    return status


def find(given: str) -> Path:
    """The folder of a run.

    Args:
        given: the folder, a file or folder in it, or the last parts of its path below ``logs``.

    Raises:
        InputError: there is no such run, or there are several.
    """
    path = Path(given)
    if path.exists():
        for folder in (path, *path.absolute().parents[: 2 if path.is_file() else 1]):
            if (folder / "config.yaml").is_file() or (folder / "identity.json").is_file():
                return folder
        raise InputError(
            f"{given} is no run's folder and lies in none: `distill list {shlex.quote(given)}` looks in it"
        )
    known = [info.folder for info in list_runs(LOGS)] if LOGS.is_dir() else []
    parts = path.parts
    found = [folder for folder in known if parts and folder.parts[-len(parts) :] == parts]
    if len(found) > 1:
        some = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
        raise InputError(f"{given} stands for {len(found)} runs: give one of {some}")
    if not found:
        names = [folder.name for folder in known] + [str(folder) for folder in known]
        raise InputError(
            f"there is no run {given}{nearest(given, names) or ': `distill list` has those that there are'}"
        )
    return found[0]


def started_in(info: RunInfo) -> Path:
    """The folder in which a run was started, where the relative paths of its options lead to its data and teachers.

    It is the working folder if the run's own path does not say another one.
    """
    log_dir = Path(str(info.options.get("log_dir")))
    parts, above = log_dir.parts, info.folder.absolute().parts[:-3]
    if not log_dir.is_absolute() and parts and above[-len(parts) :] == parts:
        return Path(*above[: -len(parts)])
    return Path.cwd()


def next_commands(info: RunInfo) -> list[str]:
    """The commands that go on with a run, each with what it does. They are to be run in the folder ``started_in``."""
    place = started_in(info)
    folder = info.folder if place == Path.cwd() else info.folder.absolute().relative_to(place)
    last, best, config = (folder / name for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "config.yaml"))
    trust: list[str | Path] = [word for path in _classes_of_ones_own(info) for word in ("--trust", path)]
    commands: list[tuple[str, list[str | Path]]] = []
    if info.state == "running":
        commands.append(("watch", ["tensorboard", "--logdir", folder]))
    elif info.state == "interrupted":
        commands.append(("resume", ["distill", "fit", "--ckpt_path", last, *trust]))
    elif info.state == "failed":
        words: list[str | Path] = ["distill", "fit", "--config", config]
        if (info.data_set, info.method) == info.folder.absolute().parts[-3:-1]:  # else it would not be found again
            log_dir = folder.parents[2] if len(folder.parts) > 3 else info.folder.absolute().parents[2]
            words += ["--log_dir", log_dir, "--name", info.name, "--ckpt_path", "last"]
        commands.append(("start again", words))
    if (place / last).is_file():
        used = best if (place / best).is_file() and info.state != "finished" else last
        if "test/accuracy" in info.metrics or info.state != "finished":  # else the data have no test part
            commands.append(("test", ["distill", "test", "--ckpt_path", used, *trust]))
        predict: list[str | Path] = ["distill", "predict", "--ckpt_path", used, "--data.pictures", "FOLDER"]
        commands.append(("predict", predict + trust))
    elif info.state == "finished":  # a method without weights of its own, such as an ensemble
        commands.append(("test", ["distill", "test", "--config", config]))
    commands.append(("page", ["distill", "show", folder, "--page", f"{info.name}.html"]))
    return [f"{what:<12}{shlex.join(map(str, words))}" for what, words in commands]


def _classes_of_ones_own(info: RunInfo) -> list[str]:
    """The class paths in a run's configuration that a checkpoint may use only with ``--trust``."""
    try:
        left: list[Any] = [RunConfig.read(info.folder).options]
    except InputError:
        return []
    found = set()
    while left:
        value = left.pop()
        if isinstance(value, dict):
            found.add(str(value.get("class_path", "torch")))
            left += value.values()
        elif isinstance(value, list):
            left += value
    return sorted(path for path in found if path.partition(".")[0] not in KNOWN_PACKAGES)


def _summary(info: RunInfo) -> str:
    """What the run is and how far it has come, in one line."""
    epochs, accuracy, time = epochs_text(info), accuracy_text(info), time_text(info)
    started = f"started {info.started:%Y-%m-%d %H:%M}" if info.started else ""
    parts = [
        f"data set {info.data_set}",
        f"method {info.method_class}",
        f"network {info.network}" if info.network else "",
        f"seed {value_text(info.seed)}" if info.seed is not None else "",
        f"{epochs} epochs" if epochs else "",
        f"{info.steps:,} steps" if info.steps is not None else "",
        f"accuracy {accuracy} %" if accuracy else "",
        f"{time}{' since its start' if info.wall_time_s is None else ' of training'}" if time else "",
        started,
    ]
    return ", ".join(part for part in parts if part)


def _settings(info: RunInfo) -> list[str]:
    """The options that can change the result, one text for each part: "model: KD, network ConvNet, ..."."""
    parts: dict[str, list[str]] = {"model": [], "data": [], "trainer": []}
    for key, value in info.settings.items():
        part, _, name = key.partition(".")
        if part in parts and name.rpartition(".")[2] not in SHAPE:
            parts[part].append(f"{name} {value_text(value)}".strip())
    return [f"{part}: {', '.join(texts)}" for part, texts in parts.items() if texts]


def _unlike_shipped(info: RunInfo) -> Iterator[str]:
    """What differs from the configuration that comes with the program: "unlike digits/kd: max_epochs 3 (there 20)"."""
    name, values = shipped.changed(info) or ("", {})
    short = short_names(values, info.options)
    texts = [f"{short[key]} {value_text(ours)} (there {value_text(theirs)})" for key, (ours, theirs) in values.items()]
    if texts:
        yield f"unlike {name}: {', '.join(texts)}"


def _tree(found: Sequence[Origin], indent: str = "") -> Iterator[str]:
    """A line for each file or run, indented by its generation."""
    for origin in found:
        words = [f"{indent}{origin.role} {origin.given}"]
        if origin.info is not None:
            accuracy = accuracy_text(origin.info)
            words.append(
                ", ".join(filter(None, [origin.info.method_class, origin.info.state, accuracy and f"{accuracy} %"]))
            )
        if origin.state == "missing":
            words.append("MISSING: there is no such file")
        elif origin.state == "changed":
            words.append("CHANGED: it was written or replaced after this run had started")
        elif origin.state == "perhaps changed":
            words.append("PERHAPS CHANGED: one of these runs was replaced after this run had started")
        yield "  ".join(words)
        yield from _tree(origin.origins, indent + "  ")


def _files(folder: Path) -> list[str]:
    """The names and sizes of the files of a run, in one text."""
    found = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    texts = [f"{path.relative_to(folder)} {_size(path.stat().st_size)}" for path in found[:MOST_FILES]]
    more = [f"and {len(found) - MOST_FILES} more"] if len(found) > MOST_FILES else []
    return [", ".join([*texts, *more])]


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _print_part(title: str, lines: Sequence[str], wrapped: bool = True) -> None:
    if lines:
        print(f"\n{title}")
    for line in lines:
        if wrapped:
            _print_wrapped(line)
        else:  # a path or a command is copied, so it stays one line
            print(f"  {printable(line)}")


def _print_wrapped(text: str) -> None:
    width = min(Console().width, WIDEST)
    print(textwrap.fill(printable(text), width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))


def _print_curves(record: Record, console: Console) -> None:
    """Draws the loss and the accuracy, of training and validation in one picture if the terminal has colours."""
    try:
        series = record.series
    except InputError as error:
        print(f"\n{printable(error)}")
        return
    colours = console.is_terminal and not console.no_color
    ends = series.get(END_OF_EPOCH, [])
    per_epoch = ends[0][0] if ends and ends[0][0] > 0 else None
    for title, tags in CURVES:
        curves = {tag: points for tag in tags if len(points := _drawn(series.get(tag, []), per_epoch)) > 1}
        if not colours:
            curves = dict(list(curves.items())[-1:])
        if curves:
            x_label = "step" if per_epoch is None else "epoch"
            print("\n" + picture(curves, x_label, title, min(console.width, WIDEST), colours))


def _drawn(points: Curve, per_epoch: float | None) -> Curve:
    """Points that can be drawn, over the epochs if the steps of an epoch are known."""
    finite = [(x, y) for x, y in points if math.isfinite(y) and abs(y) < LARGEST_DRAWN]
    return [(x / (per_epoch or 1), y) for x, y in finite]


def picture(curves: Mapping[str, Curve], x_label: str, y_label: str, width: int, colours: bool) -> str:
    """Curves as a picture of text.

    Args:
        curves: the points (x, y) of each curve, two or more, by its name.
        x_label: the name of the x axis.
        y_label: the name of the y axis.
        width: the number of columns.
        colours: whether to draw in colours, which tell several curves apart.
    """
    import plotille

    figure = plotille.Figure()
    figure.width, figure.height, figure.with_colors = max(20, width - MARGIN), HEIGHT, colours
    figure.x_label, figure.y_label = x_label, y_label
    points = [point for curve in curves.values() for point in curve]
    (left, low), (right, high) = (tuple(map(end, zip(*points, strict=True))) for end in (min, max))
    figure.set_x_limits(left, right if right > left else left + 1)
    room = 0.05 * (high - low) or 0.5
    figure.set_y_limits(low - room if low < 0 else max(0.0, low - room), high + room)
    figure.register_label_formatter(float, _label)
    names = []
    for (name, curve), colour in zip(curves.items(), LINE_COLOURS, strict=False):
        figure.plot(*zip(*curve, strict=True), lc=colour if colours else None)
        names.append(plotille.color(name, fg=colour) if colours else name)
    drawn: str = figure.show()
    return "\n".join([", ".join(names), *(line.rstrip(" \u2800") for line in drawn.splitlines())])


def _label(value: float, chars: int, delta: float, left: bool = False) -> str:
    text = f"{value:.0f}" if abs(value) >= 10 or (value == round(value) and delta >= 1) else f"{value:.3g}"
    return f"{text:{'<' if left else '>'}{chars}}"

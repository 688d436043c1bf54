"""``distill compress``: from a trained network and its data to a smaller one, with verbs that exist.

1. ``distill fit`` with the method KD trains a student, which the network teaches.
2. With ``--keep``, whole channels of the student are removed, and ``distill fit`` trains the rest in the same way. The
   run's network is `Narrowed`, whose options say the widths, so every verb opens it.
3. ``distill export`` writes the result as ONNX, in float32 and in 8-bit integers.

A command that was interrupted goes on where it was: finished runs are kept.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from distill_lightning.cli import from_file
from distill_lightning.cli.command import DistillCommand
from distill_lightning.cli.verbs import OTHER_VERBS
from distill_lightning.errors import InputError, LineParser
from distill_lightning.exporting import ExportReport, export
from distill_lightning.exporting.opening import ENSEMBLE, Opened, open_source
from distill_lightning.files import atomic_write, refuse_odd_name
from distill_lightning.methods.kd import KD
from distill_lightning.narrowing import narrowed_spec, without_channels
from distill_lightning.runs import RunConfig
from distill_lightning.specs import trusting
from distill_lightning.tensor_files import write_tensors

KEPT = ("optimizer", "schedule", "decay_norms_and_biases", "channels_last", "compile", "cuda_graphs")
"""Options of the teacher's method that the student gets, too."""
STARTS = ("start_from", "start_optimizer")
"""Options that say which weights the teacher began with. The student has a beginning of its own."""
SOFT_TARGETS = "distill_lightning.callbacks.soft_targets.SoftTargets"
EPILOG = """Other options go to `distill fit`, for example --model.network.width 8, --model.temperature 2 or
--trainer.max_epochs 20. The student gets the teacher's data, optimizer and schedule. The table measures the exported
files with onnxruntime: unstructured zeros change neither size nor speed, removed channels do."""


def main(args: list[str]) -> int:
    """The command. Returns its exit status.

    Raises:
        InputError: the run cannot be opened, or a verb refuses its options.
    """
    parser = LineParser(prog="distill compress", description=OTHER_VERBS["compress"], epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("source", metavar="RUN|CHECKPOINT", help="the teacher: a run's folder, or a checkpoint")
    parser.add_argument("--network", metavar="NAME", help="the student's class, as ResNet8 (default: the teacher's)")
    parser.add_argument("--keep", type=float, metavar="SHARE", help="the share of each layer's channels to keep")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of the student (default: the teacher's)")
    parser.add_argument(
        "--tune_epochs", type=int, metavar="N", help="epochs after channels are removed (default: half of --epochs)"
    )
    parser.add_argument(
        "--tune_rate", type=float, default=0.1, metavar="X", help="factor of the learning rate then (default: 0.1)"
    )
    parser.add_argument("--name", help="the name of the runs (default: the teacher's run, and the student's class)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the files (default: compressed/NAME)")
    parser.add_argument("--root", metavar="FOLDER", help="the folder of the data (default: the teacher's)")
    parser.add_argument("--pictures", type=int, default=1000, metavar="N", help="measure on N pictures (default: 1000)")
    parser.add_argument("--threads", type=int, default=1, help="threads for the latency (default: 1)")
    parser.add_argument("--trust", action="append", default=[], metavar="NAME", help="a class of yours to build")
    given, more = parser.parse_known_args(args)
    if given.keep is not None and not 0 < given.keep < 1:
        raise InputError(f"--keep is {given.keep}: it is the share of channels that stay, between 0 and 1")
    for option in ("epochs", "tune_epochs"):
        if (count := getattr(given, option)) is not None and count < 1:
            raise InputError(f"--{option} is {count}: give 1 or more")
    if given.pictures < 1:
        raise InputError(f"--pictures is {given.pictures}: the files are compared on pictures, give 1 or more")
    if given.network is None and given.keep is None:
        raise InputError("nothing makes the network smaller: give --network with a smaller one, --keep, or both")
    with trusting(given.trust):
        compress(given, more)
    return 0


class _Training(DistillCommand):
    """``distill fit`` for a student. It refuses a network whose channels cannot be removed before it trains it.

    Args:
        args: the verb and its options.
        keep: the share of channels that will be kept; None if all will be.
    """

    def __init__(self, args: list[str], keep: float | None) -> None:
        self.keep = keep
        super().__init__(args)

    def before_fit(self) -> None:
        if self.keep is not None:
            size = self.data.image_size
            without_channels(self.model.model, self.keep, (self.data.channels, size, size))


def compress(given: Any, more: list[str]) -> None:
    """Trains, exports and measures.

    Args:
        given: the options of the command.
        more: the options of ``distill fit``.
    """
    teacher = open_source(given.source)
    student = teacher_config(teacher, given.source, same_network=given.network is None)
    if given.network is None and "network" not in student["model"]["init_args"]:
        raise InputError(f"{given.source} is an ensemble: give --network, the class of the student")
    if any(word.startswith(option) for word in more for option in ("--trainer.devices", "--trainer.num_nodes")):
        raise InputError("compress trains on one device: leave trainer.devices out, or use `distill fit` and export")
    student["trainer"] |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    if given.epochs is not None:
        student["trainer"]["max_epochs"] = given.epochs
    words = given.network or student["model"]["init_args"]["network"]["class_path"]
    name = given.name or f"{teacher.lineage['run'] or Path(given.source).stem}-{words.rpartition('.')[2].lower()}"
    refuse_odd_name(name, "--name")
    out = given.out or Path("compressed") / name
    shared = ["--data.root", given.root] if given.root else []
    smaller = ["--model.network", given.network] if given.network else []
    with tempfile.TemporaryDirectory() as folder:  # refused before anything is trained, if it cannot be exported
        rows = [("teacher", export(given.source, out=Path(folder, "teacher.onnx"), **measured(given)))]
    print(f"teacher: {given.source}", flush=True)
    run = fitted(student, name, out / "student.yaml", [*smaller, *shared, *more], given.keep)
    if given.keep is not None:
        rows.append(("student", export(run, out=out / "student.onnx", **measured(given))))
        tuned = narrowed_config(run, given, out)
        run = fitted(tuned, f"{name}-narrowed", out / "narrowed.yaml", shared)
    last = "student" if given.keep is None else "narrowed"
    rows.append((last, export(run, out=out / f"{last}.onnx", **measured(given))))
    if (fitted_to := teacher.classifier.preprocessing) is None:
        quantised = export(run, "onnx-int8", out / f"{last}-int8.onnx", accuracy_loss=1.0, **measured(given))
        rows.append((f"{last}, int8", quantised))
    else:
        print(f"there is no file of integers: onnx-int8 cannot hold the {fitted_to.words} of this run")
    show(rows, out)


def measured(given: Any) -> dict[str, Any]:
    """The options of ``export`` that decide what is measured."""
    return {"root": given.root, "pictures": given.pictures, "threads": given.threads}


def teacher_config(teacher: Opened, source: str, same_network: bool) -> dict[str, Any]:
    """The configuration of a student that a network teaches: its data, optimizer and trainer, and the method KD.

    Args:
        teacher: the network.
        source: its run or checkpoint.
        same_network: whether the student has the teacher's network, and so its activation.

    Raises:
        InputError: the teacher's configuration is missing, or uses what a file may not use.
    """
    if not teacher.config:
        raise InputError(f"{source} does not say how it was trained: give a run of `distill fit`")
    config = from_file.checked(teacher.config, Path(teacher.where))
    arguments = config["model"].get("init_args") or {}
    if config["model"]["class_path"] == ENSEMBLE:
        checkpoints, network = list(arguments["members"]), None
    else:
        checkpoint = Path(source) / "checkpoints" / "last.ckpt" if Path(source).is_dir() else Path(source)
        checkpoints, network = [str(checkpoint)], arguments.get("network")
    kept = (*KEPT, "activation") if same_network else KEPT
    model = {k: v for k, v in arguments.items() if k in kept} | ({"network": network} if network else {})
    callback = {"class_path": SOFT_TARGETS, "init_args": {"teacher": checkpoints, "mode": "online"}}
    trainer = {k: v for k, v in (config.get("trainer") or {}).items() if k != "callbacks"}
    return {
        **{k: v for k, v in config.items() if k not in ("name", "model", "trainer", *STARTS)},
        "model": {"class_path": f"{KD.__module__}.{KD.__name__}", "init_args": model},
        "trainer": trainer | {"callbacks": [callback]},
    }


def narrowed_config(run: Path, given: Any, out: Path) -> dict[str, Any]:
    """The configuration of a student without some channels, which starts from what is left of its weights.

    The weights are in ``out/weights.pt``.
    """
    opened = open_source(run)
    if opened.spec is None:
        raise InputError(f"{run} does not describe its network: its channels cannot be removed")
    widths, weights = without_channels(opened.classifier.network, given.keep, opened.info.shape)
    write_tensors(out / "weights.pt", weights)
    config = {name: value for name, value in RunConfig.read(run).options.items() if name not in STARTS}
    arguments = config["model"]["init_args"]
    rate = (arguments.get("optimizer") or {}).get("init_args") or {}
    if isinstance(rate.get("lr"), float | int):
        rate["lr"] *= given.tune_rate
    trainer = config["trainer"]
    epochs = max(1, (trainer.get("max_epochs") or 2) // 2) if given.tune_epochs is None else given.tune_epochs
    arguments["network"] = narrowed_spec(opened.spec, widths)
    return config | {"trainer": trainer | {"max_epochs": epochs}, "start_from": str(out / "weights.pt")}


def fitted(config: dict[str, Any], name: str, file: Path, more: list[str], keep: float | None = None) -> Path:
    """Runs ``distill fit`` with a configuration, or resumes it. Returns the folder of the finished run.

    Args:
        config: the options.
        name: the name of the run.
        file: the YAML to write them to.
        more: other options of ``distill fit``.
        keep: see ``_Training``.
    """
    text = yaml.safe_dump({k: v for k, v in config.items() if k != "name"}, sort_keys=False)
    is_new, new_folders = not file.exists(), [f for f in (file.parent, file.parent.parent) if not f.exists()]
    atomic_write(file, lambda opened: opened.write(text.encode()))
    options = ["--config", str(file), *more, "--name", name, "--ckpt_path", "auto"]
    print(f"distill fit {' '.join(options)}", flush=True)
    try:
        command = _Training(["fit", *options], keep)
    except InputError:
        if is_new:
            file.unlink()
            for folder in new_folders:
                folder.rmdir()
        raise
    return command.parts.stem / name


def show(rows: list[tuple[str, ExportReport]], out: Path) -> None:
    """Prints the table, and writes it to compress.json."""
    _, first = rows[0]
    in_threads = f"{first.threads} thread{'s' if first.threads > 1 else ''}"
    part = f"accuracy, {first.parity.pictures} of {first.parity.part}"
    batches = list(first.latency_ms["file"])
    table = Table("", part, "parameters, MB", "file, MB", *(f"ms, batch of {b}, {in_threads}" for b in batches))
    plain = []
    for name, report in rows:
        accuracy, size, latency = report.parity.accuracy["file"], report.size_bytes, report.latency_ms["file"]
        sizes = (f"{size[of] / 1e6:.2f}" for of in ("weights", "file"))
        table.add_row(name, f"{accuracy:.4f}", *sizes, *(f"{latency[batch]:.2f}" for batch in batches))
        plain.append({"name": name} | report.as_dict())
    Console().print(table)
    text = json.dumps({"rows": plain}, indent=2) + "\n"
    atomic_write(out / "compress.json", lambda file: file.write(text.encode()))
    print(f"exported: {out}", flush=True)

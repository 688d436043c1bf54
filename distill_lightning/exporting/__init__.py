"""Exports a trained classifier: as ONNX, in float32 or 8-bit integers, as a program of torch, or as plain weights.

The graph takes uint8 pictures (B, C, H, W) with any B, normalises them, and gives logits and probabilities (B, K). The
file is compared with the run on real pictures before it gets its name.
"""

import json
import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from distill_lightning.data.base import ImageData
from distill_lightning.distributed import say
from distill_lightning.errors import InputError
from distill_lightning.exported import FORMAT, ExportedClassifier
from distill_lightning.exporting import onnx_files, parity, torch_files
from distill_lightning.exporting.opening import Networks, Opened, check_shape, open_data, open_source
from distill_lightning.exporting.report import ExportReport
from distill_lightning.files import atomic_write
from distill_lightning.version import __version__

__all__ = ["FORMATS", "ExportReport", "export"]

Format = Literal["onnx", "torch-export", "safetensors", "onnx-int8"]
FORMATS: dict[str, str] = {
    "onnx": "model.onnx",
    "torch-export": "model.pt2",
    "safetensors": "model.safetensors",
    "onnx-int8": "model-int8.onnx",
}
"""The formats, each with the name of the file if none is given."""


def export(
    source: str | Path,
    format: Format = "onnx",
    out: str | Path | None = None,
    *,
    network: Networks = None,
    use_ema: bool = False,
    data: ImageData | None = None,
    root: str | None = None,
    pictures: int = 1000,
    calibration: int = 256,
    seed: int = 0,
    tolerance: float = 1e-4,
    accuracy_loss: float = 0.05,
    threads: int = 1,
) -> ExportReport:
    """Exports a run or a checkpoint to a file, and writes a report beside it, ``<file>.json``.

    Args:
        source: the folder of a run (its last.ckpt, or an ensemble), or a checkpoint.
        format: "onnx"; "onnx-int8", with 8-bit integers, calibrated on training pictures; "torch-export", a .pt2; or
            "safetensors", the weights alone.
        out: the file to write; by default ``model.onnx`` and the like in the run's folder, or in the current one;
            with ``use_ema``, ``model-ema.onnx``.
        network: the network, if the checkpoint does not describe it (it was made in Python). For an ensemble, a list of
            the members that were made in Python.
        use_ema: whether the weights are those that the callback EMA has averaged, and not those of the last step.
        data: the data that the run was trained on, after ``setup("test")``; by default they are read again.
        root: the folder of the data, if it is not the one in the run's configuration.
        pictures: how many pictures of the test part (or validation) the file and the run are compared on; 0 for random
            pixels, which need no data, and give no accuracy.
        calibration: how many training pictures decide the scales of 8-bit integers.
        seed: draws the calibration pictures.
        tolerance: the largest difference of a probability between the file and the run; for "onnx-int8" see
            ``accuracy_loss``.
        accuracy_loss: the largest loss of accuracy by 8-bit integers, as a fraction.
        threads: the number of threads for the comparison and the latency.

    Returns:
        The report. Its attribute ``file`` is the file.

    Raises:
        InputError: there is nothing to export, a package is missing, an operator cannot be exported, or the file
            differs from the run. No file is left then.
    """
    if format not in FORMATS:
        raise InputError(f"format is {format!r}: give one of {', '.join(FORMATS)}")
    suffix = Path(FORMATS[format]).suffix
    if out is not None and Path(out).suffix.lower() != suffix and not Path(out).is_dir():
        raise InputError(f"out is {out}: the format {format} has files that end in {suffix}")
    if pictures < 0 or min(calibration, threads) < 1:
        raise InputError("calibration and threads must be 1 or more, and pictures 0 or more")
    if format == "onnx-int8" and not pictures:
        raise InputError("onnx-int8 is calibrated and compared on pictures: pictures must be 1 or more")
    if format.startswith("onnx"):
        onnx_files.needs("onnx", "onnxscript", "onnxruntime")
    opened = open_source(source, network, use_ema, root)
    refused = getattr(opened.classifier.network, "refused_export", None)
    if refused and format != "safetensors":
        raise InputError(f"{refused}; or distil it into one network, and export that")
    if opened.info.has_floats:
        raise InputError(f"{opened.info.name} has samples of floats: an exported file takes pictures of bytes")
    if (fitted := opened.classifier.preprocessing) is not None:
        if format in ("onnx-int8", "safetensors"):
            raise InputError(f"{format} cannot hold the {fitted.words} of this run: use onnx or torch-export")
        say(f"{fitted.words} is in the file: {fitted.num_bytes / 1e6:.2f} MB")
    if data is None and pictures:
        data = open_data(opened, root)
    if data is not None:
        check_shape(data, opened)
    target = Path(out) if out is not None else (opened.folder or Path()) / _usual_name(format, use_ema)
    if target.is_dir():
        raise InputError(f"{target} is a folder: give the name of a file")
    compared, calibrated = parity.random_pixels(opened.info.shape), None
    if data is not None and pictures:
        compared = parity.evaluation_pictures(data, pictures)
        calibrated = parity.training_pictures(data, calibration, seed) if format == "onnx-int8" else None
    with tempfile.TemporaryDirectory() as folder, parity.threads(threads):
        made = Path(folder) / target.name
        run = _write(opened, format, made, calibrated, threads)
        reference = parity.run_of(opened.classifier)
        found = parity.compare(reference, run, compared)
        if format == "onnx-int8":
            parity.refuse_loss(found, accuracy_loss)
        else:
            parity.refuse_difference(found, tolerance)
        latency = parity.latencies({"torch": reference, "file": run}, compared)
        size = sum(part.stat().st_size for part in Path(folder).iterdir())
        weights = sum(value.nbytes for value in opened.classifier.network.state_dict().values())
        report = ExportReport(
            file=target,
            format=format,
            parity=found,
            size_bytes={"weights": weights, "file": size},
            latency_ms=latency,
            threads=threads,
            about=_about(opened) | _calibration(calibrated, seed),
        )
        # the weights outside an ONNX file come first: the file is opened only when they are there
        for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == target.name):
            atomic_write(target.with_name(part.name), lambda file, part=part: _copy(part, file))  # type: ignore[misc]
    text = json.dumps(report.as_dict(), indent=2) + "\n"
    atomic_write(target.with_name(target.name + ".json"), lambda file: file.write(text.encode()))
    return report


def _usual_name(format: str, use_ema: bool) -> str:
    name = Path(FORMATS[format])
    return f"{name.stem}-ema{name.suffix}" if use_ema else name.name


def _calibration(pictures: parity.Pictures | None, seed: int) -> dict[str, Any]:
    return {} if pictures is None else {"calibration": {"count": len(pictures.pixels), "seed": seed}}


def _copy(part: Path, file: Any) -> None:
    with open(part, "rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)


def _write(opened: Opened, format: str, made: Path, calibrated: parity.Pictures | None, threads: int) -> parity.Run:
    """Writes the file, and opens it as its users will."""
    metadata = _metadata(opened, format)
    if format == "safetensors":
        return torch_files.write_weights(opened.classifier, made, metadata)
    program = onnx_files.program_of(opened.classifier, opened.info.shape)
    if format == "torch-export":
        return torch_files.write_program(program, made, json.dumps(metadata))
    if calibrated is None:
        onnx_files.write_onnx(program, opened.classifier, made, metadata)
    else:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "whole.onnx")
            onnx_files.write_onnx(program, opened.classifier, whole, metadata)
            onnx_files.write_int8(whole, made, calibrated.pixels, metadata)
    return ExportedClassifier(made, threads).run


def _metadata(opened: Opened, format: str) -> dict[str, str]:
    """See ``exported``."""
    info = opened.info
    preprocessing = {
        "channels": info.channels,
        "size": info.image_size,
        "colour": "grey" if info.channels == 1 else "RGB",
        "bit_depth": info.bit_depth,
        "resize": "the shorter side to size, bilinear with antialiasing, as Pillow",
        "crop": "centre, size x size",
        "input": "uint8 (B, C, H, W)",
        "in_the_graph": _in_the_graph(opened),
        "mean": info.mean,
        "std": info.std,
    }
    return onnx_files.texts(
        distill_lightning=str(FORMAT),
        format=format,
        class_names=list(info.class_names),
        preprocessing=preprocessing,
        lineage=opened.lineage,
        network=opened.spec,
        weights_digest=opened.weights_digest,
        program_version=__version__,
    )


def _in_the_graph(opened: Opened) -> str:
    """What the graph does with the pixels before the network, in words."""
    crop, views = opened.classifier.evaluation.crop, opened.classifier.evaluation.views
    steps = [] if crop is None else [f"enlarged by {crop.resize:g} and cropped to the centre"]
    fitted = opened.classifier.preprocessing
    steps += ["(x / 255 - mean) / std" if fitted is None else f"x / 255, then {fitted.words}"]
    steps += [] if views is None else [f"the logits are the mean over the views of {type(views).__name__}"]
    return "; ".join(steps)


def _about(opened: Opened) -> dict[str, Any]:
    found: dict[str, str | None] = {}
    for package in ("distill_lightning", "torch", "onnx", "onnxscript", "onnxruntime", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["distill_lightning"] = __version__
    return {
        "lineage": opened.lineage,
        "weights_digest": opened.weights_digest,
        "class_names": list(opened.info.class_names),
        "versions": found | {"python": platform.python_version()},
        "machine": {"processor": _processor(), "cores": os.cpu_count()},
    }


def _processor() -> str:
    """The name of the processor, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

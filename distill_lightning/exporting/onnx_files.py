"""Writes ONNX files: the graph of a classifier, and the same with 8-bit integers."""

import contextlib
import importlib
import io
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_lightning.errors import InputError
from distill_lightning.exported import NO_DIGEST, file_digest, stamped
from distill_lightning.exporting.opening import PictureClassifier
from distill_lightning.pillow_decoding import Pixels

LARGEST_ALONE = 1_900_000_000
"""The largest size of the weights, in bytes, with which they are in the ONNX file itself: protobuf allows 2 GiB."""
CALIBRATED = 16
"""The number of pictures in a batch of calibration."""
OPERATOR = re.compile(r"op='([\w.:]+)'|(aten\.\w+(?:\.\w+)?)|Unsupported: *([\w.]+)")


def needs(*packages: str) -> None:
    """Checks that the packages of the extra ``export`` are installed.

    Raises:
        InputError: one is not. The message says what to install.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(f"{package} is not installed: pip install 'distill_lightning[export]'") from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps what exporters print, log and warn about from the terminal. Their errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)


def program_of(classifier: PictureClassifier, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """The graph of a classifier, for any number of pictures.

    Args:
        classifier: the classifier.
        shape: (C, H, W) of a picture.

    Raises:
        InputError: the network does something that a graph cannot have. The message names it.
    """
    example = torch.zeros(3, *shape, dtype=torch.uint8)
    batch = torch.export.Dim("batch")
    try:
        with silent(), torch.no_grad():
            return torch.export.export(classifier, (example,), dynamic_shapes={"images": {0: batch}})
    except Exception as error:  # torch.export raises errors of many classes
        raise InputError(_cannot(classifier, error)) from error


def _cannot(classifier: PictureClassifier, error: BaseException) -> str:
    """Says which operator of a network cannot be exported, if the exporter's errors name one."""
    name = classifier.name
    cause: BaseException | None = error
    reason = ""
    while cause is not None:
        if "data-dependent" in str(cause):
            return f"{name} cannot be exported: its forward takes another way for other values (`if` on a tensor)"
        if found := OPERATOR.search(str(cause)):
            operator = next(group for group in found.groups() if group)
            return f"{name} cannot be exported: its operator {operator} has no form in the graph"
        lines = [line for line in str(cause).splitlines() if line.strip()]
        reason = lines[0].strip() if lines else type(cause).__name__
        cause = cause.__cause__ or cause.__context__
    return f"{name} cannot be exported: {reason[:120]}"


def write_onnx(
    program: torch.export.ExportedProgram, classifier: PictureClassifier, path: Path, metadata: dict[str, str]
) -> None:
    """Writes a graph as an ONNX file. Very large weights are in a second file, ``<name>.data``.

    Args:
        program: the graph of ``classifier``.
        classifier: the classifier, for errors.
        path: the file.
        metadata: texts by name, see ``exported``.

    Raises:
        InputError: ONNX has no operator for one of the graph. The message names it.
    """
    needs("onnx", "onnxscript", "onnxruntime")
    try:
        with silent():
            made = torch.onnx.export(
                program, dynamo=True, external_data=False, input_names=["images"], output_names=["logits", "probs"]
            )
            assert made is not None
            model = made.model_proto
    except Exception as error:  # as above
        raise InputError(_cannot(classifier, error)) from error
    graph = model.graph
    for part in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        part.ClearField("metadata_props")  # the exporter's notes hold the paths of source files
        part.ClearField("doc_string")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    write_model(model, path, metadata)


def write_model(model: Any, path: Path, metadata: dict[str, str]) -> None:
    """Writes an ONNX model with metadata and a digest.

    Args:
        model: an ``onnx.ModelProto``. It is changed.
        path: the file.
        metadata: texts by name.
    """
    import onnx

    weights = [*model.graph.initializer]
    if sum(len(tensor.raw_data) for tensor in weights) > LARGEST_ALONE:
        outside = path.with_name(path.name + ".data")
        onnx.external_data_helper.convert_model_to_external_data(model, location=outside.name)
        onnx.external_data_helper.write_external_data_tensors(model, str(path.parent))
        metadata = metadata | {"data_digest": file_digest(outside)}
    del model.metadata_props[:]
    for key, value in (metadata | {"digest": NO_DIGEST}).items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(stamped(model.SerializeToString()))


def write_int8(source: Path, path: Path, pictures: Pixels, metadata: dict[str, str]) -> None:
    """Writes an ONNX file whose convolutions and matrix products use 8-bit integers.

    The quantisation is static: each channel of a weight has its own scale, and the scales of activations come from
    calibration pictures. The file has the form QDQ: pairs of QuantizeLinear and DequantizeLinear, see onnxruntime's
    page "Quantize ONNX models".

    Args:
        source: the ONNX file of the same classifier in float32.
        path: the file to write.
        pictures: calibration pictures, (N, C, H, W).
        metadata: texts by name.
    """
    import onnx
    from onnxruntime import quantization

    class Pictures(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.left = iter(np.split(pictures, range(CALIBRATED, len(pictures), CALIBRATED)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.left, None)
            return None if pixels is None else {"images": pixels}

    with tempfile.TemporaryDirectory() as folder, silent():
        prepared, made = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        quantization.shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        kept = _normalisation_and_softmax(onnx.load(prepared).graph)
        quantization.quantize_static(
            str(prepared),
            str(made),
            Pictures(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
        )
        model = onnx.load(made)
    write_model(model, path, metadata)


def _normalisation_and_softmax(graph: Any) -> list[str]:
    """The names of the nodes before the first layer and after the last one, which stay in float32."""
    from_pictures, names = {"images"}, []
    for node in graph.node:
        if node.op_type in ("Cast", "Mul", "Add", "Sub", "Div") and from_pictures & set(node.input):
            from_pictures |= set(node.output)
            names.append(node.name)
        elif "probs" in node.output:
            names.append(node.name)
    return names


def texts(**values: Any) -> dict[str, str]:
    """Metadata as texts: a string as it is, another value as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}

"""Writes files that torch reads: the program of ``torch.export`` (.pt2), and plain weights (.safetensors)."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distill_lightning.exporting.onnx_files import silent
from distill_lightning.exporting.opening import PictureClassifier
from distill_lightning.exporting.parity import Run, run_of

METADATA = "metadata.json"
"""The name of the metadata inside a .pt2, among its extra files."""


def write_program(program: torch.export.ExportedProgram, path: Path, metadata: str) -> Run:
    """Writes a program, and opens it again.

    Args:
        program: the graph of a classifier.
        path: the file, whose name ends with .pt2.
        metadata: JSON.

    Returns:
        The program of the file, as a function on arrays.
    """
    with silent():
        torch.export.save(program, path, extra_files={METADATA: metadata})
        module = torch.export.load(path).module()
    return run_of(module)


def write_weights(classifier: PictureClassifier, path: Path, metadata: Mapping[str, str]) -> Run:
    """Writes the weights of a classifier's network, and loads them into a copy of the classifier.

    Args:
        classifier: the classifier.
        path: the file.
        metadata: texts by name.

    Returns:
        The classifier with the weights of the file, as a function on arrays.
    """
    weights = {name: value.detach().clone().contiguous() for name, value in classifier.network.state_dict().items()}
    save_file(weights, path, dict(metadata))
    read = copy.deepcopy(classifier)
    for value in read.network.state_dict().values():
        value.zero_()
    read.network.load_state_dict(load_file(path))
    return run_of(read)


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})

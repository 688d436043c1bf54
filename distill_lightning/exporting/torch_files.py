"""Writes files that torch reads: the program of ``torch.export`` (.pt2), and plain weights (.safetensors)."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distill_lightning.errors import InputError
from distill_lightning.exported import Exported, info_of
from distill_lightning.exporting.onnx_files import silent
from distill_lightning.exporting.opening import PictureClassifier
from distill_lightning.exporting.parity import Outputs, Run, run_of
from distill_lightning.pillow_decoding import Pixels
from distill_lightning.pillow_pixels import printable
from distill_lightning.specs.lists import is_trusted

METADATA = "metadata.json"
"""The name of the metadata inside a .pt2, among its extra files."""
READER = "torch.export.load"
"""What reads a .pt2. It unpickles parts of the file without limits and evaluates expressions from it, so a file can run
any code (torch's documentation says so, too). Only a user who trusts it by this name lets it read."""


class ExportedProgram(Exported):
    """A classifier in a .pt2 file that ``distill export`` wrote.

    Args:
        path: the file.

    Raises:
        InputError: the user does not trust ``torch.export.load``, or the file does not exist, is damaged or from
            another program.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no file {printable(path)}")
        if not is_trusted(READER):
            raise InputError(
                f"{printable(path)} is a program, which can run code when it is read: export it as onnx, or, if you "
                f"made it yourself, add --trust {READER} (trust=)"
            )
        texts = {METADATA: ""}
        try:
            with silent():
                self._run = run_of(torch.export.load(path, extra_files=texts).module())
            read = json.loads(texts[METADATA])
        except Exception as error:  # torch.export raises errors of many classes
            raise InputError(f"{printable(path)} is damaged, or no .pt2 of this program: export it again") from error
        self.info = info_of(read if isinstance(read, dict) else {}, path)

    def run(self, pixels: Pixels) -> Outputs:
        """See ``Exported``."""
        return self._run(pixels)


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

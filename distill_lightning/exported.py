"""Reads ONNX files that ``distill export`` wrote, and predicts with them.

It needs numpy, Pillow and onnxruntime, and no torch. The metadata of such a file (``metadata_props``, texts) are:

    distill_lightning    the version of this format
    format               "onnx" or "onnx-int8"
    class_names          JSON, a list, in the order of the outputs
    preprocessing        JSON: channels, size, bit_depth, how a picture is resized, what the graph does with its pixels
    lineage              JSON: run, run id, checkpoint, method, data, network
    weights_digest       the digest of the network's weights
    program_version      the version of this program
    data_digest          the SHA-256 of the file with the weights, if they are outside of this file
    digest               the SHA-256 of this file, with this value as 64 zeros
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import Pixels
from distill_lightning.pillow_pixels import Form, printable, read_pictures
from distill_lightning.predictions import Predictions

FORMAT = 1
"""The version of the metadata that this version writes."""
NO_DIGEST = "0" * 64
MARK = b"\n\x06digest\x12@"
"""The bytes before the digest: protobuf's tags and lengths of the key "digest" and of a value of 64 bytes."""
BATCH = 64


@dataclass(frozen=True, slots=True)
class ExportedInfo:
    """What an exported file says about itself.

    Args:
        class_names: the names of the K classes.
        channels: 1 for grey, 3 for RGB.
        image_size: the side of the pictures in pixels.
        lineage: run, run id, checkpoint, method, data and network that the file was made from.
        weights_digest: the digest of the network's weights.
        format: "onnx", "onnx-int8" or "torch-export".
        bit_depth: how many bits the values of pictures with 16 bits use.
    """

    class_names: list[str]
    channels: int
    image_size: int
    lineage: dict[str, Any]
    weights_digest: str
    format: str
    bit_depth: int = 16


def stamped(content: bytes) -> bytes:
    """The content of an ONNX file with its digest in the place of `NO_DIGEST`."""
    place = content.rindex(MARK + NO_DIGEST.encode()) + len(MARK)
    return content[:place] + hashlib.sha256(content).hexdigest().encode() + content[place + 64 :]


def _refuse_damaged(content: bytes, path: Path) -> None:
    place = content.rfind(MARK) + len(MARK)
    if place < len(MARK):
        raise InputError(f"{printable(path)} is torn, or no ONNX file of this program: give one of `distill export`")
    total = hashlib.sha256(content[:place])
    total.update(NO_DIGEST.encode())
    total.update(content[place + 64 :])
    if total.hexdigest().encode() != content[place : place + 64]:
        raise InputError(f"{printable(path)} is damaged, its digest does not hold: export it again")


class Exported(ABC):
    """A classifier in a file that ``distill export`` wrote.

    Attributes:
        info: what the file says about itself.
    """

    info: ExportedInfo

    @abstractmethod
    def run(self, pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The network's output for pictures of its own size.

        Args:
            pixels: (B, C, H, W).

        Returns:
            Logits and probabilities, (B, K) each.
        """

    @property
    def class_names(self) -> list[str]:
        """The names of the K classes, in the order of the columns of probabilities."""
        return self.info.class_names

    def predict(self, pictures: Any, batch_size: int = BATCH, unread: dict[str, str] | None = None) -> Predictions:
        """Predicts the classes of pictures of any size.

        Args:
            pictures: the path of a file or of a folder, a Pillow picture, an array, or a list of these. An array
                (N, H, W) is N grey pictures. See ``pillow_pixels.read_pictures``.
            batch_size: the number of pictures that are predicted together.
            unread: gets the files that cannot be read, by name, with a sentence on each; there are predictions for the
                others. By default such a file is an error.

        Raises:
            InputError: there are no pictures, one cannot be read, or none can.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: it must be 1 or more")
        form = Form(self.info.channels, self.info.image_size, self.info.bit_depth)
        batches, files = read_pictures(pictures, form, batch_size, unread=unread)
        probs = [self.run(pixels)[1] for pixels in batches]
        if not probs:
            raise InputError(f"none of {len(files or ())} pictures can be read: {next(iter((unread or {}).values()))}")
        if files is not None and unread:
            files = [file for file in files if file not in unread]
        return Predictions(np.concatenate(probs), self.class_names, files)

    def __repr__(self) -> str:
        made_from = self.info.lineage.get("run") or self.info.lineage.get("checkpoint")
        return f"{type(self).__name__}({len(self.class_names)} classes, {self.info.format}, made from {made_from})"


class ExportedClassifier(Exported):
    """A classifier in an ONNX file that ``distill export`` wrote.

    Args:
        path: the file.
        threads: the number of threads of onnxruntime; by default it decides.
        providers: where onnxruntime computes, in the order of preference.

    Raises:
        InputError: the file does not exist, is damaged or from another program; or onnxruntime is not installed.
    """

    def __init__(
        self, path: str | Path, threads: int | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        path = Path(path)
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError("onnxruntime is not installed: pip install onnxruntime") from error
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"there is no file {printable(path)} that can be read: {error.strerror}") from error
        _refuse_damaged(content, path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        outside = path.with_name(path.name + ".data")
        try:
            given = str(path) if outside.exists() else content
            self._session = onnxruntime.InferenceSession(given, options, providers=list(providers))
            texts = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime has no common class for its errors
            reason = str(error).splitlines()[0][:80]
            raise InputError(f"{printable(path)} cannot be opened by onnxruntime: {reason}") from error
        self.info = info_of(texts, path)
        if (expected := texts.get("data_digest")) and file_digest(outside) != expected:
            raise InputError(f"{printable(outside)} is damaged, its digest does not hold: export it again")

    def run(self, pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See ``Exported``."""
        logits, probs = self._session.run(["logits", "probs"], {"images": pixels})
        return logits, probs


def info_of(texts: dict[str, str], path: Path) -> ExportedInfo:
    """Reads the metadata of a file.

    Raises:
        InputError: they are not of this program, or of a later version.
    """
    try:
        if int(texts["distill_lightning"]) > FORMAT:
            raise InputError(f"{printable(path)} was written by a later version: use that version")
        names, preprocessing = json.loads(texts["class_names"]), json.loads(texts["preprocessing"])
        return ExportedInfo(
            [str(name) for name in names],
            int(preprocessing["channels"]),
            int(preprocessing["size"]),
            dict(json.loads(texts["lineage"])),
            texts["weights_digest"],
            texts["format"],
            int(preprocessing.get("bit_depth", 16)),
        )
    except InputError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{printable(path)} lacks metadata of this program: {error}") from error


def file_digest(path: Path) -> str:
    """The SHA-256 of a file; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""

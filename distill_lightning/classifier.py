"""Trained classifiers for use: opens a run or a checkpoint, and predicts the classes of pictures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from distill_lightning.data.decoding import decode
from distill_lightning.errors import InputError
from distill_lightning.exported import Exported, ExportedClassifier
from distill_lightning.exporting.opening import Networks, Opened, open_source
from distill_lightning.exporting.torch_files import ExportedProgram
from distill_lightning.pillow_decoding import Pixels
from distill_lightning.pillow_pixels import Form, printable, read_pictures
from distill_lightning.predictions import Predictions
from distill_lightning.specs import trusting


def load(
    path: str | Path,
    *,
    network: Networks = None,
    use_ema: bool = False,
    trust: str | type | Iterable[str | type] = (),
) -> "Classifier | Exported":
    """Opens a trained classifier.

    Args:
        path: the folder of a run (its ``last.ckpt``, or the members of an ensemble), a checkpoint, or an ONNX or .pt2
            file that ``export`` wrote. Reading a .pt2 can run code, so it needs ``trust="torch.export.load"``.
        network: the network, for a run that was given a ready-made one in Python. It gets the weights of the run. For
            an ensemble, a list of the members that were made in Python.
        use_ema: whether the network gets the weights that the callback EMA has averaged, and not those of the last
            step.
        trust: networks of your own that the file may use: a class or its dotted name, "my_package.Net", or several of
            these. A file may not name others than those of this program, of torchvision and of timm.

    Raises:
        InputError: there is nothing that can be opened, or the file uses a class that is not trusted.
    """
    is_exported = Path(path).suffix.lower() in (".onnx", ".pt2")
    if is_exported and use_ema:
        raise InputError(f"{printable(path)} has only the weights that it was exported with: leave use_ema out")
    with trusting(trust):
        if is_exported:
            return ExportedProgram(path) if Path(path).suffix.lower() == ".pt2" else ExportedClassifier(path)
        return Classifier(open_source(path, network, use_ema))


class Classifier:
    """A trained network with the preprocessing and the class names of its run. ``load`` makes it.

    Attributes:
        network: the network, in eval mode. It takes normalised pictures (B, C, H, W) and returns logits (B, K).
        info: the description of the data that it was trained on.
        lineage: where it comes from: run, run id, checkpoint, method, data, network, seed.
    """

    def __init__(self, opened: Opened) -> None:
        self._whole = opened.classifier
        self.network, self.info, self.lineage = opened.classifier.network, opened.info, opened.lineage
        self.where = opened.where

    @property
    def class_names(self) -> list[str]:
        """The names of the K classes, in the order of the columns of probabilities."""
        return list(self.info.class_names)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self._whole.scale.device

    def to(self, device: torch.device | str) -> Self:
        """Moves the network to a device, and returns the classifier."""
        self._whole.to(device)
        return self

    @torch.no_grad()
    def predict(self, pictures: Any, batch_size: int = 256) -> Predictions:
        """Predicts the classes of pictures of any size.

        Each picture is turned upright, its shorter side is resized to the size of the training pictures, its centre is
        cropped, and it is normalised as in the run.

        Args:
            pictures: the path of a picture or of a folder; a Pillow picture; an array or a tensor of pictures; or a
                list of these. Values are 0 to 255 as uint8, or 0 to 1 as floating-point numbers. (N, H, W) is N grey
                pictures; (H, W) is one; (N, C, H, W), (N, H, W, C) and, for one picture in a list, (C, H, W) and
                (H, W, C) have C = 1 or 3 channels.
            batch_size: the number of pictures that the network gets at once.

        Raises:
            InputError: there are no pictures, one cannot be read, or an array has another shape or other values.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: it must be 1 or more")
        form = Form(self.info.channels, self.info.image_size, self.info.bit_depth)
        batches, files = read_pictures(_as_arrays(pictures), form, batch_size, _decode)
        probs = [self._whole(torch.from_numpy(pixels).to(self.device))[1].cpu().numpy() for pixels in batches]
        return Predictions(np.concatenate(probs), self.class_names, files)

    def __repr__(self) -> str:
        info = self.info
        return f"Classifier({info.num_classes} classes of {info.name}, {self.lineage['network']}, from {self.where})"


def _decode(data: bytes, channels: int, size: int, bits: int) -> Pixels:
    """Decodes a file as the data modules do: faster for some JPEGs."""
    return decode(data, channels, size, bits).numpy()


def _as_arrays(pictures: Any) -> Any:
    """Tensors, and tensors in lists, as arrays."""
    if isinstance(pictures, list | tuple):
        return [_as_arrays(one) for one in pictures]
    return pictures.detach().cpu().numpy() if isinstance(pictures, Tensor) else pictures

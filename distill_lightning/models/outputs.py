"""What a network takes and returns: the logits among several outputs, auxiliary classifiers, device and type.

Networks of other makers may return more than logits: GoogLeNet and Inception return the logits of auxiliary classifiers
in training mode, networks of Hugging Face return objects with the attribute ``logits``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("logits", "out", "output", "pred")
"""The names under which networks return their logits."""
AUXILIARY = {"GoogLeNet": 0.3, "Inception3": 0.4}
"""The weight of the loss of the auxiliary classifiers in training, by the class of the network: GoogLeNet (Szegedy et
al. 2014, arXiv:1409.4842, section 5), Inception-v3 (its authors' TensorFlow code)."""


def auxiliary_weight(network: nn.Module) -> float:
    """The weight of the loss of a network's auxiliary classifiers; 0 if none are trained."""
    return AUXILIARY.get(type(network).__name__, 0.0) if getattr(network, "aux_logits", True) else 0.0


def main_output(output: Any) -> Any:
    """The logits in what a network returned; what it returned itself if there is no tensor to be found."""
    if isinstance(output, Tensor):
        return output
    for name in NAMES:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return output


def auxiliary_outputs(output: Any) -> list[Tensor]:
    """The other logits in what a network returned: tensors of the same shape as the main ones."""
    main = main_output(output)
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [v for v in values if isinstance(v, Tensor) and v is not main and v.shape == main.shape]


def auxiliary_logits(kept: Mapping[nn.Module, Sequence[Sequence[Tensor]]], rows: int) -> Iterator[tuple[float, Tensor]]:
    """The logits of auxiliary classifiers in a training step, with the weights of their losses.

    Args:
        kept: for each network and each of its calls the outputs of its classifiers, (R, K) each, of rows of the batch
            in their order.
        rows: the number of rows in the batch.

    Yields:
        The weight, and the logits of a classifier for all rows of the batch, or for its first rows if there are no
        more.
    """
    for network, calls in kept.items():
        for pieces in zip(*calls, strict=True):
            together: list[Tensor] = []
            for piece in pieces:
                if together and sum(map(len, together)) + len(piece) > rows:
                    yield auxiliary_weight(network), torch.cat(together)
                    together = []
                together.append(piece)
            yield auxiliary_weight(network), torch.cat(together)


def input_type(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and the type of the pictures that a network takes: those of its first real parameter or buffer."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    return device, torch.get_default_dtype()


def in_full(values: Tensor) -> Tensor:
    """The values in float32, or in float64 if they are."""
    return values if values.dtype == torch.float64 else values.float()


def dry_pictures(network: nn.Module, shape: tuple[int, int, int], count: int = 1) -> Tensor:
    """Pictures (``count``, C, H, W) of a shape to try a network with: values that rise from -1 to 1."""
    values = torch.linspace(-1, 1, count * torch.Size(shape).numel())
    return values.reshape(count, *shape).to(*input_type(network))

"""Checks before the first step: whether network, batches and number of processes fit together."""

import torch
from torch import Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError


@torch.no_grad()
def refuse_misfit(network: nn.Module, data: ImageData) -> None:
    """Checks that a network fits the data, with a forward pass of one blank picture.

    Raises:
        InputError: the network cannot take the pictures, or does not return K logits.
    """
    parameter = next(network.parameters())
    blank = torch.zeros(1, data.channels, data.image_size, data.image_size)
    name, training = type(network).__name__, network.training
    try:
        logits = network.eval()(blank.to(parameter.device, parameter.dtype))
    except RuntimeError as error:
        raise InputError(
            f"{name} cannot take pictures of {data.channels}x{data.image_size}x{data.image_size} "
            f"from {data.name}; give a network that can: {str(error).splitlines()[0]}"
        ) from error
    finally:
        network.train(training)
    if not isinstance(logits, Tensor) or logits.shape != (1, data.num_classes):
        shape = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{name} gives {shape} for a picture: {data.name} needs {data.num_classes} logits")


def smallest_batch(data: ImageData, world: int) -> int:
    """The smallest number of new samples of a process in a training batch.

    Args:
        data: the data; after ``setup``.
        world: the number of processes.
    """
    rows, rest = data.batch_size // world, len(data.training_split) % data.batch_size
    return min(rows, max(rest // world, 1)) if data.keep_last and rest else rows


def depends_on_process_count(module: nn.Module, synchronised: bool) -> str | None:
    """The name of a layer type in a module whose results depend on the number of processes; None if there is none.

    Args:
        module: the method, with all modules that are trained.
        synchronised: whether batch norm is synchronised over all processes.
    """
    modules = list(module.modules())
    if not synchronised and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules):
        return "batch norm"
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in modules):
        return "dropout"
    return None

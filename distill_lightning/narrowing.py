"""Removes whole channels of a network, so that it gets smaller and faster. It needs the extra ``compress``."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.models.narrowed import Narrowed, width_of
from distill_lightning.models.outputs import main_output


def without_channels(
    network: nn.Module, keep: float, shape: tuple[int, int, int]
) -> tuple[dict[str, list[int]], dict[str, Tensor]]:
    """Removes the channels with the smallest weights from every layer, with what depends on them in other layers.

    Channels that are added to each other, such as those of a residual stage, are removed together. Their importance is
    the L2 norm of all weights that belong to them (Fang et al. 2023, arXiv:2301.12900, section 3.3). The outputs of the
    last linear layer are kept.

    Args:
        network: the network, which is not changed.
        keep: the share of the channels of each layer to keep, in (0, 1).
        shape: (C, H, W) of a picture.

    Returns:
        The widths for `Narrowed`, and the state dict of that network.

    Raises:
        InputError: ``keep`` is out of range, torch-pruning is not installed, or the network's channels cannot be
            removed in a way that `Narrowed` can describe.
    """
    if not 0 < keep < 1:
        raise InputError(f"the share of channels to keep is {keep}: it must lie between 0 and 1")
    try:
        import torch_pruning
    except ImportError as error:
        raise InputError("torch-pruning is not installed: pip install 'distill_lightning[compress]'") from error
    name = type(network).__name__
    whole, pruned = copy.deepcopy(network).eval(), copy.deepcopy(network).eval().requires_grad_(True)
    kinds = (nn.Linear, nn.Conv2d)  # a network without linear layers ends in a convolution
    ends = [[layer for layer in pruned.modules() if isinstance(layer, kind)][-1:] for kind in kinds]
    outputs = ends[0] or ends[1]
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
        pruner = torch_pruning.pruner.MagnitudePruner(
            pruned, example, importance=importance, pruning_ratio=1 - keep - 1e-9, ignored_layers=outputs
        )
        pruner.step()
        with torch.no_grad():
            expected = pruned(example)
    except Exception as error:  # torch-pruning fails in many ways on networks whose channels it cannot follow
        raise InputError(f"the channels of {name} cannot be removed: {str(error).splitlines()[0][:100]}") from error
    layers = dict(whole.named_modules())
    widths = {
        name: width
        for name, layer in pruned.named_modules()
        if (width := width_of(layer)) is not None and width != width_of(layers[name])
    }
    weights = {f"network.{name}": value.detach().clone() for name, value in pruned.state_dict().items()}
    try:
        narrowed = Narrowed(whole, widths).eval()
        narrowed.load_state_dict(weights)
        with torch.no_grad():
            same = torch.allclose(narrowed(example), expected, atol=1e-5, rtol=1e-4)
            same = same and expected.shape == main_output(whole(example)).shape
            with torch.random.fork_rng(devices=[]):
                copy.deepcopy(narrowed).train()(example)  # auxiliary classifiers are there in training alone
    except (RuntimeError, InputError) as error:
        raise InputError(f"the channels of {name} cannot be removed: other things than widths change") from error
    if not widths or not same:
        raise InputError(
            f"the channels of {name} cannot be removed: {'outputs differ' if widths else 'none is left out'}"
        )
    return widths, weights


def narrowed_spec(network: Mapping[str, Any], widths: dict[str, list[int]]) -> dict[str, Any]:
    """The specification of a network without channels, as plain data.

    Args:
        network: the specification of the whole network.
        widths: see ``without_channels``.
    """
    return {
        "class_path": f"{Narrowed.__module__}.{Narrowed.__name__}",
        "init_args": {"network": dict(network), "widths": widths},
    }

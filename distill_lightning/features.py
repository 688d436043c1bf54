"""Features of any network: the outputs of its layers.

A layer is named by its module path, as ``stages.1`` or ``layer2.0``, or by one of these words:

    stage1, stage2, ..., last_stage   the end of a stage
    pooled                            the input of the last linear layer: the pooled features in most networks
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError, nearest
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.models.outputs import input_type

POOLED = "pooled"


def stage_ends(network: nn.Module) -> list[str]:
    """The module paths of the ends of a network's stages, the deepest last.

    They are its ``exits``, for networks of this program; the layers in ``feature_info``, for networks of timm; or
    ``layer1``, ``layer2``, ..., for ResNets of torchvision.

    Raises:
        InputError: the network has none of these.
    """
    names = list(getattr(network, "exits", ()))
    if not names and hasattr(network, "feature_info"):
        names = [str(info["module"]) for info in network.feature_info]  # type: ignore[union-attr]
    names = names or [name for name, _ in network.named_children() if re.fullmatch(r"layer\d", name)]
    if not names:
        paths = ", ".join(name for name, _ in network.named_children())[:80]
        raise InputError(f"{type(network).__name__} names no stages: give layers by their paths: {paths}")
    return names


def find_layer(network: nn.Module, layer: str) -> tuple[nn.Module, bool]:
    """The module of a layer, and whether its input is meant instead of its output.

    Args:
        network: the network.
        layer: a module path or a word.

    Raises:
        InputError: there is no such layer.
    """
    modules = dict(network.named_modules())
    if layer not in modules and (stage := re.fullmatch(r"last_stage|stage([1-9]\d*)", layer)):
        ends = stage_ends(network)
        number = len(ends) if stage[1] is None else int(stage[1])
        if number > len(ends):
            raise InputError(f"{type(network).__name__} has no {layer}: it has {len(ends)} stages")
        return modules[ends[number - 1]], False
    linear = [module for module in modules.values() if isinstance(module, nn.Linear)]
    if layer and layer in modules:
        return modules[layer], False
    if layer == POOLED and linear:
        return linear[-1], True
    known = [name for name in modules if name] + [POOLED] * bool(linear)
    hint = nearest(layer, known) or f": it has {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}"[:120]
    raise InputError(f"{type(network).__name__} has no layer {layer[:40]}{hint}")


@torch.no_grad()
def layer_shapes(network: nn.Module, layers: Sequence[str], shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """The shapes of features of one picture, without the batch, by a pass of a picture in eval mode.

    Args:
        network: the network. Its mode stays as it is.
        layers: module paths or words.
        shape: (C, H, W) of a picture.

    Raises:
        InputError: there is no such layer; it is not used, or gives no tensor; or a later layer changes its output in
            place, as an in-place ReLU does, so that a hook would hold other values.
    """
    name = type(network).__name__
    seen: dict[str, tuple[Tensor, Tensor] | None] = {}
    size = torch.Size(shape).numel()
    picture = torch.linspace(-1, 1, size).reshape(1, *shape).to(*input_type(network))

    def see(layer: str, is_input: bool) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            value = inputs[0] if is_input else output
            seen[layer] = (value, value.clone()) if isinstance(value, Tensor) else None

        return hook

    found = {layer: find_layer(network, layer) for layer in layers}
    handles = [module.register_forward_hook(see(layer, is_input)) for layer, (module, is_input) in found.items()]
    training = network.training
    try:
        network.eval()(picture)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    shapes = []
    for layer in layers:
        held = seen.get(layer)
        if held is None:
            raise InputError(f"the layer {layer} of {name} gives no tensor for a picture: give another layer")
        value, before = held
        if not torch.equal(value, before):
            raise InputError(
                f"the output of {layer} of {name} is changed in place by a later layer, such as ReLU(inplace=True): "
                "give the block that contains both"
            )
        shapes.append(tuple(value.shape[1:]))
    return shapes


class Features:
    """Holds the features of each forward pass until they are taken.

    Args:
        network: the network.
        layers: module paths or words.
        in_eval: whether features are also held in eval mode, as of a teacher. Else validation holds nothing.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], in_eval: bool = False) -> None:
        self._hooks, self._handles = [], []
        for layer in layers:
            module, is_input = find_layer(network, layer)
            self._hooks.append(FeatureHook(is_input, in_eval))
            self._handles.append(self._hooks[-1].watch(module))

    def take(self) -> tuple[Tensor, ...]:
        """The features of the last forward pass, in the order of the layers; they are released.

        Raises:
            RuntimeError: there was no forward pass since the last call.
        """
        return tuple(hook.take() for hook in self._hooks)

    def remove(self) -> None:
        """Takes the hooks off the network."""
        for handle in self._handles:
            handle.remove()

"""Features of any network: the outputs of its layers.

A layer is named by its module path, as ``stages.1`` or ``layer2.0``, or by one of these words:

    stage1, stage2, ..., last_stage   the end of a stage
    pooled                            the input of the last linear layer: the pooled features in most networks
    all_stages                        in a list of layers: the ends of all stages

``.before_relu`` after a layer means its features before the ReLU that it ends with, or that its output goes through
next, as in networks whose blocks begin with batch norm and ReLU: ``stage2.before_relu``.

Feature maps are (B, C, H, W), also where a network has its channels last, as Swin has.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_lightning.errors import InputError, nearest
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.models.outputs import dry_pictures

POOLED = "pooled"
ALL_STAGES = "all_stages"
BEFORE = ".before_relu"
SHORTCUTS = ("downsample", "shortcut")
"""The names of the modules of a block that its shortcut consists of."""


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


def layers_of(network: nn.Module, layers: Sequence[str]) -> list[str]:
    """The layers, with the ends of all stages in the place of ``all_stages``.

    Raises:
        InputError: see ``stage_ends``.
    """
    named: list[str] = []
    for layer in layers:
        after = layer.removeprefix(ALL_STAGES)
        named += [f"{end}{after}" for end in stage_ends(network)] if after in ("", BEFORE) else [layer]
    return named


def last_linear(network: nn.Module) -> nn.Linear | None:
    """The last linear layer of a network, which is its classifier in most networks."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def module_path(network: nn.Module, layer: str) -> str:
    """The module path of a layer that is the output of a module.

    Raises:
        InputError: there is no such layer, or it is the input of a module.
    """
    module, is_input = find_layer(network, layer)
    if is_input:
        raise InputError(f"{layer} is not the output of a layer of {type(network).__name__}: give a layer by its path")
    names: list[str] = [name for name, one in network.named_modules() if one is module]
    return names[0]


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
    if layer and layer in modules:
        return modules[layer], False
    linear = last_linear(network)
    if layer == POOLED and linear is not None:
        return linear, True
    known = [name for name in modules if name] + [POOLED] * (linear is not None)
    hint = nearest(layer, known) or f": it has {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}"[:120]
    raise InputError(f"{type(network).__name__} has no layer {layer[:40]}{hint}")


class _Found(NamedTuple):
    """Where the features of a layer are."""

    module: nn.Module
    side: str
    """"output", "input", or "before" for a copy of the input before the module is called."""
    last: bool = False
    """Whether they are maps (B, H, W, C)."""

    def hook(self, in_eval: bool) -> FeatureHook:
        return FeatureHook(self.side != "output", in_eval, self.side == "before")


@contextmanager
def _hooked(network: nn.Module) -> Iterator[list[Any]]:
    """Within this block the network is in eval mode, and hooks that are added to the list are removed at its end."""
    training, handles = network.training, list[Any]()
    try:
        network.eval()
        yield handles
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()


class _Call(NamedTuple):
    """A call of a module in a dry pass: copies of the input and of the output."""

    module: nn.Module
    taken: Tensor
    given: Tensor


@torch.no_grad()
def _calls(network: nn.Module, shape: tuple[int, int, int], kinds: tuple[type, ...], end: nn.Module) -> list[_Call]:
    """The calls of modules of some kinds, and of ``end``, by a pass of one picture, in the order in which they end."""
    calls: list[_Call] = []
    taken: list[Tensor] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        taken.append(inputs[0].clone() if inputs and isinstance(inputs[0], Tensor) else torch.empty(0))

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = output.clone() if isinstance(output, Tensor) else torch.empty(0)
        calls.append(_Call(module, taken.pop(), given))

    with _hooked(network) as handles:
        for module in network.modules():
            if isinstance(module, kinds) or module is end:
                handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        network(dry_pictures(network, shape))
    return calls


def _relu_of(network: nn.Module, layer: str, shape: tuple[int, int, int]) -> tuple[list[_Call], int]:
    """The calls of ReLUs and batch norms in a pass, and which of them is the ReLU of a layer ``X.before_relu``.

    Raises:
        InputError: the layer neither ends in a ReLU nor is followed by one of the same shape.
    """
    end, is_input = find_layer(network, layer.removesuffix(BEFORE))
    calls = _calls(network, shape, (nn.ReLU, nn.BatchNorm2d), end)
    ends = [n for n, call in enumerate(calls) if call.module is end]
    relus = [n for n, call in enumerate(calls) if isinstance(call.module, nn.ReLU) and call.taken.ndim == 4]
    if ends and not is_input:
        inside, output = [n for n in relus if n <= ends[-1]], calls[ends[-1]].given
        following = [n for n in relus if n > ends[-1]]
        if inside and _ends_in(calls[inside[-1]].given, output) and calls[inside[-1]].module in [*end.modules()]:
            return calls, inside[-1]
        if following and calls[following[0]].taken.shape == output.shape:
            return calls, following[0]
    raise InputError(
        f"{type(network).__name__} has no {layer}: this layer neither ends in a module ReLU nor does one follow it"
    )


def channels_last(network: nn.Module, layer: str, shape: tuple[int, int, int]) -> bool:
    """Whether the output of a layer is a map (B, H, W, C).

    It is if a linear layer or a layer norm within it has an output of the same shape, and no convolution or batch norm.

    Args:
        network: the network.
        layer: a module path or a word.
        shape: (C, H, W) of a picture.

    Raises:
        InputError: there is no such layer.
    """
    end, is_input = find_layer(network, layer)
    if is_input or not any(isinstance(module, nn.Linear | nn.LayerNorm) for module in end.modules()):
        return False  # without a pass of a picture
    calls = _calls(network, shape, (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.BatchNorm2d), end)
    output = next((call.given for call in reversed(calls) if call.module is end), None)
    if output is None or output.ndim != 4:
        return False
    within = {*end.modules()}
    same = [call.module for call in calls if call.module in within and call.given.shape == output.shape]
    over_channels = [
        isinstance(module, nn.Linear)
        or (isinstance(module, nn.LayerNorm) and output.shape[1] != module.normalized_shape[-1] == output.shape[-1])
        for module in same
    ]
    return any(over_channels) and not any(isinstance(module, nn.Conv2d | nn.BatchNorm2d) for module in same)


def _ends_in(activated: Tensor, output: Tensor) -> bool:
    """Whether an output is the output of a ReLU, or the largest values of it in windows, as max pooling gives them."""
    if output.ndim != 4 or output.shape[:2] != activated.shape[:2] or not output.numel():
        return False
    return torch.equal(F.adaptive_max_pool2d(activated, output.shape[2:]), output)


def _located(network: nn.Module, layer: str, shape: tuple[int, int, int] | None) -> _Found:
    """The module to watch for a layer, and how. ``X.before_relu`` needs the shape of a picture. Without a shape, maps
    are not asked where their channels are.
    """
    if not layer.endswith(BEFORE):
        module, is_input = find_layer(network, layer)
        last = shape is not None and channels_last(network, layer, shape)
        return _Found(module, "input" if is_input else "output", last)
    if shape is None:
        raise ValueError(f"the ReLU of {layer} is found by a pass of a picture: give its shape")
    calls, number = _relu_of(network, layer, shape)
    relu = calls[number].module
    if any(call.module is relu for call in calls[number + 1 :]):  # a hook would hold what its last call gets
        raise InputError(f"{type(network).__name__} uses the ReLU of {layer} again later: give each place its own")
    return _Found(relu, "before")


def _channels_first(features: Tensor, last: bool) -> Tensor:
    return features.movedim(-1, 1) if last else features


def norm_before_relu(network: nn.Module, layer: str, shape: tuple[int, int, int]) -> nn.BatchNorm2d:
    """The last batch norm before the ReLU of a layer ``X.before_relu``; in a residual block that of the branch, not
    that of the shortcut.

    Raises:
        InputError: there is no such layer, or no batch norm of its channels comes before it.
    """
    calls, number = _relu_of(network, layer, shape)
    shortcut = {
        module
        for name, one in network.named_modules()
        if name.rpartition(".")[2] in SHORTCUTS
        for module in one.modules()
    }
    for call in reversed(calls[:number]):
        fits = call.given.shape == calls[number].taken.shape
        if isinstance(call.module, nn.BatchNorm2d) and fits and call.module not in shortcut:
            return call.module
    raise InputError(f"{type(network).__name__} has no batch norm before the ReLU of {layer}: give another layer")


@torch.no_grad()
def layer_shapes(network: nn.Module, layers: Sequence[str], shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """The shapes of features of one picture, without the batch, by passes of a picture in eval mode.

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

    def see(layer: str, is_input: bool) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            value = inputs[0] if is_input else output
            seen[layer] = (value, value.clone()) if isinstance(value, Tensor) else None

        return hook

    def see_before(layer: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            copied = inputs[0].clone()
            seen[layer] = (copied, copied)

        return hook

    found = {layer: _located(network, layer, shape) for layer in layers}
    with _hooked(network) as handles:
        for layer, (module, side, _) in found.items():
            if side == "before":
                handles.append(module.register_forward_pre_hook(see_before(layer)))
            else:
                handles.append(module.register_forward_hook(see(layer, side == "input")))
        network(dry_pictures(network, shape))
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
        shapes.append(tuple(_channels_first(value, found[layer].last).shape[1:]))
    return shapes


class Features:
    """Holds the features of each forward pass until they are taken.

    Args:
        network: the network.
        layers: module paths or words.
        in_eval: whether features are also held in eval mode without gradients, as of a teacher.
        shape: (C, H, W) of a picture, for passes that find the ReLUs of layers ``X.before_relu``, and maps that have
            their channels last. None if features are to be as the network has them.

    Raises:
        InputError: there is no such layer.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        in_eval: bool = False,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        self._hooks, self._handles = [], []
        # all are found first: hooks that are there already would hold what the passes give them
        located = [_located(network, layer, shape) for layer in layers]
        self._last = [found.last for found in located]
        for found in located:
            self._hooks.append(found.hook(in_eval))
            self._handles.append(self._hooks[-1].watch(found.module))

    def take(self) -> tuple[Tensor, ...]:
        """The features of the last forward pass, in the order of the layers; they are released.

        Raises:
            RuntimeError: there was no forward pass since the last call.
        """
        return tuple(_channels_first(hook.take(), last) for hook, last in zip(self._hooks, self._last, strict=True))

    def remove(self) -> None:
        """Takes the hooks off the network."""
        for handle in self._handles:
            handle.remove()

"""Another activation in place of a network's own.

Activations are replaced where they are modules: ReLU, ReLU6, LeakyReLU, PReLU, RReLU, ELU, CELU, SELU, GELU, SiLU,
Mish, Hardswish, Softplus, and those of timm with such names. Sigmoid and Tanh are replaced only in a network without
any of these, since beside others they are gates. What is called as a function inside ``forward`` stays.

The names in the state dict stay the same; PReLU adds its parameters under the names of the modules that it replaces. A
module that a network uses at several places is replaced by one module, so PReLU has one parameter for these places. The
new modules never work in place, whatever the old ones did.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from distill_lightning.errors import InputError

OF_TORCH = (
    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Hardswish",
    "Softplus", "Softsign", "Hardtanh", "Sigmoid", "Tanh", "LogSigmoid", "Tanhshrink", "Hardsigmoid", "Identity",
)  # fmt: skip
"""The activations of torch.nn that a file may use."""
OWN = {
    *OF_TORCH[:13], "Swish", "HardSwish", "HardSwishMe", "HardMish", "HardMishMe", "SwishMe", "MishMe", "GELUTanh",
    "QuickGELU",
}  # fmt: skip
"""The classes that are replaced."""
BOUNDED = {"Sigmoid", "Tanh", "Hardtanh"}
"""The classes that are replaced in a network without one of OWN."""
FUNCTIONS = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "elu", "elu_", "celu", "selu", "gelu", "silu",
    "mish", "hardswish", "softplus",
}  # fmt: skip


def replace_activations(network: nn.Module, make: Callable[[], nn.Module]) -> int:
    """Replaces the activations of a network, which is changed.

    Args:
        network: the network.
        make: makes the new activation, once for each module that is replaced.

    Returns:
        The number of modules that were replaced.

    Raises:
        InputError: there is nothing to replace, or ``make`` makes no module.
    """
    try:
        made = make()
    except Exception as error:
        raise InputError(f"activation cannot be made: {type(error).__name__}: {str(error)[:100]}") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"activation makes a {type(made).__name__}: give the class of a module, as torch.nn.GELU")
    places = _places(network, OWN | {type(made).__name__}) or _places(network, BOUNDED)
    if not places:
        raise InputError(f"activation: {type(network).__name__} has no module that is an activation: leave it out")
    new: dict[int, nn.Module] = {}
    for parent, name, old in places:
        if id(old) not in new:
            new[id(old)] = make().train(old.training)
        setattr(parent, name, new[id(old)])
    return len(new)


def _places(network: nn.Module, classes: set[str]) -> list[tuple[nn.Module, str, nn.Module]]:
    return [
        (network.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], module)
        for path, module in network.named_modules(remove_duplicate=False)
        if path and type(module).__name__ in classes
    ]


class _Calls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in FUNCTIONS:
            self.counts[name.rstrip("_")] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def other_activations(network: nn.Module, make: Callable[[], nn.Module], pictures: Tensor) -> dict[str, int]:
    """The activations that a network still calls as functions, and how often in one forward pass.

    Args:
        network: the network, after ``replace_activations``, in eval mode.
        make: makes the activation that was put into it. Functions that this one calls do not count.
        pictures: (B, C, H, W).
    """
    with _Calls() as new:
        make().to(pictures.device, pictures.dtype)(pictures)
    with _Calls() as calls:
        network(pictures)
    return {name: count for name, count in calls.counts.items() if name not in new.counts}

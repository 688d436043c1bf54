"""Several networks of one architecture, whose forward and backward passes are computed as one.

The parameters of all networks lie in one tensor for each name, (N, ...), and each network's own parameters are views of
it. So the networks remain what they are: an optimizer that changes one changes its part of the stack.
``torch.func.vmap`` makes one large operation of the N small ones of each layer.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from distill_lightning.errors import InputError

Modes = tuple[bool, ...]
DROPOUTS: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
"""Modules whose noise is drawn for each network by itself, with the number of dimensions that share one draw."""


class _GivenNoise(nn.Module):
    """A dropout that multiplies by noise that it is given. Without any, it records which noise it needs."""

    def __init__(
        self, drop: float, shared_dims: int, noises: list[Tensor], recorded: list[tuple[Tensor, float]]
    ) -> None:
        super().__init__()
        self.drop, self.shared_dims, self.noises, self.recorded = drop, shared_dims, noises, recorded

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return x
        if self.noises:
            return x * self.noises.pop(0)
        like = (
            x if not self.shared_dims else x.flatten(2).narrow(2, 0, 1).reshape(*x.shape[:2], *[1] * self.shared_dims)
        )
        self.recorded.append((torch.empty_like(like), self.drop))
        return x


class StackedNetworks:
    """Networks of one architecture, stacked.

    Args:
        networks: N networks. From now on their parameters and buffers are views of the stacks.

    Raises:
        InputError: the networks differ in more than their weights, or one cannot be stacked.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        refuse_unlike(networks)
        self.name = type(networks[0]).__name__
        self.template = copy.deepcopy(networks[0])
        self._noises: list[Tensor] = []
        self._needed: dict[tuple[Any, ...], list[tuple[Tensor, float]]] = {}
        self._recorded: list[tuple[Tensor, float]] = []
        self.has_dropout = self._give_noise(self.template)
        self._own_params = _by_name([network.named_parameters() for network in networks])
        self._own_buffers = _by_name([network.named_buffers() for network in networks])
        self._params = {name: _stack(own) for name, own in self._own_params.items()}
        self._buffers = {name: _stack(own) for name, own in self._own_buffers.items()}
        for stack in self._params.values():
            stack.requires_grad_(stack.is_floating_point())

    def _give_noise(self, module: nn.Module) -> bool:
        found = False
        for name, child in module.named_children():
            if (shared := DROPOUTS.get(type(child))) is not None:
                setattr(module, name, _GivenNoise(float(child.p), shared, self._noises, self._recorded))  # type: ignore[arg-type]
                found = True
            else:
                found |= self._give_noise(child)
        return found

    def draw_noise(self, images: Tensor, modes: Modes) -> list[Tensor]:
        """Draws what the dropouts of one network multiply by, from torch's generator, as the network alone would.

        Args:
            images: (B, C, H, W).
            modes: see ``forward``.
        """
        if not self.has_dropout:
            return []
        key = (images.shape, images.dtype, torch.is_autocast_enabled(images.device.type), modes)
        if key not in self._needed:
            before = {name: buffer.clone() for name, buffer in self.template.named_buffers()}
            self._recorded.clear()
            self._set_modes(modes)
            with torch.no_grad():
                self.template(images)
            self._needed[key] = list(self._recorded)
            for name, buffer in self.template.named_buffers():
                buffer.copy_(before[name])
        return [torch.empty_like(like).bernoulli_(1 - drop).div_(1 - drop) for like, drop in self._needed[key]]

    def forward(self, images: Tensor, noises: Sequence[Sequence[Tensor]], modes: Modes) -> Tensor:
        """Logits (N, B, K) of all networks.

        Args:
            images: (N, B, C, H, W), the pictures of each network.
            noises: what ``draw_noise`` gives, for each network.
            modes: training or eval mode of each module, the same in all networks: frozen parts are in eval mode.

        Raises:
            InputError: the networks cannot be computed so, or give more than logits.
        """
        self._set_modes(modes)
        stacked = tuple(torch.stack(of_all) for of_all in zip(*noises, strict=True))

        def of_one(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, *noise: Tensor) -> Any:
            self._noises[:] = noise
            return functional_call(self.template, (params, buffers), (x,))

        try:
            logits = vmap(of_one)(self._params, self._buffers, images, *stacked)
        except (RuntimeError, ValueError, TypeError) as error:  # an operation that vmap does not know, or draws
            draws = "randomness" in str(error)
            reason = "it draws random numbers" if draws else str(error).strip().partition("\n")[0]
            raise InputError(f"{self.name} cannot be trained side by side: {reason}") from error
        finally:
            self._noises.clear()
        if not isinstance(logits, Tensor):
            raise InputError(f"{self.name} gives more than logits: its runs cannot be trained side by side")
        return logits

    def take_gradients(self) -> None:
        """Moves the gradients of the stacks to the networks' own parameters that are trained. They are added to what is
        there.
        """
        for name, stack in self._params.items():
            if stack.grad is None:
                continue
            for parameter, grad in zip(self._own_params[name], stack.grad.unbind(), strict=True):
                if parameter.requires_grad:
                    parameter.grad = grad if parameter.grad is None else parameter.grad + grad
            stack.grad = None

    def release(self) -> None:
        """Gives each network tensors of its own again."""
        for own in (*self._own_params.values(), *self._own_buffers.values()):
            for tensor in own:
                tensor.data = tensor.data.clone()

    def _set_modes(self, modes: Modes) -> None:
        for module, mode in zip(self.template.modules(), modes, strict=True):
            module.training = mode


def refuse_unlike(networks: Sequence[nn.Module]) -> None:
    """Refuses networks that cannot be stacked.

    Raises:
        InputError: they differ in more than their weights.
    """
    first, *others = networks
    for number, network in enumerate(others, start=1):
        if (place := _first_difference(first, network)) is not None:
            raise InputError(f"members 0 and {number} have unlike networks, at {place}: only weights may differ")


def _first_difference(one: nn.Module, other: nn.Module) -> str | None:
    if repr(one) != repr(other):
        mine, theirs = repr(one).splitlines(), repr(other).splitlines()
        return next((a.strip() for a, b in zip(mine, theirs, strict=False) if a != b), type(other).__name__)
    ours, others = dict(_tensors(one)), dict(_tensors(other))
    return next((name for name in ours.keys() | others.keys() if ours.get(name) != others.get(name)), None)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Any]]:
    for tensors in (network.named_parameters(), network.named_buffers()):
        for name, tensor in tensors:
            yield name, (tensor.shape, tensor.dtype, tensor.device)


def _by_name(of_networks: Sequence[Iterator[tuple[str, Tensor]]]) -> dict[str, list[Tensor]]:
    """The tensors of all networks, by name."""
    first, *others = map(dict, of_networks)
    return {name: [tensor, *(other[name] for other in others)] for name, tensor in first.items()}


def _stack(own: Sequence[Tensor]) -> Tensor:
    """Stacks tensors, which become views of the stack."""
    stack = torch.stack([tensor.detach() for tensor in own])
    for tensor, part in zip(own, stack.unbind(), strict=True):
        tensor.data = part
    return stack

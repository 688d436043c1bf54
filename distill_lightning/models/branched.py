"""Branched networks: several copies of the last stages of a network, which share its first stages.

A branch is what follows a layer of the network, as a network of its own: it takes the output of that layer and returns
logits. Its parameters have the names that they have in the network.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.models.early_exit import pooled, trunk
from distill_lightning.models.outputs import dry_pictures, in_full, main_output
from distill_lightning.ranges import Count, Ranged
from distill_lightning.weights import of_model


def layers_after(network: nn.Module, layer: str) -> nn.Module:
    """A copy of a network that takes the output of the module ``layer`` in the place of pictures.

    The modules up to and including ``layer`` are replaced by the identity, so the copy calls what follows as the
    network does, functions between modules included.
    """
    rest = copy.deepcopy(network)
    _leave_out_until(rest, layer)
    return rest


def _leave_out_until(module: nn.Module, layer: str) -> None:
    outer, _, inner = layer.partition(".")
    for name in [name for name, _ in module.named_children()]:
        if name == outer and inner:
            _leave_out_until(module.get_submodule(name), inner)
            return
        setattr(module, name, nn.Identity())
        if name == outer:
            return


@torch.enable_grad()
def shared_channels(network: nn.Module, layer: str, shape: tuple[int, int, int]) -> int:
    """The channels of the output of a layer, after a check that the network can branch there.

    The check compares the network with what ``layers_after`` makes of it, for a picture in eval mode.

    Args:
        network: the network. It is not changed.
        layer: the path of the last shared module.
        shape: (C, H, W) of a picture.

    Raises:
        InputError: there is no such module, its output is no feature map, or the rest of the network uses more than
            this output.
    """
    name = type(network).__name__
    modules = dict(network.named_modules())
    if not layer or layer not in modules:
        raise InputError(
            f"{name} has no layer {layer}: shared_layer is the path of a module, as {_last_paths(network)}"
        )
    held: list[Any] = []
    copied = copy.deepcopy(network).eval()
    copied.get_submodule(layer).register_forward_hook(lambda module, inputs, output: held.append(output))
    copied.get_submodule(layer).register_forward_hook(lambda module, inputs, output: held.append(_clone(output)))
    logits = main_output(copied(dry_pictures(network, shape))).detach()
    if len(held) != 2 or not isinstance(held[0], Tensor) or held[0].ndim != 4:
        raise InputError(f"the output of {layer} of {name} is no feature map (B, C, H, W): give another shared_layer")
    at_layer, before = held
    rest = layers_after(network, layer).eval()
    own = [parameter for parameter in rest.parameters() if parameter.requires_grad]
    try:
        found = main_output(rest(before.detach().clone()))
        unused = [g is None for g in torch.autograd.grad(found.sum(), own, allow_unused=True)]
        fits = torch.allclose(found, logits, atol=1e-5) and at_layer.equal(before) and not any(unused)
    except Exception:  # whatever the rest of a network does with a map that it did not expect
        fits = False
    if not fits or not own:
        raise InputError(
            f"what follows {layer} in {name} needs more than the output of {layer}, so it cannot be branched there: "
            "give another shared_layer"
        )
    return int(at_layer.shape[1])


def _clone(output: Any) -> Any:
    return output.clone() if isinstance(output, Tensor) else output


def _last_paths(network: nn.Module) -> str:
    ends = getattr(network, "exits", ()) or [name for name, _ in network.named_children()]
    return ", ".join(ends[:4])


@torch.no_grad()
def new_branch(network: nn.Module, layer: str) -> nn.Module:
    """What follows a layer, with new weights: those of the network in a random order, within each parameter.

    So the weights are from the distribution that the network's are from, whatever drew them. What is constant, such as
    the weights of batch norm, stays as it is. Draws from torch's default generator.
    """
    branch = layers_after(network, layer)
    for parameter in branch.parameters():
        order = torch.randperm(parameter.numel()).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return branch


class Gate(Ranged, nn.Module):
    """The weights of the branches for each picture: softmax(ReLU(BN(W avgpool(x)))), 0 or more, with the sum 1.

    Args:
        channels: C of the shared feature map.
        branches: M.
    """

    def __init__(self, channels: Count, branches: Count) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, branches, bias=False)  # batch norm would take a bias away again
        self.norm = nn.BatchNorm1d(branches)

    def forward(self, at_layer: Tensor) -> Tensor:
        """Weights (B, M) for shared feature maps (B, C, H, W)."""
        return in_full(torch.relu(self.norm(self.linear(pooled(at_layer))))).softmax(1)


class BranchEnsemble(Ranged, nn.Module):
    """All branches of a network that was trained in branches: the mean of their logits, or the mean that a gate weighs.

    Its weights come from a checkpoint of ONE, OKDDip, PCL or Branches.

    Args:
        network: the network that was trained in branches. Its own weights are not used.
        branches: M, as in training.
        shared_layer: the path of the last shared module, as in training.
        gate: whether a gate weighs the branches, as in ONE.
        in_channels: C, from the data.
        image_size: the side of the pictures in pixels, from the data.

    Raises:
        InputError: the network cannot be branched there.
    """

    def __init__(
        self,
        network: nn.Module,
        branches: Count,
        shared_layer: str,
        gate: bool = False,
        in_channels: Count = 3,
        image_size: Count = 32,
    ) -> None:
        super().__init__()
        channels = shared_channels(network, shared_layer, (in_channels, image_size, image_size))
        self.trunk = trunk(network, shared_layer)
        self.branches = nn.ModuleList(layers_after(network, shared_layer) for _ in range(branches))
        self.gate = Gate(channels, branches) if gate else None

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) for pictures (B, C, H, W)."""
        at_layer = self.trunk(images)
        logits = torch.stack([main_output(branch(at_layer)) for branch in self.branches], 2)
        if self.gate is None:
            return logits.mean(2)
        mean: Tensor = (logits * self.gate(at_layer)[:, None, :]).sum(2)
        return mean

    def weights_in(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Selects the weights of this network from the state dict of a method.

        Args:
            weights: the state dict of a method with branches, or of a method that trained this network itself.

        Returns:
            The weights by their names in this network. Missing ones are left out.
        """
        if not any(name.startswith("branches.") for name in weights):
            return of_model(weights)
        found = {}
        for name in self.state_dict():
            part, _, rest = name.partition(".")
            number, _, inner = rest.partition(".")
            if part == "trunk":
                theirs = f"model.{rest}"
            elif part == "branches":  # the first one is the network's own end
                theirs = f"model.{inner}" if number == "0" else f"branches.{int(number) - 1}.{inner}"
            else:
                theirs = name
            if theirs in weights:
                found[name] = weights[theirs]
        return found

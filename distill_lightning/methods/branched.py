"""The base class of the methods that train a network in branches."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.feature_hooks import FeatureHook
from distill_lightning.features import last_linear, stage_ends
from distill_lightning.methods.base import Method
from distill_lightning.models.branched import new_branch, shared_channels
from distill_lightning.models.outputs import in_full, main_output
from distill_lightning.networks import Network
from distill_lightning.ranges import Count
from distill_lightning.values import DataInfo


class Branched(Method):
    """A method that trains M copies of the last stages of a network, which share its first stages.

    The network itself is the first branch. It is evaluated and deployed, as the plain network that it is. The others
    are made before the first step, with new weights, and are in the checkpoint under ``branches.``. What follows the
    shared layer is copied as it is, so any network can be branched whose end needs nothing but the output of that
    layer.

    Args:
        network: the network; see Method.
        branches: M, the number of branches, 2 or more; the network's own end is one of them.
        shared_layer: the path of the last module that the branches share. By default the end of the last stage but one,
            so that each branch has a last stage and a classifier of its own. The stages are known for networks of this
            program, ResNets of torchvision, and networks of timm.
        kwargs: see Method.

    Raises:
        InputError: M is 1, or the network has no stages and ``shared_layer`` is not given.
    """

    separate_views: ClassVar[bool] = False
    """Whether each branch gets a view of its own of the same samples."""

    def __init__(self, network: Network, branches: Count = 3, shared_layer: str | None = None, **kwargs: Any) -> None:
        self.given_layer = shared_layer  # before the network is set
        super().__init__(network, **kwargs)
        if branches < 2:
            name = type(self).__name__
            raise InputError(f"{name}.branches is {branches}: one branch is the plain network, give 2 or more")
        self.number = branches
        self.branches = nn.ModuleList()

    def network_is_set(self, network: nn.Module) -> None:
        """Watches the shared layer of the network."""
        self.shared_layer = _last_shared(network) if self.given_layer is None else self.given_layer
        self.at_layer = FeatureHook()
        modules = dict(network.named_modules())
        if self.shared_layer in modules:  # if not, the check before the fit says so
            self.at_layer.watch(modules[self.shared_layer])

    def check_networks(self, data: ImageData) -> None:
        """See Method.

        Raises:
            InputError: a layer that is read may be frozen.
        """
        super().check_networks(data)
        if self.trainer.state.fn == "fit" and self.optimization.fine_tuning is not None:
            raise InputError(f"{type(self).__name__} reads a layer that fine_tuning may freeze: leave fine_tuning out")

    def build(self, info: DataInfo) -> None:
        """Makes the branches beside the network's own.

        Raises:
            InputError: the network cannot be branched at the shared layer.
        """
        self.channels = shared_channels(self.model, self.shared_layer, info.shape)
        self.branches = nn.ModuleList()
        for _ in range(self.number - 1):
            self.branches.append(new_branch(self.model, self.shared_layer).to(memory_format=self.memory_format))

    def watch_heads(self, branches: Iterable[nn.Module]) -> tuple[list[FeatureHook], int]:
        """Watches the input of the last linear layer of each of some branches.

        Returns:
            The hooks, and the width D of these inputs, which are (B, D).

        Raises:
            InputError: there is no linear layer.
        """
        hooks, width = [], 0
        for branch in branches:
            head = last_linear(branch)
            if head is None:
                name, network = type(self).__name__, type(self.model).__name__
                raise InputError(f"{name} needs the inputs of linear layers, and {network} has none")
            hook, width = FeatureHook(inputs=True), head.in_features
            hook.watch(head)
            hooks.append(hook)
        return hooks, width

    def logits_of_branches(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The logits (B, K) of each branch, the network's own first, and the shared feature map (B, C, H, W).

        With ``separate_views``, the pictures are M views of n samples, one view after the other, and the logits of each
        branch are (n, K), of its own view.
        """
        return logits_of_branches(self, self.at_layer, [*self.branches], images, self.separate_views)


def logits_of_branches(
    network: Callable[[Tensor], Any],
    at_layer: FeatureHook,
    branches: Sequence[Callable[[Tensor], Any]],
    images: Tensor,
    separate_views: bool,
) -> tuple[list[Tensor], Tensor]:
    """The logits of all branches, see ``Branched.logits_of_branches``.

    Args:
        network: the network whose own end is the first branch.
        at_layer: the hook at its shared layer.
        branches: the other branches.
        images: normalised pictures, (B, C, H, W).
        separate_views: whether the pictures are a view for each branch.
    """
    number = 1 + len(branches)
    with at_layer.passing_on_first_of(number if separate_views else 1):  # the network's own end gets the first view
        own = in_full(main_output(network(images)))
    shared = at_layer.take()
    views = shared.chunk(number) if separate_views else [shared] * number
    others = [main_output(branch(view)) for branch, view in zip(branches, views[1:], strict=True)]
    return [own, *map(in_full, others)], shared


def _last_shared(network: nn.Module) -> str:
    try:
        ends = stage_ends(network)
    except InputError:
        ends = []
    if len(ends) < 2:
        raise InputError(
            f"{type(network).__name__} names no stages to share: give shared_layer, the path of the last shared "
            "module, or another network"
        )
    return ends[-2]

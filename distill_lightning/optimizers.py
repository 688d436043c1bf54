"""The default optimizer, the parameter groups of an optimizer, and fine-tuning: what is trained when, at which rate.

Each group has its own factors on the optimizer's learning rate and weight decay. Frozen parameters are in no group:
their ``requires_grad`` is false before the optimizer and DDP exist, so they are neither decayed nor synchronised. A
parameter that is trained from a later epoch on is in a group with ``from_epoch``: until then its gradient is dropped
before each step, so that the optimizer skips it. All of it depends on the epoch alone, so that a resumed run is exact.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from distill_lightning.errors import InputError
from distill_lightning.recorded import Recorded

MOST_LAYERS = 12
"""The largest number of layers that ``layer_decay`` tells apart below the head, for networks that do not say their
layers themselves."""


class FineTuning(Recorded):
    """Which parameters of the network are trained, from which epoch on, and at which rate.

    Patterns are those of ``fnmatch`` for the names of parameters: "layer1.*", "*.bias". Of several rules, the first
    that matches holds. Modules whose parameters are all frozen stay in eval mode, also if only until a later epoch: the
    statistics of their batch norm do not change, and they have no dropout.

    Args:
        frozen: patterns of parameters that are never trained.
        head_first: the number of epochs in which only the head is trained (LP-FT, Kumar et al. 2022, arXiv:2202.10054).
        rate_after_head: the factor on all learning rates after these epochs.
        unfreeze: the epoch from which parameters are trained, by pattern, {"layer4.*": 2, "layer3.*": 4}.
        layer_decay: d in (0, 1]: the learning rate of layer i of L is multiplied by d^(L - 1 - i); the head is layer
            L - 1 (timm, optim/_param_groups.py). Networks of timm say their layers; other networks have at most 12
            below the head, with equally many weight matrices.
        rates: factors on the learning rate, above 0, by pattern (Caffe's lr_mult).
        decays: factors on the weight decay, 0 or more, by pattern (Caffe's decay_mult).
        head: patterns of the head; by default the last linear or convolution layer.

    Raises:
        InputError: a number is out of its range.
    """

    def __init__(
        self,
        frozen: list[str] | None = None,
        head_first: int = 0,
        rate_after_head: float = 1.0,
        unfreeze: dict[str, int] | None = None,
        layer_decay: float = 1.0,
        rates: dict[str, float] | None = None,
        decays: dict[str, float] | None = None,
        head: list[str] | None = None,
    ) -> None:
        self.frozen, self.unfreeze, self.head = tuple(frozen or ()), dict(unfreeze or {}), tuple(head or ())
        self.rates, self.decays = dict(rates or {}), dict(decays or {})
        self.head_first, self.rate_after_head, self.layer_decay = head_first, rate_after_head, layer_decay
        ranges = [
            ("head_first", head_first, head_first >= 0, "0 or more"),
            ("rate_after_head", rate_after_head, 0 < rate_after_head < float("inf"), "above 0"),
            ("layer_decay", layer_decay, 0 < layer_decay <= 1, "in (0, 1]"),
            *((f"unfreeze[{k}]", v, v >= 0, "0 or more") for k, v in self.unfreeze.items()),
            *(
                (f"rates[{k}]", v, 0 < v < float("inf"), "above 0 (to freeze, use frozen)")
                for k, v in self.rates.items()
            ),
            *((f"decays[{k}]", v, 0 <= v < float("inf"), "0 or more") for k, v in self.decays.items()),
        ]
        for name, value, is_right, words in ranges:
            if not is_right:
                raise InputError(f"fine_tuning.{name} is {value}: it must be {words}")

    def freeze(self, network: nn.Module) -> None:
        """Sets ``requires_grad`` to false for the frozen parameters.

        Raises:
            InputError: a pattern matches nothing, or nothing is trained in the first epoch.
        """
        names = [name for name, _ in network.named_parameters()]
        patterns = [*self.frozen, *self.unfreeze, *self.rates, *self.decays, *self.head]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                some = ", ".join(names[:3])
                raise InputError(
                    f"fine_tuning: {pattern} matches no parameter of {type(network).__name__} ({some}, ...)"
                )
        for name, parameter in network.named_parameters():
            if _matches(name, self.frozen):
                parameter.requires_grad_(False)
        starts = self.starts(network)
        if not any(p.requires_grad and starts[name] == 0 for name, p in network.named_parameters()):
            raise InputError(f"fine_tuning leaves nothing of {type(network).__name__} to train in the first epoch")

    def starts(self, network: nn.Module) -> dict[str, int]:
        """The epoch from which each parameter is trained, by name."""
        head = self._head(network)
        found = {}
        for name, _ in network.named_parameters():
            later = self.head_first if not _matches(name, head) else 0
            found[name] = next((e for pattern, e in self.unfreeze.items() if fnmatchcase(name, pattern)), later)
        return found

    def held(self, network: nn.Module, epoch: int) -> list[nn.Module]:
        """The modules that stay in eval mode in an epoch: those with parameters, none of which is trained."""
        starts = self.starts(network)
        trained = {id(p) for name, p in network.named_parameters() if p.requires_grad and starts[name] <= epoch}
        held: dict[nn.Module, None] = {}
        for module in network.modules():
            parameters = list(module.parameters())
            if parameters and not any(id(p) in trained for p in parameters):
                held |= dict.fromkeys(module.modules())  # with its dropout, which has no parameters
        return list(held)

    def rate_factor(self, epoch: int) -> float:
        """The factor on all learning rates in an epoch."""
        return self.rate_after_head if 0 < self.head_first <= epoch else 1.0

    def factors(self, network: nn.Module) -> dict[str, tuple[float, float]]:
        """The factors on learning rate and weight decay of each parameter, by name."""
        layers = layers_of(network, self._head(network)) if self.layer_decay < 1 else {}
        last = max(layers.values(), default=0)
        found = {}
        for name, _ in network.named_parameters():
            by_depth = self.layer_decay ** (last - layers[name]) if layers else 1.0
            rate = next((f for pattern, f in self.rates.items() if fnmatchcase(name, pattern)), 1.0)
            found[name] = by_depth * rate, next((f for p, f in self.decays.items() if fnmatchcase(name, p)), 1.0)
        return found

    def _head(self, network: nn.Module) -> Sequence[str]:
        if self.head:
            return self.head
        layers = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
        return [f"{layers[-1]}.*".lstrip(".")] if layers else []


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def layers_of(network: nn.Module, head: Iterable[str]) -> dict[str, int]:
    """The layer of each parameter, from 0 for the one at the input, by name. The head is the last.

    Args:
        network: the network. timm's networks say their layers with ``group_matcher``.
        head: patterns of the head.
    """
    if hasattr(network, "group_matcher"):
        from timm.models import group_parameters

        matcher: Any = network.group_matcher
        found: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)
        return found
    numbers: dict[str, int] = {}
    count = -1
    for name, parameter in network.named_parameters():
        count += parameter.ndim > 1 and not _matches(name, head)  # a norm or bias belongs to the weights before it
        numbers[name] = max(count, 0)
    total = count + 1
    groups = min(total, MOST_LAYERS)
    return {n: groups if _matches(n, head) else number * groups // max(total, 1) for n, number in numbers.items()}


DEFAULT = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
"""SGD with the settings that are usual for CIFAR."""


def default_optimizer(parameters: Iterable[Any]) -> Optimizer:
    """SGD with the settings that are usual for CIFAR."""
    return DEFAULT(parameters)


def parameter_groups(
    module: nn.Module,
    decay_norms_and_biases: bool,
    fine_tuning: FineTuning | None = None,
    network: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """The parameter groups for an optimizer. They contain the parameters that require a gradient.

    Args:
        module: the method, with the network and the modules that are trained with it.
        decay_norms_and_biases: whether weight decay also acts on norms and biases (parameters with at most one
            dimension).
        fine_tuning: what it says of the parameters of the network; None to train all alike.
        network: the network.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if fine_tuning is None or network is None:
        if decay_norms_and_biases:
            return [{"params": trained}]
        return [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
    factors, starts = fine_tuning.factors(network), fine_tuning.starts(network)
    name_of = {id(p): name for name, p in network.named_parameters()}
    grouped: dict[tuple[float, float, int], list[nn.Parameter]] = {}
    for parameter in trained:
        name = name_of.get(id(parameter))
        rate, decay = (1.0, 1.0) if name is None else factors[name]
        decay = 0.0 if parameter.ndim <= 1 and not decay_norms_and_biases else decay
        grouped.setdefault((rate, decay, starts.get(name or "", 0)), []).append(parameter)
    return [
        {"params": parameters, "lr_mult": rate, "decay_mult": decay, "from_epoch": epoch}
        for (rate, decay, epoch), parameters in grouped.items()
    ]


UNFIT: Mapping[type[Optimizer], str] = {
    torch.optim.LBFGS: "it computes the loss many times in a step, and methods count each time as a batch",
    torch.optim.SparseAdam: "it takes sparse gradients alone, and networks for pictures have none",
}
"""The optimizers of torch that cannot train a method, each with the reason."""


def make_optimizer(make: Callable[[Iterable[Any]], Optimizer], groups: list[dict[str, Any]]) -> Optimizer:
    """Makes the optimizer. Each group keeps its initial learning rate, as ``initial_lr``, for the schedule.

    Raises:
        InputError: torch refuses an option of the optimizer, or the optimizer does not work here.
    """
    try:
        optimizer = make(groups)
    except (ValueError, TypeError) as error:  # torch refuses an option, and names it
        raise InputError(f"model.optimizer: {error}") from error
    for kind, why in UNFIT.items():
        if isinstance(optimizer, kind):
            raise InputError(f"{kind.__name__} does not work here: {why}; give another optimizer, such as AdamW")
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_mult", 1.0)
        if "decay_mult" in group and "weight_decay" in group:
            group["weight_decay"] *= group["decay_mult"]
        group["initial_lr"] = group["lr"]
    return optimizer


def drop_gradients(optimizer: Optimizer, epoch: int) -> None:
    """Drops the gradients of parameters that are trained only from a later epoch on: the optimizer skips them."""
    for group in optimizer.param_groups:
        if epoch < group.get("from_epoch", 0):
            for parameter in group["params"]:
                parameter.grad = None


def describe_groups(optimizer: Optimizer, frozen: int, names: Mapping[int, str]) -> Iterator[str]:
    """A table of the parameter groups, line by line; nothing if there is one group and nothing is frozen.

    Args:
        optimizer: the optimizer.
        frozen: the count of numbers in the frozen parameters.
        names: the names of the parameters, by ``id``.
    """
    groups = optimizer.param_groups
    if len(groups) == 1 and not frozen:
        return
    yield f"{'parameters':>12} {'rate':>10} {'decay':>10}  {'from epoch':>10}  first names"
    for group in groups:
        count = sum(p.numel() for p in group["params"])
        first = ", ".join(names.get(id(p), "?") for p in group["params"][:2])
        rate, decay = f"{group['initial_lr']:.3g}", f"{group.get('weight_decay', 0.0):.3g}"
        yield f"{count:>12,} {rate:>10} {decay:>10}  {group.get('from_epoch', 0):>10}  {first}"
    if frozen:
        yield f"{frozen:>12,} {'frozen':>10}"

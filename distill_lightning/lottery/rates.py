"""Decides which weights are pruned, and at which rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils import parametrize

from distill_lightning import masks as masking
from distill_lightning.errors import InputError

Rates = dict[str, float]


@dataclass(frozen=True)
class PruningRule:
    """The options of the callback Lottery that decide which weights are pruned, and at which rate."""

    rounds: int
    linear: float
    conv: float
    output: float
    density: float | None
    scope: Literal["layers", "global"]
    leave_out: Sequence[str]
    also: Mapping[str, float]

    def rates(self, network: nn.Module, found: masking.Masks) -> Rates:
        """The rate of every parameter that is pruned, by name.

        Args:
            network: the network that will be pruned.
            found: the masks of the ticket that the run starts from, by name; empty without a ticket.

        Raises:
            InputError: a name is not in the network, the network has nothing to prune, the density cannot be reached,
                or no weights would be left.
        """
        known = dict(network.named_parameters())
        rates = {name: rate for name, rate in self._by_kind(network, known).items() if rate > 0}
        if not rates:
            raise InputError(f"Lottery: there is nothing to prune in {type(network).__name__}")
        whole, first = first_masks(known, rates, found)
        all_of, left = ({n: int(mask.sum()) for n, mask in masks.items()} for masks in (whole, first))
        if self.density is not None and self.rounds:
            try:  # the density is a share of all weights, the rates are shares of those that the ticket has left
                share = self.density * sum(all_of.values()) / sum(left.values())
                factor = masking.rate_factor(left, rates, self.rounds, share)
            except ValueError as error:
                raise InputError(f"Lottery: {error}") from error
            rates = {name: rate * factor for name, rate in rates.items()}
        keep = {name: masking.kept_after(left[name], rate, self.rounds) for name, rate in rates.items()}
        for names in self.ranked_together(rates):
            if not sum(keep[name] for name in names):
                raise InputError(
                    f"Lottery: {self.rounds} rounds leave nothing of {', '.join(names)} "
                    f"({sum(left[name] for name in names)} weights): prune less, or leave it out"
                )
        return rates

    def _by_kind(self, network: nn.Module, known: Mapping[str, Tensor]) -> Rates:
        # layers that share a weight prune it once, under the first of its names
        first_names = {id(parameter): name for name, parameter in known.items()}
        linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        rates: Rates = {}
        matched: set[str] = set()
        for name, module in network.named_modules():
            out = {left for left in self.leave_out if name == left or name.startswith(f"{left}.")}
            matched |= out
            if out or not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                continue
            if not isinstance(module.weight, nn.Parameter) or parametrize.is_parametrized(module):
                raise InputError(
                    f"Lottery: the weight of {name} is computed from other parameters (weight norm or another "
                    "parametrisation), which cannot be pruned: remove it, or name the layer in leave_out"
                )
            rate = self.output if linears and name == linears[-1] else self.linear
            rate = rate if isinstance(module, nn.Linear) else self.conv
            if not module.weight.requires_grad:
                continue  # frozen parts are left alone
            rates.setdefault(first_names[id(module.weight)], rate)
        modules = [name for name, _ in network.named_modules() if name]
        for option, kind, missing, there in (
            ("leave_out", "module", set(self.leave_out) - matched, modules),
            ("also", "parameter", self.also.keys() - known.keys(), [*known]),
        ):
            if missing:
                raise InputError(
                    f"Lottery.{option}: {type(network).__name__} has no {kind} named {min(missing)}: it has "
                    f"{', '.join(there[:6])} ..."
                )
        return {**rates, **self.also}

    def ranked_together(self, rates: Rates) -> list[list[str]]:
        """The groups of parameters whose weights are ranked together: each parameter alone, or all of equal rate."""
        if self.scope == "layers":
            return [[name] for name in rates]
        equal: dict[float, list[str]] = {}
        for name, rate in rates.items():
            equal.setdefault(rate, []).append(name)
        return list(equal.values())

    def prune(
        self, rates: Rates, parameters: Mapping[str, Tensor], first: masking.Masks, masks: masking.Masks, number: int
    ) -> masking.Masks:
        """The masks of the next round.

        Args:
            rates: the rates that the method ``rates`` returns.
            parameters: the network's parameters, by name. The weights of smallest magnitude are pruned.
            first: the masks of round 0. The number of weights to keep is computed from them.
            masks: the masks of the previous round.
            number: the number of the next round, from 1.
        """
        keep = {k: masking.kept_after(int(first[k].count_nonzero()), r, number) for k, r in rates.items()}
        found: masking.Masks = {}
        for names in self.ranked_together(rates):
            weights = {name: parameters[name].cpu() for name in names}
            found |= masking.smallest(weights, {n: masks[n] for n in names}, sum(keep[n] for n in names))
        return {name: found.get(name, masks[name]) for name in masks}


def first_masks(
    parameters: Mapping[str, Tensor], names: Mapping[str, object], found: masking.Masks
) -> tuple[masking.Masks, masking.Masks]:
    """The masks of the whole network, which are all ones, and the masks of round 0.

    Args:
        parameters: the network's parameters, by name.
        names: the parameters that are pruned.
        found: the masks of the ticket that the run starts from; they replace the ones in round 0.
    """
    whole = masking.ones({name: parameters[name].detach().cpu() for name in names})
    return whole, {name: found.get(name, mask) for name, mask in whole.items()}

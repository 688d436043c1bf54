"""The members of an ensemble, from the configuration of its run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from distill_lightning import checkpoints
from distill_lightning.checkpoints import PlainNetwork
from distill_lightning.errors import InputError
from distill_lightning.exporting.run_data import found_from
from distill_lightning.runs.config import CONFIG
from distill_lightning.specs import count_numbers, offer, refuse_untrusted
from distill_lightning.weights import read_source

offer(PlainNetwork, "distill_lightning.checkpoints", itself=True)


def members_of(
    given: Any, made_in_python: Mapping[str, str], made: Sequence[nn.Module], where: str
) -> list[str | dict[str, Any]]:
    """The members of an ensemble as plain data: paths of checkpoints, and arguments of PlainNetwork.

    Args:
        given: what the configuration has as ``members``. It is not checked.
        made_in_python: the class of each object that was made in Python, by its place in the configuration.
        made: the networks for the members that were made in Python.
        where: the run, for errors.
    """
    if not isinstance(given, list) or not given:
        raise InputError(f"{where} is an ensemble without members: it is damaged")
    members: list[str | dict[str, Any]] = []
    left = [*made]
    for number, one in enumerate(given):
        place = f"model.init_args.members.{number}"
        if isinstance(one, str):
            members.append(one)
            continue
        arguments = dict((one.get("init_args") if isinstance(one, dict) else None) or {})
        if kind := made_in_python.get(f"{place}.init_args.network"):
            if not left:
                raise InputError(
                    f"member {number} of {where} is a {kind} that was made in Python: give it, with network=[...] in "
                    "dl.export or dl.load"
                )
            members.append({**arguments, "network": left.pop(0)})
            continue
        if not isinstance(one, dict):
            raise InputError(f"member {number} of {where} is no checkpoint and no PlainNetwork: it cannot be exported")
        refuse_untrusted({"members": [one]}, {"members": list[str | PlainNetwork]}, f"{where}/{CONFIG}")
        if not arguments.get("weights"):
            raise InputError(f"member {number} of {where} has no file of weights: give PlainNetwork.weights one")
        members.append(arguments)
    if left:
        raise InputError(f"{where} has {len(made) - len(left)} members that were made in Python, not {len(made)}")
    return members


def plain_network(arguments: Mapping[str, Any], where: str, home: Path) -> PlainNetwork:
    """Builds a member of the user's own, or takes the one that was made in Python.

    Args:
        arguments: see ``members_of``.
        where: the run, for errors.
        home: the folder that the relative paths of the run begin in.

    Raises:
        InputError: a file may not build the network, or the weights do not fit.
    """
    network, weights = arguments.get("network"), arguments.get("weights")
    weights = None if weights is None else found_from(home, str(weights))
    if not isinstance(network, nn.Module):
        count = count_numbers(read_source(str(weights)).entries, str(weights))
        network = checkpoints.build_network(network, where, count)
    return PlainNetwork(network, weights, arguments.get("mean"), arguments.get("std"), arguments.get("image_size"))

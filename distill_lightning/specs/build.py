"""Builds networks from specifications."""

import collections.abc
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from distill_lightning.errors import InputError
from distill_lightning.models import foreign
from distill_lightning.specs.allocation import SLACK, TooLargeError, allocating_at_most
from distill_lightning.specs.arguments import leaves, parameters
from distill_lightning.specs.check import SPEC, arguments_of, is_spec, refuse_untrusted, short
from distill_lightning.specs.lists import MOVED, lookup


@dataclass(frozen=True)
class NetworkSpec:
    """A specification of a network, as plain data.

    Args:
        class_path: the dotted name of a class, or of a function that makes a network.
        init_args: the arguments. A network as an argument is a specification of the same form.
    """

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Any, where: str) -> "NetworkSpec":
        """Makes a specification from plain data.

        Args:
            config: plain data from a file.
            where: the file, for the error.

        Raises:
            InputError: ``config`` is not a dict with a class path and arguments by name.
        """
        arguments = arguments_of(config) if is_spec(config) and config.keys() <= SPEC else None
        if arguments is None or not isinstance(config["class_path"], str):
            raise InputError(f"{where} does not describe a network by class_path and init_args: {short(config)}")
        return cls(MOVED.get(config["class_path"], config["class_path"]), arguments)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return {"class_path": self.class_path, "init_args": dict(self.init_args)}

    def build(self, where: str, weights: int | None = None) -> nn.Module:
        """Checks the specification at every depth, and builds the network.

        Args:
            where: the file of the specification, for errors.
            weights: the count of numbers in the file's weights, which limits the network's memory; None for no limit.

        Raises:
            InputError: the specification uses a class or a value that is not allowed, or the network cannot be built,
                or it is too large.
        """
        refuse_untrusted({"network": self.as_dict()}, {"network": nn.Module}, where)
        with allocating_at_most(None if weights is None else 4 * weights + SLACK, where):
            try:
                built = _build(self.as_dict(), nn.Module)
            except TooLargeError:
                raise
            except Exception as error:
                kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
                reason = f"{kind}{str(error).splitlines()[0] if str(error) else ''}"
                raise InputError(
                    f"{where} describes a network that cannot be built: {self.class_path}: {reason}"
                ) from error
        if not isinstance(built, nn.Module):
            raise InputError(
                f"{where} asks for {self.class_path}, which makes a {type(built).__name__}: expected a network"
            )
        return built


def _build(value: Any, hint: Any) -> Any:
    """Builds the objects that checked plain data describe."""
    if isinstance(value, list):
        return [_build(inner, hint) for inner in value]
    if not is_spec(value):
        return {k: _build(v, hint) for k, v in value.items()} if isinstance(value, dict) else value
    kinds, _ = leaves(hint)
    made_by = next(found for kind in kinds if (found := lookup(value["class_path"], kind)) is not None)
    hints = parameters(made_by)
    arguments = {name: _build(inner, hints.get(name)) for name, inner in (arguments_of(value) or {}).items()}
    if foreign.is_foreign(value["class_path"]):  # the weights come from the file: none are fetched
        made_by, arguments = (
            foreign.foreign_network,
            {
                "class_path": value["class_path"],
                "arguments": arguments,
                "fetch": False,
            },
        )
    if typing.get_origin(hint) is collections.abc.Callable:
        return functools.partial(made_by, **arguments)
    return made_by(**arguments)

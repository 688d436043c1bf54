"""Objects that remember the arguments that they were made with, so that a run can write them into its config.yaml."""

import inspect
from collections.abc import Mapping
from typing import Any, Self

from distill_lightning.ranges import Ranged


class Recorded(Ranged):
    """A base class of objects that remember their arguments, and refuse numbers out of range."""

    _given: Mapping[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls, *args, **kwargs)
        # not by setattr: torch's modules have no attributes before their __init__
        object.__setattr__(made, "_given", _by_name(cls, args, kwargs))
        return made

    @property
    def given_arguments(self) -> Mapping[str, Any]:
        """The arguments that the object was made with, by name, without defaults."""
        return self._given


def _by_name(made: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a class by name. They are empty if the class does not take them: its ``__init__`` says so."""
    signature = inspect.signature(made.__init__)  # type: ignore[misc]
    try:
        bound = signature.bind_partial(None, *args, **kwargs).arguments
    except TypeError:
        return {}
    by_name = dict(list(bound.items())[1:])
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            by_name |= by_name.pop(name, {})
    return by_name

"""What a run needs of the machine that trains it: ``resources: {cores: 2, gpus: 1, memory: 8 GB, minutes: 30}``."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from distill_lightning.errors import InputError, nearest

EXPECTED = {
    "cores": "a whole number of 1 or more",
    "gpus": "a whole number of 0 or more",
    "memory": "a size such as 8 GB",
    "minutes": "a number above 0",
}


@dataclass(frozen=True)
class Resources:
    """What a run needs; None where nothing is said. It is no part of a run's configuration: the id stays the same."""

    cores: int | None = None
    """A run starts when so many cores are free, and has so many threads."""
    gpus: int | None = None
    """A run starts when so many GPUs are free, and sees no others."""
    memory: int | None = None
    """Bytes. A run starts when so much memory is not yet promised to other runs; it is no limit."""
    minutes: float | None = None
    """A start of the run that takes longer is ended. It saves a checkpoint first."""

    def reserved(self) -> dict[str, float]:
        """What a worker must have free, by the names that dask knows it by."""
        amounts = {"cores": self.cores, "gpus": self.gpus, "memory": self.memory}
        return {name: float(amount) for name, amount in amounts.items() if amount}

    def lacking(self, offered: dict[str, float]) -> str | None:
        """The first of the needs that is above what a worker offers, in words; None if all are met."""
        for name, amount in self.reserved().items():
            if amount > offered.get(name, 0):
                return in_words(name, amount)
        return None


NOTHING_SAID = Resources()


def in_words(name: str, amount: float) -> str:
    """An amount with its name: "2 cores", "8.0 GB of memory"."""
    if name == "memory":
        return f"{amount / 1e9:.1f} GB of memory"
    return f"{amount:g} {name if amount != 1 else name.removesuffix('s')}"


def largest(given: list[Resources]) -> Resources:
    """The largest amount of each kind that one of the runs needs; None where none says it."""

    def most(name: str) -> Any:
        return max((one for each in given if (one := getattr(each, name)) is not None), default=None)

    return Resources(*(most(field.name) for field in dataclasses.fields(Resources)))


def read_resources(given: Any, where: str, default: Resources = NOTHING_SAID) -> Resources:
    """Reads the key ``resources`` of a study, or of one of its entries.

    Args:
        given: its value; None if there is none.
        where: the place in the file, for errors.
        default: what holds where nothing is given.

    Raises:
        InputError: a name or an amount is wrong.
    """
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise InputError(f"{where}: resources is {given}: give amounts by name, as in {{cores: 2, memory: 8 GB}}")
    amounts: dict[str, Any] = {}
    for name, amount in given.items():
        if name not in EXPECTED:
            raise InputError(f"{where}: resources has an unknown key {name}{nearest(str(name), EXPECTED)}")
        if (read := _amount(name, amount)) is None:
            raise InputError(f"{where}: resources: {name} is {amount}: expected {EXPECTED[name]}")
        amounts[name] = read
    return dataclasses.replace(default, **amounts)


def _amount(name: str, given: Any) -> float | None:
    """The amount; None if it is wrong."""
    if name == "memory" and isinstance(given, str):
        from dask.utils import parse_bytes

        try:
            given = parse_bytes(given)
        except ValueError:
            return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        return None
    if name != "minutes" and not isinstance(given, int):
        return None
    return given if given > 0 or (name == "gpus" and given == 0) else None

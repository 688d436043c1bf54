"""Names of pictures with their classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures of a part, with their classes. The names may be computed when they are read.

    Args:
        names: the names of the n pictures in a store.
        class_names: the names of classes, each once.
        numbers: (n,) int64, the class of each picture, as its place in ``class_names``.
    """

    names: Sequence[str]
    class_names: tuple[str, ...]
    numbers: Tensor

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[str, str]]) -> "Labelled":
        """From pairs of a picture and a class."""
        place = {label: i for i, label in enumerate(dict.fromkeys(label for _, label in rows))}
        numbers = torch.tensor([place[label] for _, label in rows], dtype=torch.int64)
        return cls([name for name, _ in rows], tuple(place), numbers)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each picture with its class."""
        for name, number in zip(self.names, self.numbers.tolist(), strict=True):
            yield name, self.class_names[number]

    @property
    def present(self) -> list[str]:
        """The names of the classes that have pictures."""
        counts = self.numbers.bincount(minlength=len(self.class_names)).tolist()
        return [name for name, count in zip(self.class_names, counts, strict=True) if count]

    def numbered(self, class_names: Sequence[str]) -> Tensor:
        """The class of each picture as its place in other names of classes, (n,) int64; -1 if it is not there."""
        if tuple(class_names[: len(self.class_names)]) == self.class_names:
            return self.numbers
        place = {name: i for i, name in enumerate(class_names)}
        return torch.tensor([place.get(name, -1) for name in self.class_names], dtype=torch.int64)[self.numbers]

    def without(self, class_names: Sequence[str]) -> "Labelled":
        """The pictures of the other classes."""
        left = (self.numbered(class_names) < 0).nonzero().flatten()
        if len(left) == len(self):
            return self
        return Labelled([self.names[i] for i in left.tolist()], self.class_names, self.numbers[left])

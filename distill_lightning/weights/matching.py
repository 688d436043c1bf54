"""Matches the tensors of a file with those of a network by name and shape, as Caffe does (net.cpp, CopyTrainedLayers).

For each tensor of the network:

    absent in the file                          new: it keeps the network's own values
    the same shape                              matched
    the first convolution, other channels       adapted (``adapting``)
    a position embedding, another length        adapted
    the head, another number of classes         new
    another shape                               an error

The names of the file may have a common prefix that the network does not have, such as ``module.`` or ``backbone.``, or
lack one. It is found by trying which exchange of prefixes lets most names and shapes match.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from distill_lightning.errors import InputError
from distill_lightning.weights.adapting import adapt_channels, adapt_positions, is_position
from distill_lightning.weights.exact import put
from distill_lightning.weights.reading import Source
from distill_lightning.weights.report import Report

USUAL = ("", "model.", "module.", "backbone.", "net.", "network.", "student.", "encoder.")
"""Prefixes in the order in which they are preferred if several let the same number of names match."""
TRIED = 16
"""The number of pairs of prefixes that are tried. They are those that most single names ask for."""
LEAST = 0.5
"""The share of the parameters, without the head, that a file must have."""
COUNTER = "num_batches_tracked"
"""A buffer of batch norm that old files lack. It only counts."""
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Matching:
    """New values for tensors of a network, by their names in the network, and the report."""

    values: Mapping[str, Tensor]
    report: Report


def put_weights(network: nn.Module, source: Source, *, complete: bool = False, partial: bool = False) -> Report:
    """Puts the weights of a file into a network.

    Args:
        network: the network. It is changed, unless an error is raised.
        source: the state dicts of the file.
        complete: whether the file must have all parameters, also those of the head, as for a teacher.
        partial: whether the file may have fewer than half of the parameters.

    Raises:
        InputError: see ``match``.
    """
    matching = match(network, source, complete=complete, partial=partial)
    put(network, matching.values)
    return matching.report


def match(network: nn.Module, source: Source, *, complete: bool = False, partial: bool = False) -> Matching:
    """Matches the tensors of a file with those of a network. The network is not changed; arguments as in
    ``put_weights``.

    Raises:
        InputError: a tensor has another shape that cannot be adapted; the file has fewer than ``LEAST`` of the
            parameters, or not all although ``complete`` is set; or it lacks the statistics of batch norm.
    """
    own = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    tried = []
    for entry, weights in source.entries.items():
        theirs = {name.replace("_orig_mod.", ""): value for name, value in weights.items()}
        removed, added = common_prefix(own, theirs)
        renamed = {added + k.removeprefix(removed): v for k, v in theirs.items() if k.startswith(removed)}
        outside = [k for k in theirs if not k.startswith(removed)]
        tried.append((_count(own, renamed), entry, (removed, added), renamed, outside))
    _, entry, prefixes, renamed, outside = max(tried, key=lambda one: one[0])  # the first of equals
    return _Matcher(network, own, renamed, source.name).match(entry, prefixes, outside, complete, partial)


def common_prefix(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[str, str]:
    """The prefix to remove from the names of a file, and the prefix to add, so that most names and shapes match.

    Args:
        own: the tensors of the network.
        theirs: the tensors of the file.
    """
    votes: Counter[tuple[str, str]] = Counter({("", ""): 1})
    by_end: dict[tuple[str, torch.Size], list[str]] = defaultdict(list)
    for name, value in own.items():
        if not is_lazy(value):
            by_end[name.rpartition(".")[2], value.shape].append(name)
    for name, value in theirs.items():
        for mine in by_end[name.rpartition(".")[2], value.shape]:
            votes[_apart(name, mine)] += 1

    def rank(pair: tuple[str, str]) -> tuple[int, int, int]:
        removed, added = pair
        renamed = {added + k.removeprefix(removed): v for k, v in theirs.items() if k.startswith(removed)}
        usual = USUAL.index(removed) if removed in USUAL else len(USUAL)
        return -_count(own, renamed), usual, len(removed) + len(added)

    return min((pair for pair, _ in votes.most_common(TRIED) if not _is_other_place(*pair)), key=rank)


def _is_other_place(removed: str, added: str) -> bool:
    """Whether two prefixes are the places of two blocks, as ``stages.1.`` and ``network.stages.2.``."""
    last, mine = (prefix.rstrip(".").rpartition(".")[2] for prefix in (removed, added))
    return last.isdigit() and mine.isdigit() and last != mine


def _apart(theirs: str, mine: str) -> tuple[str, str]:
    """What stands before the longest common end, in whole words, of two names."""
    a, b = theirs.split("."), mine.split(".")
    common = 0
    while common < min(len(a), len(b)) and a[-1 - common] == b[-1 - common]:
        common += 1
    before = (parts[: len(parts) - common] for parts in (a, b))
    removed, added = (".".join(parts) + "." if parts else "" for parts in before)
    return removed, added


def _count(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> int:
    return sum(name in own and (is_lazy(own[name]) or own[name].shape == v.shape) for name, v in theirs.items())


class _Matcher:
    """Matches one state dict, whose names are already those of the network."""

    def __init__(self, network: nn.Module, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor], file: str) -> None:
        self.own, self.theirs, self.file, self.kind = own, theirs, file, type(network).__name__
        self.parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
        layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
        convolutions = [(n, m) for n, m in layers if isinstance(m, nn.modules.conv._ConvNd)]
        self.first = (
            f"{convolutions[0][0]}.weight".lstrip(".") if convolutions and convolutions[0][1].groups == 1 else ""
        )
        self.layers = {name for name, _ in layers}
        self.head = self._head(layers[-1][0]) if layers else None
        self.values: dict[str, Tensor] = {}
        self.adapted: dict[str, str] = {}
        self.new: list[str] = []
        self.fault = ""

    def _head(self, last: str) -> tuple[int, int] | None:
        """The numbers of classes of the network and of the file, if they differ in the last layer."""
        name = f"{last}.weight".lstrip(".")
        mine, theirs = self.own.get(name), self.theirs.get(name)
        if mine is None or theirs is None or is_lazy(mine) or mine.shape[1:] != theirs.shape[1:]:
            return None
        return (len(mine), len(theirs)) if len(mine) != len(theirs) else None

    def match(
        self, entry: str, prefixes: tuple[str, str], outside: list[str], complete: bool, partial: bool
    ) -> Matching:
        for name, mine in self.own.items():
            theirs = self.theirs.get(name)
            if theirs is None:
                self.new.append(name)
            elif is_lazy(mine) or mine.shape == theirs.shape:
                self.values[name] = self._cast(name, theirs)
            else:
                self._of_other_shape(name, mine, theirs)
        self._match_tied()
        used = self.values.keys()
        counted = [n for n in self.own if n in self.parameters and not self._is_head(n) and not is_lazy(self.own[n])]
        total = sum(self.own[n].numel() for n in counted)
        share = sum(self.own[n].numel() for n in counted if n in used) / total if total else 1.0
        new = tuple(n for n in self.new if n not in used and not n.endswith(COUNTER))
        report = Report(
            source=self.file,
            entry=entry,
            prefix=prefixes[0],
            added=prefixes[1],
            matched=tuple(n for n in self.own if n in used and n not in self.adapted),
            adapted=tuple(f"{n} {how}" for n, how in self.adapted.items()),
            new=new,
            head=self.head,
            left_out=tuple([n for n in self.theirs if n not in used and n not in self.own] + outside),
            share=share,
            notes=self._notes(),
        )
        self._refuse_misfit(report, counted, complete, partial)
        return Matching(self.values, report)

    def _refuse_misfit(self, report: Report, counted: list[str], complete: bool, partial: bool) -> None:
        known = sum(name in self.theirs for name in counted)
        if self.fault and known >= LEAST * len(counted):  # the names are right: a shape says more than a share
            raise InputError(self.fault)
        if report.share < LEAST and not partial:
            theirs, mine = next(iter(self.theirs), "nothing"), next((n for n in counted if n not in self.values), "")
            raise InputError(
                f"{self.file} has {report.share:.0%} of the parameters of this {self.kind}: it is of another network; "
                f"its names are {theirs} ..., expected {mine} ..."
            )
        if self.fault:
            raise InputError(self.fault)
        self._refuse_missing_statistics(complete)
        if complete and self.head is not None:
            raise InputError(
                f"{self.file} is for {self.head[1]} classes, this {self.kind} has {self.head[0]}: give others"
            )
        missing = [n for n in report.new if n in self.parameters]
        if complete and missing:
            raise InputError(
                f"{self.file} lacks {missing[0]} of this {self.kind} ({len(missing)} such): give its weights"
            )

    def _of_other_shape(self, name: str, mine: Tensor, theirs: Tensor) -> None:
        if self._is_head(name):
            self.new.append(name)
        elif name not in self.parameters and not name.endswith(STATISTICS):
            self.new.append(name)  # a constant of the network for its picture size, such as relative_position_index
        elif name == self.first and (adapted := adapt_channels(theirs, mine)) is not None:
            self.values[name] = self._cast(name, adapted)
            self.adapted[name] = f"{theirs.shape[1]} to {mine.shape[1]} channels"
        elif is_position(name) and (adapted := adapt_positions(theirs, mine)) is not None:
            self.values[name] = self._cast(name, adapted)
            self.adapted[name] = f"{tuple(theirs.shape)} to {tuple(mine.shape)} positions"
        else:
            self.new.append(name)
            self.fault = self.fault or (
                f"{self.file} does not fit this {self.kind}: its {name} is {tuple(theirs.shape)}, expected "
                f"{tuple(mine.shape)}: it is of another network"
            )

    def _is_head(self, name: str) -> bool:
        """Whether a tensor belongs to a layer that gives logits of another number of classes than in the file.

        Networks with auxiliary classifiers have several such layers.
        """
        mine, theirs = self.own[name], self.theirs.get(name)
        if self.head is None or theirs is None or is_lazy(mine) or name.rpartition(".")[0] not in self.layers:
            return False
        return (mine.shape[0], theirs.shape[0]) == self.head and mine.shape[1:] == theirs.shape[1:]

    def _match_tied(self) -> None:
        """Takes tensors as matched that share their memory with a matched one: files may hold them once."""
        places = {(v.data_ptr(), v.shape): n for n, v in self.own.items() if n in self.values and v.numel()}
        for name in self.new:
            mine = self.own[name]
            if not is_lazy(mine) and (twin := places.get((mine.data_ptr(), mine.shape))) is not None:
                self.values[name] = self.values[twin]

    def _refuse_missing_statistics(self, complete: bool) -> None:
        for name in self.new:
            module, _, last = name.rpartition(".")
            weight = f"{module}.weight".lstrip(".")  # it may have none
            if last in STATISTICS and (weight in self.values or (complete and weight not in self.own)):
                raise InputError(
                    f"{self.file} lacks {name}, without which batch norm cannot be evaluated: give another"
                )

    def _cast(self, name: str, value: Tensor) -> Tensor:
        mine = self.own[name]
        if name.endswith(COUNTER):  # scripts that convert a whole state dict to half precision convert these too
            return value.to(mine.dtype)
        if mine.is_floating_point() != value.is_floating_point() or mine.is_complex() != value.is_complex():
            raise InputError(f"{self.file} holds {name} as {value.dtype}, expected {mine.dtype}: it is of another kind")
        return value.to(mine.dtype)

    def _notes(self) -> tuple[str, ...]:
        kinds = {
            f"{self.theirs[n].dtype} to {self.own[n].dtype}".replace("torch.", "")
            for n in self.values
            if n in self.theirs and self.theirs[n].dtype != self.own[n].dtype
        }
        return tuple(sorted(kinds))

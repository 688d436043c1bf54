"""Lottery tickets on disk, networks without their zeros, and what those are worth.

A ticket is one file: the weights to rewind to, once, and the packed masks of every round. A packed network holds, for
each pruned tensor, one bit a weight and the values that are left. Both are read with ``weights_only=True``.
"""

import copy
import gzip
import io
import statistics
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.masks import Masks, pack, unpack, unpack_all
from distill_lightning.tensor_files import is_old, read_tensors, write_tensors

State = Mapping[str, Tensor]


@dataclass
class Ticket:
    """Where a pruned network starts from.

    Args:
        weights: state of the network at the step that is rewound to.
        rounds: the masks after each pruning, packed, in order; round 0 keeps everything.
        step: the optimizer step that the weights are of.
        about: how it was found, in plain containers.
    """

    weights: dict[str, Tensor]
    rounds: list[dict[str, Tensor]]
    step: int
    about: dict[str, Any] = field(default_factory=dict)

    def masks(self, number: int) -> Masks:
        """Those of a round."""
        return unpack_all(self.rounds[number], self.weights)

    def save(self, path: Path) -> None:
        write_tensors(path, {"kind": "ticket"} | vars(self))

    @classmethod
    def open(cls, path: str | Path) -> "Ticket":
        """
        Raises:
            InputError: no such file, or not a ticket.
        """
        content = _read(path, "ticket")
        return cls(*(content[name] for name in ("weights", "rounds", "step", "about")))


def _read(path: str | Path, kind: str) -> dict[str, Any]:
    content = read_tensors(path, kind)
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise InputError(f"{path} is no {kind}: give one that the callback Lottery wrote")
    if is_old(content):
        print(f"{path} was written by version 0.1, without a digest: whether it is damaged cannot be told", file=sys.stderr)
    return content


# Networks without their zeros


def packed(state: State, masks: Masks, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """A state without the weights that the masks prune.

    Args:
        state: of the network.
        masks: of some of its tensors.
        dtype: to keep floating-point values in; None for as they are.
    """

    def kept(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor.clone()

    cpu = {name: tensor.detach().cpu() for name, tensor in state.items()}
    masks = {name: mask.cpu() for name, mask in masks.items()}
    sparse = {
        name: {
            "shape": list(mask.shape),
            "mask": pack(mask),
            "values": kept(cpu[name][mask]),
        }
        for name, mask in masks.items()
    }
    return {
        "kind": "packed network",
        "order": list(cpu),
        "sparse": sparse,
        "dense": {name: kept(tensor) for name, tensor in cpu.items() if name not in masks},
        "dtypes": {name: str(tensor.dtype) for name, tensor in cpu.items()},
    }


def unpacked(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The dense state, in the order and the types that it had."""
    state = {}
    for name in content["order"]:
        dtype = getattr(torch, content["dtypes"][name].removeprefix("torch."))
        if name in content["sparse"]:
            part = content["sparse"][name]
            dense = torch.zeros(part["shape"], dtype=dtype)
            dense[unpack(part["mask"], part["shape"])] = part["values"].to(dtype)
            state[name] = dense
        else:
            state[name] = content["dense"][name].to(dtype)
    return state


def load_packed(path: str | Path, network: nn.Module) -> nn.Module:
    """Puts a packed network's weights into a dense module, and returns it.

    Raises:
        InputError: no such file, no packed network, or one of another network.
    """
    state = unpacked(_read(path, "packed network"))
    must_fit(state, network, f"the packed network {path}")
    network.load_state_dict(state)
    return network


def must_fit(state: State, network: nn.Module, what: str) -> None:
    """
    Raises:
        InputError: a tensor is missing, one too many, or of another shape.
    """
    mine = network.state_dict()
    for name in mine | state:
        shapes = [str(tuple(s[name].shape)) if name in s else "missing" for s in (state, mine)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{what} is of another network than this {type(network).__name__}: {name} is {shapes[0]} in it, "
                f"{shapes[1]} here; give the network that it was found in"
            )


def sizes(state: State, small: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of the network's file: dense, the same compressed with gzip, and packed."""
    dense = _file({name: tensor.detach().cpu() for name, tensor in state.items()})
    return {
        "dense_bytes": len(dense),
        "gzip_bytes": len(gzip.compress(dense, compresslevel=6, mtime=0)),
        "packed_bytes": len(_file(small)),
    }


def _file(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def latencies(network: nn.Module, images: Tensor, turns: int = 15) -> dict[str, float]:
    """Seconds that a dense and a sparse forward pass take on the CPU, for 1 picture and for all; medians.

    Sparse means linear layers in CSR, as torch has it; convolutions stay dense. Where torch has none for this
    processor, the sparse times are missing.

    Args:
        network: in eval mode, on the CPU.
        images: (B, C, H, W).
        turns: how often each is timed.
    """
    batches = (images[:1], images)
    found = {f"dense_{len(batch)}_s": _median_time(network, batch, turns) for batch in batches}
    with warnings.catch_warnings(), suppress(RuntimeError):
        warnings.simplefilter("ignore")  # torch says that CSR is in beta
        sparse = _in_csr(network)
        found |= {f"sparse_{len(batch)}_s": _median_time(sparse, batch, turns) for batch in batches}
    return found


def _in_csr(network: nn.Module) -> nn.Module:
    sparse = copy.deepcopy(network)
    for module in sparse.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.detach().to_sparse_csr(), requires_grad=False)
    return sparse


@torch.no_grad()
def _median_time(network: nn.Module, images: Tensor, turns: int) -> float:
    times = []
    for _ in range(turns + 3):
        start = time.perf_counter()
        network(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])

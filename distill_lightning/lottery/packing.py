"""Packed networks, which are stored without their pruned weights; and measurements of size and latency.

A packed network stores two things for each pruned tensor: a mask of one bit per weight, and the values of the weights
that were not pruned.
"""

import copy
import gzip
import io
import math
import statistics
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_lightning.errors import InputError
from distill_lightning.lottery.tickets import are_tensors, read_kind
from distill_lightning.masks import Masks, pack, unpack
from distill_lightning.weights import load_weights

State = Mapping[str, Tensor]


def packed(state: State, masks: Masks, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Packs a state dict: leaves out the weights that the masks prune.

    Args:
        state: the network's state dict.
        masks: the masks of some of its tensors, by name.
        dtype: the type that floating-point values are stored in; None keeps their own type.
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
    """The dense state dict of a packed network, with the order and the types of the original."""
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
    """Loads the weights of a packed network into a dense module, and returns the module.

    Raises:
        InputError: the file does not exist, is no packed network, or does not fit the module.
    """
    content = read_kind(path, "packed network")
    _refuse_misfit(content, network, f"the packed network {path}")
    load_weights(network, unpacked(content), f"the packed network {path}")
    return network


def _refuse_misfit(content: Mapping[str, Any], network: nn.Module, what: str) -> None:
    """Refuses a content that would be unpacked to other tensors than the network's: before they are allocated."""
    damaged = InputError(f"{what} is damaged: its parts are not those of a packed network")
    sparse, dense, dtypes = (content.get(name) for name in ("sparse", "dense", "dtypes"))
    if not isinstance(sparse, dict) or not are_tensors(dense) or not isinstance(dtypes, dict):
        raise damaged
    mine = network.state_dict()
    for name, part in sparse.items():
        shape = part.get("shape") if isinstance(part, dict) else None
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise damaged
        if name in mine and list(mine[name].shape) != shape:
            raise InputError(
                f"{what} does not fit this {type(network).__name__}: its {name} is {tuple(shape)}, expected "
                f"{tuple(mine[name].shape)}: it is of another network, or of other classes"
            )
        mask, values = part.get("mask"), part.get("values")
        if not isinstance(mask, Tensor) or mask.dtype != torch.uint8 or not isinstance(values, Tensor):
            raise damaged
        if mask.numel() != -(-math.prod(shape) // 8) or values.ndim != 1:
            raise damaged
    names, order = sparse.keys() | dense.keys(), content.get("order")
    if not isinstance(order, list) or {str(name) for name in order} != names or dtypes.keys() != names:
        raise damaged
    if not all(isinstance(getattr(torch, str(d).removeprefix("torch."), None), torch.dtype) for d in dtypes.values()):
        raise damaged


def sizes(state: State, small: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of a network's file in bytes: dense, dense and compressed with gzip, and packed.

    Args:
        state: the network's state dict.
        small: the same network, packed.
    """
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
    """Median seconds of a dense and a sparse forward pass on the CPU, for 1 picture and for all pictures.

    In the sparse network the weights of linear layers are in torch's CSR format; convolutions stay dense. If torch has
    no CSR product for this processor, the sparse times are missing.

    Args:
        network: in eval mode, on the CPU.
        images: (B, C, H, W), normalised.
        turns: how often each pass is timed.
    """
    batches = (images[:1], images)
    found = {f"dense_{len(batch)}_s": _median_time(network, batch, turns) for batch in batches}
    with warnings.catch_warnings(), suppress(RuntimeError):
        warnings.simplefilter("ignore")  # torch warns that CSR is in beta
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

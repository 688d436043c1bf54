"""Files of tensors and plain data: checkpoints, tickets, packed networks, weights.

A file is written as a whole or not at all. It contains the version of its format and a digest of its content, so that
damage is detected. Files are read as plain data: nothing that a file names is imported or called, and the content takes
no more memory than the size of the file allows.
"""

import argparse
import copy
import hashlib
import io
import mmap
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.files import MOST_VALUES, atomic_write, nested_values

FORMAT = 2
"""The version of the format of files that this version writes. Files of version 0.1 contain no format."""

ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch.storage UntypedStorage",
    "torch.storage TypedStorage",
    "torch Size",
    "torch device",
    "_codecs encode",  # how bytes are written
    "builtins set",
    "__builtin__ set",
}
"""The names that a pickle inside a file may use, besides torch's storages and dtypes."""
OF_TRAINING_SCRIPTS = {"argparse Namespace": argparse.Namespace, "collections Counter": Counter}
"""Classes that the training scripts of timm and torchvision store beside weights: their options, and the milestones of
a schedule. They are allowed only in files that are read for their weights."""
PICKLES = 5
"""The number of pickles at the beginning of a file in torch's old format."""
MOST_SHARED = 64
"""The bytes of all tensors of a file may be at most this many times the size of the file. Tensors can share memory."""


def write_tensors(path: str | Path, content: dict[str, Any]) -> None:
    """Writes a dict of tensors and plain data to a file, together with its format and its digest."""
    content = {**content, "format": FORMAT}
    content["digest"] = digest(content, str(path))
    whole = _without_views(content)
    atomic_write(path, lambda file: torch.save(whole, file))


def _without_views(tree: Any) -> Any:
    """The same content. A part of a larger tensor is copied: it would be written with all of that."""
    if isinstance(tree, Tensor):
        return tree.clone() if tree.untyped_storage().nbytes() > tree.numel() * tree.element_size() else tree
    if isinstance(tree, dict):
        same_kind = copy.copy(tree)
        same_kind.update({key: _without_views(inner) for key, inner in tree.items()})
        return same_kind
    return type(tree)(map(_without_views, tree)) if type(tree) in (list, tuple) else tree


def read_tensors(path: str | Path, what: str, foreign: bool = False) -> Any:
    """Reads a file that ``write_tensors``, ``torch.save`` or safetensors wrote. Tensors are on the CPU.

    The bytes of a file decide its format; its suffix does not matter.

    Args:
        path: the file.
        what: the expected kind of file, for the error, such as "checkpoint".
        foreign: whether the file may also hold the classes ``OF_TRAINING_SCRIPTS``.

    Raises:
        InputError: the file does not exist, is damaged or has a later format; or it holds something other than tensors
            and plain data; or it describes more numbers or values than its size allows.
    """
    path = Path(path)
    if not path.is_file():  # devices and pipes are refused, too
        raise InputError(f"there is no {what} {path}")
    try:
        with open(path, "rb") as file:
            if _is_safetensors(file, path):
                return safetensors.torch.load(file.read())
            file.seek(0)
            allowed = OF_TRAINING_SCRIPTS if foreign else {}
            is_zip = _check_outside(file, path, allowed)
            file.seek(0)
            with warnings.catch_warnings(), torch.serialization.safe_globals([*allowed.values()]):
                warnings.simplefilter("ignore")  # torch warns about old formats
                content = torch.load(file, map_location="cpu", weights_only=True)
        _check_tensors(content, path)
        if isinstance(content, dict) and "digest" in content:
            _check_format(content, path)
        elif is_zip:
            _check_sums(path)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds something else than tensors and plain data: it is not read") from error
    except Exception as error:  # a damaged file can fail anywhere in torch's reader
        if path.suffix.lower() in (".onnx", ".pt2"):
            raise InputError(f"{path} is an exported file: `distill predict` and dl.load read it") from error
        raise InputError(f"{path} is torn, or no {what}: give another, or make it anew") from error
    return content


def _is_safetensors(file: BinaryIO, path: Path) -> bool:
    """Whether a file begins as safetensors does: the length of its header, and the header. Leaves it at its start."""
    start = file.read(9)
    file.seek(0)
    return len(start) == 9 and start[8:] == b"{" and 2 <= struct.unpack("<Q", start[:8])[0] <= path.stat().st_size - 8


def _check_format(content: dict[str, Any], path: Path) -> None:
    if type(content.get("format")) is not int or not 0 < content["format"] <= FORMAT:
        given = str(content.get("format"))[:40]
        raise InputError(f"{path} has the format {given}, this version reads up to {FORMAT}: use a later version")
    if digest(content, str(path)) != content["digest"]:
        raise InputError(
            f"{path} is damaged: its content does not match its digest; take another copy, or make it anew"
        )


def _check_sums(path: Path) -> None:
    """Checks the parts of an archive by their CRC-32. This is for files without a digest."""
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise InputError(f"{path} is damaged: its {damaged} does not match its checksum; take another copy")


def is_old(content: Any) -> bool:
    """Whether version 0.1 wrote the file: it wrote no digests."""
    return isinstance(content, dict) and "digest" not in content


def _check_outside(file: BinaryIO, path: Path, also: Collection[str]) -> bool:
    """Checks a file before it is loaded. Returns whether it is a zip archive, which is torch's present format.

    Args:
        file: the file, open at its start.
        path: the file, for the error.
        also: names that its pickle may use besides ``ALLOWED``.
    """
    if file.read(4) == b"PK\x03\x04":  # torch decides by these bytes, too
        _check_archive(file, path, also)
        return True
    file.seek(0)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for _ in range(PICKLES):
            _check_pickle(content, path, also)
    return False


def _check_archive(file: BinaryIO, path: Path, also: Collection[str]) -> None:
    """Refuses an archive that unpacks to more bytes than the file has, or whose pickle uses a name that is not
    allowed.
    """
    size = file.seek(0, 2)
    _check_end(file, size, path)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
        raise InputError(f"{path} is a compressed or encrypted archive, which torch does not write: it is not read")
    if sum(e.file_size for e in entries) > size:
        raise InputError(f"{path} describes more bytes than it holds: it is not read")
    with zipfile.ZipFile(file) as archive:
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                archive.read(entry)  # checks its CRC-32: the digest does not cover every byte of a pickle
    file.seek(0)
    # get the pickle from torch's own reader, because it may match names to entries in another way than zipfile
    _check_pickle(io.BytesIO(torch._C.PyTorchFileReader(file).get_record("data.pkl")), path, also)


def _check_end(file: BinaryIO, size: int, path: Path) -> None:
    """Refuses an archive unless its central directory is directly before its end record: else readers may disagree."""
    file.seek(max(0, size - 98))
    end = file.read()
    length, start, comment = struct.unpack("<IIH", end[-10:])
    before = size - 22
    if end[-42:-38] == b"PK\x06\x07":  # a zip64 archive; torch writes only these
        narrow, (length, start) = (length, start), struct.unpack("<QQ", end[-58:-42])
        (place,) = struct.unpack("<Q", end[-34:-26])
        before = size - 98
        same = all(a in (b, 0xFFFFFFFF) for a, b in zip(narrow, (length, start), strict=True))
        if end[:4] != b"PK\x06\x06" or place != before or not same:
            raise InputError(f"{path} has a torn end: give another, or make it anew")
    if end[-22:-18] != b"PK\x05\x06" or comment or start + length != before:
        raise InputError(f"{path} has a torn end: give another, or make it anew")


def _check_pickle(pickled: Any, path: Path, also: Collection[str]) -> None:
    """Refuses a pickle before it is loaded, if it uses a name that is not allowed or describes too many values.

    torch itself allows more names. Tuples of tuples that share their items can describe billions of values in a few
    hundred bytes; as the key of a dict, such a tuple would take for ever to hash.

    Args:
        pickled: an open file, at the beginning of a pickle.
        path: the file, for the error.
        also: names that it may use besides ``ALLOWED``.
    """
    stack: list[Any] = []  # the number of values in each object on pickle's stack; None for a mark
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(pickled):
        name = opcode.name
        if name == "STACK_GLOBAL":
            raise InputError(f"{path} is pickled in a way that torch.save does not use: it is not read")
        if name == "GLOBAL" and str(argument) not in also and not _allowed(str(argument)):
            raise InputError(f"{path} holds an object of {str(argument).replace(' ', '.')!r}: it is not read")
        if name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(None)
        else:
            taken = _taken(stack, opcode)
            held = 1 + sum(taken) if name.startswith(("TUPLE", "REDUCE", "NEWOBJ")) else 1
            if held > MOST_VALUES:
                raise InputError(f"{path} describes more than {MOST_VALUES:,} values: this file is not read")
            stack.extend(held for _ in opcode.stack_after)


def _taken(stack: list[Any], opcode: Any) -> list[int]:
    """Removes the items that an opcode takes from the stack, and returns them."""
    before = opcode.stack_before
    if pickletools.markobject not in before:
        return [stack.pop() for _ in before]
    taken = []
    while (held := stack.pop()) is not None:
        taken.append(held)
    for _ in range(before.index(pickletools.markobject)):
        stack.pop()
    return taken


def _allowed(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    is_torchs = module == "torch" and (
        attribute.endswith("Storage") or isinstance(getattr(torch, attribute, 0), torch.dtype)
    )
    return name in ALLOWED or is_torchs


def _check_tensors(content: Any, path: Path) -> None:
    """Refuses tensors that are larger than their stored values, such as one row that is repeated a billion times."""
    size = path.stat().st_size
    stored: dict[int, int] = {}
    shown = 0
    for value in nested_values(content, str(path)):
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_conj() or value.is_neg():
                raise InputError(f"{path} holds a tensor that is sparse or has no values: it is not read")
            storage = value.untyped_storage()
            if value.nbytes > storage.nbytes():
                raise InputError(
                    f"{path} holds a tensor of shape {tuple(value.shape)} without its values: it is not read"
                )
            stored[storage.data_ptr()] = storage.nbytes()
            shown += value.nbytes
        elif isinstance(value, dict) and getattr(value, "__dict__", {}).keys() - {"_metadata"}:
            raise InputError(f"{path} holds an object of 'OrderedDict' with attributes: it is not read")
    if sum(stored.values()) > size or shown > MOST_SHARED * size:
        raise InputError(f"{path} describes more numbers than it holds: it is not read")


def digest(content: Any, where: str) -> str:
    """The SHA-256 of tensors and plain data: of all names, types, shapes and values, in their order.

    Args:
        content: the content of a file, as ``torch.load`` returns it. A top-level key "digest" is left out.
        where: the file, for the error.

    Returns:
        The digest, in hexadecimal.

    Raises:
        InputError: see ``nested_values``.
    """
    total = hashlib.sha256()
    top = {k: v for k, v in content.items() if k != "digest"} if isinstance(content, dict) else content
    for value in nested_values(top, where):
        if isinstance(value, Tensor):
            total.update(f"{value.dtype} {tuple(value.shape)}".encode())
            plain = value.detach().cpu().contiguous().flatten()
            total.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
        elif isinstance(value, dict | list | tuple | set):
            total.update(f"{'dict' if isinstance(value, dict) else 'items'} {len(value)}".encode())
        elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
            total.update(f"{type(value).__name__} {value!r}".encode(errors="surrogatepass"))
        else:
            total.update(type(value).__name__.encode())
        total.update(b"\0")
    return total.hexdigest()

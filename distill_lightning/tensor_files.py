"""Files of tensors and plain data: checkpoints, tickets, packed networks, weights.

They are written whole, with their format and a digest of their content inside, so that a damaged copy is found out
wherever it lies. They are read as data: nothing that a file names is imported, called or run, and nothing is allocated
that the file does not hold.
"""

import hashlib
import io
import mmap
import pickle
import pickletools
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.files import MOST_VALUES, nested_values, write_whole

FORMAT = 2
"""Of the files written from now on. Files of version 0.1 have none."""

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
"""What a pickle inside a file may name, besides torch's storages and types of numbers."""
PICKLES = 5
"""How many of them torch's old format begins with."""
MOST_SHARED = 64
"""How often the tensors of a file may show the same numbers, on average."""


def write_tensors(path: str | Path, content: dict[str, Any]) -> None:
    """Writes a dict of tensors and plain data, with its format and its digest."""
    content = {**content, "format": FORMAT}
    content["digest"] = digest(content, str(path))
    write_whole(path, lambda file: torch.save(content, file))


def read_tensors(path: str | Path, what: str) -> Any:
    """What ``write_tensors`` or ``torch.save`` wrote, on the CPU.

    Args:
        path: the file.
        what: what it should be, for the error: "checkpoint".

    Raises:
        InputError: there is no such file; it is torn, damaged, or of a later format; it holds something else than tensors
            and plain data, or describes more than it holds.
    """
    path = Path(path)
    if not path.is_file():  # nor a device, nor a pipe
        raise InputError(f"there is no {what} {path}")
    try:
        with open(path, "rb") as file:
            is_zip = _check_outside(file, path)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own words on old formats
                content = torch.load(_source(file, path), map_location="cpu", weights_only=True)
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
        raise InputError(f"{path} is torn, or no {what}: give another, or make it anew") from error
    return content


def _source(file: BinaryIO, path: Path) -> Any:
    """The open file: what is loaded is what was checked. torch knows files of safetensors, which are data, by name."""
    return path if path.suffix == ".safetensors" else file


def _check_format(content: dict[str, Any], path: Path) -> None:
    if type(content.get("format")) is not int or not 0 < content["format"] <= FORMAT:
        given = str(content.get("format"))[:40]
        raise InputError(f"{path} has the format {given}, this version reads up to {FORMAT}: use a later version")
    if digest(content, str(path)) != content["digest"]:
        raise InputError(
            f"{path} is damaged: its content does not match its digest; take another copy, or make it anew"
        )


def _check_sums(path: Path) -> None:
    """Compares the parts of an archive without a digest with their CRC-32."""
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise InputError(f"{path} is damaged: its {damaged} does not match its checksum; take another copy")


def is_old(content: Any) -> bool:
    """Whether a file was written by version 0.1, which knew no digests."""
    return isinstance(content, dict) and "digest" not in content


def _check_outside(file: BinaryIO, path: Path) -> bool:
    """Refuses a file by what can be seen without loading it. Returns whether it is an archive, as torch writes now."""
    if file.read(4) == b"PK\x03\x04":  # what torch goes by
        _check_archive(file, path)
        return True
    if path.suffix != ".safetensors":
        file.seek(0)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for _ in range(PICKLES):
                _check_pickle(content, path)
    return False


def _check_archive(file: BinaryIO, path: Path) -> None:
    """Refuses a zip file that unpacks to more than it holds, or whose pickle names what is not allowed."""
    size = file.seek(0, 2)
    _check_end(file, size, path)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
        raise InputError(f"{path} is compressed inside, which torch's files are not: it is not read")
    if sum(e.file_size for e in entries) > size:
        raise InputError(f"{path} describes more bytes than it holds: it is not read")
    with zipfile.ZipFile(file) as archive:
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                archive.read(entry)  # compares it with its CRC-32: not every byte of a pickle shows in what it describes
    file.seek(0)
    # torch's own reader finds the pickle: it has its own idea of which entry has which name
    _check_pickle(io.BytesIO(torch._C.PyTorchFileReader(file).get_record("data.pkl")), path)


def _check_end(file: BinaryIO, size: int, path: Path) -> None:
    """Refuses an archive whose table of contents lies elsewhere than right before the end: readers differ on that."""
    file.seek(max(0, size - 98))
    end = file.read()
    length, start, comment = struct.unpack("<IIH", end[-10:])
    before = size - 22
    if end[-42:-38] == b"PK\x06\x07":  # of large archives, and of all of torch's
        narrow, (length, start) = (length, start), struct.unpack("<QQ", end[-58:-42])
        (place,) = struct.unpack("<Q", end[-34:-26])
        before = size - 98
        same = all(a in (b, 0xFFFFFFFF) for a, b in zip(narrow, (length, start), strict=True))
        if end[:4] != b"PK\x06\x06" or place != before or not same:
            raise InputError(f"{path} has a torn end: give another, or make it anew")
    if end[-22:-18] != b"PK\x05\x06" or comment or start + length != before:
        raise InputError(f"{path} has a torn end: give another, or make it anew")


def _check_pickle(pickled: Any, path: Path) -> None:
    """Refuses names outside the list before anything is made of the pickle: torch's own list is longer. And tuples that
    hold each other again and again: as a key, one of a few hundred bytes takes for ever.

    Args:
        pickled: an open file, at the beginning of a pickle.
        path: the file, for the error.
    """
    stack: list[Any] = []  # how many values each thing holds; None for a mark
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(pickled):
        name = opcode.name
        if name == "STACK_GLOBAL":
            raise InputError(f"{path} is pickled in a way that torch.save does not use: it is not read")
        if name == "GLOBAL" and not _allowed(str(argument)):
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
    """What an opcode takes off the stack."""
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
    """Refuses tensors that are larger than what is stored for them, as a row that is repeated a billion times."""
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
    """SHA-256 of tensors and plain data: of names, types, shapes and values, in order. "digest" itself is left out.

    Args:
        content: as ``torch.load`` gives it back.
        where: the file, for the error.
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

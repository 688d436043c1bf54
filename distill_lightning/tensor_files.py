"""Files of tensors and plain data: checkpoints, tickets, packed networks, weights.

They are written whole, with their format and a digest of their content inside, so that a damaged copy is found out
wherever it lies. They are read as data: nothing that a file names is imported, called or run, and nothing is allocated
that the file does not hold.
"""

import hashlib
import pickle
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_lightning.errors import InputError
from distill_lightning.files import nested_values, write_whole

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
    if path.is_dir() or not path.exists():
        raise InputError(f"there is no {what} {path}")
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own words on old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds something else than tensors and plain data: it is not read") from error
    except Exception as error:  # a damaged file can fail anywhere in torch's reader
        raise InputError(f"{path} is torn, or no {what}: give another, or make it anew") from error
    _check_tensors(content, path)
    if isinstance(content, dict) and "digest" in content:
        _check_format(content, path)
    return content


def _check_format(content: dict[str, Any], path: Path) -> None:
    if not isinstance(content.get("format"), int) or content["format"] > FORMAT:
        raise InputError(
            f"{path} has the format {content.get('format')}, this version reads up to {FORMAT}: use a later version"
        )
    if digest(content, str(path)) != content["digest"]:
        raise InputError(f"{path} is damaged: its content does not match its digest; take another copy, or make it anew")


def is_old(content: Any) -> bool:
    """Whether a file was written by version 0.1, which knew no digests."""
    return isinstance(content, dict) and "digest" not in content


def _check_archive(path: Path) -> None:
    """Refuses a zip file that unpacks to more than it holds, or whose pickle names what is not allowed."""
    if not zipfile.is_zipfile(path):
        return  # torch's old format: its reader allows no more
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise InputError(f"{path} is compressed inside, which torch's files are not: it is not read")
        if sum(e.file_size for e in entries) > path.stat().st_size:
            raise InputError(f"{path} describes more bytes than it holds: it is not read")
        for entry in entries:
            if entry.filename.rpartition("/")[2] == "data.pkl":
                _check_pickle(archive.read(entry), path)


def _check_pickle(pickled: bytes, path: Path) -> None:
    """Refuses names outside the list before anything is made of the pickle: torch's own list is longer."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "STACK_GLOBAL":
            raise InputError(f"{path} is pickled in a way that torch.save does not use: it is not read")
        if opcode.name == "GLOBAL" and not _allowed(str(argument)):
            raise InputError(f"{path} holds an object of {str(argument).replace(' ', '.')!r}: it is not read")


def _allowed(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    is_torchs = module == "torch" and (attribute.endswith("Storage") or isinstance(getattr(torch, attribute, 0), torch.dtype))
    return name in ALLOWED or is_torchs


def _check_tensors(content: Any, path: Path) -> None:
    """Refuses tensors that are larger than what is stored for them, as a row that is repeated a billion times."""
    for value in nested_values(content, str(path)):
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu":
                raise InputError(f"{path} holds a tensor that is sparse or has no values: it is not read")
            if value.nbytes > value.untyped_storage().nbytes():
                raise InputError(f"{path} holds a tensor of shape {tuple(value.shape)} without its values: it is not read")


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

"""Finds the pictures of a folder or archive, whatever its layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from distill_lightning.data.archives import open_store
from distill_lightning.data.labels_files import labels_files, of_pattern, read_labels
from distill_lightning.data.layouts import Layout, arranged, find_layout
from distill_lightning.data.remote import RemoteShards
from distill_lightning.data.shard_index import read_shards, shard_files
from distill_lightning.data.shards import LocalShards
from distill_lightning.data.stores import FolderStore, Store, shown
from distill_lightning.data.tables import read_tables, table_files
from distill_lightning.errors import InputError
from distill_lightning.files import is_url

Parts = Mapping[str, str | Sequence[str]]


def find_pictures_of(
    root: str,
    name: str,
    parts: Parts | None,
    labels: str | Sequence[str] | None,
    columns: Mapping[str, str] | None,
    pattern: str | None,
    cache: Path,
    cache_bytes: int = 0,
) -> tuple[Store, Layout]:
    """Finds the pictures.

    Args:
        root: the folder or archive, or a URL.
        name: its name, for messages.
        parts: see ImageFolder.
        labels: see ImageFolder.
        columns: see ImageFolder.
        pattern: see ImageFolder.
        cache: the folder for the index of tar files.
        cache_bytes: see ImageFolder.

    Returns:
        The store, and the pictures of each part in it.

    Raises:
        InputError: there are none, or it is not clear what a folder or a file is.
    """
    if is_url(root):
        remote = RemoteShards(root, cache, cache_bytes)
        if labels is not None or pattern is not None or not shard_files([*remote.infos]):
            raise InputError(
                f"{root}: only tar files of webdataset are read from elsewhere: copy others to this machine"
            )
        return read_shards(remote, [*remote.infos], parts, cache)
    for option, value in (("labels", labels), ("pattern", pattern)):
        if value is not None and parts is not None:
            raise InputError(f"data.parts is for class folders, and data.{option} has its own parts: leave one out")
    store = open_store(root)
    finds = isinstance(store, FolderStore) and labels is None and pattern is None
    if finds and table_files(store.root):
        if parts is not None or columns is not None:
            raise InputError(
                f"{name} holds tables, whose parts and columns have known names: leave data.parts and data.columns out"
            )
        tables, rows, names, notes = read_tables(store.root)
        of = rows.get("train") or [row for part in rows.values() for row in part]
        return tables, arranged(rows, names or sorted({label for _, label in of}), notes)
    listing = store.listing()
    if finds and shard_files(listing.files):
        return read_shards(LocalShards(root), listing.files, parts, cache)
    if pattern is not None:
        return store, of_pattern(listing, pattern, root)
    files = labels_files(listing, labels)
    if labels is not None:
        return store, read_labels(store, listing, files, columns, name)
    return store, _folders_or_labels(store, files, columns, parts, name)


def _folders_or_labels(
    store: Store, files: list[str], columns: Mapping[str, str] | None, parts: Parts | None, name: str
) -> Layout:
    """The layout of class folders or, if there are none, of files with labels.

    Raises:
        InputError: neither is there, or both are and they differ.
    """
    listing = store.listing()
    try:
        by_folder = find_layout(listing, name, parts)
        if not files or parts is not None:
            return by_folder
        problem = None
    except InputError as error:
        if not files or parts is not None:
            raise
        problem = error
    has_folders = problem is None and len(by_folder.class_names) > 1
    try:
        by_file = read_labels(store, listing, files, columns, name)
    except InputError:
        if has_folders:  # the file holds something else
            return by_folder
        raise
    if not by_file.parts:
        if problem is not None:
            raise problem
        return by_folder
    if not has_folders:
        return by_file
    labels = {picture: label for rows in by_folder.parts.values() for picture, label in rows}
    for rows in by_file.parts.values():
        for picture, label in rows:
            if labels.get(picture, label) != label:
                raise InputError(
                    f"{shown(picture)[:50]} is {labels[picture]} by its folder and {label} in {files[0]}: give "
                    f"data.labels {files[0]}, or data.parts '{{train: .}}' for the folders"
                )
    if more := [part for part in by_file.parts if part not in by_folder.parts]:
        raise InputError(
            f"{files[0]} has a part {more[-1]}, and the class folders have none: give data.labels {files[0]}, or "
            "data.parts '{train: .}' for the folders"
        )
    return by_folder

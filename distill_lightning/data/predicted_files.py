"""The pictures to predict: a folder, an archive, a file, or a list of them. They need no labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from distill_lightning.data.archives import open_store
from distill_lightning.data.bad_pictures import counts_of
from distill_lightning.data.sources import Source
from distill_lightning.data.stores import FolderStore, Listing, Store
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import is_picture_name

ARCHIVES = (".zip", ".tar")


@dataclass(frozen=True, eq=False)
class Predicted:
    """The pictures that are predicted.

    Args:
        source: the pictures.
        names: their names, to show.
    """

    source: Source
    names: list[str]

    def unread(self) -> dict[str, str]:
        """The names of the pictures that could not be predicted, with what is wrong with them."""
        return {self.names[i]: kind for i, kind in sorted(self.source.bad.items())}

    def refuse_unread(self, where: str) -> None:
        """Reports that some of the pictures could not be predicted.

        Args:
            where: the file with the predictions of the others.

        Raises:
            InputError: there are such pictures.
        """
        if unread := self.unread():
            raise InputError(
                f"{len(unread):,} of {len(self.names):,} pictures could not be read "
                f"({counts_of(unread)[:80]}): {where} has the others"
            )


class _Several:
    """Some stores as one. A name is the number of the store and the name in it."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores, self.root = stores, Path()

    def _at(self, name: str) -> tuple[Store, str]:
        number, _, inner = name.partition(":")
        return self.stores[int(number)], inner

    def listing(self) -> Listing:
        """See Store."""
        files = [f"{i}:{name}" for i, store in enumerate(self.stores) for name in store.listing().files]
        return Listing(tuple(files), (), {})

    def open(self, name: str) -> BinaryIO:
        store, inner = self._at(name)
        return store.open(inner)

    def read(self, name: str) -> bytes:
        store, inner = self._at(name)
        return store.read(inner)

    def state(self, name: str) -> str:
        store, inner = self._at(name)
        return store.state(inner)

    def size(self, name: str) -> int:
        store, inner = self._at(name)
        return store.size(inner)


def find_pictures(given: str | Sequence[str]) -> tuple[Store, list[str], list[str]]:
    """Finds the pictures to predict.

    Args:
        given: a folder, a zip or tar file, a picture, or a list of them. In folders and archives, a picture is a file
            with the extension of a picture format.

    Returns:
        The store; the names in it; and the names to show, which are relative to a single folder.

    Raises:
        InputError: there are no pictures.
    """
    alone = isinstance(given, str)
    stores: list[Store] = []
    names: list[str] = []
    labels: list[str] = []
    for number, path in enumerate([given] if isinstance(given, str) else given):
        place = Path(path)
        if place.is_dir() or (place.is_file() and place.suffix.lower() in ARCHIVES):
            store = open_store(place)
            found = [name for name in store.listing().files if is_picture_name(name)]
            labels += [name if alone else f"{path}/{name}" for name in found]
        else:  # also a file that is missing: it is listed among those that cannot be read
            store, found = FolderStore(place.parent), [place.name] if place.exists() or not alone else []
            labels += [path] * len(found)
        stores.append(store)
        names += found if alone else [f"{number}:{name}" for name in found]
    if not names:
        raise InputError(f"there are no pictures in {given}: give a folder that holds some, a picture, or a list")
    return (stores[0] if alone else _Several(stores)), names, labels

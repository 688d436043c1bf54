"""Finds the parts and classes in the names of files. It reads no file.

A class is a folder of pictures; a part (training, validation, test) is a folder of class folders. No part is lost in
silence: a folder whose meaning is not clear is asked about by its name, and the option ``parts`` answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from distill_lightning.data.labelled import Labelled
from distill_lightning.data.part_names import PARTS, PICTURE_WORDS, names_a_part, names_unlabelled, part_of, words_of
from distill_lightning.data.stores import Listing, parts_of, shown
from distill_lightning.errors import InputError
from distill_lightning.pillow_decoding import is_picture_name

Rows = list[tuple[str, str]]
"""Names of pictures with the names of their classes."""
IGNORE = "ignore"
"""The key of ``parts`` for folders that are not used."""


@dataclass(frozen=True)
class Layout:
    """The pictures of each part.

    Args:
        parts: for each part that there is, the names of its pictures and their classes, sorted by class and name.
        class_names: the names of the classes, in the order of their numbers.
        notes: what was found, in sentences without a full stop.
        warnings: the same for things that are probably mistakes.
        empty: classes without a picture, as folder names.
    """

    parts: Mapping[str, Labelled]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


@dataclass
class Node:
    """A folder in a tree.

    Args:
        path: its name.
        files: the names of the files in it.
        folders: the folders in it, by the last part of their names.
    """

    path: str
    files: list[str] = field(default_factory=list)
    folders: dict[str, "Node"] = field(default_factory=dict)

    def all_files(self) -> list[str]:
        """The names of all files in it and below, sorted by their parts."""
        found = [*self.files, *(name for folder in self.folders.values() for name in folder.all_files())]
        return sorted(found, key=parts_of)

    @property
    def pictures(self) -> list[str]:
        """The names of the files directly in it that have the extension of a picture format."""
        return [name for name in self.files if is_picture_name(name)]

    def has_pictures(self) -> bool:
        """Whether there is a picture in it or below."""
        return bool(self.pictures) or any(folder.has_pictures() for folder in self.folders.values())


def tree_of(listing: Listing) -> Node:
    """The tree of a listing."""
    root = Node("")
    nodes = {"": root}
    for name in listing.folders:
        above, _, last = name.rpartition("/")
        nodes[name] = nodes[above].folders[last] = Node(name)
    for name in listing.files:
        nodes[name.rpartition("/")[0]].files.append(name)
    return root


def unwrapped(node: Node, in_part: bool = False) -> Node:
    """The folder inside of folders that contain one folder of folders only, as archives have them.

    Args:
        node: the outermost folder.
        in_part: whether it is a part already, so that the name of an inner folder does not make it one.
    """
    while len(node.folders) == 1 and not node.pictures:
        (name, inner), *_ = node.folders.items()
        if (part_of(name) and not in_part) or not any(folder.has_pictures() for folder in inner.folders.values()):
            break
        node = inner
    return node


def find_layout(listing: Listing, root: str, given: Mapping[str, str | Sequence[str]] | None = None) -> Layout:
    """Finds the parts and classes in folders.

    Args:
        listing: the names of all files and folders.
        root: the name of the folder or archive, for messages.
        given: for "train", "val", "test" and "ignore" the folders that the user names.

    Returns:
        The layout. It has no parts if there are not two class folders.

    Raises:
        InputError: the meaning of a folder is not clear, or ``given`` names a folder that does not exist.
    """
    top = tree_of(listing)
    chosen = _given_parts(top, root, given or {})
    ignored = chosen.pop(IGNORE, [])
    if chosen:
        return _of_parts(chosen, (), listing)
    base = unwrapped(top)
    folders = {k: f for k, f in base.folders.items() if f not in ignored and f.has_pictures()}
    also = tuple(words_of(root)) if root else ()
    named = {k: part_of(k, also) or part_of(k) for k in folders}
    # a folder "train" that holds pictures and no folders is a class: pictures of trains
    parts = [(part, folders[k]) for k, part in named.items() if part and _has_classes(folders[k])]
    if parts:
        notes = _refuse_unclear(root, base, folders, parts)
        found: dict[str, list[Node]] = {}
        for part, node in parts:
            found.setdefault(part, []).append(node)
        return _of_parts(found, notes, listing)
    if folders and all(_is_no_class(name) and not _has_classes(node) for name, node in folders.items()):
        some = ", ".join(f"{shown(name)}/" for name in folders)[:60]
        raise InputError(
            f"{root} has pictures in {some} and no class folders: add a CSV file with a path and a class in each row, "
            "or give data.pattern"
        )
    if _class_first(folders):
        return _of_class_first(folders, listing)
    _refuse_look_alikes(root, folders)
    return _of_parts({"train": [base]}, _loose(base), listing, ignored)


def _given_parts(top: Node, root: str, given: Mapping[str, str | Sequence[str]]) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for part, names in given.items():
        if part not in (*PARTS, IGNORE):
            raise InputError(f"data.parts has {part}: it takes {', '.join((*PARTS, IGNORE))}, each with a folder")
        for name in [names] if isinstance(names, str) else names:
            node: Node | None = top
            for word in [w for w in name.strip("/").split("/") if w not in ("", ".")]:
                node = node.folders.get(word) if node is not None else None
            if node is None:
                some = ", ".join(shown(k) for k in [*top.folders][:8])
                raise InputError(f"data.parts names the folder {name}, which {root} does not have: it has {some[:100]}")
            found.setdefault(part, []).append(node)
    return found


def _has_classes(node: Node) -> bool:
    return any(folder.has_pictures() for folder in node.folders.values())


def _refuse_unclear(root: str, base: Node, folders: Mapping[str, Node], parts: list[tuple[str, Node]]) -> list[str]:
    """Asks about folders beside parts. Returns sentences about those that cannot be a part."""
    taken = [node for _, node in parts]
    for part in PARTS:
        of_part = [node.path for p, node in parts if p == part]
        if len(of_part) > 1:
            raise InputError(
                f"{root} has {' and '.join(of_part)}, which both look like the {part} part: "
                f"say which, as data.parts '{{{part}: {of_part[0]}, ignore: {of_part[1]}}}'"
            )
    notes = _loose(base)
    for name, node in folders.items():
        if node in taken:
            continue
        flat = not _has_classes(node) or len(unwrapped(node, in_part=True).folders) < 2
        if flat and (part_of(name) or names_unlabelled(name)):
            count = sum(is_picture_name(file) for file in node.all_files())
            words = (
                "pictures and no class folders: not used (data.unlabelled trains on them, data.pictures predicts them)"
            )
            notes.append(f"{shown(node.path)}/ has {count:,} {words}")
            continue
        known = ", ".join(f"{shown(n.path)}/ ({part})" for part, n in parts)
        raise InputError(
            f"{root} has {known[:80]} and the folder {shown(node.path)[:40]}/: say what it is, with "
            f"data.parts '{{test: FOLDER, ignore: FOLDER}}' (train, val, test, ignore)"
        )
    return notes


def _is_no_class(name: str) -> bool:
    """Whether the name of a folder stands for a part, or says no more than that there are pictures in it."""
    return bool(part_of(name)) or names_unlabelled(name) or all(w in PICTURE_WORDS for w in words_of(name) or ["?"])


def _loose(base: Node) -> list[str]:
    count = len(base.pictures)
    where = f"{shown(base.path)}/" if base.path else "the folder itself"
    return [f"{count:,} pictures lie in {where}, in no class folder: not used"] if count else []


def _class_first(folders: Mapping[str, Node]) -> bool:
    """Whether each class folder contains folders for the parts."""
    inner = [node for node in folders.values() if node.folders]
    return (
        len(folders) > 1
        and len(inner) == len(folders)
        and all(part_of(name) and not node.pictures for node in inner for name in node.folders)
        and len({part_of(name) for node in inner for name in node.folders}) > 1
    )


def _refuse_look_alikes(root: str, folders: Mapping[str, Node]) -> None:
    """Asks about folders that contain folders of the same names: they may be parts or classes."""
    if len(folders) > 1 and not any(node.pictures for node in folders.values()):
        inner = [frozenset(k for k, f in node.folders.items() if f.has_pictures()) for node in folders.values()]
        if len(set(inner)) == 1 and len(inner[0]) > 1:
            first, second = [shown(name) for name in folders][:2]
            raise InputError(
                f"{root} has {first}/ and {second}/ with folders of the same names: say which part each is, with "
                f"data.parts '{{train: {first}, test: {second}}}', or '{{train: .}}' if they are classes"
            )
    for name in folders:
        if len(folders) > 1 and names_a_part(name) and folders[name].folders and not folders[name].pictures:
            if any(node.pictures for node in folders.values()):
                continue  # the others are classes, and so is this one
            raise InputError(f"{root} has the folder {shown(name)}/: say which part it is, with data.parts")


def _of_parts(
    nodes: Mapping[str, list[Node]], unused: Iterable[str], listing: Listing, ignored: Sequence[Node] = ()
) -> Layout:
    parts: dict[str, Rows] = {}
    empty: list[str] = []
    warnings = list(unused)
    said: list[str] = []
    for part in PARTS:
        pictures: Rows = []
        for given in nodes.get(part, []):
            node = unwrapped(given, in_part=True) if given.path else given
            if given.path and node.pictures:
                warnings.append(
                    f"{len(node.pictures):,} pictures lie in {shown(node.path)}/, in no class folder: not used"
                )
            for name, folder in node.folders.items():
                if folder in ignored:
                    continue
                files = folder.all_files()
                if not files and part == "train":
                    empty.append(folder.path)
                pictures += [(file, name) for file in files]
        if part in nodes:
            parts[part] = pictures
            where = ", ".join(f"{shown(node.path)}/" if node.path else "class folders alone" for node in nodes[part])
            said.append(f"{part}: {where}")
    return _sorted(parts, said, warnings, empty, listing)


def _of_class_first(folders: Mapping[str, Node], listing: Listing) -> Layout:
    parts: dict[str, Rows] = {}
    for name, node in folders.items():
        for inner_name, inner in node.folders.items():
            part = part_of(inner_name)
            assert part is not None
            parts.setdefault(part, []).extend((file, name) for file in inner.all_files())
    return _sorted(parts, ["each class folder has folders for the parts"], [], [], listing)


def _sorted(
    parts: Mapping[str, Rows], notes: list[str], warnings: list[str], empty: list[str], listing: Listing
) -> Layout:
    """A layout whose classes are those of the training part or, without one, of all parts."""
    classes = {label for _, label in parts["train"]} if "train" in parts else {n for p in parts.values() for _, n in p}
    classes |= {name.rpartition("/")[2] for name in empty}
    junk = ", ".join(f"{count:,} {kind}" for kind, count in listing.passed_over.items() if kind != "hidden")
    notes += [f"files passed over: {junk}"] if junk else []
    return arranged(parts, sorted(classes), notes, warnings, empty)


def arranged(
    parts: Mapping[str, Rows], classes: Sequence[str], notes: Iterable[str], warnings: Iterable[str] = (),
    empty: Iterable[str] = (),
) -> Layout:  # fmt: skip
    """A layout with the pictures of each part sorted by the number of the class and by name; classes that are not in
    ``classes`` come last.
    """
    number = {name: i for i, name in enumerate(classes)}
    ordered = {
        part: Labelled.of_rows(sorted(pictures, key=lambda p: (number.get(p[1], len(number)), parts_of(p[0]))))
        for part, pictures in parts.items()
    }
    return Layout(ordered, tuple(classes), tuple(notes), tuple(warnings), tuple(empty))

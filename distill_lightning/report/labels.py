"""Labels of runs: what differs between runs that are shown together, in few words."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from distill_lightning.runs import SHAPE

LONGEST_LABEL = 60
"""A longer label names only as many settings as are needed to tell runs apart."""
LONGEST_VALUE = 24
"""Of longer values, the parts that all have in common are left out."""

Settings = Mapping[str, Any]


def differences(settings: Sequence[Settings]) -> list[str]:
    """The names of settings that are not the same everywhere."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]


def labels(method: str, names: Sequence[str | None], settings: Sequence[Settings]) -> list[str]:
    """A label for each of several groups of runs of one method: its name, if it has one, and the settings that differ.

    If all differing settings together are too long, a label has as few of them as are needed, without values that more
    than half of the groups have. Groups that still have the same label are numbered.

    Args:
        method: the name of the method.
        names: the name that the user gave to the runs of each group, or None.
        settings: the settings of each group.
    """
    keys = [key for key in differences(settings) if key.rpartition(".")[2] not in SHAPE]
    given = iter(shortened([name for name in names if name is not None]))
    starts = [method if name is None else f"{method} “{next(given)}”" for name in names]
    texts = {key: shortened([str(one.get(key, "")) for one in settings]) for key in keys}
    found = _joined(starts, texts, keys)
    if max(map(len, found)) > LONGEST_LABEL:
        found = _joined(
            starts, texts, _fewest(starts, [[str(one.get(key)) for key in keys] for one in settings], keys), usual=True
        )
    return numbered(found)


def numbered(texts: Sequence[str]) -> list[str]:
    """The texts, with a number behind each that was there before."""
    seen: dict[str, int] = {}
    result = []
    for text in texts:
        seen[text] = seen.get(text, 0) + 1
        result.append(text if seen[text] == 1 else f"{text} ({seen[text]})")
    return result


def shortened(values: Sequence[str]) -> list[str]:
    """The values; if one is long, all without the words that they begin and end with alike."""
    values = list(values)
    if len(set(values)) < 2 or max(map(len, values)) <= LONGEST_VALUE:
        return values
    start = _common_words(values)
    rest = [value[len(start) :] for value in values]
    # the end is looked for in what the start leaves, so that no part counts twice
    end = _common_words([value[::-1] for value in rest])
    kept = [value[: len(value) - len(end)] for value in rest]
    return [f"{'…' if start else ''}{value}{'…' if end else ''}" for value in kept]


def _common_words(values: Sequence[str]) -> str:
    """The words with which all values begin; empty if they are short."""
    columns = enumerate(zip(*values, strict=False))
    length = next((place for place, letters in columns if len(set(letters)) > 1), min(map(len, values)))
    whole = re.sub(r"[^\W_]*$", "", values[0][:length])  # the last word may go on in another way
    return whole if len(whole) > 3 else ""


def _joined(
    starts: Sequence[str], texts: Mapping[str, Sequence[str]], keys: Sequence[str], usual: bool = False
) -> list[str]:
    """Labels with the given settings; with ``usual``, without values that more than half of the labels would have."""
    parts: list[list[str]] = [[start] for start in starts]
    for key in keys:
        name, values = word(key, keys), texts[key]
        most, count = Counter(values).most_common(1)[0]
        left_out = most if usual and count > len(starts) / 2 else ""
        for label, value in zip(parts, values, strict=True):
            if value and value != left_out:
                label.append(f"{name} {value}".strip())
            elif left_out and not value:
                label.append(f"no {name or left_out}")
    return [", ".join(label) for label in parts]


def word(key: str, keys: Sequence[str]) -> str:
    """The last word of a setting's name, with the word before it if another setting has the same; empty for a place in
    a list, whose value says enough.
    """
    parts = key.split(".")
    if parts[-1].isdigit():
        return ""
    alike = [other for other in keys if other.rpartition(".")[2] == parts[-1]]
    return parts[-1] if len(alike) == 1 else ".".join(parts[-2:])


def _fewest(starts: Sequence[str], values: Sequence[Sequence[str]], keys: Sequence[str]) -> list[str]:
    """Few settings that tell as many groups apart as all settings together: each step takes the one that tells most."""
    chosen: list[int] = []

    def told(places: Sequence[int]) -> int:
        return len({(start, *(row[place] for place in places)) for start, row in zip(starts, values, strict=True)})

    while told(chosen) < told(range(len(keys))):
        chosen.append(max(range(len(keys)), key=lambda place: (told([*chosen, place]), -place)))
    return [keys[place] for place in sorted(chosen)]

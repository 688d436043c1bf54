"""Records of finished runs: their results without their weights, small enough for a repository.

A record is a folder <records>/<data set>/<method>/<name>, as that of the run, with its configuration, summary.json,
confusion.csv and a thinned metrics.csv; that of a lottery run also has rounds.csv. A study makes tables from records
as it does from runs. A run with a record is trained again only if another run needs its weights.
"""

from pathlib import Path

from distill_lightning.files import atomic_write
from distill_lightning.runs.config import CONFIG, IDENTITY, identity
from distill_lightning.runs.metrics import read_metrics, write_metrics
from distill_lightning.runs.summary import CONFUSION

WHOLE = (CONFIG, IDENTITY, CONFUSION, "rounds.csv", "summary.json")
"""The files that a record has as the run has them. The summary is the last: a record is whole when it has one."""
MOST_POINTS = 200
"""The largest number of points of a curve in a record."""
Row = tuple[int, str, float]


def write_record(run: Path, records: Path) -> Path:
    """Writes the record of a finished run. One that exists already is left as it is. If another run has a record with
    the same name, the name ends in the run's id.

    Args:
        run: the folder of the run, logs/<data set>/<method>/<name>.
        records: the folder of all records.

    Returns:
        The folder of the record.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: metrics.csv is damaged.
        InputError: the configuration of the run, or of one with the same name, cannot be read.
    """
    folder, own = records.joinpath(*run.absolute().parts[-3:]), identity(run)
    if (folder / "summary.json").is_file() and identity(folder) != own:
        folder = folder.with_name(f"{folder.name}-{str(own).rpartition('/')[2][:8]}")
    if (folder / "summary.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_metrics(folder / "metrics.csv", thinned(read_metrics(run / "metrics.csv")))
    for name in WHOLE:
        if (run / name).is_file():
            content = (run / name).read_bytes()
            atomic_write(folder / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    return folder


def thinned(rows: list[Row]) -> list[Row]:
    """At most `MOST_POINTS` points for each tag, in their order: at even distances, and the first and the last."""
    places: dict[str, list[int]] = {}
    for place, (_, tag, _) in enumerate(rows):
        places.setdefault(tag, []).append(place)
    kept: set[int] = set()
    for of_tag in places.values():
        every = max(1, -(-(len(of_tag) - 1) // (MOST_POINTS - 1)))
        kept |= {of_tag[0], *of_tag[::-every]}
    return [rows[place] for place in sorted(kept)]

"""The loggers of a run: TensorBoard, and metrics.csv, which reports read.

Both append to their files. When a run is resumed, entries after the step of the checkpoint are dropped, and an
incomplete last line too.
"""

import os
import time
from pathlib import Path
from typing import Any, BinaryIO

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from distill_lightning.files import atomic_write
from distill_lightning.runs.metrics import HEADER, read_metrics

EVENT_FILES = "events.out.tfevents.*"


class MetricsCSV(Logger):
    """Writes metrics.csv, with rows of step, tag and value.

    Args:
        path: the file. If it exists, rows after ``step`` and the rows of a test are removed.
        step: the last step whose rows are kept; -1 keeps none.
    """

    def __init__(self, path: str | Path, step: int) -> None:
        super().__init__()
        self.path = Path(path)
        rows = read_metrics(self.path) if step >= 0 else []
        self._kept = [row for row in rows if row[0] <= step and not row[1].startswith("test/")]
        self.latest: dict[str, float] = {tag: value for _, tag, value in self._kept}
        """The last value of each tag, including values in the file of a resumed run."""
        self._rows: list[str] = []
        self._started = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: config.yaml holds the options."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {tag: float(value) for tag, value in metrics.items()}
        self.latest |= values
        self._rows += [f"{step},{tag},{value!r}\n" for tag, value in values.items()]

    @rank_zero_only
    def save(self) -> None:
        if not self._started:  # begins the file, or removes the rows after the step from which the run is resumed
            text = "".join(f"{step},{tag},{value!r}\n" for step, tag, value in self._kept)
            atomic_write(self.path, lambda file: file.write((",".join(HEADER) + "\n" + text).encode()))
            self._started = True
        if self._rows:
            with open(self.path, "a") as file:
                file.write("".join(self._rows))
                file.flush()
                os.fsync(file.fileno())
            self._rows = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status != "failed":  # rows after the last checkpoint would be wrong after a resume
            self.save()


class TensorBoard(TensorBoardLogger):
    """Writes TensorBoard's event files into the run's folder.

    Args:
        folder: the run's folder.
        step: TensorBoard drops earlier entries after this step; -1 drops all. The entries of an earlier test are
            removed, because the run is tested again.
    """

    def __init__(self, folder: str | Path, step: int) -> None:
        _remove_tests(Path(folder))
        # TensorBoard reads files in the order of their names, which begin with the time in seconds and then the process
        # id, compared as text. A file from the same second could be read before the file that it continues, so wait
        last = max((int(path.name.split(".")[3]) for path in Path(folder).glob(EVENT_FILES)), default=0)
        time.sleep(max(0.0, min(1.0, last + 1 - time.time())))
        super().__init__(str(folder), name="", version="", default_hp_metric=False, flush_secs=10, purge_step=step + 1)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status != "failed":
            self.save()  # it stays open, because the test comes after the fit

    @rank_zero_only
    def log_outcome(self, settings: dict[str, Any], metrics: dict[str, float]) -> None:
        """Writes a row for the hparams tab.

        Args:
            settings: the options of the run, by name.
            metrics: the results, by tags that the run has logged.
        """
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
        for summary in hparams(plain, metrics):
            self.experiment.file_writer.add_summary(summary)


@rank_zero_only
def _remove_tests(folder: Path) -> None:
    """Removes the entries of a test from the event files of a run that is resumed.

    They have the step of the last checkpoint, so TensorBoard would keep them beside the entries of the next test.
    """
    for path in folder.glob(EVENT_FILES):
        # slow to import, and only needed where a run is resumed
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = [bytes(record) for record in RawEventFileLoader(str(path)).Load()]
        kept = [r for r in records if not any(v.tag.startswith("test/") for v in Event.FromString(r).summary.value)]

        def write(file: BinaryIO, kept: list[bytes] = kept, writer: Any = RecordWriter) -> None:
            records = writer(file)
            for record in kept:
                records.write(record)

        if len(kept) < len(records):
            atomic_write(path, write)

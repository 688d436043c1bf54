"""The loggers of a run: TensorBoard, and metrics.csv, which reports read.

Both append to their files. When a run is resumed, entries after the step of the checkpoint are dropped, and an
incomplete last line too.
"""

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from distill_lightning.files import atomic_write
from distill_lightning.runs.metrics import HEADER, read_metrics


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
        step: TensorBoard drops earlier entries after this step; -1 drops all.
    """

    def __init__(self, folder: str | Path, step: int) -> None:
        # TensorBoard reads files in the order of their names, which begin with the time in seconds and then the process
        # id, compared as text. A file from the same second could be read before the file that it continues, so wait
        last = max((int(path.name.split(".")[3]) for path in Path(folder).glob("events.out.tfevents.*")), default=0)
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

"""Where the numbers of a run go: TensorBoard's events, and metrics.csv, which is the record that reports read.

Both are append-only. After a cut, what lies past the checkpoint's step is dropped, and so is a torn last line.
"""

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from distill_lightning.files import write_whole
from distill_lightning.runs.metrics import HEADER, read_metrics


class MetricsCSV(Logger):
    """Rows of step, tag, value.

    Args:
        path: the file; an old one is cut behind ``step``.
        step: rows up to this step are kept, a test's aside; -1 for none.
    """

    def __init__(self, path: str | Path, step: int) -> None:
        super().__init__()
        self.path, self.step = Path(path), step
        self.latest: dict[str, float] = {}
        """The last value of each tag, those of the file that is gone on with included."""
        self._rows: list[str] = []
        self._started = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._start()
        values = {tag: float(value) for tag, value in metrics.items()}
        self.latest |= values
        self._rows += [f"{step},{tag},{value!r}\n" for tag, value in values.items()]

    def _start(self) -> None:
        """Cuts the file behind the step to go on from, or begins it."""
        if self._started:
            return
        kept = [row for row in read_metrics(self.path) if row[0] <= self.step and not row[1].startswith("test/")]
        self.latest = {tag: value for _, tag, value in kept}
        text = "".join(f"{step},{tag},{value!r}\n" for step, tag, value in kept)
        write_whole(self.path, lambda file: file.write((",".join(HEADER) + "\n" + text).encode()))
        self._started = True

    @rank_zero_only
    def save(self) -> None:
        self._start()
        if self._rows:
            with open(self.path, "a") as file:
                file.write("".join(self._rows))
                file.flush()
                os.fsync(file.fileno())
            self._rows = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status != "failed":  # of a step that no checkpoint holds
            self.save()


class TensorBoard(TensorBoardLogger):
    """TensorBoard's events in the run's own folder.

    Args:
        folder: of the run.
        step: TensorBoard drops what it finds past this step; -1 for all.
    """

    def __init__(self, folder: str | Path, step: int) -> None:
        # TensorBoard reads files in the order of their names, the second and then the process, as text: one of the
        # same second might be read before the one that it continues
        last = max((int(path.name.split(".")[3]) for path in Path(folder).glob("events.out.tfevents.*")), default=0)
        time.sleep(max(0.0, min(1.0, last + 1 - time.time())))
        super().__init__(str(folder), name="", version="", default_hp_metric=False, flush_secs=10, purge_step=step + 1)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status != "failed":
            self.save()  # and stay open: the test comes after the fit

    @rank_zero_only
    def log_outcome(self, settings: dict[str, Any], metrics: dict[str, float]) -> None:
        """A row for the hparams tab: what was set, and the metrics (by tags that are logged) that came of it."""
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
        for summary in hparams(plain, metrics):
            self.experiment.file_writer.add_summary(summary)

"""Adds a teacher's logits to each training batch, and features if the method reads them.

In the mode ``online`` the teacher computes them from the batch's own pictures. In the mode ``table`` it computes those
of V views of every sample once, and writes them to a file; training then reads the file. A table holds logits, features
that are vectors, and what a method reads of maps, such as attention maps. It does not hold whole maps.

Epoch e uses view e mod V, both for the picture and for what the teacher says of it. With one view and no augmentation
this is the usual table of soft targets; with one view and augmentation, each sample has the same augmented picture in
every epoch.
"""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from distill_lightning.callbacks.insights import draw_soft_targets
from distill_lightning.data.base import ImageData
from distill_lightning.data.plans import BatchPlan
from distill_lightning.digests import tensors_digest
from distill_lightning.distributed import first_decides, refuse_different
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.ranges import Count
from distill_lightning.recorded import Recorded
from distill_lightning.soft_targets import SoftTargetTable
from distill_lightning.teachers import FrozenNetwork, Teachers, TrainedNetwork, as_list
from distill_lightning.values import Batch, Reading, TeacherGiver, TeacherOutput

WAIT_S = 0.5
"""The time between two attempts to be the one who generates a table."""


class SoftTargets(Recorded, Callback, TeacherGiver):
    """Gives each training batch the logits of a teacher: (B, K), float32, not divided by a temperature; and features.

    Args:
        teacher: the folder of a run, a checkpoint of any method, a network with its weights, or a list of these. A list
            is an ensemble: its logits are the mean of the members' logits.
        mode: "online" or "table".
        views: V, the number of views in a table.
        folder: the folder of all tables. Each table has its own folder in it, and runs share the tables.

    Raises:
        InputError: ``teacher`` is an empty list, or ``views`` is out of range. When the fit starts: see
            ``FrozenNetwork.open`` and ``SoftTargetTable``.
    """

    free_options = ("folder",)
    writes_to = ("folder",)
    """Options that name folders to write to. A checkpoint's configuration may not choose them."""

    def __init__(
        self,
        teacher: TrainedNetwork | list[TrainedNetwork],
        mode: Literal["online", "table"] = "online",
        views: Count = 1,
        folder: str = "logs/soft_targets",
    ) -> None:
        super().__init__()
        self.teacher = as_list(teacher)
        if not self.teacher:
            raise InputError("SoftTargets.teacher is an empty list: give one teacher or more")
        self.mode, self.views, self.folder = mode, views, folder
        self.teachers = Teachers([])
        self.digests: list[str] = []
        self.of_each = False
        self.name = ""
        """The class of the method."""
        self.features: Features | None = None

    @property
    def view_cycle(self) -> int | None:
        """The number of views in the table; None for ``online``, which has no limit."""
        return self.views if self.mode == "table" else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        name, needs = type(pl_module).__name__, _method(pl_module).needs
        if not needs.teacher_logits and not needs.teacher_features:
            raise InputError(f"{name} reads no teacher's logits: leave SoftTargets out, or use KD")
        if needs.teacher_members and (self.mode == "table" or len(self.teacher) < 2):
            raise InputError(
                f"{name} needs the logits of each of several teachers: give SoftTargets a list of 2 or more, and "
                "the mode online"
            )
        self.of_each, self.name, self.features = needs.teacher_members, name, None
        data = _method(pl_module).image_data
        same = needs.teacher_logits
        self.teachers = Teachers([FrozenNetwork.open(given, data, "teacher", same) for given in self.teacher])
        self.digests = [member.digest for member in self.teachers.members]
        refuse_different("other teachers", self.digests)
        if self.mode == "table" and (data.augment or data.mix) and self.views % needs.views_per_epoch:
            raise InputError(
                f"SoftTargets.views is {self.views}, but {name} shows {needs.views_per_epoch} views of a sample in an "
                f"epoch: give a multiple of {needs.views_per_epoch}"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.mode == "table":
            self._open_table(trainer, _method(pl_module).image_data)
        else:
            self.teachers.prepare(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # a teacher that only its features are asked of may have other classes
        if trainer.global_step == 0 and trainer.is_global_zero and _method(pl_module).needs.teacher_logits:
            self._show(trainer, _method(pl_module).image_data)

    def _show(self, trainer: pl.Trainer, data: ImageData) -> None:
        """Adds a picture to TensorBoard: the teacher's probabilities for some training pictures."""
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not boards:
            return
        source, index = data.training_split.source, data.training_split.taken[:256]
        labels, normaliser = data.training_split.labels, data.normaliser
        assert labels is not None and normaliser is not None
        plan = BatchPlan.of_rows(index.to(source.device))
        ((images, _),) = source.stream([plan], [data.training_split.taken])
        images = images.cpu()
        if self.mode == "table":
            logits = self.logits[self._rows_of(index).to(self.logits.device), : data.num_classes].float().cpu()
        else:
            device = trainer.strategy.root_device
            logits = torch.cat([self.teachers.logits(normaliser(i.to(device))).cpu() for i in images.split(64)])
        drawn = draw_soft_targets(images, logits, labels[index], data.class_names)
        for board in boards:
            board.experiment.add_image("teacher/soft_targets", drawn, 0, dataformats="HWC")

    def watch(
        self, layers: Sequence[str] | None, shape: tuple[int, int, int], batch_statistics: bool = False
    ) -> list[tuple[int, ...]]:
        """See ``TeacherGiver``.

        Raises:
            InputError: see ``TeacherGiver``; or a table would hold features that depend on the batch.
        """
        if self.mode == "table" and batch_statistics:
            raise InputError(f"a table cannot hold what {self.name} reads of a whole batch: give the mode online")
        shapes = self.teachers.watch(layers, shape, batch_statistics)
        self.features = Features(None if layers is None else [*layers], shapes)
        return shapes

    def read(self, reading: Reading | None) -> None:
        """See ``TeacherGiver``."""
        assert self.features is not None
        if self.mode == "table" and reading is None and any(len(shape) > 1 for shape in self.features.shapes):
            largest = max(self.features.shapes, key=len)
            raise InputError(
                f"a table holds logits and vectors, and {self.name} reads whole maps, {largest}: give the mode online"
            )
        if reading is not None:
            blank = [torch.zeros(1, *shape) for shape in self.features.shapes]
            shapes = [tuple(one.shape[1:]) for one in reading.read(blank)]
            self.features = Features(self.features.layers, shapes, reading.words)
        self.teachers.read(reading)

    def copy_of_teacher(self, shape: tuple[int, int, int]) -> tuple[nn.Module, tuple[int, int, int]]:
        """See ``TeacherGiver``."""
        return self.teachers.copied(shape)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.teachers.unwatch()

    def teach(self, batch: Batch) -> TeacherOutput:
        """The teacher's logits, and features if the method asked for them, for the rows of a training batch."""
        if self.mode == "online":
            return self.teachers.of_each(batch.images) if self.of_each else self.teachers.answer(batch.images)
        assert batch.view is not None
        rows = batch.view * self.table.shape[1] + self._rows_of(batch.index)
        found = self.logits.index_select(0, rows.to(self.logits.device)).to(batch.index.device, non_blocking=True)
        if self.features is None:
            return TeacherOutput(found)
        logits, *features = found.split([self.num_logits, *map(math.prod, self.features.shapes)], 1)
        shaped = zip(features, self.features.shapes, strict=True)
        return TeacherOutput(logits, tuple(one.unflatten(1, shape) for one, shape in shaped))

    def _rows_of(self, index: Tensor) -> Tensor:
        """The rows of the table that hold samples, by their positions, (B,) int64 each."""
        return torch.searchsorted(self.index, index.to(self.index.device)).to(index.device)

    # The table

    def _open_table(self, trainer: pl.Trainer, data: ImageData) -> None:
        index, device, unlabelled = data.samples.index, trainer.strategy.root_device, data.info.unlabelled
        normaliser, views = data.normaliser, data.needs.views_per_epoch
        assert normaliser is not None
        manifest = {
            "teacher": self.digests,
            "precision": str(trainer.precision),
            "data": data.fingerprint,
            "samples": tensors_digest({"index": index}),
            **({"unlabelled": unlabelled} if unlabelled else {}),
            "preprocessing": [normaliser.mean.tolist(), normaliser.std.tolist()],
            "teacher_preprocessing": [
                None if m.scale is None or m.shift is None else [x.flatten().tolist() for x in (m.scale, m.shift)]
                for m in self.teachers.members
            ],
            "augmentation": [_in_words(transform) for transform in data.augment],
            **({"mix": _in_words(data.mix), "views_per_epoch": views} if data.mix else {}),
            "seed": data.seed if data.augment or data.mix else None,
        }
        self.num_logits, numbers = data.num_classes, data.num_classes
        if self.features is not None:
            # a method that reads features alone may have a teacher of other classes
            self.num_logits = data.num_classes if _method(trainer.lightning_module).needs.teacher_logits else 0
            numbers = self.num_logits + sum(map(math.prod, self.features.shapes))
            manifest["features"] = self.features._asdict() | {"shapes": [[*shape] for shape in self.features.shapes]}
            manifest["logits"] = self.num_logits
        self.table = table = SoftTargetTable(self.folder, manifest, self.views, len(index), numbers)
        if first_decides(table.is_complete):
            table.open("r")
        else:
            with self._alone():
                first_decides(table.create)
                table.open()
                self._generate(trainer, data)
                trainer.strategy.barrier("table filled")
                table.open()  # again, to see what processes on other machines wrote
        first_decides(table.verify)
        self.teachers.unwatch()
        self.teachers = Teachers([])  # the table replaces them
        self.logits = table.as_tensor().flatten(0, 1)
        if device.type == "cuda" and self.logits.nbytes < torch.cuda.mem_get_info(device)[0] // 8:
            self.logits = self.logits.to(device)
        self.index = index.to(device)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within this block, no other run generates the table. All processes must enter it."""
        with ExitStack() as held:
            while not first_decides(lambda: _is_entered(held, self.table.alone())):
                # all of them wait here: if only the first did, the others' wait for it could reach a time limit
                time.sleep(WAIT_S)
            yield

    def _generate(self, trainer: pl.Trainer, data: ImageData) -> None:
        # blocks are shared out by their fixed number: the list of missing blocks changes while other processes write
        numbered = enumerate((v, b) for v in range(self.views) for b in range(self.table.blocks))
        own = {block for n, block in numbered if n % trainer.world_size == trainer.global_rank}
        mine = [block for block in self.table.missing() if block in own]
        if not mine:
            return
        self.teachers.prepare(trainer)
        device, samples, renderer = trainer.strategy.root_device, data.samples, data.renderer
        source, positions = samples.source.on(device), samples.index

        def plans() -> Iterator[BatchPlan]:
            for view, block in mine:
                index = positions[self.table.rows(block)].to(source.device)
                yield renderer.plan(index, torch.full_like(index, view))

        console = Console(stderr=True, quiet=not trainer.is_global_zero)
        if trainer.is_global_zero:
            views, rows, numbers = self.table.shape
            what = f"{views} views of {rows:,} samples, {numbers:,} numbers each, {self.table.num_bytes / 1e6:,.1f} MB"
            print(f"soft targets: {what}; {len(mine)} blocks to generate in {self.table.folder}", file=sys.stderr)
        shown = track(mine, "Soft targets", console=console, disable=not console.is_terminal)
        boxes = None if renderer.first_crop is None else renderer.boxes
        for (images, plan), (view, block) in zip(source.stream(plans(), samples.groups, boxes), shown, strict=True):
            answer = self.teachers.answer(renderer.render(images.to(device), plan)[0])
            parts = [answer.logits[:, : self.num_logits], *(one.flatten(1).float() for one in answer.features)]
            self.table.fill(view, block, torch.cat(parts, 1))

    # Resume

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": self.digests, "mode": self.mode, "views": self.views}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        mine = self.state_dict()
        for name, what in (("teacher", "weights of the teacher"), ("mode", "mode"), ("views", "number of views")):
            if state[name] != mine[name]:
                raise InputError(
                    f"SoftTargets: the {what} is {mine[name]}, but the run was started with {state[name]}: "
                    "resume it with the same"
                )


class Features(NamedTuple):
    """What the method gets of the teacher's features."""

    layers: list[str] | None
    shapes: list[tuple[int, ...]]
    """Those of a sample."""
    read: str = ""
    """What is read of them, in words; empty for themselves."""


def _method(pl_module: pl.LightningModule) -> Method:
    if not isinstance(pl_module, Method):
        raise InputError(f"SoftTargets works with the methods of this program, not with {type(pl_module).__name__}")
    return pl_module


def _is_entered(held: ExitStack, context: AbstractContextManager[None]) -> bool:
    """Whether a context could be entered; if so, it is left with ``held``."""
    try:
        held.enter_context(context)
    except BlockingIOError:
        return False
    return True


def _in_words(transform: Any) -> str:
    """The class of a transform and its options, as text, which is the same in each process."""
    kind, options = type(transform), {k: v for k, v in vars(transform).items() if not k.startswith("_")}
    shown = ", ".join(f"({name!r}, {_shown(value)})" for name, value in sorted(options.items()))
    return f"{kind.__module__}.{kind.__qualname__} [{shown}]"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_shown, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if len(value) == 1 else f"({inner})"
    # the usual text of an object has its address in memory
    return _in_words(value) if hasattr(value, "__dict__") and f"{id(value):x}" in repr(value) else repr(value)

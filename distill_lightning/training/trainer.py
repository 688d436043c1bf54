"""The trainer of the Python interface."""

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from distill_lightning.callbacks.run_checkpoint import RunCheckpoint
from distill_lightning.data.base import ImageData
from distill_lightning.errors import InputError
from distill_lightning.methods.base import Method
from distill_lightning.ranges import CountOrZero, Ranged, RunSeed, refuse_misfits
from distill_lightning.runs import SHAPE
from distill_lightning.training.evaluate import refuse_left_out
from distill_lightning.training.fit import fit
from distill_lightning.training.lean import (
    DEFAULTS,
    Equipment,
    LeanTrainer,
    equip,
    listed,
    quieted,
    refuse_odd_length,
    refuse_odd_numbers,
    refuse_overfit,
)
from distill_lightning.training.options import options_of
from distill_lightning.training.parts import Parts
from distill_lightning.training.result import Result


class Trainer(Ranged):
    """Trains and tests, as ``distill fit`` does: with a run folder, exact resume, a test at the end, and a summary.

    One trainer may be used for several runs. Each gets a folder of its own, and a Lightning trainer of its own;
    EarlyStopping, ModelCheckpoint and the callbacks of this program begin anew. A logger, such as MLFlowLogger, is for
    one run.

        student = dl.KD(dl.models.ResNet20, teacher="teacher.ckpt", temperature=4.0)
        result = dl.Trainer(max_epochs=30).fit(student, dl.CIFAR100())
        result.metrics["test/accuracy"], result.folder

    Args:
        max_epochs: the number of epochs.
        name: the name of the run; by default its network and seed.
        log_dir: the folder of all runs.
        seed: the seed of the run: of new weights, of the order of samples, of all random draws.
        checkpoint: when checkpoints are written, and which metric decides ``best.ckpt``.
        doctor: whether a line at the end says what the curves show, as ``distill doctor`` does.
        options: other options of ``lightning.pytorch.Trainer``, such as ``callbacks``, ``devices``, ``precision``.

    Raises:
        InputError: there is no such option, or an option does not take the value.
    """

    def __init__(
        self,
        max_epochs: CountOrZero | None = None,
        *,
        name: str | None = None,
        log_dir: str | Path = "logs",
        seed: RunSeed = 0,
        checkpoint: RunCheckpoint | None = None,
        doctor: bool = True,
        **options: Any,
    ) -> None:
        refuse_misfits(pl.Trainer, (), options)
        refuse_odd_numbers(options)
        self.options = {"max_epochs": max_epochs, **options}
        self.name, self.log_dir, self.seed = name and str(name), str(log_dir), seed
        self.checkpoint, self.doctor = checkpoint, doctor
        self._before_runs: list[tuple[pl.Callback, dict[str, Any]]] | None = None
        """The callbacks that keep a state from run to run, with their attributes before the first run."""
        self.lightning: pl.Trainer | None = None
        """Lightning's trainer of the last call."""

    def fit(
        self,
        method: Method,
        data: ImageData,
        ckpt_path: str | Path | None = None,
        start_from: str | Path | None = None,
        start_optimizer: bool = False,
    ) -> Result:
        """Trains a method on data, tests it once, and writes the run's folder.

        Networks that the method was given by class, function or name are made now, with new weights from the seed.

        Args:
            method: the method. Afterwards it has the trained network, as ``method.model``.
            data: the data.
            ckpt_path: resumes a run exactly where it stopped: a file, "last", "best" or "auto" (resumes the run of this
                name if there is one); None for a new run. With "last" and "best", give ``name``.
            start_from: what a new run takes its first weights from: the folder of a run, a checkpoint, or a file of
                weights.
            start_optimizer: whether the state of the optimizer is taken along from the checkpoint in ``start_from``.

        Raises:
            InputError: the parts do not fit together, or the run cannot be resumed.
        """
        _refuse_other_parts(method, data)
        given = {"ckpt_path": ckpt_path, "start_from": start_from, "start_optimizer": start_optimizer}
        refuse_misfits(Trainer.fit, (), given)
        refuse_odd_length(self.options, method.trains)
        self._let_callbacks_begin_anew()
        start = {"start_from": None if start_from is None else str(start_from), "start_optimizer": start_optimizer}
        with quieted():
            parts = self._parts(method, data, start)
            return fit(parts, None if ckpt_path is None else str(ckpt_path))

    def _let_callbacks_begin_anew(self) -> None:
        """Gives Lightning's callbacks with a state back the attributes that they had before the first run."""
        if self._before_runs is None:
            kept = [c for c in listed(self.options.get("callbacks")) if isinstance(c, EarlyStopping | ModelCheckpoint)]
            self._before_runs = [(callback, copy.deepcopy(vars(callback))) for callback in kept]
        for callback, before in self._before_runs:
            for name, value in copy.deepcopy(before).items():
                setattr(callback, name, value)

    def validate(self, method: Method, data: ImageData) -> dict[str, float]:
        """The metrics of a method's network on the validation split, by tag.

        A network that was fitted sees the pictures as in its training: with the same classes, size and normalisation.

        Raises:
            InputError: the method has no network yet, there is no such split, or the network was trained on other
                classes or on validation pictures.
        """
        return self._evaluate("validate", method, data)

    def test(self, method: Method, data: ImageData) -> dict[str, float]:
        """The metrics of a method's network on the test split, by tag; see ``validate``."""
        return self._evaluate("test", method, data)

    def _evaluate(self, verb: str, method: Method, data: ImageData) -> dict[str, float]:
        _refuse_other_parts(method, data)
        if not hasattr(method, "model"):
            raise InputError(f"{type(method).__name__} has no network yet: fit it first")
        pl.seed_everything(self.seed, workers=True, verbose=False)
        with quieted():
            trainer, _ = self._lightning(method, shows_progress=False)
            refuse_left_out(trainer, verb)
            getattr(trainer, verb)(method, datamodule=data.for_network_of(method.trained_on), verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def _parts(self, method: Method, data: ImageData, start: dict[str, Any]) -> Parts:
        pl.seed_everything(self.seed, workers=True, verbose=False)
        shape = dict(zip(SHAPE, (data.num_classes, data.channels, data.image_size), strict=True))
        networks = method.make_networks(shape, data.name)
        checkpoint = RunCheckpoint(**(self.checkpoint.given_arguments if self.checkpoint else {}))
        of_run = (self.seed, self.log_dir, self.name, start, self.doctor)
        config = options_of(method, data, networks, self.options, checkpoint, *of_run)
        described = config.options["model"]
        # as the command writes them, for load_from_checkpoint
        how = {"_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": described["class_path"]}
        method.hparams.update(how | described["init_args"])
        trainer, equipment = self._lightning(method, checkpoint)
        return Parts(config, method, data, trainer, checkpoint, equipment.checkpoint_io, equipment.loggers)

    def _lightning(self, method: Method, *callbacks: Any, shows_progress: bool = True) -> tuple[LeanTrainer, Equipment]:
        refuse_overfit(self.options)
        equipment = equip(self.options, method, shows_progress)
        all_callbacks = [*equipment.options["callbacks"], *callbacks]
        trainer = LeanTrainer(**{**DEFAULTS, **self.options, **equipment.options, "callbacks": all_callbacks})
        self.lightning = trainer
        return trainer, equipment


def _refuse_other_parts(method: Any, data: Any) -> None:
    if not isinstance(method, Method):
        raise InputError(f"method is a {type(method).__name__}: give a method, as KD(network, teacher=...)")
    if not isinstance(data, ImageData):
        raise InputError(
            f"data is a {type(data).__name__}: give a data module, as ImageFolder(root), or use lightning's Trainer "
            "with your loaders"
        )

"""The content of summary.json."""

from typing import Any

import lightning
import torch

from distill_lightning.confusion import by_class
from distill_lightning.environment import versions
from distill_lightning.runs import RunConfig
from distill_lightning.training.parts import Parts
from distill_lightning.values import Summarised


def _by_class(parts: Parts) -> dict[str, dict[str, float | None]]:
    """The number of test pictures, accuracy, precision and F1 of each class, by its name; None where undefined."""
    columns = {name: values.tolist() for name, values in by_class(torch.tensor(parts.method.confusion)).items()}
    return {
        name: {column: None if values[k] != values[k] else values[k] for column, values in columns.items()}
        for k, name in enumerate(parts.data.class_names)
    }


def summarise(parts: Parts, config: RunConfig, metrics: dict[str, float]) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        parts: the parts of the run.
        config: the configuration in the run's folder.
        metrics: the last value of each tag.
    """
    trainer, method = parts.trainer, parts.method
    parameters = list(method.model.parameters())
    matrices = [p for p in parameters if p.ndim > 1]
    device = trainer.strategy.root_device
    of_callbacks = [c.summary() for c in trainer.callbacks if isinstance(c, Summarised)]  # type: ignore[attr-defined]
    return {
        **{k: v for summary in of_callbacks for k, v in summary.items()},
        "metrics": metrics,
        "wall_time_s": round(parts.checkpoint.wall_time_s(), 3),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "exposures": method.means.exposures,
        "parameters": sum(p.numel() for p in parameters),
        "density": sum(int(p.count_nonzero()) for p in matrices) / sum(p.numel() for p in matrices),
        "calibration": method.calibration,
        "classes": _by_class(parts) if method.confusion else {},
        "seed": config.seed,
        "config_digest": config.id(),
        "versions": versions(torch=torch.__version__, lightning=lightning.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
    }

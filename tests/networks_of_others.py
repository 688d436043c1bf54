"""Networks of torchvision and timm, each through a training step, a test, as a teacher, pruned, and opened again.

    python tests/networks_of_others.py docs/results/networks.md      # all: an hour or two on one core
    python tests/networks_of_others.py out.md --only resnet          # those with this text in their names

``tests/test_networks_of_others.py`` runs one network of each kind.
"""

import argparse
import contextlib
import gc
import logging
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import lightning.pytorch as pl
import torch
from helpers import write_pictures
from torchvision import models

from distill_lightning.callbacks import lottery
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork, build_network
from distill_lightning.data.folder import ImageFolder
from distill_lightning.errors import InputError
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.kd import KD
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.foreign import foreign_network, spelled_out, takes_size
from distill_lightning.weights import load_weights

MOST_PARAMETERS = 100e6
SIZES = (32, 64, 96, 224, 299)
"""The picture sizes that are tried, in this order."""
CLASSES = 4
OF_TIMM = [
    "resnet10t", "resnetv2_50d_gn", "seresnext26d_32x4d", "ecaresnet26t", "res2net50_14w_8s", "skresnet18",
    "regnetx_002", "regnety_002", "repvgg_a0", "densenet121", "dla46_c", "hrnet_w18_small", "vovnet39a", "selecsls42b",
    "convnext_atto", "convnextv2_atto", "inception_next_atto", "efficientnet_b0", "tf_efficientnetv2_b0",
    "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small", "ghostnet_050", "mnasnet_small",
    "eca_nfnet_l0", "xception41", "starnet_s1", "repghostnet_050", "hardcorenas_a", "mobileone_s0", "fastvit_t8",
    "repvit_m0_9", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224",
    "cait_xxs24_224", "crossvit_tiny_240", "convit_tiny", "xcit_nano_12_p16_224", "volo_d1_224", "pit_ti_224",
    "levit_128s", "tnt_s_legacy_patch16_224", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_ns_224",
    "twins_pcpvt_small", "pvt_v2_b0", "hiera_tiny_224", "coat_tiny", "coatnet_pico_rw_224", "maxvit_rmlp_pico_rw_256",
    "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small", "efficientformer_l1", "efficientvit_b0", "efficientvit_m0",
    "davit_tiny", "focalnet_tiny_srf", "poolformer_s12", "visformer_tiny", "tiny_vit_5m_224", "mixer_s32_224",
    "gmixer_24_224", "resmlp_12_224", "gmlp_ti16_224", "vit_tiny_r_s16_p8_224",
]  # fmt: skip


@dataclass
class Row:
    """What a network did. Empty for what was not tried; "yes", or the reason why not."""

    network: str
    parameters: str = ""
    pictures: str = ""
    trains: str = ""
    tested: str = ""
    teaches: str = ""
    pruned: str = ""
    reopens: str = ""
    seconds: str = ""


def trainer(**options) -> pl.Trainer:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=1, **dict.fromkeys(quiet, False), **options)


def data_of(folder: Path, size: int) -> ImageFolder:
    return ImageFolder(str(folder), image_size=size, cache=str(folder / "cache"), batch_size=4, num_workers=0)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.001, momentum=0.9)


@contextlib.contextmanager
def reason_of(row: Row, name: str):
    """Writes "yes" into a column, or the reason of an error in one line."""
    try:
        yield
        setattr(row, name, getattr(row, name) or "yes")
    except InputError as error:
        setattr(row, name, f"refused: {str(error)[:160]}")
    except Exception as error:
        setattr(row, name, f"fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}")


def check(name: str, folder: Path) -> Row:
    """Takes a network, as "torchvision:resnet18", through all."""
    start, row = time.monotonic(), Row(name)
    spec = spelled_out(name)
    assert spec is not None
    sized = takes_size(spec["class_path"], spec["init_args"])

    def arguments(size: int) -> dict:
        more = {"init_weights": False} if name.endswith((":googlenet", ":inception_v3")) else {}
        return spec["init_args"] | more | {"num_classes": CLASSES} | ({"image_size": size} if sized else {})

    def build(size: int):
        torch.manual_seed(0)
        return foreign_network(spec["class_path"], arguments(size))

    for size in SIZES:
        method, data, last = None, data_of(folder, size), row.trains
        row.trains = ""
        with reason_of(row, "trains"):
            network = build(size)
            row.parameters = f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M"
            method = Baseline(network, optimizer=sgd)
            before = [p.detach().clone() for p in network.parameters()]
            trainer(limit_val_batches=0).fit(method, datamodule=data)
            moved = sum(not a.equal(b) for a, b in zip(before, network.parameters(), strict=True)) / len(before)
            assert moved > 0.1, f"only {moved:.0%} of the parameters move"
        if row.trains == "yes":
            row.pictures = f"{size}x{size}"
            break
        if last.startswith("fails"):  # more telling than that the next size does not fit
            row.trains = last
    if row.trains == "yes":
        assert method is not None
        with reason_of(row, "tested"):
            run = trainer()
            run.test(method, datamodule=data, verbose=False)
            assert 0 <= float(run.callback_metrics["test/accuracy"]) <= 1
        with reason_of(row, "reopens"):
            kept = {"class_path": spec["class_path"], "init_args": arguments(size)}
            state = method.model.state_dict()
            opened = build_network(kept, name, sum(value.numel() for value in state.values()))
            load_weights(opened, state, name)
        with reason_of(row, "teaches"):
            student = KD(ConvNet(num_classes=CLASSES, in_channels=3), optimizer=sgd)
            teacher = SoftTargets(PlainNetwork(method.model.requires_grad_(True)))
            trainer(limit_val_batches=0, callbacks=[teacher]).fit(student, datamodule=data)
        with reason_of(row, "pruned"):
            pruning = Lottery(rounds=1)
            trainer(callbacks=[pruning]).fit(Baseline(build(size), optimizer=sgd), datamodule=data)
            row.pruned = f"yes, {pruning.density_now:.2f} left"
    row.seconds = f"{time.monotonic() - start:.0f}"
    return row


def of_torchvision() -> list[str]:
    """The classification networks under MOST_PARAMETERS, by the counts that torchvision gives for their weights."""
    counts = {n: models.get_model_weights(n).DEFAULT.meta["num_params"] for n in models.list_models(module=models)}
    small = sorted((count, name) for name, count in counts.items() if count < MOST_PARAMETERS)
    return [f"torchvision:{name}" for _, name in small]


def table(rows: list[Row], left_out: list[str]) -> str:
    """The rows as a page of Markdown."""
    names = [field.name for field in fields(Row)]
    good = [row for row in rows if all("yes" in getattr(row, n) for n in names[3:8])]
    libraries = {row.network.partition(":")[0] for row in rows}
    counts = ", ".join(f"{sum(r.network.startswith(lib) for r in rows)} of {lib}" for lib in sorted(libraries))
    lines = [
        "# Networks of torchvision and timm",
        "",
        "Made by `python tests/networks_of_others.py docs/results/networks.md`. Each network gets one training step, "
        "a test, one step as a teacher, one round of pruning (`Lottery`, a fifth of the weights), and is built again "
        "from its specification with its weights. The pictures are made, of the smallest size in "
        f"{', '.join(map(str, SIZES))} that the network takes. `seconds` is the time for all of this on one core.",
        "",
        f"{len(rows)} networks ({counts}): those of torchvision under {MOST_PARAMETERS / 1e6:.0f} million parameters, "
        f"and some of timm. {len(good)} pass everywhere. Not tried, since they are larger: {', '.join(left_out)}.",
        "",
        f"torch {torch.__version__.partition('+')[0]}, torchvision and timm of the same day, CPU.",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
    ]
    rows = sorted(rows, key=lambda row: (row.network.partition(":")[0] == "timm", row.network))
    lines += ["| " + " | ".join(getattr(row, n).replace("|", "/") or "-" for n in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    lottery.time_network = lambda method: {}  # takes longer than all the rest
    known = of_torchvision()
    names = [n for n in [*known, *(f"timm:{n}" for n in OF_TIMM)] if options.only in n]
    left_out = sorted(set(models.list_models(module=models)) - {n.partition(":")[2] for n in known})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part in ("train", "test"):
            write_pictures(Path(folder) / part, CLASSES, 4, 64)
        for name in names:
            rows.append(check(name, Path(folder)))
            print(rows[-1], file=sys.stderr, flush=True)
            gc.collect()
            options.page.write_text(table(rows, left_out))


if __name__ == "__main__":
    main()

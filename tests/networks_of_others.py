"""Networks of torchvision and timm, each through training, a test, as a teacher, pruned, opened again, and exported.

    python tests/networks_of_others.py rows.jsonl docs/results/networks.md      # all: an hour or two on one core
    python tests/networks_of_others.py rows.jsonl out.md --only resnet          # those with this text in their names

Each row is appended to ``rows.jsonl`` when it is finished, and the page is made from that file. Started again, the
command goes on with the networks that are not there. ``tests/test_networks_of_others.py`` runs one of each kind.
"""

import argparse
import contextlib
import gc
import json
import logging
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from helpers import write_pictures
from torch import nn
from torch.nn import functional as F
from torchvision import models

from distill_lightning.callbacks import lottery
from distill_lightning.callbacks.lottery import Lottery
from distill_lightning.callbacks.soft_targets import SoftTargets
from distill_lightning.checkpoints import PlainNetwork, build_network
from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.rendering import Normaliser
from distill_lightning.errors import InputError
from distill_lightning.exporting import export, onnx_files, parity
from distill_lightning.exporting.opening import PictureClassifier
from distill_lightning.methods.baseline import Baseline
from distill_lightning.methods.kd import KD
from distill_lightning.models.convnet import ConvNet
from distill_lightning.models.foreign import foreign_network, spelled_out, takes_size
from distill_lightning.weights import load_weights

MOST_PARAMETERS = 100e6
SIZES = (32, 64, 96, 224, 240, 256, 299)
"""The picture sizes that are tried, in this order."""
STEPS = 2
"""Training steps. Some networks start with a head of zeros, so that nothing before it moves in the first step."""
CLASSES = 4
WITH_WEIGHTS = ("torchvision:vgg16", "torchvision:regnet_y_128gf")
"""Networks over MOST_PARAMETERS that are exported with weights, too. The second needs 11 GB of memory."""
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
    exported: str = ""
    seconds: str = ""


COLUMNS = ("trains", "tested", "teaches", "pruned", "reopens", "exported")


def trainer(steps: int = 1, **options) -> pl.Trainer:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=steps,
        gradient_clip_val=1.0,
        **dict.fromkeys(quiet, False),
        **options,
    )


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


def spec_of(name: str, size: int) -> dict:
    """The specification of a network for pictures of a size."""
    spec = spelled_out(name)
    assert spec is not None
    more = {"init_weights": False} if name.endswith((":googlenet", ":inception_v3")) else {}
    more |= {"image_size": size} if takes_size(spec["class_path"], spec["init_args"]) else {}
    return {"class_path": spec["class_path"], "init_args": spec["init_args"] | more | {"num_classes": CLASSES}}


def build(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    spec = spec_of(name, size)
    return foreign_network(spec["class_path"], spec["init_args"])


def check(name: str, folder: Path) -> Row:
    """Takes a network, as "torchvision:resnet18", through all but the export."""
    start, row = time.monotonic(), Row(name)
    for size in SIZES:
        method, data, last = None, data_of(folder, size), row.trains
        row.trains = ""
        with reason_of(row, "trains"):
            network = build(name, size)
            row.parameters = f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M"
            method = Baseline(network, optimizer=sgd)
            before = [p.detach().clone() for p in network.parameters()]
            trainer(STEPS, limit_val_batches=0).fit(method, datamodule=data)
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
            state = method.model.state_dict()
            opened = build_network(spec_of(name, size), name, sum(value.numel() for value in state.values()))
            load_weights(opened, state, name)
        with reason_of(row, "teaches"):
            student = KD(ConvNet(num_classes=CLASSES, in_channels=3), optimizer=sgd)
            teacher = SoftTargets(PlainNetwork(method.model.requires_grad_(True)))
            trainer(limit_val_batches=0, callbacks=[teacher]).fit(student, datamodule=data)
        with reason_of(row, "pruned"):
            pruning = Lottery(rounds=1)
            trainer(callbacks=[pruning]).fit(Baseline(build(name, size), optimizer=sgd), datamodule=data)
            row.pruned = f"yes, {pruning.density_now:.2f} left"
    row.seconds = f"{time.monotonic() - start:.0f}"
    return row


def check_export(row: Row, folder: Path, steps: int = 1) -> Row:
    """Exports a network as ONNX after training steps. The row gets the largest difference of a probability."""
    start, size = time.monotonic(), int(row.pictures.partition("x")[0])
    row = replace(row, exported="")
    with reason_of(row, "exported"), tempfile.TemporaryDirectory() as made:
        method, data, training = (
            Baseline(build(row.network, size), optimizer=sgd),
            data_of(folder, size),
            trainer(steps),
        )
        training.fit(method, datamodule=data)
        training.save_checkpoint(f"{made}/last.ckpt")
        report = export(f"{made}/last.ckpt", network=method.model, data=data, out=f"{made}/model.onnx")
        outside = ", external data" if Path(f"{made}/model.onnx.data").exists() else ""
        row.exported = f"yes, {max(found['probs'] for found in report.parity.batches.values()):.0e}{outside}"
    return replace(row, seconds=f"{float(row.seconds) + time.monotonic() - start:.0f}")


def check_shapes(name: str) -> Row:
    """Takes a large network through a training step and ``torch.export`` by shapes alone, on the meta device."""
    start, row = time.monotonic(), Row(name)
    for size in SIZES:
        row.trains = ""
        with reason_of(row, "trains"):
            # the RegNets compute their widths with tensors, which must have values
            with torch.device("cpu" if ":regnet" in name else "meta"):
                network = build(name, size).to("meta")
            row.parameters = f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M"
            logits = network(torch.empty(2, 3, size, size, device="meta"))
            assert logits.shape == (2, CLASSES), logits.shape
            F.cross_entropy(logits, torch.zeros(2, dtype=torch.long, device="meta")).backward()
            assert all(p.grad is not None and p.grad.shape == p.shape for p in network.parameters())
        if row.trains == "yes":
            row.trains, row.pictures = "yes, by shapes", f"{size}x{size}"
            with reason_of(row, "exported"):
                classifier = PictureClassifier(network, Normaliser(torch.zeros(3), torch.ones(3))).to("meta")
                onnx_files.program_of(classifier, (3, size, size), "meta")
                row.exported = "yes, by shapes"
            break
    row.seconds = f"{time.monotonic() - start:.0f}"
    return row


def of_torchvision() -> tuple[list[str], list[str]]:
    """The classification networks under MOST_PARAMETERS and over, by the counts that torchvision gives."""
    counts = {n: models.get_model_weights(n).DEFAULT.meta["num_params"] for n in models.list_models(module=models)}
    names = [f"torchvision:{name}" for name in sorted(counts, key=counts.__getitem__)]
    small = sum(count < MOST_PARAMETERS for count in counts.values())
    return names[:small], names[small:]


def table(rows: list[Row]) -> str:
    """The rows as a page of Markdown."""
    small, large = of_torchvision()
    wanted = {*small, *large, *(f"timm:{name}" for name in OF_TIMM)}
    missing = len(wanted - {row.network for row in rows})
    not_exported = sum(bool(row.pictures) and not row.exported for row in rows)
    names = [field.name for field in fields(Row)]
    good = [row for row in rows if all(getattr(row, name).startswith("yes") for name in COLUMNS)]
    by_shapes = [row for row in rows if "by shapes" in row.trains]
    libraries = {row.network.partition(":")[0] for row in rows}
    counts = ", ".join(f"{sum(r.network.startswith(lib) for r in rows)} of {lib}" for lib in sorted(libraries))
    lines = [
        "# Networks of torchvision and timm",
        "",
        f"Made by `python tests/networks_of_others.py rows.jsonl docs/results/networks.md`. Each network gets {STEPS} "
        f"training steps, a test, one step as a teacher, and one round of pruning (`Lottery`, a fifth of the "
        "weights). It is built again from its specification with its weights, and exported as ONNX. The file is "
        "compared with the network on 8 pictures: `exported` is the largest difference of a probability. The pictures "
        f"are made, of the smallest size in {', '.join(map(str, SIZES))} that the network takes. `seconds` is the time "
        "for all of this on one core that other programs use, too.",
        "",
        f"{len(rows)} networks ({counts}): the classification networks of torchvision, and some of timm. {len(good)} "
        f"pass everywhere. {len(by_shapes)} have over {MOST_PARAMETERS / 1e6:.0f} million parameters: they are built "
        "on torch's meta device, where a training step and `torch.export` are run by shapes alone. Two of them are "
        "exported with weights, one of these over 2 GB, which ONNX keeps in a file of its own (`external data`)."
        + (f" **{missing} networks are not tried yet.**" if missing else "")
        + (f" **{not_exported} are not exported yet.**" if not_exported else ""),
        "",
        f"torch {torch.__version__.partition('+')[0]}, torchvision and timm of the same day, CPU.",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
    ]
    rows = sorted(rows, key=lambda row: (row.network.partition(":")[0] == "timm", row.network))
    lines += ["| " + " | ".join(getattr(row, n).replace("|", "/") or "-" for n in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def read_rows(path: Path) -> dict[str, Row]:
    """The rows in a file of JSON lines, by network. Of two rows of a network the later one counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row.network: row for row in (Row(**json.loads(line)) for line in lines)}


def by_family(rows: list[Row]) -> list[Row]:
    """One network of each family, then a second one of each, and so on."""
    seen: Counter[str] = Counter()

    def place(row: Row) -> int:
        family = re.split(r"[\d_]", row.network)[0]
        seen[family] += 1
        return seen[family]

    return sorted(rows, key=place)


def keep(row: Row, options: argparse.Namespace) -> None:
    """Appends a row to the file, and makes the page anew."""
    with options.rows.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")
    print(row, file=sys.stderr, flush=True)
    rows = read_rows(options.rows)
    options.page.write_text(table(list(rows.values())))
    gc.collect()


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="the file of JSON lines that the rows are kept in")
    parser.add_argument("page", type=Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # what is measured of a network takes longer than all the rest
    lottery.time_network = lambda method: {}
    lottery.sizes = lambda state, small: {}
    parity.latencies = lambda runs, pictures: {name: {} for name in runs}
    small, large = of_torchvision()
    names = [n for n in [*small, *large, *(f"timm:{n}" for n in OF_TIMM)] if options.only in n]
    with tempfile.TemporaryDirectory() as folder:
        for part, each in (("train", 4), ("test", 2)):
            write_pictures(Path(folder) / part, CLASSES, each, 64)
        for name in names:
            if name not in read_rows(options.rows):
                row = check_shapes(name) if name in large else check(name, Path(folder))
                keep(check_export(row, Path(folder), steps=0) if name in WITH_WEIGHTS else row, options)
        # exports take longest, so they come last
        for row in by_family([row for row in read_rows(options.rows).values() if row.network in names]):
            if row.pictures and not row.exported:
                keep(check_export(row, Path(folder)), options)


if __name__ == "__main__":
    main()

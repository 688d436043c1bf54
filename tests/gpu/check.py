"""Checks the program on one GPU, within ten minutes: what is right there, and how fast.

    python tests/gpu/check.py OUT [--device gpu] [--minutes 9] [--only NAME ...]

The parts run in the order of ``PARTS``, so that the first minutes answer the first questions; a part that would begin
too late is left out and named. After each part OUT is written, as JSON: for each part its seconds, its results, whether
they are right ("ok"), or the error that ended it. The status is 0 if all are. ``--device cpu`` rehearses the script,
with fewer and smaller runs. Nothing is downloaded.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torchvision.io

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from same_as import CASES, STOPPER, Case  # noqa: E402

from distill_lightning.__main__ import main as distill  # noqa: E402
from distill_lightning.runs.metrics import read_metrics  # noqa: E402

CONFIGS = ROOT / "configs"
Result = dict[str, Any]
CLOSE = 0.02
"""How far the mean loss of an epoch on a GPU may lie from that on the CPU, as a share: sums are rounded otherwise."""
LONGEST_S = 90.0
"""The seconds that a process may take."""
ENOUGH_S = 10.0
"""The seconds that a further case of ``methods`` may need."""


class Check:
    """What all parts know."""

    def __init__(self, device: str, folder: Path, ends_s: float) -> None:
        self.device, self.folder, self.ends_s = device, folder, ends_s
        self.rehearsal = device == "cpu"

    @property
    def left_s(self) -> float:
        """The seconds that are left."""
        return max(1.0, self.ends_s - time.monotonic())

    def run(self, args: str, name: str, device: str | None = None) -> Path:
        """Trains by the command, in this process, and gives the run's folder.

        Raises:
            RuntimeError: the command refused, or failed.
        """
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        words = [*shlex.split(args), "--trainer.accelerator", device or self.device, "--trainer.devices", "1"]
        errors = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = distill(words)
        if status:
            raise RuntimeError(errors.getvalue().strip().splitlines()[-1])
        return next(path.parent for path in sorted(folder.rglob("metrics.csv")))

    def start(self, args: str, name: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stopper.py").write_text(STOPPER)
        words = [sys.executable, "-m", "distill_lightning", *shlex.split(args)]
        given = {**os.environ, "PYTHONPATH": str(ROOT), **env}
        return subprocess.run(
            words,
            cwd=folder,
            env=given,
            check=False,
            capture_output=True,
            text=True,
            timeout=min(LONGEST_S, self.left_s),
        )


def last(run: Path, tag: str) -> float:
    """The last value of a metric of a run."""
    return [value for _, found, value in read_metrics(run / "metrics.csv") if found == tag][-1]


def state(run: Path) -> dict[str, torch.Tensor]:
    """The weights of a run's last checkpoint."""
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    weights: dict[str, torch.Tensor] = saved["state_dict"]
    return weights


def environment(check: Check) -> Result:
    """The versions, and the card."""
    names = ("torch", "torchvision", "lightning", "jsonargparse", "numpy")
    found: Result = {name: importlib.metadata.version(name) for name in names}
    if not check.rehearsal:
        found |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found | {"ok": True}


def methods(check: Check) -> Result:
    """Every method, teacher, mixture and augmentation, as tests/same_as.py has them: the loss of the last epoch beside
    that of the CPU, which draws the same samples and pictures.
    """
    few = ("teacher", "baseline", "kd_table", "dlb", "crd", "lottery_layers")
    cases = [
        case
        for case in CASES
        if not any(step.alone or step.patched or "{pictures}" in " ".join(step.args) for step in case.steps)
        and (case.name in few or not check.rehearsal)
    ]
    found: Result = {}
    for case in cases:
        if check.left_s < ENOUGH_S:
            break
        try:
            losses = [last(_of_case(check, case, device), "train/epoch_loss") for device in (check.device, "cpu")]
        except Exception as error:
            found[case.name] = {"error": f"{type(error).__name__}: {error}"}
            continue
        found[case.name] = {"loss": losses[0], "cpu": losses[1], "ok": _close(*losses)}
    wrong = {name: one for name, one in found.items() if not one.get("ok")}
    left = len(cases) - len(found)
    return {"cases": len(found), "not_reached": left, "wrong": wrong, "largest": _largest(found), "ok": not wrong}


def _close(first: float, second: float) -> bool:
    return abs(first - second) <= CLOSE * max(abs(second), 1e-9)


def _largest(found: Result) -> float:
    return max((abs(one["loss"] / one["cpu"] - 1) for one in found.values() if one.get("cpu")), default=0.0)


def _of_case(check: Check, case: Case, device: str) -> Path:
    cases = check.folder / "methods" / device
    if list((cases / case.name).rglob("summary.json")):
        return next(iter((cases / case.name).rglob("metrics.csv"))).parent
    args = " ".join(shlex.quote(arg) for arg in case.steps[0].args)
    args = args.replace("{configs}", str(CONFIGS)).replace("{cases}", str(cases))
    return check.run(args, f"methods/{device}/{case.name}", device)


SHORT = "fit --config digits/baseline --trainer.max_epochs 4 --data.train_part 512 --trainer.log_every_n_steps 4"


def forms(check: Check) -> Result:
    """The forms of a step. Each must learn: its loss falls below that of guessing, ln 10."""
    given = {
        "full": "",
        "bf16": "--trainer.precision bf16-mixed",
        "tf32": "--model.network LeNet300100",
        "channels_last": "--model.channels_last true",
        "fused": "--model.optimizer.fused true",
        "adamw_fused": "--model.optimizer AdamW --model.optimizer.lr 0.003 --model.optimizer.fused true",
    }
    if not check.rehearsal:
        given |= {
            "fp16_with_scaler": "--trainer.precision 16-mixed",
            "compiled": "--model.compile true",
            "compiled_dlb": "--model DLB --model.compile true",
            "cuda_graphs": "--model.cuda_graphs true",
            "cuda_graphs_dlb": "--model DLB --model.cuda_graphs true",
            "clipped_fp16": "--trainer.precision 16-mixed --trainer.gradient_clip_val 1.0",
        }
    found: Result = {}
    for name, options in given.items():
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        begun = time.monotonic()
        try:
            run = check.run(f"{SHORT} {options}", f"forms/{name}")
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
            continue
        found[name] = {"loss": last(run, "train/epoch_loss"), "accuracy": last(run, "test/accuracy")}
        found[name]["seconds"] = round(time.monotonic() - begun, 2)
    torch.set_float32_matmul_precision("highest")
    return found | {"ok": all(one.get("loss", math.inf) < 0.9 * math.log(10) for one in found.values())}


def resume(check: Check) -> Result:
    """Killed in the middle of an epoch, and resumed: the weights are those of the run that was not, bitwise."""
    options = f"--trainer.accelerator {check.device} --trainer.devices 1 --trainer.deterministic true"
    args = f"{SHORT} --model DLB {options} --checkpoint.every_n_steps 3 --trainer.callbacks+=stopper.Stopper"
    env = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    whole = check.start(args, "resume/whole", **env)
    killed = check.start(args, "resume/killed", **env, STOP_AT="SIGKILL 13")
    again = check.start(f"{args} --ckpt_path last", "resume/killed", **env)
    if (whole.returncode, killed.returncode, again.returncode) != (0, -signal.SIGKILL, 0):
        return {"error": [one.stderr.strip().splitlines()[-1:] for one in (whole, killed, again)], "ok": False}
    first, second = (
        state(next((check.folder / "resume" / name).rglob("summary.json")).parent) for name in ("whole", "killed")
    )
    equal = all(first[name].equal(second[name]) for name in first)
    return {"equal": equal, "tensors": len(first), "ok": equal}


def processes(check: Check) -> Result:
    """One process by NCCL, and two by gloo that share the card: their losses beside that of one process."""
    args = f"{SHORT} --model.network LeNet300100"  # without batch norm, which differs on half a batch
    found: Result = {"alone": last(check.run(args, "processes/alone"), "train/epoch_loss")}
    on = f"{args} --trainer.accelerator {check.device} --trainer.devices 1"
    if not check.rehearsal:
        made = check.start(f"{on} --trainer.strategy ddp", "processes/nccl")
        found["one_nccl"] = _loss_or_error(check, "processes/nccl", made)
    # each process is a node of its own, or they could not have the same card
    strategy = "--trainer.strategy lightning.pytorch.strategies.DDPStrategy"
    args = f"{on} --trainer.num_nodes 2 {strategy} --trainer.strategy.process_group_backend gloo"
    nodes = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29571"}
    with ThreadPoolExecutor() as pool:
        ranks = [pool.submit(check.start, args, "processes/gloo", **nodes, NODE_RANK=rank) for rank in ("0", "1")]
        made = ranks[0].result()
    found["two_gloo"] = _loss_or_error(check, "processes/gloo", made)
    return found | {"ok": all(isinstance(one, float) and _close(one, found["alone"]) for one in found.values())}


def _loss_or_error(check: Check, name: str, made: subprocess.CompletedProcess[str]) -> Any:
    if made.returncode:
        return {"error": made.stderr.strip().splitlines()[-1:]}
    return last(next((check.folder / name).rglob("metrics.csv")).parent, "train/epoch_loss")


RESNET = "--model.network ResNet20 --data.image_size 32 --data.batch_size 128"
NETWORKS = {
    "resnet20": RESNET,
    "resnet20_bf16": f"{RESNET} --trainer.precision bf16-mixed --model.channels_last true",
    "resnet20_compiled": f"{RESNET} --model.compile true",
    "resnet20_cuda_graphs": f"{RESNET} --model.cuda_graphs true",
    "lenet": "--model.network LeNet300100 --data.image_size 28 --data.batch_size 60",
}


def speed(check: Check) -> Result:
    """A step of a run in steps of the bare loop, and its peak memory."""
    found: Result = {}
    names = ["lenet"] if check.rehearsal else [*NETWORKS]
    turns = "--turns 3 --steps 3" if check.rehearsal else "--turns 15 --steps 15"
    for name in names:
        args = f"bench --config digits/baseline {NETWORKS[name]} --trainer.accelerator {check.device} {turns}"
        made = check.start(args, f"speed/{name}")
        if made.returncode:
            found[name] = {"error": made.stderr.strip().splitlines()[-1:]}
            continue
        numbers = json.loads(made.stdout.strip().splitlines()[-1])
        kept = ("bare_s", "run_s", "data_s", "run_to_bare", "peak_bytes", "compiled")
        found[name] = {key: numbers[key] for key in kept if key in numbers}
    return found | {"ok": not any("error" in one for one in found.values())}


def jpeg(check: Check) -> Result:
    """JPEGs decoded by the card (nvJPEG) and by one thread of the CPU: pictures a second, and how far they differ."""
    count, batch = (16, 8) if check.rehearsal else (512, 128)
    draw = torch.Generator().manual_seed(0)
    smooth = torch.rand(16, 3, 24, 32, generator=draw).mul(255)  # as smooth as photographs are
    pictures = torch.nn.functional.interpolate(smooth, (375, 500), mode="bicubic").clamp(0, 255).to(torch.uint8)
    files = [torchvision.io.encode_jpeg(pictures[number % 16]) for number in range(count)]
    target = torch.device("cpu" if check.rehearsal else "cuda")

    def decoded(device: torch.device) -> tuple[list[torch.Tensor], float]:
        torchvision.io.decode_jpeg(files[:batch], device=device)  # the first call loads the library
        begun = time.monotonic()
        found = [
            one
            for start in range(0, count, batch)
            for one in torchvision.io.decode_jpeg(files[start : start + batch], device=device)
        ]
        if device.type == "cuda":
            torch.cuda.synchronize()
        return [one.cpu() for one in found], count / (time.monotonic() - begun)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (by_cpu, of_cpu), (by_card, of_card) = decoded(torch.device("cpu")), decoded(target)
    torch.set_num_threads(threads)
    apart = [(a.int() - b.int()).abs().float() for a, b in zip(by_cpu, by_card, strict=True)]
    found = {"largest": max(one.max().item() for one in apart), "mean": sum(one.mean().item() for one in apart) / count}
    return found | {"cpu_per_s": of_cpu, "card_per_s": of_card, "ok": found["mean"] < 1.0}


def members(check: Check) -> Result:
    """Ten ResNet-20 side by side, ten processes that share the card, and one alone: samples a second of each run, and
    the losses of the first member and of the run alone.
    """
    count, epochs = (2, 2) if check.rehearsal else (10, 8)
    network = NETWORKS["lenet" if check.rehearsal else "resnet20"]
    options = f"--config digits/baseline {network} --trainer.max_epochs {epochs} --trainer.log_every_n_steps 4"
    alone = check.run(f"fit {options}", "members/alone")
    check.run(f"members --seeds {count} {options}", "members/together")
    together = sorted((check.folder / "members/together").rglob("metrics.csv"))
    with ThreadPoolExecutor(count) as pool:
        made = pool.map(
            lambda seed: check.start(
                f"fit {options} --seed_everything {seed} --trainer.accelerator {check.device}", f"members/process{seed}"
            ),
            range(count),
        )
        failed = [one.stderr.strip().splitlines()[-1:] for one in made if one.returncode]
    apart = sorted((check.folder / "members").glob("process*/**/metrics.csv"))
    speeds = {
        "alone": last(alone, "train/samples_per_s"),
        "side_by_side": min(last(path.parent, "train/samples_per_s") for path in together),
        "processes": min(last(path.parent, "train/samples_per_s") for path in apart) if not failed else None,
    }
    losses = [last(run, "train/epoch_loss") for run in (alone, together[0].parent)]
    in_time_of = {f"{name}_in_runs": speeds["alone"] / one for name, one in speeds.items() if one}
    found = {"count": count, "samples_per_s": speeds, "losses": losses, "failed": failed} | in_time_of
    return found | {"ok": len(together) == count and not failed and _close(*losses)}


def soft_targets(check: Check) -> Result:
    """KD with a table, and with the teacher asked in each step, which agree; the seconds of each run."""
    teacher = check.run(f"{SHORT} --model.network ResNet20 --data.image_size 32", "soft_targets/teacher")
    kd = f"fit --config digits/kd --data.image_size 32 --trainer.max_epochs 2 --trainer.callbacks.teacher {teacher} "
    found: Result = {}
    for mode, options in (("table", "--trainer.callbacks.views 2"), ("online", "")):
        begun = time.monotonic()
        run = check.run(f"{kd} --trainer.callbacks.mode {mode} {options}", f"soft_targets/{mode}")
        found[mode] = {"loss": last(run, "train/epoch_loss"), "seconds": round(time.monotonic() - begun, 2)}
    return found | {"ok": _close(found["table"]["loss"], found["online"]["loss"])}


def ship(check: Check) -> Result:
    """A run of this device is opened, predicts and is exported on the CPU."""
    run = check.run(SHORT, "ship/run")
    found: Result = {}
    for form in ("safetensors", "torch-export"):
        made = check.start(f"export {run} --format {form} --out model.{form}", "ship")
        found[form] = "ok" if made.returncode == 0 else made.stderr.strip().splitlines()[-1:]
    made = check.start(f"test {run} --trainer.accelerator cpu", "ship")
    shown = re.search(r"accuracy\s*│\s*([\d.]+)", made.stdout)
    found |= {"on_cpu": float(shown[1]) if shown else made.stderr[-300:], "here": last(run, "test/accuracy")}
    same = shown is not None and abs(found["on_cpu"] - found["here"]) < 0.01
    return found | {"ok": same and found["safetensors"] == found["torch-export"] == "ok"}


def suite(check: Check) -> Result:
    """The tests of losses, networks and methods with the card visible: they use the CPU, but must not mind it."""
    names = ["tests/test_losses.py"] + ([] if check.rehearsal else ["tests/models", "tests/test_metrics.py"])
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "8", *names]
    made = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True, timeout=check.left_s)
    return {"last": made.stdout.strip().splitlines()[-1:], "ok": made.returncode == 0}


PARTS: list[tuple[Callable[[Check], Result], float]] = [
    (environment, 0.1),
    (forms, 1.0),
    (resume, 1.0),
    (speed, 1.5),
    (processes, 1.0),
    (members, 1.5),
    (soft_targets, 0.5),
    (jpeg, 0.3),
    (ship, 0.7),
    (suite, 1.0),
    (methods, 0.5),
]
"""The parts in order, and the minutes that each may need: one that has less is left out. The last takes all that is
left.
"""


def main(args: list[str]) -> int:
    """Runs the parts. The status is 0 if all that was found is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args(args)
    begun, results = time.monotonic(), {}
    if given.device == "gpu":
        torch.set_num_threads(2)  # for the runs on the CPU, whose networks are small
    with tempfile.TemporaryDirectory() as folder:
        check = Check(given.device, Path(folder), begun + 60 * given.minutes)
        for part, minutes in PARTS:
            name = part.__name__
            if given.only and name not in given.only:
                continue
            left = given.minutes - (time.monotonic() - begun) / 60
            started = time.monotonic()
            if left < minutes:
                results[name] = {"left_out": f"{left:.1f} minutes were left, it may need {minutes}"}
            else:
                try:
                    results[name] = part(check)
                except Exception:
                    results[name] = {"error": traceback.format_exc().splitlines()[-6:], "ok": False}
            results[name]["took_s"] = round(time.monotonic() - started, 1)
            given.out.write_text(json.dumps(results, indent=2) + "\n")
            print(name, json.dumps(results[name]), flush=True)
    return int(not all(one.get("ok", True) for one in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

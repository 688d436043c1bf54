"""A program in place of the real one, which trains nothing. A run's process imports it from the current folder."""

from pathlib import Path

from distill_lightning.studies import PlannedRun
from distill_lightning.studies.resources import Resources

PROGRAM = """
import os, pathlib, signal, sys, time
folder, *deeds = sys.argv[1:]

def note(what):
    with open("events", "a") as file:
        file.write(f"{what} {pathlib.Path(folder).name}\\n")

def save(number, frame):
    note("saved")
    sys.exit(128 + number)

signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
note("started")
for deed in deeds:
    if deed == "fail":
        print("distill: it does not work")
        sys.exit(1)
    if deed == "wait":
        time.sleep(60)
    if deed == "nap":
        time.sleep(0.3)
    if deed == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if deed == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    if deed == "interrupt":
        os.kill(os.getppid(), signal.SIGINT)
    if deed == "kill" or (deed == "kill once" and not pathlib.Path("killed").exists()):
        pathlib.Path("killed").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(1)
    if deed == "env":
        note(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ['OMP_NUM_THREADS']}")
note("ended")
os.makedirs(folder, exist_ok=True)
pathlib.Path(folder, "summary.json").write_text("{}")
"""


def write_program() -> None:
    package = Path("distill_lightning")
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)


def planned(entry: str, *deeds: str, needs=(), requested: int | None = 1, **resources) -> PlannedRun:
    """A run whose process does the deeds, one after the other."""
    folder = Path("logs/d/m") / entry
    arguments = (str(folder), *deeds)
    return PlannedRun(entry, {}, arguments, entry, folder, True, requested, needs, None, Resources(**resources))


def events() -> list[str]:
    return Path("events").read_text().splitlines() if Path("events").exists() else []

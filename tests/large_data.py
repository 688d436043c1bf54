"""What a large data set costs before its pictures are decoded: start-up, memory, and the speed of the planner.

    python tests/large_data.py            # a minute or two; prints the tables of docs/explanations/large_data.md

Each case is a process of its own. It plans and builds batches with the program's own loader, of one rank after another,
from the middle of the second epoch on, and checks that the ranks together have the batch of one process. Pictures are
not decoded: a source gives black ones. Up to `HELD` samples, positions and labels are the arrays that the program
holds; beyond, they are computed where they are read, because 16 bytes for each of 10^9 samples would be 16 GB. Seconds
are those of one core, so that other programs on the machine do not count.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from helpers import write_shard
from torch import Tensor

from distill_lightning.data.folder import ImageFolder
from distill_lightning.data.loaders import TrainLoader
from distill_lightning.data.rendering import Normaliser, Renderer
from distill_lightning.data.splits import Split
from distill_lightning.data.training_samples import Share, TrainingSamples
from distill_lightning.orders import keyed_places
from distill_lightning.seeds import KEYED
from distill_lightning.values import BatchNeeds, PlainTimeline

SAMPLES = (1_281_167, 10**9)
RANKS = (1, 64)
PER_RANK = 256
"""The number of samples of a process in a batch."""
HELD = 10**8
CLASSES = 1000
SIDE = 32
TIMED = 50
"""The number of batches of a rank that are timed."""
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000"
    "000049454e44ae426082"
)
"""A PNG of one black pixel."""


class Everything:
    """The positions of all samples, computed: place i holds i."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: Tensor) -> Tensor:
        return places


class Labels:
    """Labels that are computed from positions."""

    def __getitem__(self, positions: Tensor) -> Tensor:
        return positions % CLASSES

    def to(self, device: torch.device) -> "Labels":
        return self


class Black:
    """A source of black pictures."""

    device = torch.device("cpu")
    shape = (3, SIDE, SIDE)
    bad: dict[int, str] = {}

    def on(self, device: torch.device) -> "Black":
        return self

    def stream(self, plans, groups=(), boxes=None) -> Iterator[tuple[Tensor, object]]:
        for plan in plans:
            yield torch.zeros(len(plan.index), *self.shape, dtype=torch.uint8), plan


def loaders(count: int, world: int) -> Iterator[TrainLoader]:
    """The loaders of all ranks, one after another."""
    taken = torch.arange(count) if count <= HELD else Everything(count)
    labels = taken % CLASSES if count <= HELD else Labels()
    samples = TrainingSamples(Split(Black(), taken, labels), CLASSES, PER_RANK * world, False, seed=0)
    renderer = Renderer(Normaliser(torch.zeros(3), torch.ones(3)), [], None, 0, 1, taken)
    middle = samples.batches // 2
    for rank in range(world):
        timeline, share = PlainTimeline(samples.batches, 2), Share(rank, world)
        yield TrainLoader(samples, renderer, BatchNeeds(), timeline, share, lambda: (1, middle))


def case(count: int, world: int) -> dict[str, float]:
    """The figures of a data set: of the slowest rank for the start, of the median one for the speed."""
    next(loaders(1000 * world, world)).plan(0, 0)  # what is loaded when it is first used
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory_kb("VmRSS")
    peak = 0
    starts, plans, builds, shares = [], [], [], []
    began = time.process_time()
    for loader in loaders(count, world):
        middle = loader.next_batch()[1]
        shares.append(loader.plan(1, middle).index)
        starts.append(time.process_time() - began)
        peak = peak or memory_kb("VmHWM") - before
        plans.append(timed(map(partial(loader.plan, 1), range(middle, middle + TIMED))))
        builds.append(timed(islice(loader, TIMED)))
        began = time.process_time()
    samples, timeline = loader.samples, loader.timeline
    alone = TrainLoader(samples, loader.renderer, BatchNeeds(), timeline, Share(), loader.next_batch)
    together = torch.stack(shares, 1).flatten()
    assert together.equal(alone.plan(1, middle).index), "the ranks do not share the global batch"
    return {
        "start_s": max(starts),
        "memory_mb": peak / 1024,
        "indices_per_s": PER_RANK / statistics.median(plans),
        "samples_per_s": PER_RANK / statistics.median(builds),
    }


def memory_kb(name: str) -> int:
    """The memory of this process, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def timed(steps: Iterable[object]) -> float:
    """The seconds of a step."""
    begin, count = time.process_time(), 0
    for _ in steps:
        count += 1
    return (time.process_time() - begin) / count


def index(count: int) -> dict[str, float]:
    """The figures of an index of shards of 1,000 samples."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count // 1000):
            samples = [(f"{i:06}", {"png": PICTURE, "cls": i % 10}) for i in range(1000)]
            write_shard(Path(folder) / "shards" / f"{number:06}.tar", samples)
        seconds = []
        for _ in range(2):
            begin = time.process_time()
            data = ImageFolder(f"{folder}/shards", 32, cache=f"{folder}/cache", from_files=True)
            names = data.layout.parts["train"].names
            seconds.append(time.process_time() - begin)
        size = sum(file.stat().st_size for file in Path(folder).glob("cache/shards-*"))
        source, _ = data.read("train")
        read = timed(map(source.pictures.store.read, map(names.__getitem__, range(0, count, 17))))
    return {"made_s": seconds[0], "opened_s": seconds[1], "bytes": size / count, "read_us": read * 1e6}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="*", default=SAMPLES)
    parser.add_argument("--ranks", type=int, nargs="*", default=RANKS)
    parser.add_argument("--indexed", type=int, default=100_000, help="the number of samples in shards; 0 for none")
    parser.add_argument("--case", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(case(*given.case)))
        return
    print("| samples | ranks | start-up, s | memory, MB | indices/s of a rank | samples/s of a rank, black pictures |")
    print("|---|---|---|---|---|---|")
    for count in given.samples:
        for world in given.ranks:
            command = [sys.executable, __file__, "--case", str(count), str(world)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            print(f"| {count:,} | {world} | {found['start_s']:.3f} | {found['memory_mb']:.1f} | "
                  f"{found['indices_per_s']:,.0f} | {found['samples_per_s']:,.0f} |", flush=True)  # fmt: skip
    places = [torch.randint(10**9, (100_000,)) for _ in range(20)]
    seconds = timed(keyed_places(some, 10**9, KEYED, 0, 0) for some in places)
    print(f"\nkeyed_places: {100_000 / seconds:,.0f} indices/s of 10^9, 100,000 in a call")
    if given.indexed:
        found = index(given.indexed)
        print("\n| samples in shards | index made, s | index opened, s | bytes a sample | a sample read, µs |")
        print("|---|---|---|---|---|")
        print(f"| {given.indexed:,} | {found['made_s']:.2f} | {found['opened_s']:.3f} | {found['bytes']:.0f} | "
              f"{found['read_us']:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()

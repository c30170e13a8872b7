"""Embed many images: how fast, with how much memory, and what kills cost.

    python benchmarks/corpus.py [--images N] [--kills N] [--source tar] [--quick] [--folder DIR]

Makes images of 128x128 pixels (half PNG, half JPEG; one in 500 is damaged, empty, cut off or too
small) as tars, Parquets or folders of 2000, and runs ``fpkit embed`` on them in a process whose
memory is sampled. Then the first tenth is embedded into another folder, by runs that are killed
with SIGKILL at random moments and begun again. Promises, exit code 1 if one is broken:

- every image is there once, with the SHA-256 of its file; the bad ones, and no others, have errors;
- after the kills the rows are those of the undisturbed run, bit by bit;
- memory is flat: in the last tenth of the run at most 10% and 32 MB more than in the second.

POSIX only. About 15 minutes on two cores, 6 GB on disk; ``--quick`` has 4000 images.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from fpkit.corpus import read_embeddings
from fpkit.procedural import procedural_images

SIDE, SHARD, BAD = 128, 2000, 500
EVERY = 0.1  # seconds between two samples of memory
SLACK_SHARE, SLACK_BYTES = 1.1, 32e6


@dataclass(frozen=True)
class Made:
    """One image that was made: its name, SHA-256, and whether it can be used."""

    name: str
    hash: str
    good: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--images", type=int, default=100_000)
    add("--kills", type=int, default=5)
    add("--source", choices=WRITERS, default="tar")
    add("--extractor", help="as for fpkit embed")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="4000 images, 2 kills")
    add("--folder", type=Path, help="where to work and keep it; default: nowhere")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images, arguments.kills = 4000, 2
    with tempfile.TemporaryDirectory() as temporary:
        return run(arguments, arguments.folder or Path(temporary))


def run(arguments: argparse.Namespace, folder: Path) -> int:
    source = folder / "source"
    made = make(source, arguments.images, kind=arguments.source, seed=arguments.seed)
    options = ["--extractor", arguments.extractor] if arguments.extractor else []
    whole = Run([source], folder / "whole", options)
    code = whole.watch(arguments.images)
    problems = [] if code == 0 else [f"fpkit embed ended with {code}"]
    problems += compare(folder / "whole", made)
    memory = [whole.memory(k) for k in range(10)]
    if memory[9] > SLACK_SHARE * memory[1] + SLACK_BYTES:
        problems.append("memory grows")
    first = sorted(source.iterdir())[: max(1, len(list(source.iterdir())) // 10)]
    kills = kill(first, folder / "killed", options, arguments.kills, random.Random(arguments.seed))
    problems += differences(folder / "whole", folder / "killed")
    rate = arguments.images / whole.seconds
    print(f"| share of the run | {' | '.join(f'{10 * k + 10}%' for k in range(10))} |")
    print(f"| memory, MB | {' | '.join(f'{m / 1e6:.0f}' for m in memory)} |")
    print(
        f"{whole.seconds:.0f} s and {whole.processor:.0f} s of processor time, "
        f"{1000 * whole.processor / arguments.images:.2f} ms each, {os.cpu_count()} cores"
    )
    for problem in problems:
        print(f"broken: {problem}")
    print(
        f"{arguments.images} images from {arguments.source}, {rate:.1f} images/s, "
        f"peak {whole.peak / 1e6:.0f} MB, {memory[0] / 1e6:.0f} MB at 10% and "
        f"{memory[9] / 1e6:.0f} MB at 100%, {sum(not m.good for m in made)} bad files, "
        f"{kills} kills, {len(problems)} promises broken"
    )
    return int(bool(problems))


# ---- images ------------------------------------------------------------------------------------


def make(folder: Path, count: int, *, kind: str, seed: int) -> list[Made]:
    """Write the images; the same ones every time."""
    chance = np.random.default_rng(seed)
    scenes = (procedural_images(32, 2 * SIDE, seed=seed).numpy() * 255).astype(np.int16)
    made: list[Made] = []
    bar = tqdm(total=count, unit="image", desc="make", disable=None, leave=False)
    for shard in range(-(-count // SHARD)):
        images = []
        for number in range(shard * SHARD, min(count, (shard + 1) * SHARD)):
            name, data, good = one(number, scenes, chance)
            images.append((name, data))
            made.append(Made(name, sha256(data).hexdigest(), good))
            bar.update()
        WRITERS[kind](folder, shard, images)
    bar.close()
    return made


def one(number: int, scenes: np.ndarray, chance: np.random.Generator) -> tuple[str, bytes, bool]:
    """Name and file of an image: a crop of a scene with noise; every `BAD`-th is bad."""
    top, left = chance.integers(0, SIDE, 2)
    crop = scenes[chance.integers(len(scenes)), :, top : top + SIDE, left : left + SIDE]
    noisy = np.clip(crop + chance.integers(-3, 4, crop.shape), 0, 255).astype(np.uint8)
    image, file = Image.fromarray(noisy.transpose(1, 2, 0)), io.BytesIO()
    bad = (number // BAD) % 4 if number % BAD == BAD - 1 else None
    if bad == 3:
        image = image.crop((0, 0, 64, 64))
    if number % 2:
        image.save(file, format="JPEG", quality=int(chance.integers(60, 96)))
    else:
        image.save(file, format="PNG", compress_level=1)
    data = file.getvalue()
    data = {0: b"", 1: data[: len(data) // 2], 2: b"no image"}.get(-1 if bad is None else bad, data)
    return f"{number:08d}.{'jpg' if number % 2 else 'png'}", data, bad is None


def write_tar(folder: Path, shard: int, images: list[tuple[str, bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{shard:06d}.tar", "w") as tar:
        for name, data in images:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_parquet(folder: Path, shard: int, images: list[tuple[str, bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": data, "path": name} for name, data in images]
    pq.write_table(pa.table({"image": rows}), folder / f"{shard:06d}.parquet", row_group_size=500)


def write_folder(folder: Path, shard: int, images: list[tuple[str, bytes]]) -> None:
    place = folder / f"{shard:06d}"
    place.mkdir(parents=True, exist_ok=True)
    for name, data in images:
        (place / name).write_bytes(data)


Writer = Callable[[Path, int, list[tuple[str, bytes]]], None]
WRITERS: dict[str, Writer] = {"tar": write_tar, "parquet": write_parquet, "folder": write_folder}


# ---- runs --------------------------------------------------------------------------------------


class Run:
    """A process of ``fpkit embed``."""

    def __init__(self, sources: list[Path], out: Path, options: list[str]) -> None:
        self.out = out
        words = [sys.executable, "-m", "fpkit", "embed", *map(str, sources), "--out", str(out)]
        self.began = time.monotonic()
        self.process = subprocess.Popen([*words, *options], stdout=subprocess.DEVNULL)
        self.samples: list[tuple[float, float]] = []  # share of the run, bytes
        self.seconds = self.processor = self.peak = 0.0

    def watch(self, images: int) -> int:
        """Sample memory until the end; return the exit code."""
        process = psutil.Process(self.process.pid)
        with tqdm(total=images, unit="image", desc="embed", disable=None, leave=False) as bar:
            while (ended := os.wait4(self.process.pid, os.WNOHANG))[0] == 0:
                used = process.memory_info().rss
                parts = self.parts()
                self.samples.append((parts, used))
                bar.update(min(images, parts * 512) - bar.n)
                time.sleep(EVERY)
        _, status, usage = ended
        self.seconds = time.monotonic() - self.began
        self.processor = usage.ru_utime + usage.ru_stime
        self.peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode

    def parts(self) -> int:
        """Finished units."""
        return sum(1 for _ in self.out.glob("part-*.parquet"))

    def memory(self, tenth: int) -> float:
        """Median of the memory during a tenth of the run, bytes."""
        most = self.parts()
        within = [
            used for parts, used in self.samples if tenth <= 10 * parts / (most + 1) < tenth + 1
        ]
        return statistics.median(within or [used for _, used in self.samples])


def kill(
    sources: list[Path], out: Path, options: list[str], times: int, chance: random.Random
) -> int:
    """Kill `times` runs, each after some new units and a moment; then let one end."""
    kills = 0
    for _ in range(times):
        run = Run(sources, out, options)
        wanted = run.parts() + chance.randint(0, 2)
        while run.process.poll() is None and run.parts() < wanted:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 3))
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGKILL)
            kills += 1
        run.process.wait()
    Run(sources, out, options).process.wait()
    return kills


# ---- promises ----------------------------------------------------------------------------------


def compare(out: Path, made: list[Made]) -> Iterator[str]:
    """What is wrong with the rows, sentence by sentence."""
    table = read_embeddings(out).select(["path", "sha256", "error", "embedding"])
    rows = table.drop(["embedding"]).to_pylist()
    by_hash = {image.hash: image for image in made if image.hash}
    seen = {row["path"] for row in rows}
    if len(rows) != len(made) or len(seen) != len(made):
        yield f"{len(made)} images became {len(rows)} rows with {len(seen)} paths"
    lost = by_hash.keys() - {row["sha256"] for row in rows}
    if lost:
        yield f"{len(lost)} images are lost"
    wrong = [row for row in rows if by_hash[row["sha256"]].good != (row["error"] is None)]
    if wrong:
        yield f"{len(wrong)} rows are wrong, such as {wrong[0]}"
    if table["embedding"].null_count != sum(not image.good for image in made):
        yield f"{table['embedding'].null_count} rows have no embedding"


def differences(whole: Path, killed: Path) -> Iterator[str]:
    """What differs between the rows of the killed runs and those of the undisturbed one."""
    part = read_embeddings(killed)
    rows = read_embeddings(whole).slice(0, len(part))
    if not part.equals(rows):
        yield f"after kills {len(part)} rows are not those of the undisturbed run"
    if left := [path.name for path in killed.glob(".*.part")]:
        yield f"{left} were never removed"


if __name__ == "__main__":
    sys.exit(main())

"""From which size do several machines pay, and what does a killed process cost?

    python benchmarks/cluster.py [embed] [train] [zoo] [--images N] [--quick] [--folder DIR]

Needs the extra ``cluster`` for ``embed``. A machine is one core here: every job runs in two sizes
as one process on one thread, and as two such processes, which Ray (embed) or torchrun (train, zoo)
starts. A line through both times gives the seconds that a start costs and those that one more
image, step or model costs. Two processes pay from where the lines cross; k machines from

    n = (start of many - start of one) / (seconds for one * (1 - 1 / k))

if they share the work without loss. Promises, exit code 1 if one is broken: embeddings are the same
files, byte for byte, without Ray, with it, and when one of two processes of Ray is killed with
SIGKILL on the way; two processes need less than one for one more of each, where there are two
cores for them.

POSIX only. About 15 minutes on two cores; ``--quick`` takes 4, and times too small to quote.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from corpus import make
from tqdm import tqdm

FPKIT = ["-m", "fpkit"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *FPKIT]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
UNIT = 128  # images: small, so that two processes end at nearly the same time


@dataclass(frozen=True)
class Job:
    """Words of the command for `size` things in a folder, alone and shared by two processes."""

    thing: str
    sizes: tuple[int, int]
    words: Callable[[int, Path], list[str]]
    alone: list[str]
    shared: list[str]
    alone_options: tuple[str, ...] = ()
    shared_options: tuple[str, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("jobs", nargs="*", metavar="JOB", help="embed, train, zoo (all)")
    add("--images", type=int, default=24_000, help="to embed at most")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true")
    add("--folder", type=Path, help="where to work and keep it; default: nowhere")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images = 1024
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        jobs = plans(arguments, folder)
        wanted = arguments.jobs or list(jobs)
        if unknown := set(wanted) - jobs.keys():
            parser.error(f"no job {', '.join(unknown)}: expected {', '.join(jobs)}")
        return run(arguments, folder, {name: jobs[name] for name in wanted})


def run(arguments: argparse.Namespace, folder: Path, jobs: dict[str, Job]) -> int:
    problems: list[str] = []
    rows, undisturbed = [], {}
    if "embed" in jobs:
        shards(folder, arguments)
    with tqdm(total=4 * len(jobs), desc="runs", disable=None, leave=False) as bar:
        for name, job in jobs.items():
            lines = {}
            for way in ("alone", "shared"):
                seconds = []
                for size in job.sizes:
                    seconds.append(timed(command(job, way, size, folder / f"{name}-{way}-{size}")))
                    bar.update()
                lines[way] = line(job.sizes, seconds)
            undisturbed[name] = seconds[-1]  # of the larger size, shared
            rows.append((name, job, lines))
            if lines["shared"][1] >= lines["alone"][1] and (os.cpu_count() or 1) > 1:
                problems.append(f"{name}: two processes are no faster than one")
    print("| job | one: start, s | per thing, s | two: start, s | per thing, s | pays from |")
    print("|---|---|---|---|---|---|")
    for name, job, lines in rows:
        numbers = [f"{value:.{digits}f}" for way in lines.values() for value, digits in
                   zip(way, (1, 4), strict=True)]  # fmt: skip
        print(f"| {name} | {' | '.join(numbers)} | {crossing(lines)} {job.thing} |")
    killed = ""
    if "embed" in jobs:
        lost, found = kill(jobs["embed"], folder, undisturbed["embed"])
        problems += found
        killed = f"; a process killed on the way costs {lost:.0f} s and no image"
    for problem in problems:
        print(f"broken: {problem}")
    pays = ", ".join(f"{name} from {crossing(both)} {job.thing}" for name, job, both in rows)
    print(f"two processes pay: {pays}{killed}; {len(problems)} promises broken")
    return int(bool(problems))


# ---- jobs --------------------------------------------------------------------------------------


def plans(arguments: argparse.Namespace, folder: Path) -> dict[str, Job]:
    """The jobs by name."""
    quick, images = arguments.quick, arguments.images

    def embed(size: int, out: Path) -> list[str]:
        source = folder / "source" / str(size)
        return ["embed", str(source), "--out", str(out), "--unit", str(UNIT)]

    def train(size: int, out: Path) -> list[str]:
        return ["train", "--steps", str(size), "--out", str(out)]

    def zoo(size: int, out: Path) -> list[str]:
        words = ["zoo", "build", "--preset", "starter", "--archs", str(size), "--out", str(out)]
        return [*words, "--max-steps", "20"] if quick else words

    ray = ("--ray", "local", "--workers", "1")
    return {
        "embed": Job("images", (images // 3, images), embed, FPKIT, FPKIT, ("--workers", "1"), ray),
        "train": Job("steps", (2, 6) if quick else (10, 40), train, FPKIT, TORCHRUN),
        "zoo": Job("models", (2, 6) if quick else (4, 16), zoo, FPKIT, TORCHRUN, ("--jobs", "1")),
    }


def shards(folder: Path, arguments: argparse.Namespace) -> None:
    """Tars of images of 128x128, half PNG, half JPEG."""
    for size in (arguments.images // 3, arguments.images):
        if not (folder / "source" / str(size)).is_dir():
            make(folder / "source" / str(size), size, kind="tar", seed=arguments.seed)


def command(job: Job, way: str, size: int, out: Path) -> list[str]:
    """Words of the command."""
    start, options = (
        (job.alone, job.alone_options) if way == "alone" else (job.shared, job.shared_options)
    )
    return [sys.executable, *start, *job.words(size, out), *options]


def timed(words: list[str]) -> float:
    """Seconds that a command takes."""
    began = time.monotonic()
    result = subprocess.run(words, env=ONE_THREAD, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {result.returncode}: {result.stderr}")
    return time.monotonic() - began


def line(sizes: tuple[int, int], seconds: list[float]) -> tuple[float, float]:
    """Seconds to start, and for each thing."""
    each = (seconds[1] - seconds[0]) / (sizes[1] - sizes[0])
    return seconds[0] - each * sizes[0], each


def crossing(lines: dict[str, tuple[float, float]]) -> str:
    """From where two processes pay."""
    (one, each), (two, shared) = lines["alone"], lines["shared"]
    return f"{max(0.0, (two - one) / (each - shared)):.0f}" if shared < each else "no number of"


# ---- kills -------------------------------------------------------------------------------------


def kill(job: Job, folder: Path, undisturbed: float) -> tuple[float, list[str]]:
    """Kill one of two processes of Ray halfway; seconds more than undisturbed, what is wrong."""
    size = job.sizes[1]
    out = folder / "embed-killed"
    began = time.monotonic()
    with subprocess.Popen(
        command(job, "shared", size, out), env=ONE_THREAD, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:  # fmt: skip
        half = -(-size // UNIT) // 2
        while run.poll() is None and sum(1 for _ in out.glob("part-*")) < half:
            time.sleep(0.05)
        busy = [p.pid for p in psutil.Process(run.pid).children(recursive=True) if is_worker(p)]
        if busy:
            os.kill(busy[0], signal.SIGKILL)
    problems = [] if run.returncode == 0 and busy else ["no process was killed, or the run failed"]
    plain = folder / f"embed-alone-{size}"
    for other in (out, folder / f"embed-shared-{size}"):
        problems += differences(plain, other)
    return time.monotonic() - began - undisturbed, problems


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one of Ray's that embeds."""
    try:
        return "_UnitProcess" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def differences(plain: Path, other: Path) -> Iterator[str]:
    """Files that are not the same in both folders."""
    names = {file.name for folder in (plain, other) for file in folder.glob("*.parquet")}
    _, unlike, missing = filecmp.cmpfiles(plain, other, names, shallow=False)
    if unlike or missing:
        yield f"{other.name} differs from a run without Ray in {sorted(unlike + missing)}"


if __name__ == "__main__":
    sys.exit(main())

"""Feed hostile files to the readers and to the command line: does everything end well?

    python benchmarks/hostile.py [--quick] [--seeds N] [--only TEXT] [--files N]

Every kind of ``hostile_files.py`` times N seeds, and every entry of ``hostile_places.py``, is read
by `read_image` and `decode_image` in a process with a limit on its memory and a clock. Each file
must give a correct picture or an ImageReadError that names it. Then whole folders of them go
through ``fpkit enrol``, ``identify``, ``fingerprint`` and ``bench``, and a folder of many files is
listed. Root gives up the right to read what nobody may read first. Exit code 1 if anything ended
badly; the last line can be quoted. Linux only; the default takes about ten minutes.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from hostile_batches import run_batches
from hostile_blocks import KINDS
from hostile_files import file_name, made
from hostile_places import PLACES, sound_png
from tqdm import tqdm

MB = 2**20


@dataclass
class Row:
    """What became of the files of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    megabytes: float = 0.0
    broken: list[str] = field(default_factory=list)


def serve(connection: Connection, spare: int) -> None:
    """Read the paths that come in; answer outcome, digest and seconds. Runs in a process alone."""
    from fpkit.images import decode_image, read_image

    read_image_once(read_image, decode_image)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    connection.send("ready")
    while True:
        path, whole = connection.recv()
        begun = time.process_time()
        answer = look(lambda p=path: read_image(p), path)
        if whole:
            data = Path(path).read_bytes()
            again = look(lambda d=data, p=path: decode_image(d, name=p), path)
            if again != answer:
                answer = ("broken", f"{answer} from the file, {again} from its bytes")
        connection.send((*answer, time.process_time() - begun))


def read_image_once(read_image, decode_image) -> None:
    """Let Pillow and torch load what they load at first use."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        path.write_bytes(sound_png(np.random.default_rng(0)))
        decode_image(path.read_bytes(), name="a.png")
        read_image(path)


def look(read, path: str) -> tuple[str, str]:
    """Outcome of a reader, and the digest of the picture or the reason."""
    from fpkit.images import ImageReadError

    try:
        image = read()
    except ImageReadError as error:
        text = str(error)
        good = text.startswith(f"{path}: ") and len(text) < len(path) + 300
        return ("refused", text[len(path) :]) if good else ("broken", f"message {text[:400]!r}")
    except BaseException as error:
        return "broken", f"{type(error).__name__}: {error}"
    low, high = float(image.min()), float(image.max())
    if not (image.ndim == 3 and len(image) == 3 and 0 <= low and high <= 1):
        return "broken", f"{tuple(image.shape)} from {low} to {high}"
    return "read", digest(image.numpy())


def digest(image: np.ndarray) -> str:
    """Of a (3, h, w) float32 picture."""
    return sha256(repr(image.shape).encode() + np.ascontiguousarray(image).data).hexdigest()


class Reader:
    """A reading process, started again when it died or was too slow."""

    def __init__(self, *, spare: int, seconds: float) -> None:
        self.spare, self.seconds = spare, seconds
        self.process: multiprocessing.process.BaseProcess | None = None

    def read(self, path: Path, *, whole: bool) -> tuple[str, str, float, float]:
        """Outcome, detail, seconds of processor time, megabytes above those of the process."""
        self._start()
        status = Path(f"/proc/{self.process.pid}/status")
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # forget the peak
        before = kilobytes(status, "VmRSS")
        self.connection.send((str(path), whole))
        try:
            if not self.connection.poll(self.seconds):
                self.stop()
                return "broken", f"no answer after {self.seconds:g} s", self.seconds, 0.0
            outcome, detail, seconds = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            self.process = None
            return "broken", f"the process died ({code})", 0.0, 0.0
        return outcome, detail, seconds, (kilobytes(status, "VmHWM") - before) / 1024

    def _start(self) -> None:
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.connection, other = context.Pipe()
            self.process = context.Process(target=serve, args=(other, self.spare), daemon=True)
            self.process.start()
            other.close()
            self.connection.recv()

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def kilobytes(status: Path, name: str) -> int:
    """A line of /proc/<pid>/status."""
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def judge(row: Row, expected: str, truth: str | None, answer: tuple[str, str, float, float]):
    """Add one answer to the row of its kind."""
    outcome, detail, seconds, megabytes = answer
    if outcome != "broken" and expected not in (outcome, "either"):
        outcome, detail = "broken", f"{outcome}, expected {expected}: {detail}"
    if outcome == "read" and truth not in (None, detail):
        outcome, detail = "broken", "wrong pixels"
    row.outcomes[outcome] += 1
    row.seconds = max(row.seconds, seconds)
    row.megabytes = max(row.megabytes, megabytes)
    if outcome == "broken":
        row.broken.append(detail)


def read_all(folder: Path, reader: Reader, *, seeds: int, only: str) -> dict[str, Row]:
    """Every kind and place, one file after the other."""
    rows: dict[str, Row] = defaultdict(Row)
    kinds = [kind for kind in KINDS.values() if only in kind.name]
    for kind in tqdm(kinds, unit="kind", file=sys.stderr):
        for seed in range(1 if kind.heavy else seeds):
            data, pixels = made(kind, seed)
            truth = None
            if pixels is not None:
                truth = digest(np.divide(pixels.transpose(2, 0, 1), 255, dtype=np.float32))
            path = folder / file_name(kind, seed)
            path.write_bytes(data)
            judge(rows[kind.name], kind.expected, truth, reader.read(path, whole=True))
            path.unlink()
    for number, place in enumerate(p for p in PLACES.values() if only in p.name):
        room = folder / f"place {number}"
        room.mkdir()
        path = place.put(room, sound_png(np.random.default_rng(number)))
        judge(rows[place.name], place.expected, None, reader.read(path, whole=False))
    return rows


def count_files(folder: Path, count: int) -> tuple[float, float]:
    """Seconds and megabytes that listing so many files takes."""
    from fpkit.folders import list_images

    folder.mkdir()
    for number in tqdm(range(count), unit="file", file=sys.stderr):
        (folder / f"{number:06}.png").touch()
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = kilobytes(status, "VmRSS"), time.process_time()
    found = len(list_images(folder))
    seconds = time.process_time() - begun
    if found != count:
        raise RuntimeError(f"{found} of {count} files were listed")
    return seconds, (kilobytes(status, "VmHWM") - before) / 1024


def give_up_rights() -> None:
    """Start this program anew as a root that file permissions bind, as they bind others."""
    if os.geteuid() == 0 and "HOSTILE_BOUND" not in os.environ:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                print("root stays unbound: unreadable files are read here", file=sys.stderr)
        os.environ["HOSTILE_BOUND"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])


def main() -> int:
    """Run everything; 1 if anything ended badly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50, help="files of every kind (50)")
    parser.add_argument("--quick", action="store_true", help="two seeds, 10,000 files")
    parser.add_argument("--only", default="", metavar="TEXT", help="kinds with this in their name")
    parser.add_argument("--files", type=int, default=100_000, help="in one folder (100000)")
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of memory per file (3)")
    parser.add_argument("--seconds", type=float, default=60.0, help="per file (60)")
    arguments = parser.parse_args()
    seeds, files = (2, 10_000) if arguments.quick else (arguments.seeds, arguments.files)
    reader = Reader(spare=int(arguments.gigabytes * 2**30), seconds=arguments.seconds)
    folder = Path(tempfile.mkdtemp(prefix="hostile"))
    try:
        rows = read_all(folder, reader, seeds=seeds, only=arguments.only)
        reader.stop()
        batches = [] if arguments.only else run_batches(folder / "batches")
        listing = count_files(folder / "many", files)
    finally:
        reader.stop()
        for locked in folder.rglob("locked"):
            locked.chmod(0o700)
        shutil.rmtree(folder)

    print(f"{'kind':58s} {'read':>5} {'refused':>7} {'broken':>6} {'s':>6} {'MB':>5}")
    for name, row in rows.items():
        counts = " ".join(
            f"{row.outcomes[outcome]:>{width}}"
            for outcome, width in (("read", 5), ("refused", 7), ("broken", 6))
        )
        print(f"{name:58s} {counts} {row.seconds:6.2f} {row.megabytes:5.0f}")
        for reason in row.broken[:3]:
            print(f"    {reason[:200]!r}")
    for batch in batches:
        print(batch)
    print(f"listing {files} files: {listing[0]:.2f} s, {listing[1]:.0f} MB")
    total = sum(row.outcomes.total() for row in rows.values())
    broken = sum(row.outcomes["broken"] for row in rows.values())
    broken += sum(not batch.good for batch in batches)
    print(
        f"{total} files of {len(rows)} kinds and {len(batches)} batches: {broken} ended badly; "
        f"worst {max(row.seconds for row in rows.values()):.1f} s, "
        f"{max(row.megabytes for row in rows.values()):.0f} MB above the process's own"
    )
    return int(broken > 0)


if __name__ == "__main__":
    give_up_rights()
    sys.exit(main())

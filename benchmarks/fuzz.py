"""Look for files that break a loader, guided by which lines of the code they reach.

    python benchmarks/fuzz.py gallery --seconds 60
    python benchmarks/fuzz.py all --seconds 30

Needs ``pip install 'fpkit[audit]'`` (atheris). Valid artefacts are spoilt by knowledge of their
format (``benchmarks/hostile_artefacts.py``) and by libFuzzer; the loader must refuse a file with
ValueError or OSError and a short printable reason, or load it so that it works. A process of its
own, of bounded memory, meets every file; what it opens, and whatever it would execute, is watched.
Exits with 1 if a promise was broken; the file that did it is kept.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from struct import error as StructError
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

MEMORY_MB = 2048  # of the whole process, torch takes 300 of them
LONGEST = 10  # seconds for one file
FAILED = "broken"
WORKER = "--worker"
# what a mutation raises where a file is spoilt already, beyond what it understands
UNFIT = (ValueError, LookupError, TypeError, AttributeError, RecursionError, StructError)


class Broken(Exception):
    """A promise about hostile files was broken."""


def main() -> int:
    """Fuzz one target, or all of them one after the other."""
    if sys.argv[1:2] == [WORKER]:  # before anything of fpkit is imported: it is instrumented there
        work(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    from hostile_artefacts import TARGETS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=int, default=60, help="per target (60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("."), help="for files that break it")
    arguments = parser.parse_args()
    names = list(TARGETS) if arguments.target == "all" else [arguments.target]
    rows = [fuzz(name, arguments) for name in names]
    print("target            files  accepted   lines  peak MB  worst s  outcome")
    for row in rows:
        print(
            f"{row['target']:14}{row['files']:9}{row['accepted']:10}{row['features']:8}"
            f"{row['megabytes']:9.0f}{row['worst']:9.2f}  {row['outcome']}"
        )
    broken = sum(row["outcome"] != "held" for row in rows)
    print(f"{sum(row['files'] for row in rows)} files, {broken} broken promises")
    return int(broken > 0)


def fuzz(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a worker on one target and say what came of it."""
    with TemporaryDirectory() as place:
        numbers = [str(arguments.seconds), str(arguments.seed)]
        command = [sys.executable, __file__, WORKER, name, place, *numbers]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        report = Path(place) / "report.json"
        row = {"files": 0, "accepted": 0, "features": 0, "megabytes": 0.0, "worst": 0.0}
        row |= json.loads(report.read_text()) if report.is_file() else {}
        row |= {"target": name, "outcome": "held"}
        for line in done.stderr.splitlines():
            if " ft: " in line:
                row["features"] = int(line.split(" ft: ")[1].split()[0])
        if done.returncode or not row["files"]:
            row["outcome"] = FAILED
            print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
            for kept in Path(place).glob("found-*"):
                target = arguments.keep / f"{name}-{kept.name}"
                target.write_bytes(kept.read_bytes())
                row["outcome"] = f"{FAILED}, kept as {target}"
        return row


# ---- the process that meets the files ----------------------------------------------------------


def work(name: str, place: Path, seconds: int, seed: int) -> NoReturn:
    """Fuzz until the time is up; never returns."""
    import atheris

    with atheris.instrument_imports(include=["fpkit"], enable_loader_override=False):
        from hostile_artefacts import MUTATIONS, TARGETS

    warnings.simplefilter("error")
    target = TARGETS[name]
    folder = place / "artefact"
    folder.mkdir()
    target.make(folder)
    good = (folder / target.file).read_bytes()
    target.use(folder)  # what is loaded late is loaded now
    mutations = list(MUTATIONS[target.kind].values())
    seen: Counter[str] = Counter()
    worst = 0.0
    watched = Watch(folder)

    def one(data: bytes) -> None:
        nonlocal worst
        (folder / target.file).write_bytes(data)
        began = time.process_time()
        with watched:
            try:
                target.use(folder)
                seen["accepted"] += 1
            except (ValueError, OSError) as error:
                reason = str(error)
                if not reason or len(reason) > 1000 or not reason.isprintable():
                    raise Broken(f"this is no reason: {reason[:500]!r}") from error
        worst = max(worst, time.process_time() - began)
        seen["files"] += 1
        if seen["files"] % 100 == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            row = {**seen, "megabytes": peak, "worst": worst}
            (place / "report.json").write_text(json.dumps(row))

    def mutate(data: bytes, most: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        for base in (data, good) if chance.random() < 0.5 else (good,):
            try:
                return chance.choice(mutations)(base, chance)[:most]
            except UNFIT:
                continue
        return bytes(atheris.Mutate(good, most))

    corpus = place / "corpus"
    corpus.mkdir()
    (corpus / "valid").write_bytes(good)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={LONGEST}",
        f"-artifact_prefix={place}/found-",
        f"-max_len={2**21}",
        "-len_control=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()
    sys.exit(0)


class Watch:
    """While it is entered, this process opens nothing outside of `folder` and executes nothing.

    Python's own files and devices are let through.
    """

    FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
    FORBIDDEN += ("socket.connect", "socket.getaddrinfo", "ctypes.dlopen")

    def __init__(self, folder: Path) -> None:
        self.allowed = (str(folder.resolve()), sys.prefix, sys.base_prefix, "/dev/", "/proc/")
        self.allowed += (str(Path(__file__).resolve().parent.parent),)  # sources, for tracebacks
        self.active = False
        sys.addaudithook(self.event)

    def __enter__(self) -> None:
        self.active = True

    def __exit__(self, *_: object) -> None:
        self.active = False

    def event(self, name: str, details: tuple[Any, ...]) -> None:
        """Called by the interpreter before it acts."""
        if not self.active:
            return
        if name in self.FORBIDDEN:
            raise Broken(f"{name} {details!r:.300}")
        if name == "open" and isinstance(details[0], str | bytes | Path):
            path = str(Path(os_path(details[0])).absolute())
            if not path.startswith(self.allowed):
                raise Broken(f"opens {path!r}")


def os_path(path: str | bytes | Path) -> str:
    """A path of any kind as text."""
    return path.decode(errors="surrogateescape") if isinstance(path, bytes) else str(path)


if __name__ == "__main__":
    sys.exit(main())

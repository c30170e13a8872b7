"""Kill zoo builds, trainings, enrolments and benchmarks at random moments; look for losses.

    python benchmarks/kills.py [--kills 100] [--quick] [--seed 0] [--folder DIR]

Each of the four is run undisturbed once. Then it is run in a new folder and killed with SIGKILL
(with all its processes), run again and killed again, up to four times, then run to its end. A kill
comes at a random moment of the run, or at a random one of its operations on files: just before a
file is opened for writing or renamed, or up to two milliseconds later. After every kill:

- what had been finished is there, and equal to that of the undisturbed run;
- nothing half-written has a name that is taken for real;

and after the run to the end: the result is that of the undisturbed run, bit by bit (but for
seconds), and no temporary file is left. Every breach is a loss. Exit code 1 if there is one. POSIX
only. About 4 minutes on two cores; ``--quick`` has 12 kills.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked process must not find torch's threads

from kill_jobs import JOBS, Job, make_inputs
from tqdm import tqdm

IN_A_ROW = 4  # kills of one folder, at most
PATIENCE = 120.0  # seconds after which a run hangs
DELAY = 0.002  # seconds at most between an operation on a file and the kill
RENAME, OPEN = "os.rename", "open"


@dataclass
class Tally:
    """What happened to one job."""

    kills: dict[str, int] = field(default_factory=lambda: {"moment": 0, "file": 0})
    folders: int = 0
    temporaries: int = 0
    finished: int = 0
    losses: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """Seconds and operations on files of a run that nobody killed."""

    seconds: float
    operations: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="12 kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work and keep it; default: nowhere")
    arguments = parser.parse_args()
    kills = 12 if arguments.quick else arguments.kills
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        inputs = arguments.folder or Path(temporary)
        tallies = run(inputs, kills=kills, chance=random.Random(arguments.seed))
    losses = [f"{name}: {loss}" for name, tally in tallies.items() for loss in tally.losses]
    print(
        "| job | kills at a moment | at a file | folders | temporaries left | finished | losses |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, tally in tallies.items():
        at = tally.kills
        cells = (at["moment"], at["file"], tally.folders, tally.temporaries, tally.finished)
        print(f"| {name} | {' | '.join(map(str, cells))} | {len(tally.losses)} |")
    for loss in losses:
        print(f"loss: {loss}")
    done = sum(sum(tally.kills.values()) for tally in tallies.values())
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, seed {arguments.seed}")
    print(f"{done} kills, {len(losses)} losses")
    return int(bool(losses))


def run(inputs: Path, *, kills: int, chance: random.Random) -> dict[str, Tally]:
    """Kill every job in turn until there are enough kills."""
    make_inputs(inputs)
    tqdm.monitor_interval = 0  # no thread in a process that forks
    tqdm.set_lock(threading.RLock())  # its own would be shared: held for ever by what was killed
    jobs: list[Job] = [kind(inputs) for kind in JOBS]
    undisturbed = {job.name: first_run(job, inputs) for job in jobs}
    tallies = {job.name: Tally() for job in jobs}
    with tqdm(total=kills, unit="kill", disable=None) as bar:
        number = done = 0
        while done < kills:
            job = jobs[number % len(jobs)]
            variant = job.variants[number // len(jobs) % len(job.variants)]
            out = inputs / f"killed-{number}"
            most = min(IN_A_ROW, kills - done)
            one_folder(job, variant, out, undisturbed[job.name], most, tallies[job.name], chance)
            done = sum(sum(tally.kills.values()) for tally in tallies.values())
            bar.update(done - bar.n)
            shutil.rmtree(out)
            number += 1
    return tallies


def first_run(job: Job, inputs: Path) -> Undisturbed:
    """What the job comes to without kills, in the folder that it compares with."""
    out = inputs / job.name
    out.mkdir()
    fuse = Fuse(out)
    began = time.monotonic()
    code = ended(started(lambda: job.work(out, job.variants[0]), out, fuse))
    if code:
        raise RuntimeError(f"{job.name}: {out.with_suffix('.stderr').read_text()}")
    return Undisturbed(time.monotonic() - began, int(out.with_suffix(".operations").read_text()))


def one_folder(
    job: Job,
    variant: str,
    out: Path,
    whole: Undisturbed,
    most: int,
    tally: Tally,
    chance: random.Random,
) -> None:
    """Run, kill and look, up to `most` times; then run to the end and compare."""
    out.mkdir()
    tally.folders += 1
    finished, kept = 0, {}

    def look(what: Callable[[list[str]], object]) -> None:
        problems: list[str] = []
        try:
            what(problems)
        except Exception as error:  # whatever it is, the folder is not as it must be
            problems.append(f"{type(error).__name__}: {error}")
        tally.losses.extend(f"{variant}: {problem}" for problem in problems)

    def check(problems: list[str]) -> None:
        nonlocal finished, kept
        now = job.finished(out, problems)
        if now < finished:
            problems.append(f"{finished} were finished, {now} are left")
        times = {path: path.stat().st_mtime_ns for path in stacks(out)}
        if any(times.get(path) != then for path, then in kept.items()):
            problems.append("a finished model was made anew")
        finished, kept = now, times

    for _ in range(most):
        kind = chance.choice(("moment", "file"))
        fuse, after = None, PATIENCE
        if kind == "file":
            delay = chance.choice((0.0, chance.uniform(0, DELAY)))
            fuse = Fuse(out, at=chance.randint(1, whole.operations), delay=delay)
        else:
            after = chance.uniform(0, whole.seconds)
        began = time.monotonic()
        code = ended(started(lambda: job.work(out, variant), out, fuse), after=after)
        if code == 0:  # it was faster than the kill
            break
        if code != -signal.SIGKILL:
            tally.losses.append(f"{variant}: {out.with_suffix('.stderr').read_text()[-3000:]}")
            break
        if time.monotonic() - began >= PATIENCE:
            tally.losses.append(f"{variant}: hangs")
            break
        tally.kills[kind] += 1
        tally.temporaries += len(list(out.rglob(".*.part")))
        look(check)
    tally.finished += finished
    if ended(started(lambda: job.work(out, variant), out, None)):
        tally.losses.append(f"{variant}, resumed: {out.with_suffix('.stderr').read_text()[-3000:]}")
        return
    look(lambda problems: job.compare(out, problems))
    left = [path.name for path in out.rglob(".*.part")]
    if left:
        tally.losses.append(f"{variant}: {left} were never removed")


def stacks(out: Path) -> list[Path]:
    """Models of a zoo that need not be made again: trained in pairs, and both are there."""
    models = out.glob("*-seed[01].safetensors")
    return [
        m for m in models if all((out / f"{m.stem[:-1]}{k}.safetensors").exists() for k in "01")
    ]


# ---- processes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fuse:
    """Kill this process, and those it started, `delay` s after its `at`-th operation on files of
    a folder begins; 0 counts them only."""

    folder: Path
    at: int = 0
    delay: float = 0.0


def started(work: Callable[[], None], out: Path, fuse: Fuse | None) -> int:
    """A process that does `work`: forked, so that it is at work at once and not importing."""
    process = os.fork()
    if process:
        with suppress(OSError):  # a group of its own, whichever of the two is first
            os.setpgid(process, process)
        return process
    code = 1
    try:
        os.setpgid(0, 0)
        for number, name in ((1, ".stdout"), (2, ".stderr")):
            handle = os.open(out.with_suffix(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        counted = lit(fuse) if fuse is not None else None
        work()
        sys.stdout.flush()
        if counted is not None:
            out.with_suffix(".operations").write_text(str(counted()))
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def lit(fuse: Fuse) -> Callable[[], int]:
    """Watch the operations of this process from now on; return how to count them."""
    count = 0

    def kill() -> None:
        time.sleep(fuse.delay)
        os.killpg(0, signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event == RENAME:
            path = arguments[1]
        elif event == OPEN and int(str(arguments[2] or 0)) & (os.O_WRONLY | os.O_RDWR):
            path = arguments[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and str(path).startswith(f"{fuse.folder}/"):
            count += 1
            if count == fuse.at and fuse.delay:
                threading.Thread(target=kill, daemon=True).start()
            elif count == fuse.at:
                kill()

    sys.addaudithook(hook)
    return lambda: count


def ended(process: int, *, after: float = PATIENCE) -> int:
    """Exit code of a process, negative for a signal; it is killed `after` seconds."""
    deadline = time.monotonic() + after
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)


if __name__ == "__main__":
    sys.exit(main())

"""Build a zoo: all models of a plan, many at once, resumable, on several cores or machines.

The unit of work is a stack, all seeds of one architecture. A stack always trains on one thread or
one GPU and in the same way, so that a zoo does not depend on how many processes share the work,
nor on how often it was interrupted.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import asdict
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from threading import RLock, Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fpkit.arch import ArchSpec
from fpkit.assets import append_line
from fpkit.distributed import joined_ranks, rank_device
from fpkit.images import load_tiles
from fpkit.locks import locked
from fpkit.parallel import one_thread
from fpkit.procedural import procedural_images
from fpkit.synthesis import synthesize_stack
from fpkit.temporaries import sweep
from fpkit.zoo import Zoo
from fpkit.zoo_plan import ZooPlan

SIZE = 128  # of the training images: Yang et al. 2025
TILES = 128  # photographs among the training images, if there are tiles
PROCEDURAL = 64  # computed images among them
TIMES = "times.jsonl"  # seconds per model, a line per stack


def training_images(tiles: str | Path | None = None) -> tuple[Tensor, str]:
    """192 training images (192, 3, 128, 128) in [0, 1] and a description of their source.

    Parameters
    ----------
    tiles : path, optional
        Photographs as ``data/photos/make_photos.py`` writes them, (n, h, w, 3) uint8 of at least
        128 x 128 pixels; two thirds of the images are then photographs, else all are computed.

    Raises
    ------
    FileNotFoundError, ValueError
        If `tiles` is not there, or not such a file.
    """
    if tiles is None:
        count = TILES + PROCEDURAL
        return procedural_images(count, SIZE, seed=0), f"procedural_images({count}, {SIZE}, seed=0)"
    array = load_tiles(tiles, side=SIZE, least=TILES)
    cut = np.ascontiguousarray(array[:TILES, :SIZE, :SIZE])
    photos = torch.from_numpy(cut).permute(0, 3, 1, 2) / 255
    mixed = torch.cat([photos, procedural_images(PROCEDURAL, SIZE, seed=0)])
    shuffled = mixed[torch.randperm(len(mixed), generator=torch.Generator().manual_seed(0))]
    return shuffled, (
        f"{TILES} photograph tiles (data/photos) and "
        f"procedural_images({PROCEDURAL}, {SIZE}, seed=0)"
    )


def build_zoo(
    plan: ZooPlan,
    images: Tensor,
    *,
    out: str | Path,
    source: str,
    resume: bool = False,
    device: str | torch.device = "cpu",
    jobs: int | None = None,
    progress: bool = True,
) -> Zoo:
    """Train all models of `plan` that are not in the zoo yet.

    Parameters
    ----------
    plan : ZooPlan
    images : Tensor, (n, 3, h, w) float32 in [0, 1]
        What the models learn to reconstruct, see :func:`training_images`.
    out : str or Path
        Folder of the zoo.
    source : str
        Where the images come from, kept in the manifest.
    resume : bool
        Go on with a zoo of the same plan and source that is there; its finished models stay.
    device : str or torch.device
        With CUDA, stacks are trained one after another.
    jobs : int, optional
        Processes, each on one core; by default one per core on the CPU.
    progress : bool
        Show a progress bar with the rate and the time left.

    Returns
    -------
    Zoo
        Under ``torchrun`` every rank builds its part, waits for the others and returns the whole
        zoo. The result is the same as that of one process, bit by bit on machines of one kind.

    Raises
    ------
    FileExistsError
        If there is a zoo and `resume` is False.
    ValueError
        If the zoo that is there was built after another plan or from other images.

    Notes
    -----
    An interruption at any moment, a kill too, loses only the stacks in work: model files appear
    whole, and what was not in the manifest yet is found by its header. While one process builds,
    another one is refused (BlockingIOError). ``times.jsonl`` in the folder notes the seconds that
    each model of a stack took.
    """
    order = plan.model_ids
    device = rank_device(device)
    out = Path(out)
    with ExitStack() as stack, joined_ranks() as joined:  # flags are exchanged: needs no GPU
        rank, ranks, meet = joined.rank, joined.count, joined.meet
        if rank == 0:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(out, wait=0))
            zoo = _open(out, plan, source, resume)
            zoo.register(zoo.written(set(order) - set(zoo)), order=order)
        meet()
        zoo = Zoo.load(out)
        todo = [arch for arch in plan.archs if not set(plan.stack(arch)) <= set(zoo)]
        meet()  # nobody writes before all have read what there is to do
        mine = todo[rank::ranks]
        bar = tqdm(
            total=len(order) if ranks == 1 else len(mine) * plan.seeds,
            initial=(len(plan.archs) - len(todo)) * plan.seeds if ranks == 1 else 0,
            unit="model",
            desc=f"zoo, rank {rank} of {ranks}" if ranks > 1 else "zoo",
            disable=not progress,
        )
        with bar:
            for entries in _stacks(plan, mine, images, zoo, device, jobs or _cores(ranks)):
                if rank == 0:
                    zoo.register(entries, order=order)
                bar.update(len(entries))
        meet()
        if rank == 0 and ranks > 1:
            zoo.register(zoo.written(set(order) - set(zoo)), order=order)
        meet()
        return Zoo.load(out)


def zoo_figures(zoo: Zoo) -> dict[str, float | None]:
    """How many models and architectures, how many reached eta, and medians, None without models."""
    entries = zoo.entries
    return {
        "models": len(entries),
        "architectures": len({entry["arch_id"] for entry in entries}),
        "megabytes": sum((zoo.path / entry["file"]).stat().st_size for entry in entries) / 1e6,
        "reached": sum(entry["reached"] for entry in entries),
        "residual": median(entry["residual"] for entry in entries) if entries else None,
        "steps": median(entry["steps"] for entry in entries) if entries else None,
    }


def summary(zoo: Zoo) -> str:
    """:func:`zoo_figures` in a sentence."""
    if not len(zoo):
        return f"no models in {zoo.path}"
    of = zoo_figures(zoo)
    return (
        f"{of['models']} models of {of['architectures']} architectures in {zoo.path}, "
        f"{of['megabytes']:.1f} MB; {of['reached']} reached eta; medians: residual "
        f"{of['residual']:.4f}, {of['steps']:.0f} steps"
    )


def peak_memory() -> float:
    """Largest memory, in GiB, that this process or one of its finished children ever held; NaN
    where the system keeps no count (Windows)."""
    try:
        import resource
    except ImportError:
        return math.nan
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB here
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / unit


# ---- one stack, many stacks --------------------------------------------------------------------


def _stacks(
    plan: ZooPlan,
    archs: list[str],
    images: Tensor,
    zoo: Zoo,
    device: torch.device,
    jobs: int,
) -> Iterator[list[dict[str, Any]]]:
    """Train these stacks and yield their entries as they are done, in whatever order."""
    jobs = min(jobs, len(archs)) if device.type == "cpu" else 1
    if jobs <= 1:
        with one_thread():
            for arch in archs:
                yield _build_stack(plan, arch, images, zoo, device)
        return
    # spawn: a fork of a process in which torch has started threads may hang
    context = get_context("spawn")
    ends, alive = context.Pipe(duplex=False)
    given = plan, images, zoo, ends
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=given)
    try:
        with pool:
            waiting = {pool.submit(_work, arch) for arch in archs}
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            except BaseException:
                alive.close()  # nobody waits for stacks that would be lost
                raise
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process that trained models was killed, perhaps for want of memory: resume the "
            f"build with fewer than {jobs} jobs"
        ) from error
    finally:
        alive.close()
        ends.close()


def _build_stack(
    plan: ZooPlan, arch: str, images: Tensor, zoo: Zoo, device: torch.device
) -> list[dict[str, Any]]:
    """Train one stack, write its models, note its time, return the entries."""
    made = synthesize_stack(
        ArchSpec.parse(arch),
        images,
        seeds=range(plan.seeds),
        eta=plan.eta,
        max_steps=plan.max_steps,
        device=device,
        precision=plan.precision,
        progress=False,
    )
    entries = [zoo.write(synthesis) for synthesis in made]
    # beside the manifest, as times differ from run to run; a line is appended in one piece
    seconds = [round(synthesis.seconds, 2) for synthesis in made]
    line = json.dumps({"arch_id": arch, "seconds": seconds, "device": device.type})
    append_line(zoo.path / TIMES, line)
    return entries


_worker: tuple[ZooPlan, Tensor, Zoo] | None = None  # of a worker process


def _start_worker(plan: ZooPlan, images: Tensor, zoo: Zoo, ends: Connection) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the parent decides
    tqdm.set_lock(RLock())  # its own, shared with other processes, outlives a worker that is ended
    Thread(target=_follow_parent, args=(ends,), daemon=True).start()
    torch.set_num_threads(1)
    _worker = plan, images, zoo


def _follow_parent(ends: Connection) -> None:
    """End this process when its parent closes the other end of a pipe, as its death does: a
    build that was stopped or killed must not go on unseen."""
    with suppress(EOFError):
        ends.recv()
    os._exit(1)


def _work(arch: str) -> list[dict[str, Any]]:
    assert _worker is not None  # _start_worker ran first
    plan, images, zoo = _worker
    return _build_stack(plan, arch, images, zoo, torch.device("cpu"))


# ---- the zoo, and the other ranks --------------------------------------------------------------


def _open(out: Path, plan: ZooPlan, source: str, resume: bool) -> Zoo:
    """The zoo in `out`, made if it is not there; ValueError if it follows another plan."""
    recipe = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(plan).items()}
    if not (out / "manifest.json").exists():
        return Zoo.create(out, source=source, storage=plan.storage, recipe=recipe)
    if not resume:
        raise FileExistsError(f"{out} already holds a zoo: resume it, or build elsewhere")
    zoo = Zoo.load(out)
    if zoo.source != source:
        raise ValueError(f"{out} was trained on {zoo.source}, not on {source}: build elsewhere")
    differing = [key for key, value in recipe.items() if zoo.recipe.get(key) != value]
    if differing:
        raise ValueError(
            f"{out} was built with another {', '.join(differing)}: give the same options to resume "
            "it, or build elsewhere"
        )
    sweep(out)  # what a killed build was writing
    return zoo


def _cores(ranks: int) -> int:
    """Cores for this process, where torchrun has started `ranks` in all."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if ranks > 1 else 1
    return max(1, (available or 1) // here)

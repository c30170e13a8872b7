"""The units of a run on many processes and machines, which Ray starts, watches and starts again.

What Ray Data promises is that every unit is done *at least* once: when a process dies, what it was
at is done again. Every image is in the result once all the same, because nothing is added to it: a
unit has one file, whose name follows from its number, and doing it again replaces the file by an
equal one. Nothing but numbers of units, and of what was done, passes through Ray.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fpkit.corpus import Corpus, CorpusSummary, pending
from fpkit.corpus_unit import OnImages, embed_unit
from fpkit.extractor import load_extractor
from fpkit.locks import locked
from fpkit.shards import RowReader

Processor = Literal["cpu", "cuda"]

PATIENCE = 1800.0, 4.0  # seconds without a finished unit, or per image of a unit if that is more
_OBJECTS = 2**27  # bytes of shared memory of a local Ray: it holds numbers of units


def embed_on_ray(
    corpus: Corpus,
    *,
    address: str = "local",
    extractor: str | Path | None = None,
    processor: Processor | None = None,
    processes: int | None = None,
    workers: int | None = None,
    retry_errors: bool = False,
    on_images: OnImages | None = None,
) -> CorpusSummary:
    """:func:`fpkit.corpus.embed_corpus` by processes that Ray runs.

    All machines have fpkit, and see the sources, the extractor and the folder of the corpus under
    the same paths.

    Parameters
    ----------
    corpus
        The plan, see :meth:`Corpus.plan`.
    address
        ``local`` starts a Ray on this machine and ends it; ``auto`` or ``HOST:PORT`` is a cluster
        that this machine belongs to.
    extractor
        Folder of the extractor of the plan, see :func:`fpkit.extractor.load_extractor`.
    processor
        What networks run on. Default: GPUs, if there are any, one process for each; else cores.
    processes
        Default: as many as the cluster has room for.
    workers
        Threads per process, see :func:`fpkit.corpus_unit.embed_unit`; default on cores: 1.
    retry_errors
        Do units with errors again.
    on_images
        Called with the number of images of every unit that is done.

    Raises
    ------
    BlockingIOError
        If another run is at it.
    ConnectionError
        If there is no cluster at the address.
    ValueError
        If it has not what is asked for, or a process says so of a source, the extractor or the
        folder.
    OSError
        If a process cannot read or write, or nothing was done for `PATIENCE`.
    """
    with locked(corpus.folder, wait=0):
        errors, new = corpus.finished(), 0
        if left := pending(corpus, errors, retry_errors=retry_errors):
            task = _UnitTask(
                folder=corpus.folder.absolute(),
                plan_hash=corpus.plan_hash,
                extractor=_absolute(extractor),
            )
            with _connected(address, processes):
                pool = _pool(processor, processes, workers, units=len(left))
                with closing(_results(task, left, pool, corpus.config.unit)) as results:
                    for row in results:
                        errors[row["unit"]] = row["errors"]
                        new += row["images"]
                        if on_images is not None:
                            on_images(row["images"])
    return CorpusSummary(images=corpus.images, errors=sum(errors.values()), new=new)


def _absolute(extractor: str | Path | None) -> str | None:
    return extractor if extractor in (None, "small") else os.path.abspath(extractor)


# ---- what every process does -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _UnitTask:
    """What to know to do any unit of a plan."""

    folder: Path
    plan_hash: str
    extractor: str | None


class _UnitProcess:
    """Does units, one after the other; made once in every process."""

    def __init__(self, task: _UnitTask, processor: Processor, workers: int | None) -> None:
        self.task, self.processor, self.workers = task, processor, workers
        self.rows = RowReader()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Units -> images, errors, and what went wrong, with its errno (0: no OSError)."""
        result: dict[str, list[Any]] = {"unit": [], "images": [], "errors": []}
        result |= {"wrong": [], "errno": []}
        for unit in map(int, batch["unit"]):
            found: dict[str, Any] = {"images": 0, "errors": 0, "wrong": "", "errno": 0}
            try:
                found["images"], found["errors"] = self._do(unit)
            except (OSError, ValueError) as error:  # Ray would hide its text in a trace
                found["wrong"] = f"{error} (on {platform.node()})"
                if isinstance(error, OSError) and error.errno:
                    where = f": {error.filename}" if error.filename else ""
                    found["wrong"] = f"{error.strerror}{where} (on {platform.node()})"
                    found["errno"] = error.errno
            for name, value in ({"unit": unit} | found).items():
                result[name].append(value)
        return result

    def _do(self, unit: int) -> tuple[int, int]:
        corpus, extractor = self._opened
        items = corpus.items(unit)
        table = embed_unit(
            items,
            extractor,
            precision=corpus.config.precision,
            workers=self.workers,
            rows=self.rows,
        )
        corpus.write(unit, table)
        return len(table), len(table) - table["error"].null_count

    @cached_property
    def _opened(self) -> tuple[Corpus, Any]:
        try:
            corpus = Corpus(self.task.folder)
        except FileNotFoundError as error:
            raise ValueError(f"{error}; the folder must be one that all machines share") from error
        if corpus.plan_hash != self.task.plan_hash:
            raise ValueError(
                f"{self.task.folder} holds another plan here: it must be a folder that all "
                "machines share"
            )
        extractor = load_extractor(self.task.extractor, device=self.processor)
        if extractor.hash != corpus.config.extractor_hash:
            raise ValueError(
                f"{self.task.folder} is planned for the extractor "
                f"{corpus.config.extractor_hash[:12]}, got {extractor.hash[:12]}: the machines "
                "must have the same fpkit and the same extractor"
            )
        return corpus, extractor


# ---- Ray ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """So many processes of so many cores and GPUs each."""

    processor: Processor
    processes: int
    workers: int | None
    cores: int
    gpus: int


def _pool(
    processor: Processor | None, processes: int | None, workers: int | None, *, units: int
) -> _Pool:
    """What the cluster has room for."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    if processor is None:
        processor = "cuda" if gpus else "cpu"
    if processor == "cuda":
        room, cores = gpus, 1  # decoding in threads takes more, between two batches
    else:
        cores = workers = workers or 1
        room = sum(int(machine.get("CPU", 0)) // cores for machine in machines)
    if not room:
        wanted = "a GPU" if processor == "cuda" else f"{cores} free cores"
        raise ValueError(
            f"no machine of the {len(machines)} that Ray knows has {wanted}: take another "
            "--device, or fewer --workers"
        )
    count = min(room, processes or room, units)
    return _Pool(
        processor=processor,
        processes=count,
        workers=workers,
        cores=cores,
        gpus=int(processor == "cuda"),
    )


def _results(
    task: _UnitTask, units: list[int], pool: _Pool, images: int
) -> Iterator[dict[str, Any]]:
    """What :class:`_UnitProcess` says of every unit, as it comes; its errors are raised."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.exceptions import ExecutionTimeoutError

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = max(PATIENCE[0], PATIENCE[1] * images)
    done = ray.data.from_items(
        [{"unit": unit} for unit in units], override_num_blocks=len(units)
    ).map_batches(
        _UnitProcess,
        fn_constructor_args=(task, pool.processor, pool.workers),
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=pool.processes, initial_size=pool.processes),
        num_cpus=pool.cores,
        num_gpus=pool.gpus,
    )
    try:
        for row in done.iter_rows():
            if row["wrong"]:
                if row["errno"]:
                    raise OSError(row["errno"], row["wrong"])
                raise ValueError(row["wrong"])
            yield row
    except ExecutionTimeoutError as error:
        raise OSError(
            errno.ETIMEDOUT,
            f"no unit was done for {context.execution_no_progress_timeout_s:.0f} s: processes die "
            "(short of memory?) or wait for machines; see what Ray says above",
        ) from error


@contextmanager
def _connected(address: str, processes: int | None) -> Iterator[None]:
    """Ray, unless this process has one already; what it prints goes to standard error."""
    if "://" in address:
        raise ValueError(
            f"the address of a Ray is local, auto or HOST:PORT, got {address}: give the command "
            "on a machine of the cluster"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports to its makers
    try:
        import ray.data
    except ModuleNotFoundError as error:
        raise ValueError("--ray needs Ray Data: pip install 'fpkit[cluster]'") from error
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {}
    if address == "local":
        cores = max(_cores(), processes or 1)
        options = {"num_cpus": cores, "object_store_memory": _OBJECTS, "include_dashboard": False}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):
        try:
            with _kept_handler():
                ray.init(address=address, logging_level=logging.ERROR, **options)
            yield
        finally:
            ray.shutdown()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _kept_handler() -> Iterator[None]:
    """Keep what SIGTERM does in a block: Ray would let it end the process at once."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)

"""Jobs beside each other on the cores of one machine, one thread each.

On small images the threads within one operation mostly wait for each other; and sums over
several threads depend on their number in the last bit.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


def map_on_cores(run: Callable[[int], T], jobs: int, *, device: str | torch.device) -> list[T]:
    """``[run(0), ..., run(jobs - 1)]``; on the CPU as many at a time as torch has threads.

    Grad and inference mode belong to a thread: `run` sets them itself.
    """
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu" or min(threads, jobs) <= 1:
        return [run(job) for job in range(jobs)]
    try:
        with ThreadPoolExecutor(
            min(threads, jobs), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(run, range(jobs)))
    finally:
        torch.set_num_threads(threads)  # MKL has one number for the whole process


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, so that results do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""One writer at a time: locks that a killed process cannot keep.

The lock is the operating system's (through the library filelock) on a hidden, empty file beside
what it protects. The file stays; the lock ends with the process that holds it, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

WAIT = 60.0  # seconds: changing a file takes a fraction of one


def lock_path(path: str | Path) -> Path:
    """The file that is locked while `path`, a file or a folder, is changed."""
    path = Path(path)
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name[:200]}.lock")


@contextmanager
def locked(path: str | Path, *, wait: float = WAIT) -> Iterator[None]:
    """Keep other processes that lock `path` waiting.

    Parameters
    ----------
    path
        A file that is there or will be made, or a folder that is there.
    wait
        Seconds to wait for another process at most; 0 for work that lasts, where waiting for the
        other one is pointless.

    Raises
    ------
    BlockingIOError
        If another process still holds the lock then.
    OSError
        If the folder cannot be written.
    """
    path = Path(path)
    file = lock_path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=wait)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(
            f"another process is working on {path}: wait until it has ended, or take another place"
        ) from None
    except PermissionError as error:
        raise PermissionError(error.errno, "no permission to write here", str(path)) from error
    try:
        yield
    finally:
        lock.release()

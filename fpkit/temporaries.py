"""Temporary files of writers, and how those of killed writers go away.

A file is written under a temporary name beside its place and renamed when it is whole. A writer
that is killed leaves the temporary behind: hidden, never taken for a finished file, and deleted
by the next process that writes into the folder.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from zlib import crc32

SUFFIX = ".part"
OLD = 86_400.0  # seconds after which nobody can still be writing one file
_NAME = re.compile(r"\.fpkit-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}" + re.escape(SUFFIX))
_swept: set[tuple[int, Path]] = set()  # processes and folders; a forked process sweeps anew


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of `path` that says which process is writing.

    It does not grow with the name of `path`, which may be as long as the file system allows.
    """
    return path.with_name(f".fpkit-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")


def sweep(folder: Path) -> list[Path]:
    """Delete what killed writers left in `folder`; return what was deleted.

    Deleted are temporaries of processes of this machine that are gone, and any that are older
    than a day. What cannot be deleted stays.
    """
    gone = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if _is_left(entry):
                    os.unlink(entry.path)
                    gone.append(Path(entry.path))
    return gone


def sweep_once(folder: Path) -> None:
    """:func:`sweep`, the first time that this process writes into `folder`."""
    key = os.getpid(), folder.absolute()
    if key not in _swept:
        _swept.add(key)
        sweep(folder)


def _is_left(entry: os.DirEntry[str]) -> bool:
    match = _NAME.fullmatch(entry.name)
    if match is None or not entry.is_file(follow_symlinks=False):
        return False
    if time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD:
        return True
    return match[1] == _machine() and not _alive(int(match[2]))


def _machine() -> str:
    """Eight hex digits; process numbers mean nothing on another machine or container."""
    return f"{crc32(platform.node().encode()):08x}"


def _alive(process: int) -> bool:
    """Whether there is such a process; True where asking would end it (Windows)."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True

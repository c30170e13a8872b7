"""Where many images come from: trees of folders, lists of files, tar shards, Parquet.

A source is listed once, image by image; what is listed can be read later, in any order, by other
processes, and nothing of an image is kept but where it is. What cannot be listed or read is an item
with a reason, not the end of the run.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from fpkit.artefacts import open_at_once
from fpkit.folders import EXTENSIONS, has_suffix
from fpkit.intake import ImageReadError, max_file_bytes, read_bytes
from fpkit.shards import (
    MACHINE,
    MAX_PIXELS,
    Item,
    absolute,
    list_parquet,
    list_tar,
    read_member,
    stamp_of,
    text,
    told,
)

_CONTAINERS = {".tar": list_tar, ".parquet": list_parquet}
_READ = EXTENSIONS | _CONTAINERS.keys()


def list_items(
    sources: Iterable[str | Path], *, leave_out: str | Path | None = None
) -> Iterator[Item]:
    """The images of all sources, one after the other.

    Parameters
    ----------
    sources
        Each a folder (of images, tars and Parquets, and of folders with these), a tar, a Parquet,
        an image, or a text file with a path of such a file, from the current folder, on every line.
    leave_out
        A folder that is not entered: that of the output.

    Yields
    ------
    Item
        Of a folder its files by name, then its folders by name. Hidden ones, links to folders and
        files of other kinds are skipped. The names of one folder are in memory at a time.

    Raises
    ------
    FileNotFoundError
        If there is no such source.
    ValueError
        If a source is a file of another kind.
    """
    for source in map(Path, sources):
        if not os.path.lexists(source):
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(source))
        if source.is_dir():
            yield from _of_folder(source, leave_out)
        elif has_suffix(source.name, _READ):
            yield from _of_file(source)
        else:
            yield from _of_list(source)


def read_item(item: Item) -> bytes:
    """The bytes of an image that is a file or a member of a tar; see :class:`RowReader` for rows.

    Raises
    ------
    ImageReadError
        If they cannot be had.
    ValueError
        If the tar has changed since it was listed.
    OSError
        If the machine fails, not the file.
    """
    if item.kind == "error":
        raise ImageReadError(item.error)
    try:
        if item.kind == "file":
            return read_bytes(os.fsdecode(item.file), max_bytes=max_file_bytes(MAX_PIXELS))
        return read_member(item)
    except OSError as error:
        raise told(error) from error
    except ImageReadError:
        raise
    except ValueError as error:
        if "null byte" in str(error):
            raise ImageReadError("cannot be opened (its name holds a null byte)") from error
        raise


# ---- folders and lists -------------------------------------------------------------------------


def _of_folder(folder: Path, leave_out: str | Path | None) -> Iterator[Item]:
    out = os.stat(leave_out) if leave_out is not None and os.path.isdir(leave_out) else None
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            if out is not None and os.path.samestat(os.stat(folder), out):
                continue
            files, folders = _names(folder)
        except OSError as error:
            if error.errno in MACHINE:
                raise
            yield _unusable(folder, f"cannot be listed ({error.strerror})")
            continue
        for name in files:
            yield from _of_file(folder / name)
        waiting += [folder / name for name in reversed(folders)]


def _names(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the files to read, and of the folders, in a folder."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif has_suffix(entry.name, _READ) and not os.path.isdir(entry.path):  # a link to one
                files.append(entry.name)
    return sorted(files), sorted(folders)


def _of_list(file: Path) -> Iterator[Item]:
    kinds = f"a folder, an image, {' or '.join(_CONTAINERS)}, or a text file that lists such files"
    with open(file, "rb", opener=open_at_once) as lines:
        if not stat.S_ISREG(os.fstat(lines.fileno()).st_mode) or b"\0" in lines.read(2**13):
            raise ValueError(f"{file}: expected {kinds} (compressed tars: unpack them)")
        lines.seek(0)
        while line := lines.readline(2**16):
            if name := line.rstrip(b"\r\n"):
                yield from _of_file(Path(os.fsdecode(name)))


def _of_file(file: Path) -> Iterator[Item]:
    list_inside = _CONTAINERS.get(file.suffix.lower())
    if list_inside is None:
        yield Item(path=text(file), file=absolute(file))
        return
    try:
        with open(file, "rb", opener=open_at_once) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageReadError("is no regular file")
            yield from list_inside(opened, file, stamp_of(status))
    except OSError as error:
        reason = told(error)
        if isinstance(reason, OSError):
            raise
        yield _unusable(file, str(reason))
    except ValueError as error:  # ImageReadError, or a name that no file can have
        yield _unusable(file, str(error))


def _unusable(file: Path, reason: str) -> Item:
    return Item(path=text(file), file=absolute(file), kind="error", error=reason)

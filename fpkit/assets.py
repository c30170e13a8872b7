"""Where the shipped weights and zoo lie, and how files are written without half-written ones.

In a checkout the data is ``data/`` beside the package; in an installed wheel it is
``fpkit/_data``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from fpkit.temporaries import sweep_once, temporary_beside
from fpkit.tensor_files import encode_tensors

_PARTS = ("extractor", "zoo", "denoiser", "encoder", "realworld", "swap")


def data_dir() -> Path:
    """Folder with the shipped data.

    Returns
    -------
    Path
        ``data/`` of the checkout this file lies in, else ``_data/`` of the installed package.

    Raises
    ------
    FileNotFoundError
        If neither is there.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file():
        if any((checkout / "data" / part).is_dir() for part in _PARTS):
            return checkout / "data"
    elif (package / "_data").is_dir():
        return package / "_data"
    raise FileNotFoundError(
        f"no shipped data, looked for {checkout / 'data'} and {package / '_data'}: "
        "reinstall fpkit, or run it from a complete checkout"
    )


def extractor_path(*, small: bool = False) -> Path:
    """Folder of a shipped extractor: weights and model card. Raises FileNotFoundError."""
    return _part("extractor-small" if small else "extractor")


def zoo_path() -> Path:
    """Folder of the shipped starter zoo of synthetic models. Raises FileNotFoundError."""
    return _part("zoo")


def denoiser_path() -> Path:
    """Folder of the shipped denoiser weights and their licence. Raises FileNotFoundError."""
    return _part("denoiser")


def encoder_path() -> Path:
    """Folder of the shipped encoder that random decoders share. Raises FileNotFoundError."""
    return _part("encoder")


def realworld_path() -> Path:
    """Folder of the measured fingerprints of real generators. Raises FileNotFoundError."""
    return _part("realworld")


def swap_path() -> Path:
    """Folder of the shipped pairs of generators for block swaps. Raises FileNotFoundError."""
    return _part("swap")


def _part(name: str) -> Path:
    path = data_dir() / name
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is missing: reinstall fpkit, or restore it from git")
    return path


def write_bytes_atomic(path: str | Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old content or the new, never a part.

    Parameters
    ----------
    path
        File to make or replace; its folder is made if it is missing.
    content
        All of the new content.

    Raises
    ------
    OSError
        If that is not possible (PermissionError: not allowed, also where the old file is
        write-protected); it names `path` and says what to do. The old content is untouched.

    Notes
    -----
    A temporary file in the same folder is written, flushed to disk and renamed over `path`; those
    of killed writers are removed, see :mod:`fpkit.temporaries`.
    """
    with open_atomic(path) as file:
        file.write(content)


@contextmanager
def open_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """:func:`write_bytes_atomic` for content that is written bit by bit, in a ``with`` block.

    The file gets its name when the block ends; an error inside leaves the old content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_once(path.parent)
    temporary = temporary_beside(path)
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        _forget(temporary)
        if error.filename not in (None, str(temporary)):  # the block speaks of another file
            raise
        raise _explained(error, path) from error
    except BaseException:
        _forget(temporary)
        raise


def _forget(temporary: Path) -> None:
    with suppress(OSError):  # what went wrong before matters more
        temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """Make the new name of a file survive a power failure, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}  # no more room
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def _explained(error: OSError, path: Path) -> OSError:
    """The same error about `path`, not its temporary, with what to do."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        reason += ", not written, what was there before is untouched: free some space and try again"
    elif error.errno in _FORBIDDEN:
        reason += ", not written: take another place, or change its permissions"
    return OSError(error.errno, reason, str(path))


def write_text_atomic(path: str | Path, text: str) -> None:
    """:func:`write_bytes_atomic` of UTF-8 text; line ends are kept as they are."""
    write_bytes_atomic(path, text.encode("utf-8"))


def append_line(path: str | Path, line: str) -> None:
    """Append a line to a UTF-8 file in one piece, so that several processes may.

    Raises
    ------
    OSError
        If it cannot be written, or is a link: a folder from a stranger must not make us write
        elsewhere.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    content = f"{line}\n".encode()
    try:
        handle = os.open(path, flags, 0o666)
        with os.fdopen(handle, "wb", buffering=0) as file:
            if file.write(content) < len(content):  # the rest of the disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        if error.errno == errno.ELOOP:
            reason = "is a link, not written: delete it, or take another folder"
            raise OSError(error.errno, reason, str(path)) from error
        raise _explained(error, Path(path)) from error


def save_safetensors_atomic(
    path: str | Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """:func:`write_bytes_atomic` of named tensors in the safetensors format.

    Parameters
    ----------
    path
        File to make or replace.
    tensors
        Name to tensor, of any shape, type and device; copied to contiguous CPU tensors.
    metadata
        Strings to keep in the header, in alphabetical order there, beside a checksum which
        :func:`fpkit.tensor_files.open_tensors` compares.

    Notes
    -----
    Equal content makes equal files, byte for byte.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes_atomic(path, encode_tensors(contiguous, metadata or {}))

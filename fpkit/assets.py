"""Where the shipped weights and zoo lie, and how files are written without half-written ones.

In a checkout the data is ``data/`` beside the package; in an installed wheel it is
``fpkit/_data``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

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

    Notes
    -----
    A temporary file in the same folder is written, flushed to disk and renamed over `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text_atomic(path: str | Path, text: str) -> None:
    """:func:`write_bytes_atomic` of UTF-8 text; line ends are kept as they are."""
    write_bytes_atomic(path, text.encode("utf-8"))


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
        Strings to keep in the header.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes_atomic(path, save(contiguous, metadata=dict(metadata) if metadata else None))

"""Which images a folder holds, and which models a tree of folders: folders are labels."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Container
from pathlib import Path

from fpkit.intake import ImageReadError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; hidden files are skipped.

    Their names decide: a broken link is listed, for reading it gives the reason. Folders, pipes
    and devices are not. 100,000 files take about a second.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    NotADirectoryError
        If it is a file.
    PermissionError
        If it may not be read.
    """
    folder = Path(folder)
    _check_folder(folder)
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if has_suffix(entry.name) and not entry.name.startswith(".") and _may_be_file(entry)
        ]
    return [folder / name for name in sorted(names)]


def list_models(
    folder: str | Path, *, on_error: Callable[[ImageReadError], None] | None = None
) -> dict[str, list[Path]]:
    """Models of a folder-per-model tree: ``folder/<model>/<image>``.

    Parameters
    ----------
    folder
        The tree. Hidden folders, and files beside the folders, are skipped.
    on_error
        Called with the error of each model's folder that may not be read, which then has no
        images. None: it is raised.

    Returns
    -------
    dict of str to list of Path
        Model name (that of its folder) to its sorted images, sorted by name. A folder without
        images is there with an empty list, so that a caller can report it.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    NotADirectoryError
        If it is a file.
    ValueError
        If no folder in it holds an image.
    ImageReadError
        If a model's folder may not be read.
    """
    models: dict[str, list[Path]] = {}
    for path in list_folders(folder):
        try:
            models[path.name] = list_images(path)
        except OSError as error:
            unreadable = ImageReadError(f"{path}: cannot be listed ({error.strerror})")
            if on_error is None:
                raise unreadable from error
            on_error(unreadable)
            models[path.name] = []
    if not any(models.values()):
        direct = len(list_images(folder))
        found = f"it holds {direct} images directly" if direct else "it holds no images"
        raise ValueError(
            f"{folder}: expected one folder per model with images in it, but {found}: "
            f"put them in {folder}/<model>/"
        )
    return models


def list_folders(folder: str | Path) -> list[Path]:
    """Folders directly in a folder, sorted by name; hidden ones are skipped.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        As :func:`list_images`.
    """
    folder = Path(folder)
    _check_folder(folder)
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and os.path.isdir(entry.path)
        ]
    return [folder / name for name in sorted(names)]


def has_suffix(name: str, suffixes: Container[str] = EXTENSIONS) -> bool:
    """Whether a file name ends in one of these, in small letters or capitals."""
    return os.path.splitext(name)[1].lower() in suffixes


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """A regular file, or a link of which nobody knows where it leads."""
    try:
        return stat.S_ISREG(entry.stat().st_mode) if entry.is_symlink() else entry.is_file()
    except OSError:
        return True


def _check_folder(folder: Path) -> None:
    if not os.path.lexists(folder):
        raise FileNotFoundError(f"{folder}: no such folder")
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"{folder}: is a file, expected a folder")

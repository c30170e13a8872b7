"""Hostile entries of a folder: links, pipes, devices, rights, and names."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hostile_blocks import Expected, picture, saved

PLACES: dict[str, Place] = {}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something that lies in a folder and looks like an image.

    Attributes
    ----------
    name
        What is wrong with it.
    expected
        ``read``, ``refused`` with a reason, or ``either`` (which depends on the user's rights).
    put
        Makes it in a folder, and returns its path.
    """

    name: str
    expected: Expected
    put: Callable[[Path, bytes], Path]


def place(name: str, expected: Expected) -> Callable[[Callable[..., Path]], Callable[..., Path]]:
    """Register what puts an entry into a folder, given the bytes of a sound image."""

    def register(put: Callable[..., Path]) -> Callable[..., Path]:
        PLACES[name] = Place(name=name, expected=expected, put=put)
        return put

    return register


def sound_png(rng: np.random.Generator) -> bytes:
    """A harmless image."""
    return saved(picture(rng), "PNG")


# ---- links, pipes, devices ---------------------------------------------------------------------


def linked(folder: Path, name: str, target: str | Path) -> Path:
    """A symbolic link in the folder."""
    path = folder / name
    path.symlink_to(target)
    return path


@place("link to itself", "refused")
def itself(folder: Path, data: bytes) -> Path:
    return linked(folder, "itself.png", "itself.png")


@place("links in a circle", "refused")
def circle(folder: Path, data: bytes) -> Path:
    linked(folder, "there.png", "back.png")
    return linked(folder, "back.png", "there.png")


@place("link to nothing", "refused")
def nothing(folder: Path, data: bytes) -> Path:
    return linked(folder, "nothing.png", "does not exist")


@place("link to /dev/zero", "refused")
def device(folder: Path, data: bytes) -> Path:
    return linked(folder, "zero.png", "/dev/zero")


@place("link to /dev/stdin", "refused")
def stdin(folder: Path, data: bytes) -> Path:
    return linked(folder, "stdin.png", "/dev/stdin")


@place("link to the memory of the process", "refused")
def memory(folder: Path, data: bytes) -> Path:
    return linked(folder, "memory.png", "/proc/self/mem")


@place("link to the folder above", "refused")
def above(folder: Path, data: bytes) -> Path:
    return linked(folder, "above.png", "..")


@place("link to a pipe", "refused")
def linked_pipe(folder: Path, data: bytes) -> Path:
    os.mkfifo(folder / "hidden pipe")
    return linked(folder, "linked pipe.png", "hidden pipe")


@place("link to a sound image", "read")
def sound_link(folder: Path, data: bytes) -> Path:
    (folder / "original").write_bytes(data)
    return linked(folder, "link.png", "original")


@place("pipe without a writer", "refused")
def pipe(folder: Path, data: bytes) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


@place("socket", "refused")
def listening(folder: Path, data: bytes) -> Path:
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket holds 100 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.png")
    finally:
        os.chdir(here)
    return folder / "socket.png"


@place("folder with the name of an image", "refused")
def folder_as_image(folder: Path, data: bytes) -> Path:
    (folder / "folder.png").mkdir()
    return folder / "folder.png"


@place("100 GB of nothing", "refused")
def sparse(folder: Path, data: bytes) -> Path:
    path = folder / "sparse.png"
    path.write_bytes(data)
    os.truncate(path, 100 * 10**9)
    return path


@place("without the right to read", "either")
def locked(folder: Path, data: bytes) -> Path:
    path = folder / "locked.png"
    path.write_bytes(data)
    path.chmod(0)
    return path


@place("link into a folder without rights", "either")
def locked_folder(folder: Path, data: bytes) -> Path:
    (folder / "locked").mkdir()
    (folder / "locked" / "a.png").write_bytes(data)
    (folder / "locked").chmod(0)
    return linked(folder, "into locked.png", "locked/a.png")


# ---- names -------------------------------------------------------------------------------------

NAMES = {
    "line break": "two\nlines.png",
    "carriage return": "hidden\rshown.png",
    "escape sequence": "\x1b[2J\x1b[31mred\x1b[0m.png",
    "title of the terminal": "\x1b]0;owned\x07.png",
    "marks of direction": "\u202egnp.exe\u2066.png",
    "no-width characters": "a\u200bb\ufeff.png",
    "next line of C1": "a\x85b\x9b31m.png",
    "markup": "<img src=x onerror=alert(1)>.png",
    "quotes and shell": "'\"; $(touch x) `y` & |.png",
    "spaces alone": "   .png",
    "like an option": "--json.png",
    "backslash": "a\\..\\b.png",
    "per cent": "%s%n{0}.png",
    "many bytes": "é" * 125 + ".png",
    "picture characters": "\U0001f600\u200d\U0001f525.png",
}


def _register_names() -> None:
    for what, name in NAMES.items():

        def put(folder: Path, data: bytes, name: str = name) -> Path:
            (folder / name).write_bytes(data)
            return folder / name

        place(f"name: {what}", "read")(put)


_register_names()


@place("name: bytes that are no text", "read")
def no_text(folder: Path, data: bytes) -> Path:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe\x80.png"))
    path.write_bytes(data)
    return path

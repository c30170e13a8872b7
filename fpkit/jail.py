"""The one folder that a page in the browser may read from."""

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fpkit.images import ImageReadError, load_image

FOLDER = "FPKIT_APP_FOLDER"  # of the environment: the root, for the page of fpkit app
_OUT = "leads out of the folder that this page may read"


@dataclass(frozen=True)
class Jail:
    """What a page may read: one folder and all in it, or nothing but uploads.

    Every path is judged by where it really leads, links followed, each time that it is used. Hard
    links cannot be told from other files: a file that is in the folder is in it.

    Parameters
    ----------
    root : Path or None
        The folder; None: the page may read no file.

    Raises
    ------
    NotADirectoryError
        If `root` is no folder.
    """

    root: Path | None = None

    def __post_init__(self) -> None:
        if self.root is None:
            return
        if not self.root.is_dir():
            raise NotADirectoryError(f"{self.root}: no such folder to read from")
        object.__setattr__(self, "root", self.root.resolve())

    def path(self, text: str) -> Path:
        """The file or folder that somebody asks for, relative to the root; "" is the root.

        Raises
        ------
        ValueError
            If the page may not read it. The reason says nothing of what is outside.
        """
        if self.root is None:
            raise ValueError(
                "this page takes uploads only: to let it read a folder as well, start it with "
                "fpkit app --folder DIR"
            )
        if os.path.isabs(text) or Path(text).drive or text.startswith(("~", "/", "\\")):
            raise ValueError(f"{text}: give a path inside {self.root.name}, such as dcgan")
        path = self.root / text
        if not self.holds(path):
            raise ValueError(f"{text}: {_OUT}")
        return path

    def holds(self, path: Path) -> bool:
        """Whether a path really leads into the folder; it need not exist."""
        try:
            return self.root is not None and path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError, ValueError):  # links in a loop; a NUL
            return False

    def load(self, path: Path, name: str) -> tuple[Tensor, bytes]:
        """:func:`fpkit.images.load_image` of a file inside; messages call it `name`."""
        if not self.holds(path):
            raise ImageReadError(f"{name}: {_OUT}")
        real = path.resolve()
        try:
            return load_image(real)
        except ImageReadError as error:
            raise ImageReadError(self.told(error, real, name)) from None

    def told(self, error: Exception, path: Path, name: str) -> str:
        """The message of an error about `path`, which is called `name` there."""
        return str(error).replace(str(path), name)

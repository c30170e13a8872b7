"""What the verbs of the command line share: files in, lines out.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fpkit.folders import list_folders, list_images, list_models
from fpkit.intake import ImageReadError
from fpkit.names import visible

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]


class Skipped:
    """Counts and reports files that a batch verb leaves out.

    Call it with each error; :meth:`finish` gives the exit code.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        self.count += 1
        note(f"skipped: {error}")

    def finish(self, total: int, *, strict: bool) -> int:
        """Say how many of `total` files were left out; 1 if that is an error, else 0."""
        if not self.count:
            return 0
        hint = "" if strict else "; --strict makes that an error"
        note(f"{self.count} of {plural(total, 'file')} skipped{hint}")
        return int(strict)


def note(text: str) -> None:
    """One line on stderr; characters that could act on a terminal are spelled out."""
    print(f"fpkit: {visible(text)}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Strict JSON on stdout: no NaN, no infinity; every string exact, in printable characters."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    if (sys.stdout.encoding or "ascii").lower() not in ("utf-8", "utf8"):
        text = json.dumps(value, indent=1, allow_nan=False)
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns on stdout; numbers to the right, floats with four decimals.

    Characters that could act on a terminal are spelled out, see :func:`fpkit.names.visible`.
    """
    rows = [list(row) for row in rows]
    cells = [
        [f"{v:.4f}" if isinstance(v, float) else writable(str(v)) for v in row] for row in rows
    ]
    heads = [writable(name) for name in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[i], (int, float)) for row in rows)
        for i in range(len(heads))
    ]
    for line in [heads, *cells]:
        padded = [
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip())


def writable(text: str) -> str:
    """:func:`fpkit.names.visible`, and what stdout cannot encode is spelled out too."""
    encoding = sys.stdout.encoding or "ascii"
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


def expand(
    inputs: Sequence[str], *, on_error: Callable[[ImageReadError], None] | None = None
) -> list[Path]:
    """Files as they are; a folder as its images, or else as those of the folders in it.

    Raises
    ------
    ValueError
        If a folder holds neither.
    ImageReadError
        If a folder in a folder may not be read; with `on_error`, that is called instead.
    """
    paths: list[Path] = []
    for path in map(Path, inputs):
        if not os.path.isdir(path):
            paths.append(path)
            continue
        found = list_images(path)
        if not found and list_folders(path):
            models = list_models(path, on_error=on_error)
            found = [image for images in models.values() for image in images]
        if not found:
            raise ValueError(f"{path}: no images in this folder, nor in the folders in it")
        paths += found
    return paths


def checked_device(name: str) -> str:
    """The name of a torch device that is there, ``auto`` being the fastest; else ValueError."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"no device {name!r} here ({reason}): use --device cpu") from None
    return name


def plural(count: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def add_verb(
    verbs: Verbs, name: str, run: Run, text: str, *, example: str
) -> argparse.ArgumentParser:
    """Declare one verb: what runs it, a line of help, and an example that --help shows."""
    parser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ("" if text.endswith("?") else "."),
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, check=lambda arguments: None)
    return parser

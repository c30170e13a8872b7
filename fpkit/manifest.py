"""What is known about the images of a folder-per-model tree, from its ``manifest.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fpkit.artefacts import open_at_once
from fpkit.folders import list_models
from fpkit.intake import ImageReadError, file_format, read_bytes

PHOTO = "photo"  # the family of images that no model made
_MAX_BYTES = 2**28  # of a manifest: a million images


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """One image of a tree.

    Attributes
    ----------
    path
        Its file.
    model
        Name of its folder.
    family
        Kind of model (``gan``, ``diffusion``, ...); ``photo`` marks untouched photographs.
    decoder
        Models with one decoder share their last, trained layers and so their fingerprint.
    content
        Images of equal content show the same kind of subject; empty if unknown.
    format
        How the image was stored before it came here: ``png`` (lossless), ``jpeg``, ...
    """

    path: Path
    model: str
    family: str
    decoder: str
    content: str
    format: str


def read_facts(
    folder: str | Path, *, on_error: Callable[[ImageReadError], None] | None = None
) -> list[ImageFacts]:
    """List the images of a tree with what its manifest says about them.

    Parameters
    ----------
    folder
        ``folder/<model>/<image>`` and, optionally, ``folder/manifest.csv`` (UTF-8, with a header)
        with the columns ``model``, ``file`` and any of ``family``, ``decoder``, ``content``,
        ``format``; further columns and rows of absent files are ignored.
    on_error
        See :func:`fpkit.folders.list_models`.

    Returns
    -------
    list of ImageFacts
        Sorted by model, then by file. Without a row, or where a field is empty, an image has no
        family and no content, its model is its own decoder, and its format is that of the file.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        As :func:`fpkit.folders.list_models`; ValueError also if the manifest cannot be read,
        lacks one of its two necessary columns, or is larger than 256 MB.
    """
    folder = Path(folder)
    models = list_models(folder, on_error=on_error)
    there = {(model, path.name) for model, paths in models.items() for path in paths}
    rows = read_rows(folder, there, columns=("family", "decoder", "content", "format"))
    facts = []
    for model, paths in models.items():
        for path in paths:
            row = rows.get((model, path.name), {})
            facts.append(
                ImageFacts(
                    path=path,
                    model=model,
                    family=row.get("family", ""),
                    decoder=row.get("decoder", "") or model,
                    content=row.get("content", ""),
                    format=_format_name(row.get("format", "") or _stored_format(path)),
                )
            )
    return facts


def select_facts(
    facts: Sequence[ImageFacts],
    *,
    contents: Sequence[str] = (),
    without_contents: Sequence[str] = (),
    format: str | None = None,
) -> list[ImageFacts]:
    """Choose images by what they show and how they were stored.

    Parameters
    ----------
    facts
        Of all images.
    contents
        Only images that show one of these; empty: any.
    without_contents
        No images that show one of these.
    format
        Only images stored so (``"png"``, ``"jpeg"``, ...); None: any.

    Returns
    -------
    list of ImageFacts
        In the same order. Photographs (family ``photo``) are chosen by format alone: they stand
        for all that no model made, whatever they show.

    Raises
    ------
    ValueError
        If there is no image of that content or format at all.
    """
    known = {fact.content for fact in facts} - {""}
    for name in (*contents, *without_contents):
        if name not in known:
            there = ", ".join(sorted(known)) or "none, a manifest.csv would tell"
            raise ValueError(f"no image has the content {name!r}; contents: {there}")
    formats = sorted({fact.format for fact in facts})
    stored = None if format is None else _format_name(format)
    if stored not in (None, *formats):
        raise ValueError(f"no image has the format {format!r}; formats: {', '.join(formats)}")
    return [
        fact
        for fact in facts
        if stored in (None, fact.format)
        and (
            fact.family == PHOTO
            or ((not contents or fact.content in contents) and fact.content not in without_contents)
        )
    ]


def read_rows(
    folder: str | Path, images: Collection[tuple[str, str]], *, columns: Sequence[str]
) -> dict[tuple[str, str], dict[str, str]]:
    """What ``folder/manifest.csv`` says of some images; nothing if there is no such file.

    Parameters
    ----------
    folder
        Of the tree.
    images
        Model and file name of those asked for. Only their rows are kept: a manifest may list
        more than fits in memory.
    columns
        Which to keep; those that the manifest lacks are left out.

    Raises
    ------
    ValueError
        See :func:`read_facts`.
    """
    path = Path(folder) / "manifest.csv"
    if not path.is_file():
        return {}
    rows = {}
    try:
        text = read_bytes(path, max_bytes=_MAX_BYTES).decode("utf-8-sig")
        table = csv.reader(io.StringIO(text, newline=""))
        places = {name: k for k, name in enumerate(next(table, ()))}
        missing = {"model", "file"} - set(places)
        if missing:
            raise ValueError(f"{path} has no column {' and '.join(sorted(missing))}")
        wanted = {name: places[name] for name in columns if name in places}
        for row in table:
            at = [places[name] for name in ("model", "file")]
            key = tuple(row[k].strip() if k < len(row) else "" for k in at)
            if key in images:
                rows[key] = {n: row[k].strip() if k < len(row) else "" for n, k in wanted.items()}
    except (ImageReadError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no readable UTF-8 table: {error}") from error
    return rows


def _stored_format(path: Path) -> str:
    """Format by the first bytes of the file; by its suffix if they say nothing."""
    try:
        with open(path, "rb", opener=open_at_once) as file:
            return file_format(file.read(12)) or path.suffix[1:]
    except OSError:  # reported when the pixels are read
        return path.suffix[1:]


def _format_name(name: str) -> str:
    name = name.lower()
    return {"jpg": "jpeg", "mpo": "jpeg", "tif": "tiff"}.get(name, name)

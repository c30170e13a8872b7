"""What is known about the images of a folder-per-model tree, from its ``manifest.csv``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fpkit.images import list_models

PHOTO = "photo"  # the family of images that no model made


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


def read_facts(folder: str | Path) -> list[ImageFacts]:
    """List the images of a tree with what its manifest says about them.

    Parameters
    ----------
    folder
        ``folder/<model>/<image>`` and, optionally, ``folder/manifest.csv`` (UTF-8, with a header)
        with the columns ``model``, ``file`` and any of ``family``, ``decoder``, ``content``,
        ``format``; further columns and rows of absent files are ignored.

    Returns
    -------
    list of ImageFacts
        Sorted by model, then by file. Without a row, or where a field is empty, an image has no
        family and no content, its model is its own decoder, and its format is that of the file.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        As :func:`fpkit.images.list_models`; ValueError also if the manifest cannot be read or
        lacks one of its two necessary columns.
    """
    folder = Path(folder)
    models = list_models(folder)
    rows = _read_rows(folder / "manifest.csv")
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


def _read_rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"model", "file"} - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f"{path} has no column {' and '.join(sorted(missing))}")
            rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no readable UTF-8 table: {error}") from error
    return {(row["model"], row["file"]): row for row in rows}


def _stored_format(path: Path) -> str:
    """Format by the file's header; by its suffix if that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.format or path.suffix[1:]
    except Exception:  # damaged files are reported when their pixels are read
        return path.suffix[1:]


def _format_name(name: str) -> str:
    name = name.lower()
    return {"jpg": "jpeg", "mpo": "jpeg", "tif": "tiff"}.get(name, name)

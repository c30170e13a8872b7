"""The verb ``enrol``: folders of images into a gallery, in steps that can be stopped."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fpkit.cli_attribute import image_progress, open_extractor
from fpkit.cli_io import Skipped, Verbs, add_verb, note, plural, print_json, print_table
from fpkit.embedding_cache import image_hash
from fpkit.folders import list_models
from fpkit.images import ImageReadError, read_images

if TYPE_CHECKING:
    from torch import Tensor

    from fpkit.extractor import Extractor

EVERY = 30.0  # seconds between two savings of one model

_NOTES = """\
The gallery is saved after every model. What was enrolled stays if the command is stopped: give it
again to go on. An image whose pixels the model has already is not counted twice. Several commands
may enrol into one gallery at the same time.
"""


def add_to(verbs: Verbs) -> argparse.ArgumentParser:
    """Declare the verb; options that verbs share are added by the caller."""
    parser = add_verb(
        verbs,
        "enrol",
        enrol,
        "add models to a gallery, one folder of images each",
        example="fpkit enrol my.gallery generators/",
    )
    parser.epilog = f"{_NOTES}\n{parser.epilog}"
    parser.add_argument("gallery", metavar="GALLERY", help="gallery file, made if not there")
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", help="holds one folder of images per model"
    )
    parser.add_argument(
        "--remove", action="append", default=[], metavar="MODEL", help="forget it (repeatable)"
    )
    parser.add_argument("--list", action="store_true", help="show what is enrolled")

    def check(arguments: argparse.Namespace) -> None:
        if not (arguments.folder or arguments.remove or arguments.list):
            parser.error("give a FOLDER, --remove MODEL or --list")

    parser.set_defaults(check=check)
    return parser


def enrol(arguments: argparse.Namespace) -> int:
    """Make or change a gallery."""
    from fpkit.gallery import Gallery

    extractor = open_extractor(arguments)
    path, identity = Path(arguments.gallery), extractor.hash
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, expected a gallery file, such as my.gallery")
    if path.exists() or not arguments.folder:
        Gallery.load(path, extractor_hash=identity)  # an error before any work
    edit = partial(Gallery.edit, path, extractor_hash=identity, dim=extractor.dim)
    skipped, models = Skipped(), {}
    if arguments.folder:
        models = list_models(arguments.folder, on_error=skipped)
    if arguments.remove:
        with edit() as gallery:
            for model in arguments.remove:
                if arguments.folder and model not in gallery.models:
                    note(f"{model}: is not enrolled, nothing to forget")  # or forgotten before
                else:
                    gallery.remove(model)
    total, known = skipped.count + sum(map(len, models.values())), 0
    enrolled = Gallery(identity, extractor.dim)
    if path.exists():
        enrolled = Gallery.load(path, extractor_hash=identity)
    for model, paths in models.items():
        counted = 0
        for part in _parts(extractor, paths, enrolled.images(model), skipped):
            if part.embeddings:
                with edit() as gallery:
                    gallery.enrol(model, np.stack(part.embeddings), images=part.images)
            known += part.known
            counted += part.known + len(part.images)
        if not counted:
            note(f"{model}: no readable image, not enrolled")
    if models and skipped.count == total:
        raise ValueError(f"{arguments.folder}: none of its {total} images can be used")
    gallery = Gallery.load(path, extractor_hash=identity)
    if arguments.json:
        counts = {"models": gallery.counts, "skipped": skipped.count, "known": known}
        print_json({"gallery": str(path)} | counts)
    else:
        print_table(["model", "images"], gallery.counts.items())
    if known:
        note(f"{plural(known, 'image')} enrolled before, not counted again")
    if len(gallery) == 1:
        note("one enrolled model: identify can only ever name this one, read its score")
    return skipped.finish(total, strict=arguments.strict)


@dataclass(kw_only=True)
class _Part:
    """Some images of a model, to be saved together, and how many were `known` before."""

    embeddings: list[np.ndarray]
    images: list[str]
    known: int = 0


def _parts(
    extractor: Extractor, paths: list[Path], enrolled: frozenset[str], skipped: Skipped
) -> Iterator[_Part]:
    """Embeddings of the images that can be used and are not enrolled, a part every `EVERY` s."""
    part, began = _Part(embeddings=[], images=[]), time.monotonic()
    seen = set(enrolled)
    for path, image in read_images(image_progress(paths), on_error=skipped):
        key = image_hash(image)
        if key in seen:
            part.known += 1
            continue
        try:
            part.embeddings.append(_embedded(extractor, image))
        except ValueError as error:
            skipped(ImageReadError(f"{path}: {error}"))
            continue
        part.images.append(key)
        seen.add(key)
        if time.monotonic() - began > EVERY:
            yield part
            part, began = _Part(embeddings=[], images=[]), time.monotonic()
    yield part


def _embedded(extractor: Extractor, image: Tensor) -> np.ndarray:
    return extractor.embed([image])[0].numpy()

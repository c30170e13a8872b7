"""The verb of the command line about the relatives of a model: lineage."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpkit.cli_attribute import each_usable, open_extractor
from fpkit.cli_io import Skipped, Verbs, add_verb, note, print_json, print_table
from fpkit.folders import list_folders, list_images, list_models

if TYPE_CHECKING:
    from torch import Tensor

    from fpkit.lineage import Relative


def add_to(verbs: Verbs) -> None:
    """Declare ``lineage``."""
    parser = add_verb(
        verbs,
        "lineage",
        lineage,
        "which enrolled base model does a fine-tune come from?",
        example="fpkit lineage bases.gallery finetunes/ --top 3",
    )
    add = parser.add_argument
    add("gallery", metavar="GALLERY", help="gallery file of base models, see fpkit enrol")
    add("folder", metavar="FOLDER", help="images of one model, or one folder of images per model")
    add("--top", type=int, default=3, metavar="N", help="bases to show per model (3)")
    prior = "probability, before looking, that a model shares its decoder with a given base (0.5)"
    add("--prior", type=float, default=0.5, metavar="P", help=prior)
    add("--seed", type=int, default=0, help="of the bootstrap over images")
    add("--extractor", metavar="FOLDER", help="a trained extractor instead of fpkit's own")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    add("--json", action="store_true", help="print JSON, for machines")
    add("--strict", action="store_true", help="exit with 1 if any file had to be skipped")

    def check(arguments: argparse.Namespace) -> None:
        if arguments.top < 1:
            parser.error(f"--top must be at least 1, got {arguments.top}")
        if not 0 < arguments.prior < 1:
            parser.error(f"--prior must be between 0 and 1, both excluded, got {arguments.prior}")

    parser.set_defaults(check=check)


def lineage(arguments: argparse.Namespace) -> int:
    """Compare every model of a folder with the enrolled bases."""
    from fpkit.gallery import Gallery
    from fpkit.lineage import nearest_bases, stored_calibration

    extractor = open_extractor(arguments)
    identity = extractor.hash
    gallery = Gallery.load(arguments.gallery, extractor_hash=identity)
    calibration = None
    try:
        calibration = stored_calibration(extractor.card, extractor_hash=identity)
    except ValueError as error:
        note(f"scores without probabilities: {error}")
    folder = Path(arguments.folder)
    skipped = Skipped()
    models = _models(folder, skipped)
    total = skipped.count + sum(map(len, models.values()))
    answers: list[tuple[str, int, list[Relative]]] = []

    def embedded(image: Tensor, _: bytes) -> np.ndarray:
        return extractor.embed([image])[0].numpy()

    for model, paths in models.items():
        embeddings = [row for _, row in each_usable(paths, embedded, skipped)]
        if not embeddings:
            note(f"{model}: no readable image, left out")
            continue
        relatives = nearest_bases(
            np.stack(embeddings),
            gallery,
            calibration=calibration,
            prior=arguments.prior,
            seed=arguments.seed,
        )
        answers.append((model, len(embeddings), relatives[: arguments.top]))
    if not answers:
        raise ValueError(f"{folder}: none of its {total} images can be used")
    if arguments.json:
        print_json(
            {
                "gallery": arguments.gallery,
                "calibrated": calibration is not None,
                "prior": arguments.prior,
                "models": [
                    {"model": model, "images": count, "bases": [asdict(r) for r in relatives]}
                    for model, count, relatives in answers
                ],
                "skipped": skipped.count,
            }
        )
    else:
        columns = ["model", "images", "base", "score", "95%", "probability", "95%", "nearest"]
        print_table(columns, [_row(*answer[:2], r) for answer in answers for r in answer[2]])
    if len(gallery) == 1:
        note("one enrolled base: it is the nearest of every model, read the score")
    return skipped.finish(total, strict=arguments.strict)


def _models(folder: Path, skipped: Skipped) -> dict[str, list[Path]]:
    """Folders of images in `folder`, or the images directly in it as one model."""
    direct = list_images(folder)
    if not direct:
        return list_models(folder, on_error=skipped)
    if list_folders(folder):
        note(f"{folder} holds images: they are taken for one model's, the folders in it are not")
    return {folder.resolve().name: direct}


def _row(model: str, images: int, relative: Relative) -> list[Any]:
    def range_of(ends: tuple[float, float] | None) -> str:
        return "-" if ends is None else f"{ends[0]:.2f}..{ends[1]:.2f}"

    probability = "-" if relative.probability is None else f"{relative.probability:.2f}"
    return [
        model,
        images,
        relative.base,
        relative.score,
        range_of(relative.score_interval),
        probability,
        range_of(relative.probability_interval),
        "-" if relative.nearest is None else f"{relative.nearest:.2f}",
    ]

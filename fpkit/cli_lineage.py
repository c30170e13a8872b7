"""Verbs of the command line about lineage: relatives of a model, and the calibration behind."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpkit.assets import write_text_atomic
from fpkit.cli_attribute import embed_readable, open_extractor
from fpkit.cli_io import Skipped, Verbs, add_verb, checked_device, note, print_json, print_table
from fpkit.folders import list_folders, list_images, list_models

if TYPE_CHECKING:
    from fpkit.lineage import Relative


def add_to(verbs: Verbs) -> None:
    """Declare ``lineage`` and ``calibrate-lineage``."""
    _lineage(verbs)
    _calibrate(verbs)


def _lineage(verbs: Verbs) -> None:
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
    for model, paths in models.items():
        embeddings = [embedding for _, embedding in embed_readable(extractor, paths, skipped)]
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


def _calibrate(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "calibrate-lineage",
        calibrate_lineage,
        "let the scores of an extractor be read as probabilities of a shared decoder",
        example="fpkit calibrate-lineage my_extractor --photos photos.npy",
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="a trained extractor; the result goes onto its card")
    add("--zoo", metavar="DIR", help="has the architectures held out from training (fpkit's own)")
    add("--photos", metavar="FILE.npy", help="photograph tiles, see fpkit train (computed images)")
    add("--random", type=int, default=40, metavar="N", help="random decoders among the bases (40)")
    add("--images", type=int, default=16, metavar="N", help="of every base and fine-tune (16)")
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    add("--json", action="store_true", help="print JSON, for machines")


def _known(figures: dict[str, float | None]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in figures.items() if value is not None]


def calibrate_lineage(arguments: argparse.Namespace) -> int:
    """Fit the calibration of an extractor and write it onto its card."""
    from fpkit.calibration import calibrate
    from fpkit.extractor import CARD, load_extractor
    from fpkit.finetunes import embed_kin
    from fpkit.lineage import KEY, card_entry
    from fpkit.zoo import Zoo

    folder = Path(arguments.folder)
    extractor = load_extractor(folder, device=checked_device(arguments.device))
    kin = embed_kin(
        extractor,
        zoo=Zoo.load(arguments.zoo),
        tiles=arguments.photos,
        random=arguments.random,
        images=arguments.images,
        seed=arguments.seed,
        progress=sys.stderr.isatty(),
    )
    calibration, report = calibrate(kin, seed=arguments.seed)
    entry = card_entry(calibration, report, extractor_hash=extractor.hash)
    card = extractor.card | {KEY: entry}
    write_text_atomic(folder / CARD, json.dumps(card, indent=1) + "\n")
    if arguments.json:
        print_json(entry)
    else:
        print(f"{folder / CARD}: {entry['from']}")
        print_table(["on bases that it was not fitted on", ""], _known(entry["held_out"]))
    return 0

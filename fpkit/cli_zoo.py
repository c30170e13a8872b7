"""Verbs of the command line about whole zoos: ``fpkit zoo VERB``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from fpkit.assets import write_text_atomic
from fpkit.cli_io import Skipped, Verbs, add_verb, note
from fpkit.residual import ResidualName

if TYPE_CHECKING:
    from fpkit.fidelity import Population

JPEG_QUALITY = 85  # about that of the JPEG images of data/realworld
POOL = 8  # times the images per model: any two models share an eighth of their images


def add_to(verbs: Verbs) -> None:
    """Declare ``zoo`` and the verbs under it."""
    parser = verbs.add_parser(
        "zoo",
        help="compare a zoo of synthetic models with real models",
        description="Work on a whole zoo of synthetic models.",
        epilog="example:\n  fpkit zoo report --zoo my_zoo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inner = parser.add_subparsers(dest="zoo_verb", required=True, metavar="VERB")
    _report(inner)


# ---- report ------------------------------------------------------------------------------------


def _report(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "report",
        report,
        "the ablation table: do these synthetic models shape spectra as real ones do?",
        example="fpkit zoo report --zoo my_zoo --tiles photos.npy --out report.md",
    )
    add = parser.add_argument
    add("--zoo", metavar="DIR", help="synthetic models of the paper's space (those of fpkit)")
    add("--extended", metavar="DIR", help="a second zoo, of the extended space")
    add("--real", metavar="FOLDER", help="folder-per-model tree (default: the shipped figures)")
    formats = "real models stored so; jpeg compresses the synthetic images too (png)"
    add("--format", choices=("png", "jpeg"), default="png", help=formats)
    add("--tiles", metavar="FILE.npy", help="photograph tiles made by data/photos/make_photos.py")
    add("--images", type=int, default=24, metavar="N", help="per synthetic model (24)")
    add("--random", type=int, default=64, metavar="N", help="random decoders (64)")
    add("--residual", choices=get_args(ResidualName), default="median", help="default: median")
    every = "a row for every single option of every axis"
    add("--every-option", action="store_true", help=every)
    add("--draws", type=int, default=500, help="of models, per figure (500)")
    add("--seed", type=int, default=0)
    add("--out", metavar="FILE", help=".md (the table) or .json (all figures); default: stdout")
    add("--json", action="store_true", help="print JSON, for machines")
    add("--strict", action="store_true", help="exit 1 if an image of --real was left out")

    def check(arguments: argparse.Namespace) -> None:
        if arguments.out and Path(arguments.out).suffix not in (".md", ".json"):
            parser.error(f"--out must end in .md or .json, got {arguments.out}")
        for name, least in (("images", 1), ("random", 0), ("draws", 1)):
            if getattr(arguments, name) < least:
                parser.error(f"--{name} must be at least {least}, got {getattr(arguments, name)}")

    parser.set_defaults(check=check)


def report(arguments: argparse.Namespace) -> int:
    """Compare a zoo, its parts and other synthetic models with real models."""
    from fpkit.ablation import AblationConfig, ablation, source_pool, to_markdown
    from fpkit.fidelity import View
    from fpkit.zoo import Zoo

    skipped = Skipped()
    real, total = _real_models(arguments, skipped)
    config = AblationConfig(
        random=arguments.random,
        every_option=arguments.every_option,
        draws=arguments.draws,
        seed=arguments.seed,
        view=View(
            images=arguments.images,
            residual=arguments.residual,
            jpeg_quality=JPEG_QUALITY if arguments.format == "jpeg" else None,
            seed=arguments.seed,
        ),
    )
    zoo = Zoo.load(arguments.zoo)
    result = ablation(
        zoo,
        real,
        source_pool(arguments.tiles, count=POOL * arguments.images, seed=arguments.seed),
        extended=None if arguments.extended is None else Zoo.load(arguments.extended),
        config=config,
        progress=sys.stderr.isatty(),
    )
    result["compared"] = {
        "zoo": zoo.path.name,
        "real": "shipped figures" if arguments.real is None else Path(arguments.real).name,
        "format": arguments.format,
        "applied_to": "procedural images" if arguments.tiles is None else "photograph tiles",
    }
    as_json = arguments.json if arguments.out is None else Path(arguments.out).suffix == ".json"
    text = to_markdown(result)
    if as_json:
        text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if arguments.out is None:
        print(text, end="")
    else:
        write_text_atomic(arguments.out, text)
        note(f"{arguments.out}: {len(result['rows'])} rows in {result['seconds']:.0f} s")
    return skipped.finish(total, strict=arguments.strict)


def _real_models(arguments: argparse.Namespace, skipped: Skipped) -> tuple[Population, int]:
    """The real models, and how many images were read for them."""
    from fpkit.realworld import measure_fingerprints, real_fingerprints, real_population

    if arguments.real is None:
        measured, total = real_fingerprints(), 0
    else:
        measured = measure_fingerprints(
            arguments.real,
            residuals=(arguments.residual,),
            on_error=skipped,
            progress=sys.stderr.isatty(),
        )
        total = sum(fingerprint.images for fingerprint in measured) + skipped.count
    real = real_population(measured, residual=arguments.residual, format=arguments.format)
    return real, total

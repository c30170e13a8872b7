"""Verbs of the command line about whole zoos: ``fpkit zoo VERB``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from fpkit.assets import write_text_atomic
from fpkit.cli_io import Skipped, Verbs, add_verb, checked_device, note, print_json
from fpkit.residual import ResidualName
from fpkit.synthesis import Precision
from fpkit.zoo_plan import Preset

if TYPE_CHECKING:
    from fpkit.fidelity import Population

JPEG_QUALITY = 85  # about that of the JPEG images of data/realworld
POOL = 8  # times the images per model: any two models share an eighth of their images


def add_to(verbs: Verbs) -> None:
    """Declare ``zoo`` and the verbs under it."""
    parser = verbs.add_parser(
        "zoo",
        help="build a zoo of synthetic models, sum it up, compare it with real models",
        description="Work on a whole zoo of synthetic models.",
        epilog="example:\n  fpkit zoo build --preset starter --out my_zoo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inner = parser.add_subparsers(dest="zoo_verb", required=True, metavar="VERB")
    _build(inner)
    _summary(inner)
    _report(inner)


# ---- build -------------------------------------------------------------------------------------


def _build(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "build",
        build,
        "train a whole zoo, many models at once",
        example="fpkit zoo build --preset starter --out my_zoo",
    )
    add = parser.add_argument
    add("--preset", choices=get_args(Preset), required=True, help="which models")
    add("--out", required=True, metavar="DIR", help="the zoo")
    add("--resume", action="store_true", help="go on with the zoo that is in DIR")
    parser.set_defaults(go_on="--resume")
    add("--tiles", metavar="FILE.npy", help="photograph tiles made by data/photos/make_photos.py")
    add("--device", default="auto", help="auto (default: cuda if there is one), cpu, cuda, ...")
    add("--jobs", type=int, metavar="N", help="processes on the CPU (one per core)")
    add("--archs", type=int, metavar="N", help="only the first N architectures of the preset")
    add("--seeds", type=int, metavar="N", help="models per architecture, instead of the preset's")
    add("--max-steps", type=int, metavar="N", help="per model, instead of the preset's")
    add("--eta", type=float, help="residual (mean squared error) to stop at (the preset's)")
    add("--precision", choices=get_args(Precision), help="of the arithmetic (the preset's)")
    add("--json", action="store_true", help="print JSON, for machines")

    def check(arguments: argparse.Namespace) -> None:
        for name in ("jobs", "archs", "seeds"):
            value = getattr(arguments, name)
            if value is not None and value < 1:
                parser.error(f"--{name} must be at least 1, got {value}")
        if arguments.max_steps is not None and arguments.max_steps < 2:
            parser.error(f"--max-steps must be at least 2, got {arguments.max_steps}")
        if arguments.eta is not None and arguments.eta <= 0:
            parser.error(f"--eta must be greater than 0, got {arguments.eta:g}")

    parser.set_defaults(check=check)


def build(arguments: argparse.Namespace) -> int:
    """Train the zoo of a preset."""
    from fpkit.distributed import this_rank
    from fpkit.zoo_build import build_zoo, peak_memory, summary, training_images
    from fpkit.zoo_plan import preset_plan

    plan = preset_plan(arguments.preset)
    names = ("seeds", "max_steps", "eta", "precision")
    chosen = {name: getattr(arguments, name) for name in names}
    plan = replace(
        plan,
        archs=plan.archs[: arguments.archs],
        **{name: value for name, value in chosen.items() if value is not None},
    )
    images, source = training_images(arguments.tiles)
    started = time.perf_counter()
    zoo = build_zoo(
        plan,
        images,
        out=arguments.out,
        source=source,
        resume=arguments.resume,
        device=checked_device(arguments.device),
        jobs=arguments.jobs,
        progress=not arguments.json,
    )
    if this_rank()[0] > 0:
        return 0  # the first rank speaks for all
    minutes, memory = (time.perf_counter() - started) / 60, peak_memory()
    if arguments.json:
        figures = {"models": len(zoo), "minutes": round(minutes, 2), "peak_gib": round(memory, 2)}
        print_json({"out": str(zoo.path)} | figures)
    else:
        print(summary(zoo))
        print(f"this run: {minutes:.1f} minutes, at most {memory:.2f} GiB of memory per process")
    return 0


def _summary(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "summary",
        print_summary,
        "how many models, and how well they reconstruct",
        example="fpkit zoo summary",
    )
    parser.add_argument("zoo", nargs="?", metavar="DIR", help="default: the zoo of fpkit")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def print_summary(arguments: argparse.Namespace) -> int:
    """Sum a zoo up."""
    from fpkit.zoo import Zoo
    from fpkit.zoo_build import summary, zoo_figures

    zoo = Zoo.load(arguments.zoo)
    if arguments.json:
        print_json({"zoo": str(zoo.path)} | zoo_figures(zoo))
    else:
        print(summary(zoo))
    return 0


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
    add("--random", type=int, default=40, metavar="N", help="random decoders of each kind (40)")
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

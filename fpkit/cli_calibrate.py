"""Verbs of the command line that calibrate the scores of an extractor on synthetic models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpkit.assets import write_text_atomic
from fpkit.cli_io import Run, Verbs, add_verb, checked_device, print_json, print_table

if TYPE_CHECKING:
    from fpkit.card_entries import CardEntry
    from fpkit.extractor import Extractor


def add_to(verbs: Verbs) -> None:
    """Declare ``calibrate-lineage``, ``calibrate-verdicts`` and ``calibrate-discovery``."""
    _declare(
        verbs,
        "calibrate-lineage",
        calibrate_lineage,
        "let the scores of an extractor be read as probabilities of a shared decoder",
        random=40,
        images=16,
    )
    parser = _declare(
        verbs,
        "calibrate-verdicts",
        calibrate_verdicts,
        "let verify and identify say same, different or unsure with an extractor of yours",
        random=160,
        images=12,
    )
    _declare(
        verbs,
        "calibrate-discovery",
        calibrate_discovery,
        "let discover sort images with an extractor of yours",
        random=160,
        images=12,
    )
    what = "images of no model (240)"
    parser.add_argument("--strangers", type=int, default=240, metavar="N", help=what)

    def check(arguments: argparse.Namespace) -> None:
        for name, least in (("random", 0), ("images", 4), ("strangers", 4)):
            if getattr(arguments, name) < least:
                parser.error(f"--{name} must be at least {least}, got {getattr(arguments, name)}")

    parser.set_defaults(check=check)


def _declare(
    verbs: Verbs, name: str, run: Run, text: str, *, random: int, images: int
) -> argparse.ArgumentParser:
    example = f"fpkit {name} my_extractor --zoo zoo --photos photos.npy"
    parser = add_verb(verbs, name, run, text, example=example)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="a trained extractor; the result goes onto its card")
    add("--zoo", metavar="DIR", help="has the architectures held out from training (fpkit's own)")
    add("--photos", metavar="FILE.npy", help="photograph tiles, see fpkit train (computed images)")
    what = f"random decoders among the models ({random})"
    add("--random", type=int, default=random, metavar="N", help=what)
    what = f"of every model ({images})"
    add("--images", type=int, default=images, metavar="N", help=what)
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    add("--json", action="store_true", help="print JSON, for machines")
    return parser


def calibrate_lineage(arguments: argparse.Namespace) -> int:
    """Fit the calibration of lineage and write it onto the extractor's card."""
    from fpkit.calibration import calibrate
    from fpkit.finetunes import embed_kin
    from fpkit.lineage import ENTRY

    extractor = _extractor(arguments)
    kin = embed_kin(extractor, **_population(arguments))
    calibration, report = calibrate(kin, seed=arguments.seed)
    _write(arguments, ENTRY, extractor, calibration, report)
    _print_held_out(arguments, report, "on bases that it was not fitted on")
    return 0


def calibrate_verdicts(arguments: argparse.Namespace) -> int:
    """Fit the verdicts of an extractor and write them onto its card."""
    from fpkit.verdict_bank import embed_bank
    from fpkit.verdict_calibration import calibrate
    from fpkit.verdicts import ENTRY

    extractor = _extractor(arguments)
    bank = embed_bank(extractor, strangers=arguments.strangers, **_population(arguments))
    calibration, report = calibrate(bank, seed=arguments.seed)
    _write(arguments, ENTRY, extractor, calibration, report)
    if not arguments.json:
        found = report["held_out"]
        rows = [[name, found["pairs"].get(name, "-"), found["galleries"][name]]
                for name in found["galleries"]]  # fmt: skip
        print_table(["on models that it was not fitted on", "pairs", "galleries"], rows)
    return 0


def calibrate_discovery(arguments: argparse.Namespace) -> int:
    """Fit what clusters of an extractor's embeddings rest on, and write it onto its card."""
    from fpkit.discovery import ENTRY
    from fpkit.discovery_calibration import calibrate_discovery as calibrate
    from fpkit.verdict_bank import embed_bank

    extractor = _extractor(arguments)
    bank = embed_bank(extractor, strangers=1, **_population(arguments))  # none is looked at
    progress = sys.stderr.isatty()
    calibration, report = calibrate(bank, seed=arguments.seed, progress=progress)
    _write(arguments, ENTRY, extractor, calibration, report)
    _print_held_out(arguments, report, "folders of models that it was not fitted on")
    return 0


def _print_held_out(arguments: argparse.Namespace, report: Mapping[str, Any], title: str) -> None:
    if not arguments.json:
        rows = [[name, value] for name, value in report["held_out"].items() if value is not None]
        print_table([title, ""], rows)


def _extractor(arguments: argparse.Namespace) -> Extractor:
    from fpkit.extractor import load_extractor

    return load_extractor(Path(arguments.folder), device=checked_device(arguments.device))


def _population(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the synthetic models of both calibrations are drawn with."""
    from fpkit.zoo import Zoo

    return {
        "zoo": Zoo.load(arguments.zoo),
        "tiles": arguments.photos,
        "random": arguments.random,
        "images": arguments.images,
        "seed": arguments.seed,
        "progress": sys.stderr.isatty(),
    }


def _write(
    arguments: argparse.Namespace,
    kind: CardEntry,
    extractor: Extractor,
    calibration: Any,
    report: Mapping[str, Any],
) -> None:
    from fpkit.extractor import CARD

    path = Path(arguments.folder) / CARD
    entry = kind.of(calibration, report, extractor_hash=extractor.hash)
    write_text_atomic(path, json.dumps(extractor.card | {kind.key: entry}, indent=1) + "\n")
    if arguments.json:
        print_json(entry)
    else:
        print(f"{path}: {entry['from']}")

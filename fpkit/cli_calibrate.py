"""The verb that lets the scores of an extractor be read as verdicts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fpkit.assets import write_text_atomic
from fpkit.cli_io import Verbs, add_verb, checked_device, print_json, print_table


def add_to(verbs: Verbs) -> None:
    """Declare ``calibrate-verdicts``."""
    parser = add_verb(
        verbs,
        "calibrate-verdicts",
        calibrate_verdicts,
        "let verify and identify say same, different or unsure with an extractor of yours",
        example="fpkit calibrate-verdicts my_extractor --zoo zoo --photos photos.npy",
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="a trained extractor; the result goes onto its card")
    add("--zoo", metavar="DIR", help="has the architectures held out from training (fpkit's own)")
    add("--photos", metavar="FILE.npy", help="photograph tiles, see fpkit train (computed images)")
    add("--random", type=int, default=160, metavar="N", help="random decoders (160)")
    add("--images", type=int, default=12, metavar="N", help="of every model (12)")
    add("--strangers", type=int, default=240, metavar="N", help="images of no model (240)")
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    add("--json", action="store_true", help="print JSON, for machines")

    def check(arguments: argparse.Namespace) -> None:
        for name, least in (("random", 0), ("images", 4), ("strangers", 4)):
            if getattr(arguments, name) < least:
                parser.error(f"--{name} must be at least {least}, got {getattr(arguments, name)}")

    parser.set_defaults(check=check)


def calibrate_verdicts(arguments: argparse.Namespace) -> int:
    """Fit the verdicts of an extractor and write them onto its card."""
    from fpkit.extractor import CARD, load_extractor
    from fpkit.verdict_bank import embed_bank
    from fpkit.verdict_calibration import calibrate
    from fpkit.verdicts import KEY, card_entry
    from fpkit.zoo import Zoo

    folder = Path(arguments.folder)
    extractor = load_extractor(folder, device=checked_device(arguments.device))
    bank = embed_bank(
        extractor,
        zoo=Zoo.load(arguments.zoo),
        tiles=arguments.photos,
        random=arguments.random,
        images=arguments.images,
        strangers=arguments.strangers,
        seed=arguments.seed,
        progress=sys.stderr.isatty(),
    )
    calibration, report = calibrate(bank, seed=arguments.seed)
    entry = card_entry(calibration, report, extractor_hash=extractor.hash)
    write_text_atomic(folder / CARD, json.dumps(extractor.card | {KEY: entry}, indent=1) + "\n")
    if arguments.json:
        print_json(entry)
    else:
        print(f"{folder / CARD}: {entry['from']}")
        found = report["held_out"]
        rows = [[name, found["pairs"].get(name, "-"), found["galleries"][name]]
                for name in found["galleries"]]  # fmt: skip
        print_table(["on models that it was not fitted on", "pairs", "galleries"], rows)
    return 0

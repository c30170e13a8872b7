"""Verbs of the command line that give verdicts: identify and verify."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpkit.cli_attribute import each_usable, open_extractor
from fpkit.cli_io import Skipped, expand, note, print_json, print_table, writable

if TYPE_CHECKING:
    from torch import Tensor

    from fpkit.evidence import ImageEvidence
    from fpkit.extractor import Extractor
    from fpkit.verdicts import Scale, Verdict, VerdictCalibration


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """An image that could be used: its path, embedding (d,) and evidence."""

    path: Path
    embedding: np.ndarray
    evidence: ImageEvidence


def identify(arguments: argparse.Namespace) -> int:
    """Name the enrolled model that made each image, or say that none did."""
    from fpkit.evidence import conditions, heads, of_model
    from fpkit.gallery import Gallery

    extractor = open_extractor(arguments)
    gallery = Gallery.load(arguments.gallery, extractor_hash=extractor.hash)
    calibration = calibrated(extractor)
    if calibration is not None:
        check_far(calibration.galleries, arguments.far)
    skipped = Skipped()
    paths = expand(arguments.image, on_error=skipped)
    seen = list(look(extractor, paths, skipped))
    if not seen:
        raise ValueError(f"none of the {len(paths)} images can be used")
    found = gallery.identify(np.stack([image.embedding for image in seen]))
    answers, rows = [], []
    for image, named in zip(seen, found, strict=True):
        verdict = calibration and calibration.identify(
            named, gallery, conditions(image.evidence), far=arguments.far
        )
        answers.append(
            {"image": str(image.path), "model": named.model, "score": named.score}
            | verdict_facts(verdict)
            | {"scores": named.scores, "evidence": asdict(image.evidence)}
        )
        others = list(named.scores.items())[1:2]
        rows.append([
            str(image.path),
            of_model(verdict, named.model) if verdict else "-",
            ratio(verdict),
            named.model,
            named.score,
            *([f"{name} {score:.4f}" for name, score in others] or ["-"]),
            heads(image.evidence.warnings),
        ])  # fmt: skip
    if arguments.json:
        print_json(answers)
    else:
        columns = ["image", "answer", "LR", "nearest", "score", "second best", "warnings"]
        print_table(columns, rows)
        print_warnings(seen)
    if calibration is None:
        note_uncalibrated()
        if len(gallery) == 1:
            note("one enrolled model: it is the nearest to every image, read the score")
    return skipped.finish(len(paths), strict=arguments.strict)


def verify(arguments: argparse.Namespace) -> int:
    """Did one model make both images?"""
    from fpkit.evidence import BOTH, TWO, conditions, describe, of_pair, ratio_in_words
    from fpkit.gallery import verify as cosine

    extractor = open_extractor(arguments)
    calibration = calibrated(extractor)
    if calibration is not None:
        check_far(calibration.pairs, arguments.far)
    pair = list(look(extractor, [Path(arguments.a), Path(arguments.b)], None))
    score = cosine(*(image.embedding for image in pair))
    found = conditions(*(image.evidence for image in pair))
    verdict = calibration and calibration.verify(score, found, far=arguments.far)
    if calibration is None:
        note_uncalibrated()
    if arguments.json:
        names = {"a": arguments.a, "b": arguments.b, "score": score}
        evidence = {name: asdict(i.evidence) for name, i in zip("ab", pair, strict=True)}
        print_json(names | verdict_facts(verdict) | {"evidence": evidence})
        return 0
    if verdict:
        print(of_pair(verdict))
        print(ratio_in_words(verdict.log_ratio, yes=BOTH, no=TWO))
        accept, refuse = math.exp(verdict.accept), math.exp(verdict.refuse)
        print(
            f"score {score:.4f}; same from LR {accept:.3g} on ({100 * verdict.far:.3g}% of unlike "
            f"synthetic pairs reach it), two below LR {refuse:.3g}"
        )
    else:
        print(f"score {score:.4f}")
    for image in pair:
        print(f"{writable(str(image.path))}: {describe(image.evidence)}")
        for warning in image.evidence.warnings:
            print(f"  warning, {warning}")
    return 0


def calibrated(extractor: Extractor) -> VerdictCalibration | None:
    """The calibration on the extractor's card; None if it has none."""
    from fpkit.verdicts import ENTRY, stored_verdicts

    if ENTRY.key not in extractor.card:
        return None
    return stored_verdicts(extractor.card, extractor_hash=extractor.hash)


def note_uncalibrated() -> None:
    """Say why there are scores only."""
    from fpkit.verdicts import ENTRY

    note(f"scores without verdicts: this extractor is not calibrated, run `{ENTRY.command}`")


def check_far(scale: Scale, far: float) -> None:
    """ValueError, before anything is read, if verdicts cannot be given at this rate."""
    from fpkit.verdicts import Conditions

    scale.bounds(Conditions(crops=1, jpeg=False), models=1, far=far)


def look(extractor: Extractor, paths: list[Path], skipped: Skipped | None) -> Iterator[Seen]:
    """Embedding and evidence of every image that can be used; without `skipped`, raise."""
    from fpkit.embedder import CROPS_PER_SIDE
    from fpkit.evidence import gather_evidence

    crop = extractor.config.crop

    def both(image: Tensor, data: bytes) -> tuple[np.ndarray, ImageEvidence]:
        embedding = extractor.embed([image])[0].numpy()
        return embedding, gather_evidence(image, source=data, crop=crop, grid=CROPS_PER_SIDE)

    for path, (embedding, evidence) in each_usable(paths, both, skipped):
        yield Seen(path=path, embedding=embedding, evidence=evidence)


def verdict_facts(verdict: Verdict | None) -> dict[str, Any]:
    """What JSON says of a verdict; without one the same keys hold null."""
    names = ("answer", "log_ratio", "accept", "refuse", "far")
    facts = {name: getattr(verdict, name, None) for name in names}
    return facts | {"ratio": math.exp(verdict.log_ratio) if verdict else None}


def ratio(verdict: Verdict | None) -> str:
    """Its likelihood ratio, two digits."""
    return f"{math.exp(verdict.log_ratio):.2g}" if verdict else "-"


def print_warnings(seen: Sequence[Seen]) -> None:
    """Each kind of warning once: how many images have it, and what it says of the first."""
    by_kind: dict[str, list[tuple[Path, str]]] = {}
    for image in seen:
        for warning in image.evidence.warnings:
            by_kind.setdefault(warning.partition(":")[0], []).append((image.path, warning))
    for found in by_kind.values():
        path, warning = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        print(f"warning, {warning} ({writable(path.name)}{more})")

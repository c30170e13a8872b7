"""Do fine-tunes lead back to their base? One enrolled base per decoder, its relatives as queries.

    python benchmarks/lineage.py FOLDER [--extractor FOLDER] [--draws 20] [--out table.md]

FOLDER is a folder-per-model tree with a manifest.csv whose column ``decoder`` says who shares one,
such as the SDXL family: LoRA variants, fine-tunes and other models that took over its decoder. Of
each decoder one base is enrolled with `--shots` random images; asked about are all models that
share a base's decoder, image by image and as whole folders, over seeded draws of the enrolled
images. The base's own remaining images, marked "itself", show what is possible at best.
Probabilities are those of `fpkit lineage` at a prior of one half. Prints a table and, as the last
line, one JSON object; writes nothing without ``--out``.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import fpkit as fp
from fpkit.assets import write_text_atomic
from fpkit.calibration import calibration_error, loss_bits
from fpkit.gallery import centred_scores, template
from fpkit.lineage import Calibration, stored_calibration
from fpkit.manifest import PHOTO, read_facts
from fpkit.metrics import auc, bootstrap_interval

# of these decoders, several models are in the set; of others the first model by name is the base
BASES = {
    "sdxl-vae": "sdxl-base-v10-vaefix",
    "flux-vae": "black-forest-labs-flux-1-dev",
    "sd3-vae": "stabilityai-stable-diffusion-3-5-large",
    "sd1-vae": "sd1x-compvis",
}


@dataclass(frozen=True, kw_only=True)
class Queried:
    """One model asked about; means over the draws.

    ``image_rate`` and ``folder_rate``: how often the base of its decoder has the highest score,
    for single images and for the mean of all. ``score``, ``probability``: of the whole folder
    against its base; ``highest_other``: the highest probability that a wrong base gets.
    """

    model: str
    decoder: str
    itself: bool
    images: int
    image_rate: float
    folder_rate: float
    score: float
    probability: float | None
    highest_other: float | None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Scores (n,) of all queries, the bases excepted, against all bases; who shares a decoder."""

    score: NDArray[np.float64]
    log_ratio: NDArray[np.float64] | None
    same: NDArray[np.bool_]


def choose_bases(decoder_of: dict[str, str], wanted: Iterable[str] = ()) -> dict[str, str]:
    """One model per decoder: of those wanted, else of BASES, else the first by name."""
    bases: dict[str, str] = {}
    for model in wanted:
        if model not in decoder_of:
            raise ValueError(f"no model {model!r}; there are {', '.join(sorted(decoder_of))}")
        if decoder_of[model] in bases:
            raise ValueError(f"{model} and {bases[decoder_of[model]]} share a decoder: name one")
        bases[decoder_of[model]] = model
    for model in sorted(decoder_of):
        decoder = decoder_of[model]
        preferred = BASES.get(decoder)
        bases.setdefault(decoder, preferred if preferred in decoder_of else model)
    return bases


def evaluate(
    embeddings: dict[str, NDArray[np.float32]],
    decoder_of: dict[str, str],
    bases: dict[str, str],
    *,
    calibration: Calibration | None,
    shots: int,
    draws: int,
    seed: int,
) -> tuple[list[Queried], dict[str, Pairs]]:
    """Ask about every model whose decoder has more than one, `draws` times.

    Returns
    -------
    queried
        Bases, judged by the images that were not enrolled, and their relatives.
    pairs
        Of relatives alone, under ``"image"`` and ``"folder"``.
    """
    generator = np.random.default_rng(seed)
    members = list(decoder_of.values())
    queries = [name for name in sorted(decoder_of) if members.count(decoder_of[name]) > 1]
    order = list(bases)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in queries}
    scores: dict[str, list[NDArray[np.float64]]] = {"image": [], "folder": []}
    ratios: dict[str, list[NDArray[np.float64]]] = {"image": [], "folder": []}
    same: dict[str, list[NDArray[np.bool_]]] = {"image": [], "folder": []}
    for _ in range(draws):
        enrolled = {}
        for model in bases.values():
            count = len(embeddings[model])
            enrolled[model] = generator.permutation(count)[: min(shots, count // 2)]
        templates = np.stack([template(embeddings[m][enrolled[m]]) for m in bases.values()])
        counts = np.array([len(rows) for rows in enrolled.values()])
        for name in queries:
            rows = np.delete(embeddings[name], enrolled.get(name, []), axis=0)
            own = np.array([decoder == decoder_of[name] for decoder in order])
            probes = {"image": rows, "folder": rows.mean(axis=0)[None]}
            against = {level: centred_scores(probe, templates) for level, probe in probes.items()}
            folder = against["folder"][0]
            odds = {}
            if calibration is not None:
                for level, values in against.items():
                    asked = len(rows) if level == "folder" else 1
                    odds[level] = calibration.log_ratio(values, images=asked, enrolled=counts)
            chance = 1 / (1 + np.exp(-odds["folder"][0])) if odds else np.full(len(order), np.nan)
            rates = [float(own[values.argmax(axis=1)].mean()) for values in against.values()]
            other = chance[~own].max()
            found[name].append((*rates, float(folder[own][0]), float(chance[own][0]), float(other)))
            if name not in bases.values():
                for level, values in against.items():
                    scores[level].append(values.ravel())
                    same[level].append(np.broadcast_to(own, values.shape).ravel())
                    if odds:
                        ratios[level].append(odds[level].ravel())
    queried = []
    for name in queries:
        image, whole, score, probability, other = np.mean(found[name], axis=0).tolist()
        queried.append(
            Queried(
                model=name,
                decoder=decoder_of[name],
                itself=name in bases.values(),
                images=len(embeddings[name]),
                image_rate=image,
                folder_rate=whole,
                score=score,
                probability=None if calibration is None else probability,
                highest_other=None if calibration is None else other,
            )
        )
    pairs = {
        level: Pairs(
            score=np.concatenate(scores[level]),
            log_ratio=np.concatenate(ratios[level]) if ratios[level] else None,
            same=np.concatenate(same[level]),
        )
        for level in scores
    }
    return queried, pairs


def summarise(
    queried: list[Queried], pairs: dict[str, Pairs], *, seed: int
) -> dict[str, dict[str, object]]:
    """Figures per group of relatives, with 95% intervals over models, and of all pairs."""
    relatives = [q for q in queried if not q.itself]
    groups = {"all": relatives}
    for decoder in sorted({q.decoder for q in relatives}):
        groups[decoder] = [q for q in relatives if q.decoder == decoder]
    summary: dict[str, dict[str, object]] = {}
    for name, group in groups.items():
        summary[name] = {"models": len(group)}
        for field in ("image_rate", "folder_rate"):
            rates = [getattr(q, field) for q in group]
            summary[name][field] = round(float(np.mean(rates)), 4)
            low, high = bootstrap_interval(rates, seed=seed)
            summary[name][f"{field}_ci95"] = [round(low, 4), round(high, 4)]
    for level, pair in pairs.items():
        entry: dict[str, object] = {
            "auc": round(auc(pair.score[pair.same], pair.score[~pair.same]), 4)
        }
        if pair.log_ratio is not None:
            entry["loss_bits"] = round(loss_bits(pair.log_ratio, pair.same), 4)
            entry["calibration_error"] = round(calibration_error(pair.log_ratio, pair.same), 4)
        summary[f"pairs_{level}"] = entry
    return summary


def table(queried: list[Queried]) -> str:
    """Markdown: relatives by decoder, each group after its base."""
    lines = [
        "| decoder | model | images | image: base first | folder: base first | score | P(own base) "
        "| highest other P |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for q in sorted(queried, key=lambda q: (q.decoder, not q.itself, q.model)):
        name = f"{q.model} (itself)" if q.itself else q.model
        chances = ["-" if p is None else f"{p:.2f}" for p in (q.probability, q.highest_other)]
        lines.append(
            f"| {q.decoder} | {name} | {q.images} | {q.image_rate:.2f} | {q.folder_rate:.2f} "
            f"| {q.score:.2f} | {' | '.join(chances)} |"
        )
    return "\n".join(lines)


def sentences(summary: dict[str, dict[str, object]], bases: int) -> str:
    """The summary in words."""
    lines = [f"{bases} bases, chance {1 / bases:.2f}. The right base is first, 95% over models:"]
    for name, entry in summary.items():
        if name.startswith("pairs_"):
            figures = ", ".join(f"{key} {value}" for key, value in entry.items())
            lines.append(f"- pairs of relatives and bases, by {name[6:]}: {figures}")
        else:
            image, folder = entry["image_rate_ci95"], entry["folder_rate_ci95"]
            lines.append(
                f"- {name} ({entry['models']} models): images {entry['image_rate']} {image}, "
                f"folders {entry['folder_rate']} {folder}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extractor", metavar="FOLDER", help="instead of fpkit's own")
    parser.add_argument("--format", default="jpeg", help="of the images that take part (jpeg)")
    parser.add_argument("--base", action="append", default=[], help="another base (repeatable)")
    parser.add_argument("--shots", type=int, default=10, help="enrolled images per base (10)")
    parser.add_argument("--draws", type=int, default=20, help="of the enrolled images (20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the table there too")
    arguments = parser.parse_args()
    extractor = fp.load_extractor(arguments.extractor, device=arguments.device)
    try:
        calibration = stored_calibration(extractor.card, extractor_hash=extractor.hash)
    except ValueError as error:
        calibration = None
        print(f"no probabilities: {error}", file=sys.stderr)
    facts = [f for f in read_facts(arguments.folder) if f.format == arguments.format]
    facts = [f for f in facts if f.family != PHOTO]
    decoder_of = {fact.model: fact.decoder for fact in facts}
    rows: dict[str, list[NDArray[np.float32]]] = {model: [] for model in decoder_of}
    progress = tqdm(facts, unit="image", leave=False, disable=None)
    for fact in progress:
        rows[fact.model].append(extractor.embed([fp.read_image(fact.path)])[0].numpy())
    bases = choose_bases(decoder_of, arguments.base)
    queried, pairs = evaluate(
        {model: np.stack(found) for model, found in rows.items()},
        decoder_of,
        bases,
        calibration=calibration,
        shots=arguments.shots,
        draws=arguments.draws,
        seed=arguments.seed,
    )
    summary = summarise(queried, pairs, seed=arguments.seed)
    text = f"{table(queried)}\n\n{sentences(summary, len(bases))}"
    print(text)
    if arguments.out:
        write_text_atomic(arguments.out, f"# Lineage: fine-tunes and their bases\n\n{text}\n")
    result = {
        "extractor": extractor.hash[:12],
        "format": arguments.format,
        "images": len(facts),
        "bases": sorted(bases.values()),
        "shots": arguments.shots,
        "draws": arguments.draws,
        "seed": arguments.seed,
        "calibrated": calibration is not None,
        "summary": summary,
        "models": [asdict(q) for q in queried],
    }
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()

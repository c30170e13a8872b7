"""Which blocks leave the fingerprint? Train pairs of generators, swap their last blocks.

    python benchmarks/block_swap.py [--quick] [--tiles photos.npy] [--ship]

Trains an encoder, then for two architectures three generators of four up blocks from different
seeds and two from a common ancestor; per pair a classifier of spectra; then swaps the last one, two
and three blocks both ways, with and without a stitch. Writes benchmarks/block_swap.md and
docs/block_swap.png, with ``--ship`` also a pair of each architecture in data/swap. With
``--quick`` trainings are short and few, and the files go to ``runs/block_swap``. ``--tiles`` takes
the photographs of data/photos/make_photos.py for half of the images; without it, all are
procedural. The last line is one JSON object.
"""

import argparse
import json
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import fpkit as fp
from fpkit.arch import ArchSpec
from fpkit.assets import write_bytes_atomic, write_text_atomic
from fpkit.generators import train_encoder, train_generator
from fpkit.images import load_tiles
from fpkit.pictures import Cell, line_chart, montage, png_bytes, stack
from fpkit.swap import (
    SwapPair,
    SwapResult,
    accuracy,
    fit_classifier,
    paint,
    save_swap_pair,
    swap_last,
    swap_results,
)

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = {
    "deconv": ArchSpec(upsample="deconv", activation="relu", norm="none"),
    "shuffle": ArchSpec(upsample="shuffle", activation="leaky", norm="none"),
}
SIZE = 128
STITCH = 48  # images that a stitch is fitted on
COUNTS = (1, 2, 3)
# label of a curve, common ancestor?, stitched?
VARIANTS = (("raw", False, False), ("stitched", False, True), ("kin, raw", True, False))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One pair: architecture, seeds, held-out accuracy, raw and stitched swaps.

    ``kin``: the two were one generator for the first half of their training.
    """

    name: str
    kin: bool
    seeds: tuple[int, int]
    accuracy: float
    results: list[SwapResult]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Images (n, 3, SIZE, SIZE) that train the generators, the classifiers, and test."""

    train: Tensor
    fit: Tensor
    test: Tensor


def load_sources(tiles: Path | None, counts: tuple[int, int, int]) -> Sources:
    """Disjoint images; with `tiles` (n, >= SIZE, >= SIZE, 3) uint8, half are random crops of them.

    Tiles of one photograph may lie on both sides of the split. All generators paint the same
    sources, so a source gives no generator away.
    """
    rng = np.random.default_rng(0)
    parts = []
    photos = None if tiles is None else load_tiles(tiles, side=SIZE)
    order = [] if photos is None else rng.permutation(len(photos)).tolist()
    for seed, count in enumerate(counts):
        images = [fp.procedural_images(count if photos is None else count // 2, SIZE,
                                       seed=1000 + seed)]  # fmt: skip
        if photos is not None:
            picked = [order.pop() for _ in range(count - len(images[0]))]
            images.append(torch.stack([_crop(photos[i], rng) for i in picked]))
        parts.append(torch.cat(images)[torch.from_numpy(rng.permutation(count))])
    return Sources(train=parts[0], fit=parts[1], test=parts[2])


def _crop(tile: np.ndarray, rng: np.random.Generator) -> Tensor:
    top, left = (int(rng.integers(side - SIZE + 1)) for side in tile.shape[:2])
    crop = np.ascontiguousarray(tile[top : top + SIZE, left : left + SIZE])
    return torch.from_numpy(crop).permute(2, 0, 1).float() / 255


def encode(encoder: torch.nn.Module, images: Tensor) -> Tensor:
    """Codes of all images, a few at a time."""
    with torch.no_grad():
        return torch.cat([encoder(part) for part in images.split(64)])


def run_pair(pair: SwapPair, fit: Tensor, test: Tensor) -> list[SwapResult]:
    """Raw, then stitched swaps."""
    raw = swap_results(pair, test, fit_codes=None, counts=COUNTS)
    return raw + swap_results(pair, test, fit_codes=fit[:STITCH], counts=COUNTS)


def table(outcomes: list[Outcome]) -> str:
    """Markdown: a line per pair and direction."""
    lines = [
        "| upsampling | first blocks > last blocks | accuracy, held out | swap | last 1 | last 2 "
        "| last 3 |",
        "|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        for stitched in (True, False):
            for direction in ("first>second", "second>first"):
                a, b = outcome.seeds if direction == "first>second" else outcome.seeds[::-1]
                cells = [
                    f"{r.share:.2f} [{r.low:.2f}, {r.high:.2f}]"
                    for r in outcome.results
                    if r.stitched == stitched and r.direction == direction
                ]
                pair = f"{outcome.name}{', kin' * outcome.kin} | seed {a} > seed {b}"
                swap = "stitched" if stitched else "raw"
                lines.append(f"| {pair} | {outcome.accuracy:.3f} | {swap} | {' | '.join(cells)} |")
    return "\n".join(lines)


def means(outcomes: list[Outcome]) -> str:
    """Markdown: a line per variant, mean over pairs and directions."""
    lines = ["| pairs, swap | last 1 | last 2 | last 3 |", "|---|---|---|---|"]
    for label, kin, stitched in VARIANTS:
        mine = [outcome for outcome in outcomes if outcome.kin == kin]
        shares = [f"{mean_share(mine, stitched=stitched, count=count):.2f}" for count in COUNTS]
        lines.append(f"| {label} | {' | '.join(shares)} |")
    return "\n".join(lines)


def report(text: str, *, steps: int, counts: tuple[int, int, int], tiles: Path | None) -> str:
    """The table with what one must know to read it."""
    kind = (
        "procedural images" if tiles is None else "photograph tiles and procedural images, halves"
    )
    train, fit, test = counts
    return f"""# Block swap

Two generators of equal architecture (four up blocks, 8x8 codes to 128x128 pixels) paint the same
codes; a logistic regression on the log power spectra of their images tells them apart. Then the
first blocks of one are continued with the last blocks of the other. Given is the share of images
attributed to the generator that the LAST blocks came from, with a 95% bootstrap interval over
{test} held-out source images.

{text}

Yang et al. 2025 report, for two pairs of ProGANs, a classifier of 99% and 0.93 to 0.98 and 0.87 to
0.98 with the last two blocks swapped.

How this differs from the paper: the generators are decoders trained on squared error, so their
images are blurred, not GANs ({steps} steps, {train} {kind}); both paint the codes of one fixed
encoder; the pairs of an architecture differ in the seed alone; the classifier is linear and saw
{fit} other images per generator. Three kinds of swap:

- *Raw*: as the words of the paper say. Generators trained apart give their channels other
  meanings, so a raw swap paints nonsense whose spectrum may be like neither's.
- *Stitched*: a 1x1 convolution in between, fitted on {STITCH} images by least squares, translates
  the channels. It mixes channels and has no frequency response of its own.
- *Kin*: the two were one generator for {steps // 2} steps and then trained apart for {steps}, so
  that their channels have a common origin.

Made by `python benchmarks/block_swap.py{"" if tiles is None else " --tiles photos.npy"}`.
"""


def mean_share(outcomes: list[Outcome], *, stitched: bool, count: int) -> float:
    """Mean over pairs and directions."""
    return float(
        np.mean(
            [
                r.share
                for outcome in outcomes
                for r in outcome.results
                if r.stitched == stitched and r.count == count
            ]
        )
    )


def figure(pairs: dict[str, SwapPair], outcomes: list[Outcome], fit: Tensor, test: Tensor) -> bytes:
    """Images and spectra of a pair of each architecture and its swaps, and the shares."""
    sheets = []
    for name, pair in pairs.items():
        models = {"first": pair.first}
        for count in COUNTS:
            label = f"last {count} of\nsecond"
            models[label] = swap_last(pair.first, pair.second, count, codes=fit[:STITCH])
        models["second"] = pair.second
        painted = [paint(model, test[:64]) for model in models.values()]
        subject = int(painted[0].std(dim=(1, 2, 3)).argmax())  # the image with the most contrast
        spectra = [
            fp.to_db(fp.average_spectrum(images, residual="none").mean(axis=0))
            for images in painted
        ]
        limits = (float(np.percentile(spectra, 2)), float(np.percentile(spectra, 99)))
        rows = {
            f"{name}\nan image": [Cell(values=images[subject]) for images in painted],
            "spectrum": [Cell(values=spectrum, limits=limits) for spectrum in spectra],
        }
        sheets.append(montage(rows, columns=list(models), cell_size=SIZE, bar=(*limits, "dB")))
    curves = {}
    for name in pairs:
        for label, kin, stitched in VARIANTS:
            mine = [outcome for outcome in outcomes if (outcome.name, outcome.kin) == (name, kin)]
            right = float(np.mean([outcome.accuracy for outcome in mine]))
            shares = [mean_share(mine, stitched=stitched, count=count) for count in COUNTS]
            curves[f"{name}, {label}"] = (
                np.arange(len(COUNTS) + 2),
                np.array([1 - right, *shares, right]),
            )
    chart = line_chart(
        curves,
        x_label="last blocks that come from the donor (of 4)",
        y_label="share attributed to it",
        title="Whom are swapped images attributed to?",
    )
    return png_bytes(stack([*sheets, chart]), colours=256)


def run_architecture(
    name: str, encoder: torch.nn.Module, sources: Sources, *, seeds: int, steps: int
) -> tuple[SwapPair, list[Outcome], float]:
    """Train generators apart and two kin, swap all pairs.

    Returns the pair of seeds 0 and 1, all outcomes, and the seconds of training.
    """
    begun = time.perf_counter()
    train, fit, test = (
        encode(encoder, part) for part in (sources.train, sources.fit, sources.test)
    )
    spec, data = ARCHITECTURES[name], (train, sources.train)
    apart = [train_generator(spec, *data, seed=seed, steps=steps) for seed in range(seeds)]
    ancestor = train_generator(spec, *data, seed=seeds, steps=steps // 2)
    kin = [train_generator(spec, *data, seed=seed, steps=steps, start=ancestor) for seed in (0, 1)]
    seconds = time.perf_counter() - begun
    couples = [((a, b), apart[a], apart[b]) for a, b in combinations(range(seeds), 2)]
    pairs, outcomes = [], []
    for both, first, second in [*couples, ((0, 1), *kin)]:
        classifier = fit_classifier(paint(first, fit), paint(second, fit))
        pairs.append(SwapPair(encoder=encoder, first=first, second=second, classifier=classifier))
        outcomes.append(
            Outcome(
                name=name,
                kin=first is kin[0],
                seeds=both,
                accuracy=accuracy(pairs[-1], test),
                results=run_pair(pairs[-1], fit, test),
            )
        )
        print(table(outcomes[-1:]), flush=True)
    return pairs[0], outcomes, seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="about two minutes on one core")
    parser.add_argument("--tiles", type=Path, help="(n, h, w, 3) uint8 photographs, .npy")
    parser.add_argument("--seeds", type=int, help="generators per architecture (3, quick: 2)")
    parser.add_argument("--steps", type=int, help="of every training (400, quick: 120)")
    parser.add_argument("--ship", action="store_true", help="write the pairs of seeds 0, 1")
    arguments = parser.parse_args()
    seeds = arguments.seeds or (2 if arguments.quick else 3)
    steps = arguments.steps or (120 if arguments.quick else 400)
    counts = (400, 300, 150) if arguments.quick else (1600, 700, 400)
    started = time.perf_counter()
    sources = load_sources(arguments.tiles, counts)
    encoder = train_encoder(sources.train, seed=0, steps=steps)
    training = time.perf_counter() - started
    outcomes: list[Outcome] = []
    shown: dict[str, SwapPair] = {}
    for name in ARCHITECTURES:
        shown[name], more, seconds = run_architecture(
            name, encoder, sources, seeds=seeds, steps=steps
        )
        outcomes += more
        training += seconds
        if arguments.ship:
            provenance = {"seeds": "0 1", "steps": str(steps), "images": str(counts[0]),
                          "photographs": str(arguments.tiles is not None)}  # fmt: skip
            path = ROOT / "data" / "swap" / f"{name}.safetensors"
            save_swap_pair(shown[name], path, provenance=provenance)
    fit, test = (encode(encoder, part) for part in (sources.fit, sources.test))
    text = f"{means(outcomes)}\n\n{table(outcomes)}"
    folder = ROOT / "runs" / "block_swap"
    md = folder / "block_swap.md" if arguments.quick else ROOT / "benchmarks" / "block_swap.md"
    png = folder / "block_swap.png" if arguments.quick else ROOT / "docs" / "block_swap.png"
    write_bytes_atomic(png, figure(shown, outcomes, fit, test))
    write_text_atomic(md, report(text, steps=steps, counts=counts, tiles=arguments.tiles))
    summary = {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "quick": arguments.quick,
        "photographs": arguments.tiles is not None,
        "training_seconds": round(training, 1),
        "test_images": len(sources.test),
        "accuracy": round(float(np.mean([o.accuracy for o in outcomes])), 4),
        "shares": {
            label: {
                k: round(
                    mean_share([o for o in outcomes if o.kin == kin], stitched=stitched, count=k), 3
                )
                for k in COUNTS
            }
            for label, kin, stitched in VARIANTS
        },
    }
    print(text)
    print(f"{md}, {png}")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

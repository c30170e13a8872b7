"""Where do synthetic models lie among real ones, as an extractor sees them?

    python benchmarks/nearness.py FOLDER --photos photos.npy [--extractor DIR] [--models 64]

FOLDER is a folder-per-model tree of lossless real images (others are left out). Prints quantiles
of the cosine between single embeddings and the mean embedding of the real models: for the real
images themselves, for photographs, and for images of synthetic models of several kinds, as made
and with their spectrum matched to their sources'. A measurement only: nothing is trained.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import fpkit as fp
from fpkit.embedder import Embedder
from fpkit.extractor import load_extractor
from fpkit.manifest import PHOTO, read_facts
from fpkit.stream import FingerprintStream, Sources, StreamConfig

QUANTILES = (0.1, 0.5, 0.9)


def real_embeddings(extractor: Embedder, folder: Path, each: int = 6) -> Tensor:
    """Up to `each` images of every real model that is stored without loss, (n, dim)."""
    rows: list[Tensor] = []
    seen: dict[str, int] = {}
    for fact in read_facts(folder):
        if fact.family == PHOTO or fact.format != "png" or seen.get(fact.model, 0) == each:
            continue
        seen[fact.model] = seen.get(fact.model, 0) + 1
        rows.append(extractor.embed([fp.read_image(fact.path)]))
    if not rows:
        raise SystemExit(f"{folder}: no lossless image of a model")
    return torch.cat(rows)


def synthetic_crops(config: StreamConfig, sources: Sources, zoo: fp.Zoo | None) -> Tensor:
    """One crop of each of `config.models` models."""
    synthesizer = config.synthesizer(zoo)
    crops, _ = FingerprintStream(config, sources, synthesizer)[0]
    return crops[:: config.images]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--extractor")
    parser.add_argument("--models", type=int, default=64)
    arguments = parser.parse_args()

    extractor = load_extractor(arguments.extractor)
    sources = Sources(arguments.photos, share=0.0)
    real = real_embeddings(extractor, arguments.folder)
    direction = functional.normalize(real.mean(0), dim=0)
    base = StreamConfig(
        models=arguments.models, images=2, random_share=1.0, jpeg_share=0.0, off_grid_share=0.0
    )
    photographs = sources.draw(arguments.models, generator=torch.Generator().manual_seed(1))
    groups = {"real models": real, "photographs": extractor.embed(photographs[..., 16:144, 16:144])}
    kinds = {
        "trained, starter zoo": (replace(base, random_share=0.0), fp.Zoo.load()),
        "random, plain": (base, None),
        "random, wide, encoder": (replace(base, encoder="trained", space="wide"), None),
    }
    for name, (config, zoo) in kinds.items():
        for share, how in ((0.0, "as made"), (1.0, "matched")):
            config = replace(config, matched_share=share, models=min(config.models, 64))
            crops = synthetic_crops(config, sources, zoo)
            groups[f"{name}, {how}"] = extractor.embed(crops)
    print(
        f"{'cosine to the mean of the real models':38s}" + "".join(f"{q:>8.0%}" for q in QUANTILES)
    )
    table = {}
    for name, embeddings in groups.items():
        cosines = (embeddings @ direction).quantile(torch.tensor(QUANTILES)).tolist()
        table[name] = [round(value, 3) for value in cosines]
        print(f"{name:38s}" + "".join(f"{value:8.2f}" for value in cosines))
    print(json.dumps(table))


if __name__ == "__main__":
    main()

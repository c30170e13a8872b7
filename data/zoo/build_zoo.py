"""Build a zoo of synthetic models: the starter zoo that ships, or a larger one to train with.

    python data/photos/make_photos.py --out photos.npy
    python data/zoo/build_zoo.py --tiles photos.npy --out zoo --models 200 --jobs 2
    python data/zoo/build_zoo.py --ship zoo --models 80 --out data/zoo
    python data/zoo/build_zoo.py --out data/zoo --models 0        only prints a summary

Interrupt it at will: what is finished is in the manifest, and the same command goes on. The order
of architectures is a seeded shuffle of the paper's 288, so that any beginning of it covers every
option of every axis.
"""

import argparse
import random
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tqdm import tqdm

from fpkit.arch import AXES, ArchSpec, model_id, paper_specs
from fpkit.procedural import procedural_images
from fpkit.synthesis import ETA, Synthesis, synthesize
from fpkit.zoo import Zoo


def order(models: int) -> list[tuple[ArchSpec, int]]:
    """(spec, seed) of the first `models` models: a shuffle of all specs per seed."""
    specs = list(paper_specs())
    chosen: list[tuple[ArchSpec, int]] = []
    for seed in range(-(-models // len(specs))):
        random.Random(seed).shuffle(specs)
        chosen += [(spec, seed) for spec in specs]
    return chosen[:models]


def training_images(tiles: Path | None) -> tuple[torch.Tensor, str]:
    """192 images (192, 3, 128, 128), two thirds photographs if there are any; their source."""
    if tiles is None:
        return procedural_images(192, 128, seed=0), "procedural_images(192, 128, seed=0)"
    array = np.load(tiles, mmap_mode="r", allow_pickle=False)[:128, :128, :128]
    photos = torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2) / 255
    mixed = torch.cat([photos, procedural_images(64, 128, seed=0)])
    shuffled = mixed[torch.randperm(192, generator=torch.Generator().manual_seed(0))]
    return shuffled, "128 photograph tiles (data/photos) and procedural_images(64, 128, seed=0)"


def train(job: tuple[ArchSpec, int], images: torch.Tensor, **options: object) -> Synthesis:
    """One model on one thread, so that jobs do not fight for cores."""
    torch.set_num_threads(1)
    spec, seed = job
    return synthesize(spec, images, seed=seed, progress=False, **options)


def build(arguments: argparse.Namespace) -> None:
    images, source = training_images(arguments.tiles)
    exists = (arguments.out / "manifest.json").exists()
    zoo = Zoo.load(arguments.out) if exists else Zoo.create(arguments.out, source=source)
    todo = [job for job in order(arguments.models) if model_id(*job) not in zoo]
    work = partial(
        train, images=images, eta=arguments.eta, max_steps=arguments.steps, precision="bfloat16"
    )
    with get_context("spawn").Pool(arguments.jobs) as pool:
        for result in tqdm(pool.imap(work, todo), total=len(todo), unit="model"):
            zoo.add(result)
    print(summary(zoo))


def summary(zoo: Zoo) -> str:
    """How many models reached eta, and the medians of residual and of training time."""
    reached = sum(entry["reached"] for entry in zoo.entries)
    residual, seconds = (median(e[key] for e in zoo.entries) for key in ("residual", "seconds"))
    return (
        f"{len(zoo)} models in {zoo.path}, {reached} reached eta; medians: residual "
        f"{residual:.4f}, {seconds:.1f} s on one core"
    )


def ship(arguments: argparse.Namespace) -> None:
    """Copy the first models in half precision; check that every option of every axis is there."""
    large = Zoo.load(arguments.ship)
    small = Zoo.create(arguments.out, source=large.source, precision="float16")
    for entry in large.entries[: arguments.models]:
        small.copy_from(large, entry["model_id"])
    specs = [ArchSpec.parse(entry["arch_id"]) for entry in small.entries]
    for field, options in AXES.values():
        missing = set(options) - {getattr(spec, field) for spec in specs}
        assert not missing, f"{field} lacks {missing}: ship more models"
    size = sum(file.stat().st_size for file in arguments.out.glob("*.safetensors"))
    print(f"{summary(small)}; {size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=int, default=72)
    parser.add_argument("--tiles", type=Path, help="photos.npy; without it, procedural images")
    parser.add_argument("--eta", type=float, default=ETA)
    parser.add_argument("--steps", type=int, default=150, help="at most, per model")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--ship", type=Path, help="copy from this zoo instead of training")
    arguments = parser.parse_args()
    ship(arguments) if arguments.ship else build(arguments)


if __name__ == "__main__":
    main()

"""Verbs of the command line that train: synthetic models and extractors."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fpkit.cli_io import Skipped, checked_device, expand, note, print_json, print_table
from fpkit.images import ImageReadError, grid_crops, read_images

if TYPE_CHECKING:
    from torch import Tensor

    from fpkit.zoo import Zoo

PROCEDURAL_COUNT = 64  # images to train a synthetic model on: a few seconds on a CPU


def synth(arguments: argparse.Namespace) -> int:
    """Train synthetic models and add them to a zoo, or list the architectures."""
    from fpkit.arch import PAPER, ArchSpec
    from fpkit.synthesis import synthesize

    if arguments.list:
        ids = [spec.id for spec in PAPER]
        print_json(ids) if arguments.json else print("\n".join(ids))
        return 0
    specs = [ArchSpec.parse(text) for text in arguments.spec]
    skipped = Skipped()
    images, source, total = _training_images(arguments.images, arguments.seed, skipped)
    zoo = _open_zoo(Path(arguments.out), source)
    made = []
    for spec in specs:
        synthesis = synthesize(
            spec,
            images,
            seed=arguments.seed,
            eta=arguments.eta,
            max_steps=arguments.max_steps,
            device=checked_device(arguments.device),
            progress=sys.stderr.isatty(),
        )
        zoo.add(synthesis)
        made.append(zoo.entry(synthesis.model_id) | {"seconds": round(synthesis.seconds, 2)})
        if not synthesis.reached:
            note(
                f"{synthesis.model_id}: residual {synthesis.residual:.4f} after {synthesis.steps} "
                f"steps, eta {arguments.eta:g} was not reached"
            )
    if arguments.json:
        print_json(made)
    else:
        keys = ("model_id", "residual", "steps", "seconds")
        print_table(["model", *keys[1:]], [[entry[key] for key in keys] for entry in made])
        print(f"{len(zoo)} models in {zoo.path}")
    return skipped.finish(total, strict=arguments.strict)


def _open_zoo(path: Path, source: str) -> Zoo:
    from fpkit.zoo import Zoo

    if not (path / "manifest.json").exists():
        return Zoo.create(path, source=source)
    zoo = Zoo.load(path)
    if zoo.source != source:
        raise ValueError(f"{path} was trained on {zoo.source}, not on {source}: use another --out")
    return zoo


def _training_images(images: str, seed: int, skipped: Skipped) -> tuple[Tensor, str, int]:
    """Crops (n, 3, 128, 128), a name for them, and the number of files."""
    import torch

    from fpkit.procedural import procedural_images

    if images == "procedural":
        crops = procedural_images(PROCEDURAL_COUNT, size=128, seed=seed)
        return crops, f"procedural images, seed {seed}", PROCEDURAL_COUNT
    paths = expand([images])
    parts = []
    for path, image in read_images(paths, on_error=skipped):
        try:
            parts.append(grid_crops(image, size=128))
        except ValueError as error:
            skipped(ImageReadError(f"{path}: {error}"))
    if not parts:
        raise ValueError(f"{images}: none of its {len(paths)} images can be used")
    return torch.cat(parts), f"{len(parts)} images of {Path(images).resolve().name}", len(paths)


def train(arguments: argparse.Namespace) -> int:
    """Train an extractor on a zoo and on random decoders."""
    from fpkit.stream import Sources, StreamConfig
    from fpkit.training import TrainConfig
    from fpkit.training import train as run
    from fpkit.zoo import Zoo

    stream = StreamConfig(
        models=arguments.models,
        images=arguments.images,
        random_share=arguments.random_share,
        encoder=arguments.encoder,
        space=arguments.space,
        seed=arguments.seed,
    )
    extractor = run(
        TrainConfig(
            steps=arguments.steps,
            loss=arguments.loss,
            precision=arguments.precision,
            workers=arguments.workers,
            stream=stream,
        ),
        zoo=Zoo.load(arguments.zoo),
        sources=Sources(arguments.photos, procedural=arguments.procedural),
        out=arguments.out,
        resume=arguments.resume,
        device=checked_device(arguments.device),
        progress=sys.stderr.isatty(),
    )
    extractor.card["command"] = _command(arguments)
    extractor.save(arguments.out)
    figures = extractor.card["verification"]
    if arguments.json:
        card = {key: extractor.card[key] for key in ("steps", "seconds", "verification")}
        print_json({"out": arguments.out, "hash": extractor.hash} | card)
    else:
        print(f"{arguments.out}: extractor {extractor.hash[:12]} after {arguments.steps} steps")
        print_table(["on models it never saw", ""], figures.items())
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """The command that repeats a training, for the model card: names of files, not their places."""
    words = ["fpkit", "train"]
    for name in ("zoo", "photos", "out"):
        if getattr(arguments, name) is not None:
            words += [f"--{name}", Path(getattr(arguments, name)).name]
    options = (
        "procedural",
        "steps",
        "loss",
        "models",
        "images",
        "random_share",
        "encoder",
        "space",
        "precision",
        "seed",
    )
    for name in options:
        words += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
    return shlex.join(words)

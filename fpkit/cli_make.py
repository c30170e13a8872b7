"""Verbs of the command line that train: synthetic models and extractors."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpkit.cli_io import Skipped, checked_device, expand, note, print_json, print_table
from fpkit.images import ImageReadError, grid_crops, read_images

if TYPE_CHECKING:
    from torch import Tensor

    from fpkit.train_plan import TrainConfig
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
    paths = expand([images], on_error=skipped)
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
    from fpkit.distributed import this_rank
    from fpkit.stream import Sources
    from fpkit.training import train as run
    from fpkit.zoo import Zoo

    config = _train_config(arguments)
    extractor = run(
        config,
        zoo=Zoo.load(arguments.zoo),
        sources=Sources(arguments.photos, procedural=arguments.procedural),
        out=arguments.out,
        initial=arguments.initial,
        teacher=arguments.teacher,
        resume=arguments.resume,
        device=checked_device(arguments.device),
        progress=sys.stderr.isatty(),
    )
    if this_rank()[0] > 0:
        return 0  # the first rank speaks for all
    extractor.card["command"] = _command(arguments, config)
    extractor.save(arguments.out)
    figures = extractor.card["verification"]
    if arguments.json:
        card = {key: extractor.card[key] for key in ("steps", "seconds", "verification")}
        print_json({"out": arguments.out, "hash": extractor.hash} | card)
    else:
        print(f"{arguments.out}: extractor {extractor.hash[:12]} after {config.steps} steps")
        print_table(["on models it never saw", ""], figures.items())
    return 0


_OF_TRAINING = ("steps", "loss", "precision", "workers")
_OF_STREAM = ("models", "images", "random_share", "encoder", "space", "matched_share", "seed")


def _train_config(arguments: argparse.Namespace) -> TrainConfig:
    """The preset, and what single options change of it."""
    from fpkit.train_plan import train_preset

    def given(names: tuple[str, ...]) -> dict[str, Any]:
        found = {name: getattr(arguments, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    config = train_preset(arguments.preset)
    stream = replace(config.stream, **given(_OF_STREAM))
    return replace(config, stream=stream, **given(_OF_TRAINING))


def _command(arguments: argparse.Namespace, config: TrainConfig) -> str:
    """The command that repeats a training, for the model card: names of files, not their places."""
    words = ["fpkit", "train"]
    for name in ("zoo", "photos", "initial", "teacher", "out"):
        if getattr(arguments, name) is not None:
            words += [f"--{name}", Path(getattr(arguments, name)).name]
    words += ["--procedural", str(arguments.procedural), "--preset", arguments.preset]
    options = {name: getattr(config, name) for name in _OF_TRAINING if name != "workers"}
    options |= {name: getattr(config.stream, name) for name in _OF_STREAM}
    for name, value in options.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    return shlex.join(words)

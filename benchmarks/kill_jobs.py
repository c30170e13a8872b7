"""The four jobs that ``kills.py`` kills, each tiny, and what must be true of their folders.

A job knows how to work, what an undisturbed run leaves, and what must hold after a kill: what was
finished is there and right, nothing that is half-written has a name that is taken for real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

import fpkit as fp
from fpkit import cli_enrol, embedding_cache
from fpkit.cli import main as fpkit
from fpkit.embedding_cache import EmbeddingCache
from fpkit.images import write_png
from fpkit.stream import Sources, StreamConfig
from fpkit.tensor_files import open_tensors
from fpkit.training import CHECKPOINT, LOG, TrainConfig, train
from fpkit.zoo_build import TIMES, build_zoo
from fpkit.zoo_plan import ZooPlan

MODELS, IMAGES, SIDE = 5, 4, 136


class Job(Protocol):
    """Something that writes into a folder and can be stopped.

    ``variants`` are ways to run it that must come to the same; ``work`` runs it in a process of
    its own, for the first time or again; ``finished`` checks a folder that a kill left and
    returns how much is finished; ``compare`` checks one that a last run completed. Both return
    what is wrong, sentence by sentence, as ``problems``.
    """

    name: str
    variants: tuple[str, ...]

    def work(self, out: Path, variant: str) -> None: ...
    def finished(self, out: Path, problems: list[str]) -> int: ...
    def compare(self, out: Path, problems: list[str]) -> None: ...


def make_inputs(folder: Path) -> None:
    """Images of five 'models', and a tiny untrained extractor."""
    for model in range(MODELS):
        for image in range(IMAGES):
            generator = torch.Generator().manual_seed(100 * model + image)
            noise = torch.rand(3, SIDE, SIDE, generator=generator)
            blurred = torch.nn.functional.avg_pool2d(noise, (1, 3 + 2 * model), 1, (0, 1 + model))
            write_png(folder / "tree" / f"model{model}" / f"{image}.png", blurred)
    torch.manual_seed(0)
    network = fp.Extractor(fp.ExtractorConfig(widths=(8, 8), positions=1, dim=16))
    network.save(folder / "extractor")


def visible(out: Path) -> Iterator[Path]:
    """Files that somebody may take for finished."""
    return (path for path in sorted(out.rglob("*")) if path.is_file() and path.name[0] != ".")


class ZooJob:
    """Six models of three architectures."""

    name = "zoo build"
    variants = ("one process", "two processes")
    plan = ZooPlan(
        archs=tuple(
            fp.ArchSpec(blocks=1, norm="none", upsample=up, activation="none").id
            for up in ("deconv", "nearest", "bilinear")
        ),
        seeds=2,
        max_steps=3,
    )

    def __init__(self, inputs: Path) -> None:
        self.right = inputs / "zoo build"

    def work(self, out: Path, variant: str) -> None:
        images = fp.procedural_images(4, 64, seed=0)
        jobs = 2 if variant == "two processes" else 1
        options = {"resume": True, "jobs": jobs, "progress": False}
        build_zoo(self.plan, images, out=out, source="four", **options)

    def finished(self, out: Path, problems: list[str]) -> int:
        if (out / "manifest.json").exists():
            right = {entry["model_id"]: entry for entry in fp.Zoo.load(self.right).entries}
            for entry in fp.Zoo.load(out).entries:
                if entry != right[entry["model_id"]]:
                    problems.append(f"another entry for {entry['model_id']}")
                if not (out / entry["file"]).is_file():
                    problems.append(f"{entry['file']} is in the manifest and nowhere else")
        files = list(out.glob("[!.]*.safetensors"))
        for file in files:
            if file.read_bytes() != (self.right / file.name).read_bytes():
                problems.append(f"{file.name} differs")
        return len(files)

    def compare(self, out: Path, problems: list[str]) -> None:
        theirs, ours = ({p.name for p in visible(f)} for f in (out, self.right))
        if theirs != ours:
            problems.append(f"files {sorted(theirs ^ ours)} are too many or missing")
            return
        for name in ours - {TIMES}:
            if (out / name).read_bytes() != (self.right / name).read_bytes():
                problems.append(f"{name} differs")
        for line in (out / TIMES).read_text().splitlines():
            json.loads(line)


class TrainJob:
    """An extractor, eight steps."""

    name = "training"
    variants = ("on random decoders",)
    config = TrainConfig(
        steps=8,
        warmup=2,
        validate_every=8,
        checkpoint_every=1,
        stream=StreamConfig(models=4, images=2, random_share=1.0, sources=4, jpeg_share=0.5),
        extractor=fp.ExtractorConfig(crop=64, widths=(8, 8), dim=8),
    )

    def __init__(self, inputs: Path) -> None:
        self.right = inputs / "training"
        self.steps = inputs / "steps"

    def work(self, out: Path, variant: str) -> None:
        def keep(row: dict[str, float], _: object) -> None:
            self.steps.mkdir(exist_ok=True)
            copy = self.steps / f"{row['step']:.0f}.safetensors"
            copy.write_bytes((out / CHECKPOINT).read_bytes())

        callback = keep if out == self.right else None
        sources = Sources(procedural=4)
        train(self.config, sources=sources, out=out, progress=False, callback=callback)

    def finished(self, out: Path, problems: list[str]) -> int:
        step = 0
        if (out / CHECKPOINT).exists():
            with open_tensors(out / CHECKPOINT) as file:
                step, tensors = int(file.metadata["step"]), file.read()
            with open_tensors(self.steps / f"{step}.safetensors") as file:
                right = file.read()
            if _differ(tensors, right):
                problems.append(f"the checkpoint of step {step} differs")
        if (out / "extractor.safetensors").exists():
            loaded = fp.load_extractor(out)
            if loaded.hash != fp.load_extractor(self.right).hash:
                problems.append("the extractor differs")
        return step

    def compare(self, out: Path, problems: list[str]) -> None:
        ours, right = fp.load_extractor(out), fp.load_extractor(self.right)
        if _differ(ours.state_dict(), right.state_dict()):
            problems.append("the extractor differs")
        cards = [{**e.card, "seconds": 0, "curve": 0} for e in (ours, right)]
        if cards[0] != cards[1]:
            problems.append("the model card differs")
        rows = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
        losses = [
            {row["step"]: row["loss"] for row in rows},
            {r["step"]: r["loss"] for r in right.card["curve"]},
        ]
        if [row["step"] for row in rows] != list(range(1, self.config.steps + 1)):
            problems.append("the log lacks steps, or has some twice")
        if any(losses[0][step] != loss for step, loss in losses[1].items()):
            problems.append("the log differs")


class EnrolJob:
    """Five models into a gallery; or two at the same time, by two processes."""

    name = "enrol"
    variants = ("a model at a time", "an image at a time")

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs
        self.right = inputs / "enrol"
        self.hash = fp.load_extractor(inputs / "extractor").hash

    def work(self, out: Path, variant: str) -> None:
        if variant == "an image at a time":
            cli_enrol.EVERY = 0.0
        words = ["enrol", out / "my.gallery", self.inputs / "tree"]
        _succeed([*words, "--extractor", self.inputs / "extractor", "--json"])

    def finished(self, out: Path, problems: list[str]) -> int:
        if not (out / "my.gallery").exists():
            return 0
        there, right = self._gallery(out), self._gallery(self.right)
        for model, count in there.counts.items():
            if not (
                there.images(model) <= right.images(model) and len(there.images(model)) == count
            ):
                problems.append(f"other images are enrolled of {model}")
            at = there.models.index(model), right.models.index(model)
            whole = count == right.counts[model]
            if whole and not np.array_equal(there.templates[at[0]], right.templates[at[1]]):
                problems.append(f"the template of {model} differs")
        return sum(there.counts.values())

    def compare(self, out: Path, problems: list[str]) -> None:
        if (out / "my.gallery").read_bytes() != (self.right / "my.gallery").read_bytes():
            problems.append("the gallery differs")

    def _gallery(self, folder: Path) -> fp.Gallery:
        return fp.Gallery.load(folder / "my.gallery", extractor_hash=self.hash)


class BenchJob:
    """Twenty images, clean and as JPEG; its embeddings are kept."""

    name = "bench"
    variants = ("written often",)

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs
        self.right = inputs / "bench"
        self.hash = fp.load_extractor(inputs / "extractor").hash

    def work(self, out: Path, variant: str) -> None:
        embedding_cache.EVERY = 0.02
        words = ["bench", self.inputs / "tree", "--cache", out / "cache", "--draws", 2, "--json"]
        _succeed([*words, "--degrade", "jpeg75", "--extractor", self.inputs / "extractor"])

    def finished(self, out: Path, problems: list[str]) -> int:
        if not (out / "cache").is_dir():
            return 0
        there, right = self._cache(out), self._cache(self.right)
        for key in there:
            found, expected = there.find(key), right.find(key)
            if found is None or expected is None or not np.array_equal(found[0], expected[0]):
                problems.append("a kept embedding differs")
        return len(there)

    def compare(self, out: Path, problems: list[str]) -> None:
        if self.finished(out, problems) != len(self._cache(self.right)):
            problems.append("embeddings are missing")
        results = [json.loads(f.with_suffix(".stdout").read_text()) for f in (out, self.right)]
        if _without_times(results[0]) != _without_times(results[1]):
            problems.append("the figures differ")

    def _cache(self, out: Path) -> EmbeddingCache:
        return EmbeddingCache(out / "cache", self.hash, 16)


JOBS = (ZooJob, TrainJob, EnrolJob, BenchJob)


def _succeed(words: list[object]) -> None:
    code = fpkit([str(word) for word in words])
    if code:
        raise RuntimeError(f"fpkit ended with {code}")


def _differ(ours: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    alike = ours.keys() == right.keys()
    return not (alike and all(torch.equal(ours[name], right[name]) for name in right))


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k != "seconds_per_image"}
    return value

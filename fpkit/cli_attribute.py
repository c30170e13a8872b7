"""Verbs of the command line that look at images: galleries, verdicts, fingerprints, figures."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from fpkit.assets import write_bytes_atomic, write_text_atomic
from fpkit.cli_io import (
    Skipped,
    checked_device,
    expand,
    note,
    plural,
    print_json,
    print_table,
)
from fpkit.images import ImageReadError, read_images

if TYPE_CHECKING:
    from torch import Tensor

    from fpkit.extractor import Extractor


def identify(arguments: argparse.Namespace) -> int:
    """Name the enrolled model nearest to each image."""
    from fpkit.gallery import Gallery

    extractor = open_extractor(arguments)
    gallery = Gallery.load(arguments.gallery, extractor_hash=extractor.hash)
    paths = expand(arguments.image)
    skipped = Skipped()
    embedded = list(embed_readable(extractor, paths, skipped))
    if not embedded:
        raise ValueError(f"none of the {len(paths)} images can be used")
    answers = gallery.identify(np.stack([embedding for _, embedding in embedded]))
    named = [(str(path), answer) for (path, _), answer in zip(embedded, answers, strict=True)]
    if arguments.json:
        print_json(
            [
                {"image": image, "model": a.model, "score": a.score, "scores": a.scores}
                for image, a in named
            ]
        )
    else:
        rows = []
        for image, answer in named:
            second = [f"{name} {score:.4f}" for name, score in list(answer.scores.items())[1:2]]
            rows.append([image, answer.model, answer.score, *(second or ["-"])])
        print_table(["image", "model", "score", "second best"], rows)
    if len(gallery) == 1:
        note("one enrolled model: it is named for every image, read the score")
    return skipped.finish(len(paths), strict=arguments.strict)


def verify(arguments: argparse.Namespace) -> int:
    """Did one model make both images?"""
    from fpkit.gallery import verify as cosine

    extractor = open_extractor(arguments)
    pair = [Path(arguments.a), Path(arguments.b)]
    first, second = (embedding for _, embedding in embed_readable(extractor, pair, None))
    score = cosine(first, second)
    threshold, far = arguments.threshold, None
    if threshold is None:
        known = extractor.card.get("verification")
        if known is None:
            raise ValueError("this extractor's card names no threshold: give one by --threshold")
        threshold, far = float(known["threshold"]), float(known["far"])
    same = score >= threshold
    if arguments.json:
        a, b = map(str, pair)
        answer = {"a": a, "b": b, "score": score, "same": same, "threshold": threshold}
        print_json(answer | {"far": far})
    else:
        print("same model" if same else "not the same model, or too little to tell")
        origin = "" if far is None else f", passed by {far:.0%} of pairs of unlike synthetic models"
        print(f"score {score:.4f}, threshold {threshold:.4f}{origin}")
    return 0


def open_extractor(arguments: argparse.Namespace) -> Extractor:
    """The extractor that ``--extractor`` and ``--device`` ask for."""
    from fpkit.extractor import load_extractor

    return load_extractor(arguments.extractor, device=checked_device(arguments.device))


def embed_readable(
    extractor: Extractor, paths: list[Path], skipped: Skipped | None
) -> Iterator[tuple[Path, np.ndarray]]:
    """Path and embedding (d,) of every image that can be used; without `skipped`, raise."""
    progress = tqdm(paths, unit="image", disable=None if len(paths) > 8 else True, leave=False)
    for path, image in read_images(progress, on_error=skipped):
        try:
            embedding = extractor.embed([image])[0].numpy()
        except ValueError as error:
            bad = ImageReadError(f"{path}: {error}")
            if skipped is None:
                raise bad from error
            skipped(bad)
        else:
            yield path, embedding


def fingerprint(arguments: argparse.Namespace) -> int:
    """Average spectrum of an image or a folder, as a page, a picture or numbers."""
    from fpkit.spectrum import average_spectrum, radial_profile, to_db

    paths = expand([arguments.input])
    skipped = Skipped()
    used: list[Path] = []

    def readable() -> Iterator[Tensor]:
        for path, image in read_images(paths, on_error=skipped):
            if min(image.shape[-2:]) < arguments.crop:
                size = f"{image.shape[2]}x{image.shape[1]}"
                skipped(ImageReadError(f"{path}: image is {size}, smaller than one crop"))
            else:
                used.append(path)
                yield image

    first = next(stream := readable(), None)
    if first is None:
        raise ValueError(f"{arguments.input}: none of its {len(paths)} images can be used")
    images = chain([first], stream)
    power = average_spectrum(images, residual=arguments.residual, crop=arguments.crop)
    mean = power.mean(axis=0)
    frequency, profile = radial_profile(mean)
    out = Path(arguments.out)
    name = Path(arguments.input).resolve().name
    title = f"{name}: {plural(len(used), 'image')}, {arguments.residual} residual"
    if out.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, power=power, frequency=frequency, profile=profile)
        write_bytes_atomic(out, buffer.getvalue())
    elif out.suffix.lower() == ".png":
        from fpkit.pictures import Cell, montage, png_bytes, robust_limits

        limits = robust_limits(to_db(mean))
        cell = Cell(values=to_db(mean), limits=limits, caption=title)
        picture = montage({"": [cell]}, cell_size=512, bar=(*limits, "dB"))
        write_bytes_atomic(out, png_bytes(picture))
    else:
        from fpkit.plots import spectrum_heatmap

        figure = spectrum_heatmap(to_db(mean), title=title, size=640)
        write_text_atomic(out, figure.to_html(include_plotlyjs=True))
    if arguments.json:
        print_json({"out": str(out), "images": len(used), "skipped": skipped.count})
    else:
        print(f"{out}: average spectrum of {plural(len(used), 'image')}")
    return skipped.finish(len(paths), strict=arguments.strict)


def bench(arguments: argparse.Namespace) -> int:
    """Measure attribution methods on a folder-per-model tree."""
    from fpkit.bench import bench as run
    from fpkit.tables import format_table

    skipped = Skipped()
    methods = tuple(dict.fromkeys(arguments.method or ["extractor"]))
    result = run(
        arguments.folder,
        methods=methods,
        draws=arguments.draws,
        seed=arguments.seed,
        extractor=open_extractor(arguments) if "extractor" in methods else None,
        contents=arguments.content,
        without_contents=arguments.without_content,
        format=arguments.format,
        recompress=arguments.recompress,
        degrade=arguments.degrade,
        on_error=skipped,
        progress=sys.stderr.isatty(),
        cache=arguments.cache,
    )
    print_json(result) if arguments.json else print(format_table(result | {"skipped": []}))
    total = result["images"] + result["photos"] + skipped.count
    return skipped.finish(total, strict=arguments.strict)

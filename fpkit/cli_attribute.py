"""Verbs of the command line that look at many images: fingerprints, and figures of methods."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tqdm import tqdm

from fpkit.assets import write_bytes_atomic, write_text_atomic
from fpkit.cli_io import (
    Skipped,
    checked_device,
    expand,
    plural,
    print_json,
    writable,
)
from fpkit.images import ImageReadError, load_image, read_images
from fpkit.names import visible

if TYPE_CHECKING:
    from torch import Tensor

    from fpkit.extractor import Extractor

T = TypeVar("T")


def open_extractor(arguments: argparse.Namespace) -> Extractor:
    """The extractor that ``--extractor`` and ``--device`` ask for."""
    from fpkit.extractor import load_extractor

    return load_extractor(arguments.extractor, device=checked_device(arguments.device))


def each_usable(
    paths: list[Path], use: Callable[[Tensor, bytes], T], skipped: Skipped | None
) -> Iterator[tuple[Path, T]]:
    """Path of every image, and what `use` makes of its pixels and the bytes of its file.

    Images that cannot be read, or of which it makes a ValueError, go to `skipped`; without one
    that error is raised.
    """
    for path in image_progress(paths):
        try:
            image, data = load_image(path)
            try:
                made = use(image, data)
            except ValueError as error:
                raise ImageReadError(f"{path}: {error}") from error
        except ImageReadError as error:
            if skipped is None:
                raise
            skipped(error)
        else:
            yield path, made


def image_progress(paths: list[Path]) -> Iterable[Path]:
    """`paths` with a progress bar, if they are many and somebody watches."""
    return tqdm(paths, unit="image", disable=None if len(paths) > 8 else True, leave=False)


def fingerprint(arguments: argparse.Namespace) -> int:
    """Average spectrum of an image or a folder, as a page, a picture or numbers."""
    from fpkit.spectrum import average_spectrum, radial_profile, to_db

    skipped = Skipped()
    paths = expand([arguments.input], on_error=skipped)
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
    name = visible(Path(arguments.input).resolve().name)
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
        print(f"{writable(str(out))}: average spectrum of {plural(len(used), 'image')}")
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
    if arguments.json:
        print_json(result)
    else:
        for line in format_table(result | {"skipped": []}).split("\n"):
            print(writable(line))
    total = result["images"] + result["photos"] + skipped.count
    return skipped.finish(total, strict=arguments.strict)

"""What is known about an image besides its score, and why a verdict on it may not hold.

Verdicts are calibrated on images as models leave them, whole or through one JPEG. An image that
was enlarged, blurred, cut small or compressed hard is another thing: the warnings say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fpkit.images import GRID, grid_crops
from fpkit.intake import ImageReadError, max_file_bytes, open_image, read_bytes
from fpkit.traces import (
    HIGH,
    JpegTrace,
    find_jpeg,
    flat_share,
    grey_levels,
    high_frequency_power,
    jpeg_quality,
    resampling_peak,
)
from fpkit.verdicts import Conditions, Verdict

LEAST_QUALITY = 65  # the lowest that verdicts were calibrated on, see fpkit.verdict_bank
FEW_CROPS = 4  # an image with fewer is called small
OVERLAP = 3 / 2  # crops per side of a crop: those of the calibration overlap by a third
SIDE = 1024  # pixels: of a larger image, traces are looked for in the middle
PIXELS = "pixels"  # the format of an image that is no file
MAX_PIXELS = 64_000_000

# Chosen on photographs, procedural and synthetic images; benchmarks/evidence.py measures them
RESAMPLED = 8.0  # times the median around it
NO_DETAIL = 2.0  # times the power of rounding
FLAT = 0.5  # share of the blocks

BOTH, TWO = "one model made both", "two models did"

_FROM_QUALITY = f"verdicts are calibrated from quality {LEAST_QUALITY} on"


@dataclass(frozen=True, kw_only=True)
class ImageEvidence:
    """What is known about one image besides its embedding.

    Attributes
    ----------
    width, height
        In pixels.
    crops
        That an extractor looks at; where they overlap by more than a third, as many as would
        cover the image with a third.
    format
        ``"PNG"``, ``"JPEG"``, ...; ``"pixels"`` if it is no file.
    jpeg_quality
        Of a JPEG, on libjpeg's scale, from its quantisation table; else None.
    compressed
        Whether it is stored with loss, or carries the traces of an earlier JPEG.
    warnings
        Why a verdict on this image may not hold: ``"small: 128x128 pixels give ..."``, what was
        found and, after the colon, the particulars.
    """

    width: int
    height: int
    crops: int
    format: str
    jpeg_quality: int | None
    compressed: bool
    warnings: tuple[str, ...]


def gather_evidence(
    image: Tensor, *, source: str | Path | bytes | None = None, crop: int, grid: int
) -> ImageEvidence:
    """Look for what a verdict should be read with.

    Parameters
    ----------
    image
        (3, h, w) float in [0, 1], as it was decoded.
    source
        Its file, or the bytes of it. None: nothing is known but the pixels.
    crop, grid
        Side of the extractor's crops, 32 pixels or more, and how many it takes along a side.

    Raises
    ------
    ImageReadError
        If `source` cannot be read as an image.
    ValueError
        If the image is smaller than one crop.

    Notes
    -----
    Some things cannot be seen: an image made smaller (unless by a poor filter), enlarged by 2 or
    another multiple of what decoders and JPEG do themselves, or a JPEG of quality 97 and more.

    Examples
    --------
    >>> found = gather_evidence(torch.zeros(3, 128, 200), crop=128, grid=4)
    >>> found.crops, found.format, len(found.warnings)
    (2, 'pixels', 4)
    """
    height, width = image.shape[-2:]
    crops = count_crops(image, crop=crop, grid=grid)
    form, quality, warnings = (PIXELS, None, []) if source is None else file_facts(source)
    compressed = form == "JPEG" or bool(warnings)
    if quality is not None and quality < LEAST_QUALITY:
        warnings.append(f"compressed hard: JPEG of quality {quality}, {_FROM_QUALITY}")
    middle = _middle(image)
    grey = grey_levels(middle)
    if not compressed and (trace := find_jpeg(grey)) is not None:
        compressed = True
        warnings.append(_earlier_jpeg(trace))
    if crops < FEW_CROPS:
        warnings.append(
            f"small: {width}x{height} pixels give {crops} crop{'' if crops == 1 else 's'} of "
            f"{crop}, and little to judge by"
        )
    peak, frequency = resampling_peak(grey)
    if peak > RESAMPLED:
        warnings.append(
            f"resized: traces of interpolation every {1 / frequency:.2f} pixels, a pattern that no "
            "model made"
        )
    if high_frequency_power(middle, crop=crop, grid=min(grid, 3)) < NO_DETAIL:
        warnings.append(
            f"no fine detail: above {HIGH} cycles/pixel is hardly more than rounding, as after "
            "blurring or enlarging"
        )
    flat = flat_share(middle)
    if flat > FLAT:
        warnings.append(f"flat: {flat:.0%} of the image has one colour or is clipped")
    if torch.equal(image[0], image[1]) and torch.equal(image[1], image[2]):
        warnings.append("grey: verdicts are calibrated on colour images")
    return ImageEvidence(
        width=width,
        height=height,
        crops=crops,
        format=form,
        jpeg_quality=quality,
        compressed=compressed,
        warnings=tuple(warnings),
    )


def count_crops(image: Tensor, *, crop: int, grid: int) -> int:
    """``ImageEvidence.crops`` of an image (c, h, w). ValueError if it is smaller than one crop."""
    grid_crops(image[:1], size=crop, grid=1)  # raises if it is too small
    along = (min(grid, 1 + (side - crop) / crop * OVERLAP) for side in image.shape[-2:])
    return round(math.prod(along))


def conditions(*images: ImageEvidence) -> Conditions:
    """What a verdict on one image, or on a pair, is calibrated for.

    Examples
    --------
    >>> one, two = (gather_evidence(torch.zeros(3, n, n), crop=64, grid=4) for n in (64, 256))
    >>> conditions(one, two)
    Conditions(crops=1, jpeg=False)
    """
    return Conditions(
        crops=min(image.crops for image in images), jpeg=any(image.compressed for image in images)
    )


def describe(evidence: ImageEvidence) -> str:
    """Format, size and crops in one short phrase.

    Examples
    --------
    >>> describe(gather_evidence(torch.zeros(3, 128, 200), crop=128, grid=4))
    'pixels, 200x128, 2 crops'
    """
    quality = "" if evidence.jpeg_quality is None else f" {evidence.jpeg_quality}"
    crops = f"{evidence.crops} crop{'' if evidence.crops == 1 else 's'}"
    return f"{evidence.format}{quality}, {evidence.width}x{evidence.height}, {crops}"


def ratio_in_words(log_ratio: float, *, yes: str, no: str) -> str:
    """What a likelihood ratio means, in one sentence.

    Parameters
    ----------
    log_ratio
        Its natural logarithm.
    yes, no
        What it compares, as clauses.

    Examples
    --------
    >>> ratio_in_words(math.log(35), yes="A made it", no="not")
    'LR 35: 35 times likelier if A made it than if not'
    >>> ratio_in_words(-math.log(4), yes="one model made both", no="two did")
    'LR 0.25: 4 times likelier if two did than if one model made both'
    """
    times = _two_digits(math.exp(abs(log_ratio)))
    shown = f"LR {_two_digits(math.exp(log_ratio))}"
    if times == "1":
        return f"{shown}: no evidence either way"
    likelier, other = (yes, no) if log_ratio > 0 else (no, yes)
    return f"{shown}: {times} times likelier if {likelier} than if {other}"


def of_model(verdict: Verdict, model: str) -> str:
    """The answer to "who made it?": the model's name, "none of these" or "unsure"."""
    return {"same": model, "different": "none of these", "unsure": "unsure"}[verdict.answer]


def of_pair(verdict: Verdict) -> str:
    """The answer to "did one model make both?": "same model", "two models" or "unsure"."""
    return {"same": "same model", "different": "two models", "unsure": "unsure"}[verdict.answer]


def heads(warnings: Iterable[str]) -> str:
    """Warnings without their particulars, in one line.

    Examples
    --------
    >>> heads(["small: 128x128 pixels give 1 crop", "grey: no colour"])
    'small, grey'
    """
    return ", ".join(warning.partition(":")[0] for warning in warnings)


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _middle(image: Tensor) -> Tensor:
    """At most SIDE x SIDE pixels, beginning on the 8-pixel grid."""
    height, width = image.shape[-2:]
    top, left = (max(0, side - SIDE) // 2 // GRID * GRID for side in (height, width))
    return image[:, top : top + SIDE, left : left + SIDE]


def _earlier_jpeg(trace: JpegTrace) -> str:
    cropped = ", cropped since" if (trace.row, trace.column) != (0, 0) else ""
    low = f", {_FROM_QUALITY}" if trace.quality < LEAST_QUALITY else ""
    return f"once a JPEG: of quality {trace.quality}{cropped}{low}"


def file_facts(source: str | Path | bytes) -> tuple[str, int | None, list[str]]:
    """Format, quality of a JPEG, and a warning if it is stored with another loss.

    Raises
    ------
    ImageReadError
        If the file, or the bytes of one, cannot be read as an image.
    """
    try:
        data = source
        if not isinstance(data, bytes):
            data = read_bytes(data, max_bytes=max_file_bytes(MAX_PIXELS))
        with open_image(data, max_pixels=MAX_PIXELS) as image:
            form, mode = str(image.format), image.mode
            if form == "JPEG":
                return form, _quality(getattr(image, "quantization", {})), []
            packed = "jpeg" in str(image.info.get("compression", ""))
    except ImageReadError:
        raise
    except Exception as error:  # as when an image is decoded
        reason = getattr(error, "strerror", None) or error  # that of a file without its path
        raise ImageReadError(f"cannot be read ({reason})") from error
    if form == "WEBP" and _is_lossy_webp(data):
        return form, None, ["lossy WebP: verdicts are calibrated on lossless images and JPEG"]
    if packed:
        return form, None, ["JPEG in TIFF: its quality is not known"]
    if mode == "P":
        return form, None, ["palette: at most 256 colours, whose noise covers fingerprints"]
    return form, None, []


def _quality(tables: dict[int, list[int]]) -> int | None:
    try:
        return jpeg_quality(tables[min(tables)])
    except ValueError:  # a file may hold anything
        return None


def _is_lossy_webp(data: bytes) -> bool:
    """Whether the first picture of a WebP is coded as ``VP8 `` (with loss), and not ``VP8L``."""
    at = 12
    while at + 8 <= len(data):
        kind = data[at : at + 4]
        if kind == b"ANMF":  # a frame: its own chunks follow 16 bytes about its place
            at += 24
            continue
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8 "
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return False

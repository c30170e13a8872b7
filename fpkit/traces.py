"""Traces that compression and resampling leave in pixels, found without a model.

Figures on the grey values of one image; :mod:`fpkit.evidence` turns them into warnings. How often
each is right and wrong: ``python benchmarks/evidence.py``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fpkit.images import GRID, grid_crops
from fpkit.spectrum import power_spectrum, radial_profile

FloatArray = NDArray[np.float64]
REGION = 256  # pixels of the square, in the middle of an image, in which JPEG is looked for
GREY = (0.299, 0.587, 0.114)  # JPEG's luminance
ROUNDING = 1 / 12  # variance of rounding to integers
HIGH = 0.35  # cycles/pixel

_QUALITIES = range(30, 97)  # from 97 on the steps are too fine to be seen after rounding
_FEWEST = 300  # coefficients that must be there to judge,
_MOST = 12_000  # coefficients that are enough
_WAVES = 8  # of as many frequencies: the coefficients of one may pile up anywhere
_NEEDED = 0.25  # of `JpegTrace.strength`
_HARMONIC = 16  # decoders repeat every 2, 4, 8 or 16 pixels: their own multiples of 1/16


@dataclass(frozen=True, kw_only=True)
class JpegTrace:
    """An earlier JPEG in pixels that are stored otherwise.

    ``quality`` is libjpeg's of its quantisation table; ``row`` and ``column`` (0 to 7) say where
    its first whole block begins; ``strength`` is 1 where all coefficients sit on its steps, and
    near 0 in an image that never was a JPEG.
    """

    quality: int
    row: int
    column: int
    strength: float


def grey_levels(image: Tensor) -> FloatArray:
    """Luminance of an image (3, h, w) in [0, 1], as (h, w) in 0 to 255."""
    weights = torch.tensor(GREY, dtype=torch.float64)
    grey: FloatArray = torch.einsum("c,chw->hw", weights, image.double()).numpy() * 255
    return grey


def jpeg_quality(table: Sequence[int]) -> int:
    """Quality, 1 to 100 on libjpeg's scale, whose quantisation table is nearest to `table`.

    Parameters
    ----------
    table
        64 steps of the luminance. Cameras and editors have tables of their own, which get the
        quality of the nearest.

    Raises
    ------
    ValueError
        If these are not 64 positive numbers.
    """
    steps = np.asarray(table, dtype=np.float64)
    if steps.shape != (64,) or not (steps > 0).all():
        raise ValueError(f"a quantisation table has 64 positive steps, got {steps.shape}")
    distance = np.abs(np.log(standard_tables().reshape(100, 64) / steps)).mean(axis=1)
    return int(distance.argmin()) + 1


@cache
def standard_tables() -> FloatArray:
    """(100, 8, 8) luminance steps of qualities 1 to 100, as the installed libjpeg has them."""
    tables = []
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("L", (GRID, GRID)).save(buffer, format="JPEG", quality=quality)
        with Image.open(buffer) as image:
            tables.append(image.quantization[0])  # type: ignore[attr-defined]
    return np.array(tables, dtype=np.float64).reshape(100, GRID, GRID)


def find_jpeg(grey: FloatArray) -> JpegTrace | None:
    """Was this ever a JPEG of libjpeg's tables, quality 30 to 96?

    The coefficients of blocks that were quantised sit on multiples of their steps, blurred a
    little by rounding to pixels; other pictures, periodic ones too, have them anywhere. The
    image may have been cropped since: the blocks begin where most coefficients are near 0.

    Parameters
    ----------
    grey
        (h, w) in 0 to 255, both at least 16; the middle 256 x 256 is looked at.

    References
    ----------
    Z. Fan and R. de Queiroz, "Identification of bitmap compression history: JPEG detection and
    quantizer estimation", IEEE Transactions on Image Processing 12, 2003.
    """
    top, left = ((side - REGION) // 2 // GRID * GRID if side > REGION else 0 for side in grey.shape)
    middle = grey[top : top + REGION, left : left + REGION]
    found = [_lattice(middle, *place) for place in {(0, 0), _block_corner(middle)}]
    best = max(found, key=lambda trace: trace.strength)
    return best if best.strength >= _NEEDED else None


def resampling_peak(grey: FloatArray) -> tuple[float, float]:
    """Highest peak in the spectrum of second differences, and its frequency in cycles/pixel.

    Interpolated pixels are weighted means whose weights repeat with the period of the scale, and
    so does the size of their second difference. Frequencies below 0.1 (content) and near
    multiples of 1/16 (decoders upsample, JPEG has blocks) are left out; the peak is in units of
    the median around it.

    Parameters
    ----------
    grey
        (h, w) in 0 to 255, both at least 32.

    References
    ----------
    A. Gallagher, "Detection of linear and cubic interpolation in JPEG compressed images", Canadian
    Conference on Computer and Robot Vision, 2005.
    """
    peaks = []
    for lines in (grey, grey.T):
        size = np.log1p(np.abs(np.diff(lines, n=2, axis=1))).mean(axis=0)
        n = len(size)
        around = np.convolve(np.pad(size, 8, mode="reflect"), np.full(17, 1 / 17), mode="valid")
        power = np.abs(np.fft.rfft((size - around) * np.hanning(n)))
        frequency = np.arange(len(power)) / n
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(power, 15, mode="reflect"), 31)
        peak = power / np.maximum(np.median(windows, axis=1), 1e-9)
        off = np.abs(frequency - np.round(frequency * _HARMONIC) / _HARMONIC)
        peak[(frequency <= 0.1) | (off <= 2.5 / n)] = 0
        peaks.append((float(peak.max()), float(frequency[peak.argmax()])))
    return max(peaks)


def high_frequency_power(image: Tensor, *, crop: int, grid: int) -> float:
    """Mean power of an image's crops above 0.35 cycles/pixel, over that of rounding to 8 bits.

    1 where nothing is left there but the rounding: blurred, enlarged without detail, or so by
    nature. Flat and clipped crops have even less.
    """
    crops = grid_crops(image, size=crop, grid=grid).float() * 255
    frequency, profile = radial_profile(power_spectrum(crops).mean(dim=(0, 1)).numpy())
    return float(profile[frequency > HIGH].mean() / ROUNDING)


def flat_share(image: Tensor) -> float:
    """Share of the 8 x 8 blocks of (3, h, w) where no colour deviates by a level, in [0, 1]."""
    height, width = (side // GRID * GRID for side in image.shape[-2:])
    blocks = image[:, :height, :width].unfold(1, GRID, GRID).unfold(2, GRID, GRID) * 255
    deviation = blocks.flatten(3).std(dim=3, correction=0)
    return float((deviation.amax(dim=0) < 1).double().mean())


def _lattice(grey: FloatArray, row: int, column: int) -> JpegTrace:
    """How well the steps of the best standard table explain the coefficients of these blocks."""
    coefficients = _coefficients(grey[row:, column:])
    places = np.broadcast_to(np.arange(GRID * GRID).reshape(GRID, GRID), coefficients.shape)
    large = (np.abs(coefficients) > 1) & (places > 0)  # half of the finest step; no mean
    step = 1 + 2 * (int(large.sum()) // (2 * _MOST))  # odd: no place is left out
    values, places = coefficients[large][::step], places[large][::step]
    best = JpegTrace(quality=0, row=row, column=column, strength=0.0)
    for quality in _QUALITIES:
        steps = standard_tables()[quality - 1].ravel()[places]
        used = (steps >= 2) & (np.abs(values) > steps / 2)  # what is 0 fits every table
        if used.sum() < _FEWEST or (np.bincount(places[used]) >= 5).sum() < _WAVES:
            continue
        strength = float(np.cos(2 * np.pi * values[used] / steps[used]).mean())
        if strength > best.strength:
            best = JpegTrace(quality=quality, row=row, column=column, strength=strength)
    return best


def _block_corner(grey: FloatArray) -> tuple[int, int]:
    """Where blocks must begin for most of their coefficients to be near 0."""
    waves = _cosines()
    filters = np.einsum("ui,vj->uvij", waves, waves).reshape(-1, 1, GRID, GRID)[1:]
    square = torch.from_numpy(grey[: REGION // 2 + GRID, : REGION // 2 + GRID] - 128).float()
    found = torch.nn.functional.conv2d(square[None, None], torch.from_numpy(filters).float())[0]
    zero = (found.abs() < 0.5).float().mean(dim=0)
    height, width = (side // GRID * GRID for side in zero.shape)
    by_corner = zero[:height, :width].reshape(height // GRID, GRID, width // GRID, GRID)
    corner = int(by_corner.mean(dim=(0, 2)).argmax())
    return corner // GRID, corner % GRID


def _coefficients(grey: FloatArray) -> FloatArray:
    """(blocks, 8, 8) discrete cosine transform of the whole blocks of (h, w)."""
    height, width = (side // GRID * GRID for side in grey.shape)
    rows = grey[:height, :width].reshape(height // GRID, GRID, width // GRID, GRID) - 128
    waves = _cosines()
    found: FloatArray = waves @ rows.transpose(0, 2, 1, 3).reshape(-1, GRID, GRID) @ waves.T
    return found


@cache
def _cosines() -> FloatArray:
    """(8, 8) orthonormal discrete cosines, a row per frequency."""
    at = np.pi * np.outer(np.arange(GRID), 2 * np.arange(GRID) + 1) / (2 * GRID)
    waves = np.cos(at) * 0.5
    waves[0] = np.sqrt(1 / GRID)
    return waves

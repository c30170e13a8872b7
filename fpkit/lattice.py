"""Lattices: what repeats every few pixels, in a spectrum and in the pixels themselves.

Upsampling by p leaves peaks at multiples of 1/p cycles/pixel. They stand on a background that
differs from scene to scene, so they are measured against it. The blocks of JPEG repeat every
8 pixels as well and leave no peaks at all: their steps fall up and down at random. What repeats is
the size of the steps, and that is measured in the pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fpkit.spectrum import ring_numbers, to_db

FloatArray = NDArray[np.float64]
REACH = 5  # bins around a peak whose median is its background; a Hann window blurs a peak by 1


def ring_peaks(spectrum_db: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Highest value on each ring of equal frequency: where are peaks that a mean would hide?

    Parameters
    ----------
    spectrum_db
        (h, w) centred, e.g. of :func:`fpkit.nearest.spectral_pattern`.

    Returns
    -------
    frequency
        (b,) cycles/pixel from 0 to at most 0.5, as in :func:`fpkit.spectrum.radial_profile`.
    peak
        (b,) in the unit of the spectrum.
    """
    values = _plane(spectrum_db)
    side = min(values.shape)
    ring = ring_numbers(*values.shape)
    peaks = np.full(ring.max() + 1, -np.inf)
    np.maximum.at(peaks, ring.ravel(), values.ravel())
    bins = side // 2 + 1
    return np.arange(bins) / side, peaks[:bins]


def lattice_contrast(power: ArrayLike, *, period: int) -> float:
    """How far the peaks of a lattice stand above what surrounds them.

    Does the image repeat every `period` pixels?

    Parameters
    ----------
    power
        (s, s) centred power spectrum, positive, s a multiple of `period` and at least 8 times it.
    period
        Pixels, at least 2. Its peaks are at all multiples of 1 / `period` cycles/pixel, except
        frequency zero.

    Returns
    -------
    float
        dB, mean over the peaks of power over the median of the 11 x 11 bins around. About 0 where
        there is no lattice; below 0 it says the same.

    Raises
    ------
    ValueError
        If the shape or the period does not fit.
    """
    power = _plane(power)
    side = power.shape[0]
    if power.shape != (side, side) or period < 2 or side % period or side // period < 8:
        raise ValueError(
            f"a lattice of period {period} needs a square spectrum with a side that is a multiple "
            f"of it and at least {8 * max(period, 2)}, got {power.shape}"
        )
    points = np.arange(0, side, side // period)
    rows, columns = (axis.ravel() for axis in np.meshgrid(points, points, indexing="ij"))
    kept = (rows != side // 2) | (columns != side // 2)
    rows, columns = rows[kept], columns[kept]
    reach = np.arange(-REACH, REACH + 1)
    dy, dx = (axis.ravel() for axis in np.meshgrid(reach, reach, indexing="ij"))
    around = power[(rows[:, None] + dy) % side, (columns[:, None] + dx) % side]
    return float(np.mean(to_db(power[rows, columns]) - to_db(np.median(around, axis=1))))


def block_steps(images: Tensor, *, period: int = 8) -> FloatArray:
    """Mean step between neighbouring pixels, by position in a block.

    Are the images made of blocks, as those out of a JPEG file are?

    Parameters
    ----------
    images
        (n, c, h, w) float, more than `period` pixels high and wide, their corner on the grid of
        blocks.
    period
        Side of a block in pixels, at least 2; 8 for JPEG.

    Returns
    -------
    ndarray
        (period,) float64: entry k is the mean absolute difference of pixel k of a block to the
        next one, rows and columns together, over the mean of the first period - 1 entries. The
        last entry crosses the border of two blocks: 1 where there are no blocks, 1.3 where
        borders are 30% rougher than the inside.

    Raises
    ------
    ValueError
        If the shape or the period does not fit, or the inside of all blocks is constant.

    References
    ----------
    As a test for JPEG: Fan and de Queiroz, "Identification of bitmap compression history: JPEG
    detection and quantizer estimation", IEEE TIP 12, 2003.
    """
    if images.ndim != 4 or period < 2 or min(images.shape[-2:]) <= period:
        raise ValueError(
            f"images must be (n, c, h, w) with sides above the period {period} (at least 2), got "
            f"{tuple(images.shape)}"
        )
    across = images.diff(dim=-1).abs().mean(dim=(0, 1, 2), dtype=torch.float64)
    down = images.diff(dim=-2).abs().mean(dim=(0, 1, 3), dtype=torch.float64)
    steps = np.array(
        [(across[k::period].mean() + down[k::period].mean()).item() / 2 for k in range(period)]
    )
    inside = steps[:-1].mean()
    if inside == 0:
        raise ValueError("all blocks are constant: there is nothing to compare their borders with")
    return steps / inside


def _plane(power: ArrayLike) -> FloatArray:
    plane = np.asarray(power, dtype=np.float64)
    if plane.ndim != 2:
        raise ValueError(f"power must be one spectrum (h, w), got shape {plane.shape}")
    return plane

"""Why two images look related: the correlation of their log spectra, frequency by frequency.

The correlation of two whitened log power spectra is the oldest score for fingerprints. It is a
mean over frequencies, so it can be taken apart: which frequencies speak for one source, and which
against it?
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fpkit.extractor import pool
from fpkit.gallery import PRIOR
from fpkit.realworld import real_fingerprints
from fpkit.spectrum import to_db

FloatArray = NDArray[np.float64]
SMOOTH = 3  # bins: a single bin of a single image is mostly chance
LOWEST = 0.06  # cycles/pixel: below, the scene is all there is
RINGS = 16


def log_spectrum(power: ArrayLike) -> FloatArray:
    """A power spectrum in dB, averaged over colours and over 3 x 3 bins.

    Parameters
    ----------
    power
        (h, w) or (c, h, w), centred, see :func:`fpkit.spectrum.average_spectrum`; best of the
        images themselves (``residual="none"``): whitening removes what a linear filter would.

    Returns
    -------
    ndarray
        (h, w) float64 in dB.
    """
    values = np.asarray(power, np.float64)
    if values.ndim not in (2, 3):
        raise ValueError(f"power must be (h, w) or (c, h, w), got shape {values.shape}")
    plane = to_db(values.mean(axis=0) if values.ndim == 3 else values)
    return pool(torch.from_numpy(plane)[None], SMOOTH, 1)[0].numpy()


@cache
def common_spectrum() -> FloatArray:
    """Mean of the log spectra of the real generators that ship with fpkit, (128, 128) in dB."""
    spectra = [log_spectrum(known.spectra["none"]) for known in real_fingerprints()]
    common = np.mean(spectra, axis=0)
    common.flags.writeable = False
    return common


def reference_spectrum(spectra: Sequence[ArrayLike], *, prior: float = PRIOR) -> FloatArray:
    """What is no fingerprint: the mean of the log spectra of the models at hand.

    Parameters
    ----------
    spectra
        m arrays (128, 128) in dB, one per model; m may be 0.
    prior
        For how many models :func:`common_spectrum` counts, as in
        :func:`fpkit.gallery.centred_scores`: two models alone would be each other's opposite.

    Returns
    -------
    ndarray
        (128, 128) in dB.
    """
    if prior <= 0:
        raise ValueError(f"prior must be above 0, got {prior}")
    total = prior * common_spectrum() + sum(np.asarray(one, np.float64) for one in spectra)
    return np.asarray(total / (len(spectra) + prior))


def correlation_map(
    first: ArrayLike, second: ArrayLike, *, reference: ArrayLike
) -> tuple[FloatArray, float]:
    """Contribution of every frequency to the correlation of two whitened log spectra.

    Parameters
    ----------
    first, second, reference
        (h, w) in dB, centred, see :func:`log_spectrum` and :func:`reference_spectrum`. Whitened
        means minus the reference.

    Returns
    -------
    contributions : ndarray, (h, w)
        Product of the standard scores of both: above 0 where both have more than the reference,
        or both less; below 0 where one has more and the other less. NaN below 0.06 cycles/pixel,
        where the scene decides.
    correlation : float
        Pearson's correlation, the mean of the contributions.

    Raises
    ------
    ValueError
        If the shapes differ, or a spectrum is the reference itself.
    """
    rows = [np.asarray(values, np.float64) for values in (first, second, reference)]
    if rows[0].ndim != 2 or len({row.shape for row in rows}) > 1:
        raise ValueError(f"spectra must be (h, w) of one size, got {[row.shape for row in rows]}")
    kept = _frequency(rows[0].shape) >= LOWEST
    scores = []
    for row in rows[:2]:
        excess = (row - rows[2])[kept]
        spread = excess.std()
        if not spread > 0:
            raise ValueError("a spectrum equals the reference: nothing is left to compare")
        scores.append((excess - excess.mean()) / spread)
    contributions = np.full(rows[0].shape, np.nan)
    contributions[kept] = scores[0] * scores[1]
    return contributions, float(contributions[kept].mean())


def by_ring(contributions: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Mean of a :func:`correlation_map` over rings of 1/32 cycles/pixel.

    Returns
    -------
    frequency, mean : ndarrays, (b,)
        Of the rings that hold a value; corners beyond 0.5 cycles/pixel count for the last one.
    """
    values = np.asarray(contributions, np.float64)
    ring = np.minimum((_frequency(values.shape) / 0.5 * RINGS).astype(int), RINGS - 1)
    kept = ~np.isnan(values)
    sums = np.bincount(ring[kept], weights=values[kept], minlength=RINGS)
    counts = np.bincount(ring[kept], minlength=RINGS)
    frequency = (np.arange(RINGS) + 0.5) * 0.5 / RINGS
    return frequency[counts > 0], sums[counts > 0] / counts[counts > 0]


def _frequency(shape: tuple[int, ...]) -> FloatArray:
    """Distance of every bin of a centred plane from frequency zero, in cycles/pixel."""
    rows, columns = ((np.arange(n) - n // 2) / n for n in shape)
    return np.asarray(np.hypot(rows[:, None], columns[None, :]))

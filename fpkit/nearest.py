"""Which real generators have a spectrum like this one: among those whose spectra were measured.

Alike is not akin: a neighbour shares marks with a model (a lattice, a roll-off), and perhaps the
kind of upsampling that leaves them. That it shares the network cannot be read off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpkit.fidelity import FLOOR, ring_profile
from fpkit.manifest import PHOTO
from fpkit.realworld import RealFingerprint, real_fingerprints
from fpkit.spectrum import ring_numbers, to_db

FloatArray = NDArray[np.float64]
Nearness = Literal["pattern", "profile"]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A measured model and how its spectrum compares.

    Attributes
    ----------
    fingerprint
        Of the measured model.
    correlation
        Of the two :func:`spectral_pattern`; -1 to 1, higher = more alike.
    profile_distance
        Root mean square difference of the radial profiles' shapes in dB; lower = more alike.
    """

    fingerprint: RealFingerprint
    correlation: float
    profile_distance: float

    @property
    def model(self) -> str:
        """Name of the measured model."""
        return self.fingerprint.model


def spectral_pattern(power: ArrayLike) -> FloatArray:
    """What is not radial in a spectrum: its dB minus their mean over each ring.

    Answers: where are bars, crosses and lattices? Blur and brightness, which change whole rings
    or all of the plane alike, leave it as it is.

    Parameters
    ----------
    power
        (h, w) centred power spectrum.

    Returns
    -------
    ndarray
        (h, w) dB, mean 0 over every ring, corners included.
    """
    decibels = to_db(np.asarray(power, dtype=np.float64) + FLOOR)
    ring = ring_numbers(*decibels.shape).ravel()
    means = np.bincount(ring, weights=decibels.ravel()) / np.maximum(np.bincount(ring), 1)
    return decibels - means[ring].reshape(decibels.shape)


def profile_shape(power: ArrayLike) -> FloatArray:
    """Radial profile of a centred power spectrum in dB, mean 0: (min(h, w) // 2,)."""
    decibels = to_db(ring_profile(power))
    return decibels - decibels.mean()


@cache
def published_as_png() -> tuple[RealFingerprint, ...]:
    """The measured models that come with fpkit and publish PNG; photographs are left out.

    JPEG changes every spectrum in the same way: models published so are no neighbours of
    anything that was not compressed.
    """
    return tuple(f for f in real_fingerprints() if f.family != PHOTO and f.format == "png")


def nearest_real(
    power: ArrayLike,
    *,
    by: Nearness = "pattern",
    count: int = 5,
    fingerprints: Sequence[RealFingerprint] | None = None,
) -> list[Neighbour]:
    """The real models whose spectra are most like this one, the most alike first.

    Parameters
    ----------
    power
        (128, 128) centred power: average spectrum of median residuals, mean over colours.
    by
        ``"pattern"`` ranks by correlation, ``"profile"`` by profile distance.
    count
        How many, at least 1; fewer if there are fewer.
    fingerprints
        Measured models, by default :func:`published_as_png`.

    Raises
    ------
    ValueError
        If `power` has another shape than the measured spectra.
    """
    if by not in get_args(Nearness):
        raise ValueError(f"by must be one of {get_args(Nearness)}, got {by!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    measured = published_as_png() if fingerprints is None else tuple(fingerprints)
    spectra = [f.spectra["median"] for f in measured]
    power = np.asarray(power, dtype=np.float64)
    if not spectra or power.shape != spectra[0].shape:
        wanted = spectra[0].shape if spectra else "at least one measured model"
        raise ValueError(f"power must be like the measured spectra, {wanted}, got {power.shape}")
    pattern, shape = spectral_pattern(power).ravel(), profile_shape(power)
    neighbours = [
        Neighbour(
            fingerprint=fingerprint,
            correlation=float(np.corrcoef(pattern, spectral_pattern(spectrum).ravel())[0, 1]),
            profile_distance=float(np.sqrt(np.mean((shape - profile_shape(spectrum)) ** 2))),
        )
        for fingerprint, spectrum in zip(measured, spectra, strict=True)
    ]
    if by == "pattern":
        neighbours.sort(key=lambda neighbour: -neighbour.correlation)
    else:
        neighbours.sort(key=lambda neighbour: neighbour.profile_distance)
    return neighbours[:count]

"""Float32 against float64: residuals, spectra, and what is read off them.

Imported by ``precision.py``, which prints what is found here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import float64_references as references
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fpkit as fp
from fpkit.images import quantise

FloatArray = NDArray[np.float64]
SIDE = 128


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Differences of one quantity: relative to each value, and to the root mean square of all.

    ``largest``, like ``median`` relative to each value, is None where values pass through zero and
    some are arbitrarily small.
    """

    name: str
    median: float
    largest: float | None
    of_rms: float

    @classmethod
    def between(
        cls,
        name: str,
        found: Sequence[object],
        exact: Sequence[FloatArray],
    ) -> Errors:
        """All numbers of several arrays; where the exact one is 0, no relative error is taken."""
        ours = np.concatenate([np.asarray(part, np.float64).ravel() for part in found])
        true = np.concatenate([part.ravel() for part in exact])
        difference = np.abs(ours - true)
        relative = difference[true != 0] / np.abs(true[true != 0])
        return cls(
            name=name,
            median=float(np.median(relative)),
            largest=float(relative.max()) if (true >= 0).all() else None,
            of_rms=float(difference.max() / np.sqrt((true**2).mean())),
        )


def float64(images: Sequence[Tensor]) -> list[FloatArray]:
    return [image.double().numpy() for image in images]


def spectral_errors(images: Sequence[Tensor]) -> Iterator[Errors]:
    """Residuals, spectra and what is read off them; `images` (3, 128, 128), 8 bit."""
    exact = float64(images)
    for method in ("none", "median", "highpass", "dncnn"):
        found = [fp.residual(image[None], method=method)[0] for image in images]
        true = [references.residual(image, method) for image in exact]
        yield Errors.between(f"residual, {method}", found, true)
        found = [fp.average_spectrum(image[None], residual=method) for image in images]
        true = [references.power_spectrum(part, taper="hann") for part in true]
        yield Errors.between(f"average_spectrum, {method}", found, true)
    for taper in ("hann", "none"):
        found = [fp.power_spectrum(image, window=taper) for image in images]
        true = [references.power_spectrum(image, taper=taper) for image in exact]
        yield Errors.between(f"power_spectrum, {taper}, of the image itself", found, true)
    planes = [image[1] - image[1].mean() for image in images]
    powers = [fp.power_spectrum(plane, window="none") for plane in planes]
    centred = [image[1] - image[1].mean() for image in exact]
    true = [references.power_spectrum(plane, taper="none") for plane in centred]
    profiles = [fp.radial_profile(power)[1] for power in powers]
    # the ring of frequency zero holds rounding alone
    rings = [references.radial_profile(power) for power in true]
    yield Errors.between("radial_profile", [p[1:] for p in profiles], [p[1:] for p in rings])
    lags = [references.autocorrelation(plane) for plane in centred]
    yield Errors.between("autocorrelation", [fp.autocorrelation(power) for power in powers], lags)
    fourier = [torch.fft.rfft2(plane)[None] for plane in planes]
    whole = [np.fft.fft2(plane) for plane in centred]
    found = [fp.spectral_coherence(one)[0] for one in fourier]
    yield Errors.between("spectral_coherence", found, [references.coherence(one) for one in whole])
    extractor = fp.load_extractor("small")  # the default one sees the same
    seen = [extractor.maps(image[None]) for image in images]
    maps = [references.maps(image) for image in exact]
    for level in range(2):
        found, true = [one[level][0] for one in seen], [one[level] for one in maps]
        yield Errors.between(f"maps of the extractor, level {level + 1}", found, true)


def deepest(size: int = SIDE) -> tuple[float, float]:
    """Strongest power that rounding alone gives, in dB below the strongest bin: of a wave in
    float32, and the mean of what 8-bit rounding adds to it."""
    rows = torch.arange(size, dtype=torch.float64)
    wave = 0.5 + 0.4 * torch.cos(2 * torch.pi * (5 * rows[:, None] + 3 * rows[None]) / size)
    powers = [fp.power_spectrum(x, window="none") for x in (wave.float(), quantise(wave))]
    peak = powers[0].max()
    quiet = fp.power_spectrum(wave, window="none") < 1e-9 * peak
    fine, coarse = powers[0][quiet].max(), powers[1][quiet].mean()
    return float(10 * torch.log10(fine / peak)), float(10 * torch.log10(coarse / peak))

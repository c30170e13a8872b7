"""Checks of lesson 02, why upsampling leaves marks."""

import numpy as np
from numpy.typing import NDArray

from fpkit.checks import attempted, exercise


@exercise("upsampling-grid")
def _upsampling_grid(answer: object) -> str | None:
    """`answer(n)` lists the frequencies above 0, up to 0.5, of the copies of frequency 0."""
    for n in (1, 2, 3, 4):
        wanted = np.arange(1, 2 ** (n - 1) + 1) / 2**n
        found = np.asarray(attempted(answer(n)), dtype=float)  # type: ignore[operator]
        if found.ndim != 1:
            return f"for n = {n} a list of frequencies is expected, got shape {found.shape}"
        if (found > 0.5).any() or (found <= 0).any():
            return f"for n = {n} some of {found.tolist()} are not above 0 and at most 0.5"
        if len(found) != len(wanted):
            return (
                f"for n = {n} there are {len(found)} frequencies in your list: into how many parts "
                "do n upsamplings by 2 divide the distance from 0 to 1?"
            )
        if not np.allclose(np.sort(found), wanted, atol=1e-6):
            return f"for n = {n} {found.tolist()} has the right length, but not the right places"
    return None


@exercise("nearest-gain")
def _nearest_gain(answer: object) -> str | None:
    """`answer(f)` is the power response of the taps (1, 1) at frequencies f."""
    frequency = np.linspace(0, 0.5, 33)
    found = attempted(answer(frequency))  # type: ignore[operator]
    found = np.asarray(found)
    if found.shape != frequency.shape:
        return f"for {frequency.shape} frequencies it gave an array of shape {found.shape}"
    if np.iscomplexobj(found) or (found < -1e-9).any():
        return "a power is real and never negative: is this the response before squaring?"
    wanted = np.abs(1 + np.exp(-2j * np.pi * frequency)) ** 2
    if np.allclose(found, wanted, atol=1e-6):
        return None
    if np.allclose(found**2, wanted, atol=1e-6):
        return "this is the magnitude: power is its square"
    if abs(found[0] - 4) > 1e-6:
        return f"at frequency 0 the two taps add up to 2, so the power is 4: yours is {found[0]:g}"
    if abs(found[-1]) > 1e-6:
        return f"at 0.5 neighbours differ in sign and two equal taps give 0: yours is {found[-1]:g}"
    return "right at both ends, wrong between them: try f = 0.25, where the second tap turns by 90°"


@exercise("even-taps")
def _even_taps(answer: object) -> str | None:
    """`answer(taps)` makes the even and the odd taps add up to 1 each, keeping their ratios."""
    generator = np.random.default_rng(0)
    cases = [np.array([1.0, 1.0, 1.0]), np.array([1.0, 3.0, 3.0, 1.0])]
    cases += [generator.uniform(0.1, 1, size) for size in (3, 4, 5, 6)]
    for taps in cases:
        given = taps.copy()
        fixed = np.asarray(attempted(answer(given)), dtype=float)  # type: ignore[operator]
        if not np.array_equal(given, taps):
            return "it changed the array that it was given: work on a copy"
        if fixed.shape != taps.shape:
            return f"{len(taps)} taps went in, an array of shape {fixed.shape} came out"
        sums = fixed[0::2].sum(), fixed[1::2].sum()
        if not np.allclose(sums, 1):
            return (
                f"for {np.round(taps, 2).tolist()} the even taps add up to {sums[0]:.3g} and the "
                f"odd ones to {sums[1]:.3g}: a flat image must stay as bright at every pixel"
            )
        if not np.allclose(_ratios(fixed), _ratios(taps)):
            return "both sums are 1, but taps of one group have changed relative to each other"
    return None


def _ratios(taps: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([taps[0::2] / taps[0], taps[1::2] / taps[1]])


@exercise("count-upsamplings")
def _count_upsamplings(answer: object) -> str | None:
    """`answer(power)` tells how many upsamplings by 2, one to three, a fingerprint shows."""
    for seed in range(4):
        for n in (1, 2, 3):
            power = _fingerprint(n, seed=seed)
            found = attempted(answer(power.copy()))  # type: ignore[operator]
            if isinstance(found, (bool, np.bool_)) or not np.isscalar(found):
                return f"a number from 1 to 3 is expected, got {found!r}"
            if found != n:
                return f"a fingerprint of {n} upsamplings was taken for one of {found!r}"
    loud = answer(100 * _fingerprint(2, seed=9))  # type: ignore[operator]
    if loud != 2:
        return "a hundred times the power everywhere changed the answer: compare neighbours"
    return None


def _fingerprint(n: int, *, seed: int) -> NDArray[np.float64]:
    """Average spectrum of a made-up source: the scenes' slope, weaker copies of it, noise."""
    generator = np.random.default_rng(seed)
    axis = (np.arange(128) - 64) / 128
    power = np.full((128, 128), 10 ** generator.uniform(-3.5, -3.0))
    for i in range(2**n):
        for j in range(2**n):
            down, across = ((axis - k / 2**n + 0.5) % 1 - 0.5 for k in (i, j))
            weight = 1.0 if i == j == 0 else 10 ** generator.uniform(-1.2, -0.8)
            radius = down[:, None] ** 2 + across[None] ** 2
            power += weight * 2e-5 / (radius + 2e-5)
    return power * generator.gamma(24, 1 / 24, power.shape)  # 24 images

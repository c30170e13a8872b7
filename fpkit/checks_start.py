"""Checks of lesson 00, which network made this image."""

import numpy as np
from numpy.typing import NDArray

from fpkit.checks import attempted, exercise


@exercise("peak-frequency")
def _peak_frequency(answer: object) -> str | None:
    """Two stride-2 upsamplings repeat the spectrum every 1/4 cycle per pixel: 0.25 and 0.5."""
    value = float(answer)  # type: ignore[arg-type]  # check() reports whatever this raises
    if not np.isfinite(value):
        return f"{value} is no frequency"
    value = abs(value)
    if value > 0.5:
        return (
            f"{value:g} is beyond 0.5 cycles/pixel, the highest frequency pixels can carry: "
            "an index of a 128-bin spectrum becomes a frequency as (index - 64) / 128"
        )
    if value < 0.15:
        return f"at {value:g} the scene itself is strong: look beyond 0.15 cycles/pixel"
    if min(abs(value - 0.25), abs(value - 0.5)) > 0.012:
        return f"{value:g} is not where the peak is: is the maximum taken along the middle row?"
    return None


@exercise("closest-fingerprint")
def _closest_fingerprint(answer: object) -> str | None:
    """`answer(spectrum_db, fingerprints_db)` names the fingerprint of the same pattern."""
    generator = np.random.default_rng(0)
    fingerprints = {name: generator.normal(-40, 6, (16, 16)) for name in ("a", "b", "c")}
    for name, pattern in fingerprints.items():
        noisy = pattern + generator.normal(0, 2, pattern.shape)
        if _named(answer, noisy, fingerprints) != name:
            return f"a noisy copy of fingerprint {name!r} was given to another model"
    for name, pattern in fingerprints.items():
        if _named(answer, pattern + 15, fingerprints) != name:
            return "15 dB more power everywhere (a brighter scene) changed the answer"
        if _named(answer, 0.3 * pattern, fingerprints) != name:
            return "less contrast (a weaker trace of the same shape) changed the answer"
    return None


def _named(
    answer: object, spectrum: NDArray[np.float64], fingerprints: dict[str, NDArray[np.float64]]
) -> object:
    return attempted(answer(spectrum, dict(fingerprints)))  # type: ignore[operator]

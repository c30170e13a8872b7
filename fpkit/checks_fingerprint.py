"""Checks of lesson 01, what the fingerprint of a network is."""

import numpy as np
from numpy.typing import NDArray

from fpkit.checks import attempted, exercise


@exercise("relative-variance")
def _relative_variance(answer: object) -> str | None:
    """`answer(spectra, n)`: scatter of averages of n over the squared mean, mean over bins."""
    generator = np.random.default_rng(0)
    loud = generator.exponential(size=(960, 8, 6)) * np.geomspace(1, 1000, 48).reshape(8, 6)
    for n in (1, 4, 8):
        groups = loud.reshape(-1, n, 8, 6).mean(axis=1)
        expected = float(np.mean(groups.var(axis=0, ddof=1) / groups.mean(axis=0) ** 2))
        value = _number(answer, loud.copy(), n)
        if np.isclose(value, expected / n, rtol=0.2) and n > 1:
            return "the variance was divided by n, though the average has done that already"
        if np.isclose(value, np.sqrt(expected), rtol=0.1) and n > 1:
            return "this is a relative error, not a variance: leave out the square root"
        if not np.isclose(value, expected, rtol=0.02):
            return (
                f"for noise whose power differs by 1000 between frequencies and n = {n} it gives "
                f"{value:.4g}: average n spectra at a time, divide variance by squared mean at "
                "every frequency, and only then take the mean"
            )
    few = loud[:4]
    exact = float(np.mean(few.var(axis=0, ddof=1) / few.mean(axis=0) ** 2))
    if not np.isclose(_number(answer, few.copy(), 1), exact, rtol=1e-6):
        return "with four groups it is biased: the variance of few values needs ddof=1"
    return None


@exercise("images-until")
def _images_until(answer: object) -> str | None:
    """`answer(target, n, r)` by Spearman and Brown's formula."""
    if not np.isclose(_number(answer, 0.5, 7, 0.5), 7):
        return "averages of 7 correlate by 0.5, so 0.5 needs just 7 images, and not what you say"
    for target, n, k in ((0.9, 4, 2.3), (0.6, 10, 40.7), (0.99, 1, 3.3)):
        value, expected = _number(answer, target, n, n / (n + k)), k * target / (1 - target)
        if not np.isclose(value, expected, rtol=1e-6):
            return (
                f"where {n} images give {n / (n + k):.3f}, {target} was to need something else "
                f"than {value:.4g}: solve r = n / (n + k) for k first, and do not round"
            )
    return None


@exercise("locked-share")
def _locked_share(answer: object) -> str | None:
    """`answer(residuals)`: unbiased share of the power that has the same phase in all."""
    generator = np.random.default_rng(1)
    fixed = generator.normal(size=(8, 10))
    constant = _plane(answer, np.repeat(fixed[None], 5, axis=0))
    if constant.shape != (8, 10):
        return f"for residuals (5, 8, 10) the shape must be (8, 10), got {constant.shape}"
    if not np.allclose(constant, 1, atol=1e-6):
        return "a pattern that never changes must have a share of 1 at every frequency"
    noise = _plane(answer, generator.normal(size=(10, 40, 40))).mean()
    if noise > 0.5:
        return f"pure noise gives {noise:.2f}: take the mean before the absolute value, not after"
    if abs(noise) > 0.02:
        return f"pure noise must give 0 on average, got {noise:.3f}: take 1/n off"
    alternating = fixed * np.array([1, -1, 1, -1])[:, None, None]
    if not np.allclose(_plane(answer, alternating), -1 / 3, atol=1e-6):
        return (
            "a pattern whose sign flips from image to image averages to nothing: of four images "
            "the share is (0 - 1/4) / (1 - 1/4)"
        )
    return None


@exercise("repeat-distance")
def _repeat_distance(answer: object) -> str | None:
    """Two upsamplings by 2 repeat every 4 pixels."""
    value = float(answer)  # type: ignore[arg-type]  # check() reports whatever this raises
    if value in (0, 1):
        return f"at {value:g} pixels any image is like itself: look from 2 pixels on"
    if value == 2:
        return "2 is where the search begins: did you add that 2 to an index, or leave it out?"
    if abs(value) != 4:
        return f"{value:g} pixels is not where the highest value is, from 2 pixels on"
    return None


def _number(answer: object, *arguments: object) -> float:
    return float(attempted(answer(*arguments)))  # type: ignore[operator]


def _plane(answer: object, residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(attempted(answer(residuals)), dtype=np.float64)  # type: ignore[operator]

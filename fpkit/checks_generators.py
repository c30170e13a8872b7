"""Checks of lesson 09, what real generators leave behind."""

import numpy as np
from numpy.typing import NDArray

from fpkit.checks import attempted, exercise


@exercise("p-value")
def _p_value(answer: object) -> str | None:
    """`answer(observed, shuffled)`: share at least as large, the observed one counted in."""
    if not np.isclose(_number(answer, 9.0, np.arange(9.0)), 0.1):
        return (
            "nine shuffled values, all smaller: with the observed one there are ten, and one of "
            "the ten is as large as observed"
        )
    if not np.isclose(_number(answer, 0.5, np.array([0.5, 0.5, 0.1])), 0.75):
        return "of 0.5, 0.5 and 0.1 two are at least 0.5: equal values count"
    shuffled = np.random.default_rng(0).normal(size=199)
    expected = (1 + (shuffled >= 0.3).sum()) / 200
    if not np.isclose(_number(answer, 0.3, shuffled), expected):
        return "for 199 normal values and 0.3 observed it is off: is it the share of LARGER values?"
    return None


@exercise("border-step")
def _border_step(answer: object) -> str | None:
    """`answer(image)`: steps across the borders of blocks of 8 columns over those inside."""
    generator = np.random.default_rng(0)
    inside = generator.uniform(0.5, 1.5, (24, 64))
    for strength in (1.0, 3.0):
        steps = inside * generator.choice([-1, 1], inside.shape)
        steps[:, 8::8] *= strength  # into pixel 8, 16, ...: out of the last pixel of a block
        image = steps.cumsum(axis=1)
        size = abs(np.diff(image, axis=1)).mean(axis=0)
        border = np.arange(63) % 8 == 7
        expected = size[border].mean() / size[~border].mean()
        value = _number(answer, image)
        shifted = [np.arange(63) % 8 == k for k in (0, 6)]
        if strength > 1 and any(np.isclose(value, size[s].mean() / size.mean()) for s in shifted):
            return "one column off: the step at index 7 of the differences crosses the first border"
        if not np.isclose(value, expected, rtol=1e-6):
            return (
                f"for blocks whose borders are {strength:g} times as rough it gives {value:.3f}: "
                "differences along a row, absolute, then borders (7, 15, ...) over all others"
            )
    if not np.isclose(_number(answer, image * 255), expected, rtol=1e-6):
        return "an image of 0 to 255 instead of 0 to 1 changed the answer: it must be a ratio"
    return None


@exercise("moved-peak")
def _moved_peak(answer: object) -> str | None:
    """Scaling to 80% shortens the period: 0.25 / 0.8."""
    value = float(answer)  # type: ignore[arg-type]  # check() reports whatever this raises
    if np.isclose(abs(value), 0.2):
        return "a smaller image has shorter periods, so frequencies rise"
    if np.isclose(abs(value), 3.2):
        return "that is the new period in pixels; the frequency is one over it"
    if not np.isclose(abs(value), 0.3125, atol=5e-4):
        return f"{value:g} is not 1 / (4 x 0.8)"
    return None


def _number(answer: object, *arguments: float | NDArray[np.float64]) -> float:
    return float(attempted(answer(*arguments)))  # type: ignore[operator]

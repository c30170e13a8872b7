"""Checks of lesson 03, every block leaves a trace."""

import numpy as np

from fpkit.checks import attempted, exercise


@exercise("notch-filter")
def _notch_filter(answer: object) -> str | None:
    """`answer(frequency)` gives taps [a, b, a] that remove it and keep frequency 0."""
    for frequency in (0.25, 0.5, 0.1, 0.375):
        taps = np.asarray(attempted(answer(frequency)), dtype=float)  # type: ignore[operator]
        if taps.shape != (3,):
            return f"three taps were expected, got an array of shape {taps.shape}"
        if not np.isclose(taps[0], taps[2]):
            return f"the taps must be symmetric, [a, b, a], got {taps.round(3).tolist()}"
        kept = taps.sum()
        left = abs(taps[1] + 2 * taps[0] * np.cos(2 * np.pi * frequency))
        if not left < 1e-6:
            return f"for {frequency} the response there is {left:.3g} instead of 0"
        if not np.isclose(kept, 1):
            return f"for {frequency} the response at 0 is {kept:.3g} instead of 1"
    return None


@exercise("fold-frequency")
def _fold_frequency(answer: object) -> str | None:
    """`answer(frequency)` is where it appears on pixels, in [0, 0.5]."""
    pixels = np.arange(400)
    for frequency in (0.2, 0.6, 0.9, 0.5, 1.3, 2.75, -0.2, -0.65):
        shown = float(attempted(answer(frequency)))  # type: ignore[operator]
        if not 0 <= shown <= 0.5:
            return f"{frequency} appears at {shown:g}? Pixels show frequencies from 0 to 0.5"
        # a cosine on whole pixels: the two waves must be the same numbers
        gap = np.cos(2 * np.pi * frequency * pixels) - np.cos(2 * np.pi * shown * pixels)
        if np.abs(gap).max() > 1e-6:
            return f"a wave of {frequency} and one of {shown:g} do not look alike on whole pixels"
    return None


@exercise("second-harmonic")
def _second_harmonic(answer: object) -> str | None:
    """`answer(frequency, order)`: c2 of ReLU, filtered at 2 f (pre) or the wave at f (post)."""
    for order in ("pre", "post"):
        for frequency in (0.05, 0.11, 0.2):
            got = float(attempted(answer(frequency, order)))  # type: ignore[operator]
            expected, other = (_harmonic(frequency, o) for o in (order, _OTHER[order]))
            if np.isclose(got, expected, rtol=0.01):
                continue
            if np.isclose(got, other, rtol=0.01):
                return f"{order!r} at {frequency} has the value of the other order"
            if np.isclose(got * 2 / (3 * np.pi), expected, rtol=0.01):
                return "that is the response alone: the harmonic itself has the amplitude c_2"
            return (
                f"{order!r} at {frequency}: {got:.4f} is not what an experiment with pixels shows"
            )
    return None


_OTHER = {"pre": "post", "post": "pre"}


def _harmonic(frequency: float, order: str) -> float:
    """Measured: a finely sampled wave, the blur's taps one pixel apart, no folding."""
    theta = np.arange(4096) * (2 * np.pi / 4096)
    shift = 2 * np.pi * frequency

    def wave(offset: float) -> np.ndarray:
        return np.cos(theta + offset)

    if order == "pre":
        parts = [np.maximum(wave(k * shift), 0) for k in (-1, 0, 1)]
        output = (parts[0] + 2 * parts[1] + parts[2]) / 4
    else:
        output = np.maximum((wave(-shift) + 2 * wave(0) + wave(shift)) / 4, 0)
    return float(np.abs(np.fft.rfft(output))[2] * 2 / theta.size)


@exercise("blocks-that-sign")
def _blocks_that_sign(answer: object) -> str | None:
    """Two stitched blocks reach 90% in both directions, one does not."""
    value = float(answer)  # type: ignore[arg-type]  # check() reports whatever this raises
    if value == 2:
        return None
    if value not in (1, 3, 4):
        return f"a number of blocks, 1 to 4, was expected, got {value:g}"
    if value == 1:
        return "with one block one of the directions is far below 90%"
    return f"{value:g} blocks are enough, but fewer are too"

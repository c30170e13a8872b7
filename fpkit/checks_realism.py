"""Checks of lesson 05, do the synthetic models look like real ones."""

import numpy as np

from fpkit.checks import attempted, exercise
from fpkit.clouds import covered_share, frechet_distance


@exercise("diagonal-distance")
def _diagonal_distance(answer: object) -> str | None:
    """`answer(first, second)`: Frechet distance of Gaussians with diagonal covariances."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=(7, 3)) * [1, 2, 0.5] + [0, 1, -1]
    second = generator.normal(size=(5, 3)) * [0.3, 1, 2]
    got = float(attempted(answer(first, second)))  # type: ignore[operator]
    deviations = first.std(axis=0, ddof=1), second.std(axis=0, ddof=1)
    gaps = first.mean(axis=0) - second.mean(axis=0), deviations[0] - deviations[1]
    expected = frechet_distance(
        first.mean(axis=0), np.diag(deviations[0] ** 2), second.mean(axis=0),
        np.diag(deviations[1] ** 2),
    )  # fmt: skip
    if not np.isclose(got, expected):
        mistakes = {
            "only the means' part": (gaps[0] ** 2).sum(),
            "only the deviations' part": (gaps[1] ** 2).sum(),
            "the root of it: the sum itself was asked for": np.sqrt(expected),
            "the mean over the dimensions: their sum was asked for": expected / 3,
            "made with variances divided by n: divide by n - 1 (ddof=1)": (gaps[0] ** 2).sum()
            + ((first.std(axis=0) - second.std(axis=0)) ** 2).sum(),
            "made with the difference of the variances: take that of their roots": (
                gaps[0] ** 2
            ).sum()
            + ((deviations[0] ** 2 - deviations[1] ** 2) ** 2).sum(),
        }
        for what, value in mistakes.items():
            if np.isclose(got, value):
                return f"{got:.3f} is {what}"
        return f"two small clouds gave {got:.3f}: compare with the sum over the dimensions"
    swapped = float(attempted(answer(second, first)))  # type: ignore[operator]
    return None if np.isclose(swapped, expected) else "the distance must not depend on the order"


@exercise("at-infinity")
def _at_infinity(answer: object) -> str | None:
    """`answer(sizes, distances)` is the height at 1/n = 0 of the fitted line."""
    sizes = [50, 100, 200, 1000]
    for height, slope in ((0.0, 300.0), (4.0, 120.0), (7.0, 0.0)):
        distances = [height + slope / n for n in sizes]
        got = float(attempted(answer(sizes, distances)))  # type: ignore[operator]
        if abs(got - height) < 1e-6:
            continue
        if abs(got - slope) < 1e-6:
            return "that is the slope of the line: its height at 1/n = 0 was asked for"
        if abs(got - distances[-1]) < 1e-6:
            return "that is the distance at the largest n: go on to infinite n"
        if abs(got - np.polyfit(sizes, distances, 1)[1]) < 1e-6:
            return "that is a line over n, read at n = 0: fit it over 1/n"
        return f"distances of {height:g} + {slope:g} / n gave {got:.3g} instead of {height:g}"
    # off the line, all points must count: least squares
    noisy = [5.0, 3.1, 1.8, 1.2]
    got = float(attempted(answer(sizes, noisy)))  # type: ignore[operator]
    expected = float(np.polyfit(1 / np.array(sizes), noisy, 1)[1])
    if not np.isclose(got, expected, rtol=1e-3):
        return f"points off a line gave {got:.3f}: fit the line to all of them"
    return None


@exercise("coverage")
def _coverage(answer: object) -> str | None:
    """`answer(real, synthetic, k)` is :func:`fpkit.clouds.covered_share`."""
    generator = np.random.default_rng(3)
    for n, m, k in ((40, 12, 1), (25, 30, 3), (30, 9, 2)):
        real = generator.normal(size=(n, 5)) * 1.3
        synthetic = generator.normal(size=(m, 5))
        got = float(attempted(answer(real.copy(), synthetic.copy(), k)))  # type: ignore[operator]
        if not 0 <= got <= 1:
            return f"a share lies in [0, 1], got {got:g}"
        if np.isclose(got, covered_share(real, synthetic, k=k)):
            continue
        if np.isclose(got, covered_share(real, synthetic, k=k, radius="real")):
            return "that uses the radius of the real points: it belongs to the synthetic ones"
        if np.isclose(got, covered_share(synthetic, real, k=k)):
            return "real and synthetic are swapped: it is the share of REAL points"
        if k > 1 and np.isclose(got, covered_share(real, synthetic, k=k - 1)):
            return "a point is no neighbour of its own: column 0 of the sorted distances is itself"
        return f"{n} real and {m} synthetic points, k = {k}: {got:.3f} is not their coverage"
    return None

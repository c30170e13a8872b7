"""Checks of lesson 08, the map of embeddings."""

import numpy as np
from numpy.typing import NDArray

from fpkit.checks import attempted, exercise
from fpkit.neighbours import distances
from fpkit.projection import neighbours_kept


@exercise("map-chance")
def _map_chance(answer: object) -> str | None:
    """`answer(n, k)`: the share of k nearest neighbours that a random map of n points keeps."""
    every = _number(answer, 6, 5)
    if abs(every - 1) > 1e-9:
        return (
            f"with 6 points and k = 5 every other point is a neighbour, on every map: "
            f"that share is 1, got {every:.4g}"
        )
    for n, k in ((300, 15), (101, 10), (11, 1)):
        value = _number(answer, n, k)
        if abs(value - k / (n - 1)) > 1e-9:
            return (
                f"for n = {n} and k = {k} it gives {value:.4g}: from how many points are k drawn?"
            )
    return None


@exercise("neighbours-kept")
def _neighbours_kept(answer: object) -> str | None:
    """`answer(points, coordinates, k)`: mean share of the k nearest neighbours that are kept."""
    generator = np.random.default_rng(8)
    points = generator.normal(size=(40, 6))
    turned = points[:, :2] @ np.array([[0.6, -0.8], [0.8, 0.6]])
    if np.ndim(_number(answer, points, turned, 5)):
        return "one number is asked for: the mean over all points"
    same = float(_number(answer, turned, 3 * points[:, :2], 4))
    if abs(same - 1) > 1e-9:
        return f"a map that is only turned and enlarged keeps all neighbours, got {same:.3f}"
    for k in (5, 1, 12):
        value = float(_number(answer, points, turned, k))
        wanted = neighbours_kept(points, turned, k=k, metric="euclidean").mean()
        if abs(value - wanted) <= 1e-9:
            continue
        if abs(value - _with_itself(points, turned, k)) <= 1e-9:
            return "every point counts as its own neighbour, which every map keeps: leave it out"
        return (
            f"for a test cloud and k = {k} it gives {value:.3f}, expected {wanted:.3f}: "
            "are the two sets of neighbours compared whatever their order?"
        )
    return None


@exercise("nearest-stranger")
def _nearest_stranger(answer: object) -> str | None:
    """`answer(scores, models)`: per image the index of the best image of another model."""
    generator = np.random.default_rng(9)
    rows = np.repeat(generator.normal(size=(4, 8)), 5, axis=0) + generator.normal(0, 0.3, (20, 8))
    mixed = generator.permutation(20)
    models = np.repeat(list("abcd"), 5)[mixed]
    scores = (rows @ rows.T)[np.ix_(mixed, mixed)]
    for shift in (0.0, -100.0):  # scores may all be negative
        before = scores + shift
        given = before.copy()
        found = np.asarray(attempted(answer(given, models.copy())))  # type: ignore[operator]
        if not np.array_equal(given, before):
            return "the scores that it was given have changed: work on a copy"
        if found.shape != (20,):
            return f"one index for each of the 20 images is expected, got shape {found.shape}"
        if found.dtype.kind not in "iu":
            return f"indices are whole numbers, got {found.dtype}"
        if found.min() < 0 or found.max() > 19:
            return f"indices of 20 images go from 0 to 19, got {found.min()} to {found.max()}"
        if (found == np.arange(20)).any():
            return "some images are their own nearest: an image is no stranger to itself"
        own = int((models[found] == models).sum())
        if own:
            return f"for {own} of 20 images the answer is an image of the same model" + (
                " (here all scores are negative)" if shift else ""
            )
        others = models[:, None] != models
        best = np.where(others, before, -np.inf).argmax(axis=1)
        if not np.array_equal(found, best):
            return "there is an image of another model with a higher score"
    return None


def _number(answer: object, *arguments: object) -> float:
    value = attempted(answer(*arguments))  # type: ignore[operator]
    return np.asarray(value, np.float64)[()]  # type: ignore[return-value]  # arrays stay arrays


def _with_itself(points: NDArray[np.float64], flat: NDArray[np.float64], k: int) -> float:
    """What one gets by forgetting that the nearest point of a point is itself."""
    before, after = (
        np.argsort(distances(x, metric="euclidean"), axis=1)[:, :k] for x in (points, flat)
    )
    return float((before[:, :, None] == after[:, None, :]).any(axis=2).mean())

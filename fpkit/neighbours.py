"""Nearest neighbours among embeddings, exactly, and whether they carry the same label."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metric = Literal["cosine", "euclidean"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

MOST_POINTS = 5000  # all distances are held at once


@dataclass(frozen=True, kw_only=True)
class LabelShare:
    """How many of the nearest neighbours carry a point's own label, and how many would by chance.

    Both are means over points, in [0, 1].
    """

    share: float
    chance: float


def nearest(
    points: ArrayLike, k: int, *, metric: Metric = "cosine"
) -> tuple[IndexArray, FloatArray]:
    """The k nearest other points of every point, exactly.

    Parameters
    ----------
    points : (n, d)
        At least k + 1 points, at most 5000.
    k : int
        At least 1.
    metric : {"cosine", "euclidean"}
        ``"cosine"`` is 1 minus the score of two embeddings.

    Returns
    -------
    indices : (n, k) intp
        Nearest first; among equals the lower index.
    distances : (n, k) float64
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    distance = distances(checked_points(points, at_least=k + 1), metric=metric)
    np.fill_diagonal(distance, np.inf)
    indices = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(distance, indices, axis=1)


def distances(points: ArrayLike, *, metric: Metric = "cosine") -> FloatArray:
    """Distances of all pairs, (n, n), zero on the diagonal; `metric` as in :func:`nearest`."""
    rows = checked_points(points, at_least=1)
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {get_args(Metric)}, got {metric!r}")
    if metric == "cosine":
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (norms > 0).all():
            raise ValueError("a cosine needs points other than zero: use metric='euclidean'?")
        unit = rows / norms
        result = np.clip(1 - unit @ unit.T, 0, 2)
    else:
        square = (rows**2).sum(axis=1)
        result = np.sqrt(np.maximum(square[:, None] + square - 2 * rows @ rows.T, 0))
    np.fill_diagonal(result, 0)
    return (result + result.T) / 2  # a matrix product need not be symmetric to the last bit


def same_label(
    points: ArrayLike,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    k: int = 15,
    metric: Metric = "cosine",
) -> LabelShare:
    """Do neighbours carry the same label? Asked of embeddings, it needs no map.

    Parameters
    ----------
    points : (n, d)
    labels : (n,)
    groups : (n,), optional
        Neighbours of a point's own group do not count. With the model as the group it asks
        whether *other* models with this label are near: without it, any label that follows from
        the model scores as high as the model itself.
    k : int
        Every point must have as many others outside its group.
    metric : {"cosine", "euclidean"}

    Examples
    --------
    >>> same_label([[0.0], [0.1], [5.0], [5.1]], list("aabb"), k=1, metric="euclidean").share
    1.0
    """
    order, _ = nearest(points, len(np.asarray(points)) - 1, metric=metric)
    names = np.asarray(labels)
    check_same_length(order, names)
    parts = np.arange(len(names)) if groups is None else np.asarray(groups)
    check_same_length(order, parts)
    allowed = parts[order] != parts[:, None]
    most = int(allowed.sum(axis=1).min())
    if not 1 <= k <= most:
        raise ValueError(f"k must be 1 to {most}, the others outside a group, got {k}")
    alike = names[order] == names[:, None]
    first = allowed & (allowed.cumsum(axis=1) <= k)
    return LabelShare(
        share=float((alike & first).sum() / first.sum()),
        chance=float(((alike & allowed).sum(axis=1) / allowed.sum(axis=1)).mean()),
    )


def checked_points(points: ArrayLike, *, at_least: int) -> FloatArray:
    """Points as (n, d) float64; ValueError if they are none, too few or too many."""
    rows = np.asarray(points, np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"points must be (n, d), got shape {rows.shape}")
    if not at_least <= len(rows) <= MOST_POINTS:
        raise ValueError(
            f"there must be {at_least} to {MOST_POINTS} points, got {len(rows)}: "
            "draw fewer at random, or ask for fewer neighbours"
        )
    if not np.isfinite(rows).all():
        raise ValueError("points must be finite, got NaN or infinity")
    return rows


def check_same_length(first: NDArray[Any], second: NDArray[Any]) -> None:
    """ValueError unless both have one row per point."""
    if len(first) != len(second):
        raise ValueError(
            f"one row per point is expected, got {len(first)} and {len(second)}: "
            "do the map and the labels belong to these points?"
        )

"""Clusters of points whose threshold does not depend on how many images each model has.

Ward's distance between two clusters grows with their sizes, so that large clusters come out in
pieces; the distance between their means ignores sizes, and noise joins small ones. Here a cluster
counts at most as much as `CAPACITY` points: images of one model share its subject and are no
independent witnesses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CAPACITY = 8.0
PART = 0.8  # Ward distance up to which points are joined first; 0.6 to 1 end in the same clusters
CHUNK = 2000  # points joined first at once: a matrix of 32 MB
MOST_PARTS = 8000  # of them merged at once: a matrix of 256 MB
STEPS = (0.8, 1.0)  # shares of the threshold up to which neighbours are merged, if they are more

Points = NDArray[np.floating]
Labels = NDArray[np.intp]


def agglomerate(points: Points, threshold: float, *, seed: int = 0) -> Labels:
    """Clusters of points, however many there are: (n, d) -> (n,) labels from 0 on.

    Parameters
    ----------
    points : (n, d)
        n >= 1.
    threshold : float, positive
        Clusters nearer than this, see :func:`merge`, are merged, nearest first.
    seed : int
        Beyond `CHUNK` points, chunks are drawn at random.

    Returns
    -------
    ndarray
        Labels in the order in which clusters first appear.

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn is not installed.

    Notes
    -----
    Chunks are clustered by Ward's method (scikit-learn) into small parts, and these are merged.
    Memory grows with the points, not with their square. More than `MOST_PARTS` parts are merged
    among their neighbours first; of those that are left then, the smallest ones join the nearest
    cluster of the others that is near enough, or stay alone.
    """
    order = np.random.default_rng(seed).permutation(len(points))
    if len(points) <= CHUNK:
        order = np.arange(len(points))
    chunks = np.array_split(order, -(-len(order) // CHUNK))
    label = _each(chunks, lambda chunk: _ward(points[chunk], min(PART, threshold)))
    sizes = np.bincount(label)
    means = cluster_means(points, label)
    for share in STEPS:
        if len(sizes) > MOST_PARTS:
            found = _merge_in_cells(means, sizes, share * threshold)
            means, label = cluster_means(means, found, sizes), found[label]
            sizes = np.bincount(label)
    count = len(sizes)
    large = np.argsort(-sizes, kind="stable")[:MOST_PARTS]
    merged = np.arange(count) + count  # those that stay alone keep a label of their own
    merged[large] = merge(means[large], sizes[large], threshold)
    small = np.setdiff1d(np.arange(count), large)
    if len(small):
        found = merged[large]
        heads = cluster_means(means[large], found, sizes[large])
        weight = _weight(np.bincount(found, sizes[large]))
        for part in small:
            away = _distance(heads, weight, means[part], _weight(float(sizes[part])))
            nearest = int(away.argmin())
            if away[nearest] <= threshold**2:
                merged[part] = nearest
    return _in_order(merged[label])


def merge(means: Points, sizes: NDArray[np.integer], threshold: float) -> Labels:
    """Merge the nearest two clusters until none are nearer than a threshold.

    Parameters
    ----------
    means : (k, d)
        Of clusters.
    sizes : (k,)
        Points in each.
    threshold : float
        Of the distance ``sqrt(2 v w / (v + w)) * |mean - mean|`` with ``v = a / (1 + a /
        CAPACITY)`` for a cluster of a points, w likewise. With an infinite capacity this is
        Ward's distance.

    Returns
    -------
    ndarray
        (k,) labels from 0 on.
    """
    means, counts = means.astype(np.float32), sizes.astype(np.float64)
    count = len(means)
    alive = np.ones(count, bool)
    label = np.arange(count)
    away = np.empty((count, count), np.float32)
    for i in range(count):
        away[i] = _distance(means, _weight(counts), means[i], _weight(counts[i]))
    np.fill_diagonal(away, np.inf)
    nearest = away.argmin(axis=1)
    gap = away[np.arange(count), nearest]
    for _ in range(count - 1):
        i = int(gap.argmin())
        if not gap[i] <= threshold**2:
            break
        j = int(nearest[i])
        means[i] = (counts[i] * means[i] + counts[j] * means[j]) / (counts[i] + counts[j])
        counts[i] += counts[j]
        label[label == j] = i
        alive[j], gap[j] = False, np.inf
        row = _distance(means, _weight(counts), means[i], _weight(counts[i]))
        row[~alive], row[i] = np.inf, np.inf
        away[i] = away[:, i] = row
        away[j] = away[:, j] = np.inf
        # a mean that came nearer to others has them in its own row
        for k in np.flatnonzero(alive & ((nearest == i) | (nearest == j))).tolist() + [i]:
            nearest[k] = away[k].argmin()
            gap[k] = away[k, nearest[k]]
    return _in_order(label)


def _merge_in_cells(means: Points, sizes: NDArray[np.integer], threshold: float) -> Labels:
    """:func:`merge` within cells of neighbours."""
    return _each(_cells(means), lambda cell: merge(means[cell], sizes[cell], threshold))


def _cells(means: Points) -> list[Labels]:
    """Places of neighbours, as many in each cell as in any other.

    A cell that is too large is cut in the middle along the axis in which it is widest.
    """
    small, large = [], [np.arange(len(means))]
    while large:
        cell = large.pop()
        if len(cell) <= MOST_PARTS // 2:
            small.append(cell)
            continue
        inside = means[cell] - means[cell].mean(axis=0)
        widest = np.linalg.eigh(inside.T @ inside)[1][:, -1]
        large += np.array_split(cell[np.argsort(inside @ widest, kind="stable")], 2)
    return small


def _each(groups: list[Labels], cluster: Callable[[Labels], Labels]) -> Labels:
    """Labels of all places, where the places (m,) of each group are clustered by themselves."""
    label, count = np.empty(sum(map(len, groups)), np.intp), 0
    for group in groups:
        found = cluster(group)
        label[group] = found + count
        count += int(found.max()) + 1
    return label


def cluster_means(
    points: Points, labels: Labels, sizes: NDArray[np.integer] | None = None
) -> NDArray[np.float64]:
    """Mean of the points of each label 0 ... k - 1: (n, d) -> (k, d); of `sizes` points each."""
    weight = np.ones(len(points)) if sizes is None else sizes.astype(np.float64)
    total = np.zeros((int(labels.max()) + 1, points.shape[1]))
    np.add.at(total, labels, points * weight[:, None])
    mean: NDArray[np.float64] = total / np.bincount(labels, weight)[:, None]
    return mean


def _ward(points: Points, threshold: float) -> Labels:
    """scikit-learn's Ward clusters up to a distance."""
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError as error:
        raise ModuleNotFoundError(
            "clusters need scikit-learn: pip install 'fpkit[corpus]'"
        ) from error
    if len(points) < 2:
        return np.zeros(len(points), np.intp)
    model = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold, linkage="ward")
    return np.asarray(model.fit_predict(points), np.intp)


def _weight(counts: NDArray[np.floating] | float) -> NDArray[np.floating]:
    return np.asarray(counts / (1 + counts / CAPACITY))


def _distance(
    means: Points, weights: NDArray[np.floating], mean: Points, weight: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Squared distance of one cluster from k others."""
    share = 2 * weights * weight / (weights + weight)
    return np.asarray(share * ((means - mean) ** 2).sum(axis=1), np.float64)


def _in_order(labels: Labels) -> Labels:
    """Labels 0, 1, ... in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]

"""Maps of embeddings: UMAP and PCA to the plane, and how far a map can be trusted.

UMAP has two steps. A graph joins every point to its nearest neighbours, with weights that forget
how far away these are; a layout in the plane then pulls joined points together and pushes others
apart. So neighbours are what a map can keep; sizes of clusters and distances between them are
hardly kept at all, which is why the measures of trust below ask for neighbours.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpkit.neighbours import (
    FloatArray,
    Metric,
    check_same_length,
    checked_points,
    nearest,
)

Start = Literal["pca", "random"]
_INSTALL = "a UMAP needs umap-learn: pip install 'fpkit[lab]' (or take a PCA, which needs nothing)"


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap:
    """The shadow of a cloud of points on the plane in which it is widest.

    Attributes
    ----------
    coordinates : (n, 2) float64
        In the units of the points; the first axis has the larger variance.
    share : (2,) float64 in [0, 1]
        How much of the variance of the cloud lies along each axis.
    """

    coordinates: FloatArray
    share: FloatArray


def pca(points: ArrayLike) -> LinearMap:
    """Principal components: a linear map, whose distances are never too long.

    Parameters
    ----------
    points : (n, d)
        At least 3 points.

    Returns
    -------
    LinearMap
        Axes point to where their dimension of largest weight grows.

    Examples
    --------
    >>> line = pca([[0, 0, 0], [3, 4, 0], [6, 8, 0]])
    >>> line.coordinates[:, 0].round(6).tolist(), line.share.round(6).tolist()
    ([-5.0, 0.0, 5.0], [1.0, 0.0])
    """
    rows = checked_points(points, at_least=3)
    centred = rows - rows.mean(axis=0)
    _, widths, axes = np.linalg.svd(centred, full_matrices=False)
    coordinates = np.zeros((len(rows), 2))
    share = np.zeros(2)
    found = min(2, len(widths))
    for i, axis in enumerate(axes[:found]):
        coordinates[:, i] = centred @ axis * np.sign(axis[np.abs(axis).argmax()])
    total = (widths**2).sum()
    if total > 0:
        share[:found] = widths[:found] ** 2 / total
    return LinearMap(coordinates=coordinates, share=share)


def neighbour_graph(indices: ArrayLike, distances: ArrayLike) -> FloatArray:
    """UMAP's graph: how strongly two points count as neighbours, whatever their distance.

    Parameters
    ----------
    indices, distances : (n, k)
        As :func:`fpkit.neighbours.nearest` returns them, k at least 2.

    Returns
    -------
    (n, n) float64 in [0, 1]
        Symmetric, with a zero diagonal.

    Notes
    -----
    Point i sees its neighbour j with weight ``exp(-max(0, d_ij - r_i) / s_i)``: the nearest one,
    at distance r_i, with weight 1, and s_i is such that all weights of i have the sum
    ``log2(k + 1)``. A point in a crowd and one in a desert thus get the same weights. Two views a
    and b of one pair join to ``a + b - ab``. umap-learn counts each point among its own
    neighbours: its ``n_neighbors`` is k + 1.

    References
    ----------
    McInnes, Healy and Melville, "UMAP: uniform manifold approximation and projection for
    dimension reduction", arXiv 1802.03426, 2018.
    """
    index, distance = np.asarray(indices), np.asarray(distances, np.float64)
    if index.shape != distance.shape or index.ndim != 2 or index.shape[1] < 2:
        raise ValueError(
            "indices and distances must be (n, k) with k at least 2, got "
            f"{index.shape} and {distance.shape}"
        )
    count, k = index.shape
    positive = np.where(distance > 0, distance, np.inf).min(axis=1)
    beyond = np.maximum(distance - np.where(np.isfinite(positive), positive, 0)[:, None], 0)
    target = np.log2(k + 1)
    low, high = np.zeros(count), np.full(count, np.inf)
    width = np.ones(count)
    for _ in range(64):
        total = np.exp(-beyond / width[:, None]).sum(axis=1)
        high = np.where(total > target, width, high)
        low = np.where(total > target, low, width)
        width = np.where(np.isfinite(high), (low + high) / 2, width * 2)
    # where many neighbours are equally near no width gives the sum: umap-learn's least width
    width = np.maximum(width, 1e-3 * distance.mean(axis=1))
    width = np.where(width > 0, width, 1.0)
    seen = np.zeros((count, count))
    np.put_along_axis(seen, index, np.exp(-beyond / width[:, None]), axis=1)
    return seen + seen.T - seen * seen.T


def umap(
    points: ArrayLike,
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    metric: Metric = "cosine",
    start: Start = "pca",
    seed: int = 0,
    epochs: int = 500,
) -> NDArray[np.float32]:
    """UMAP of points to the plane; the same arguments give the same map on the same machine.

    Parameters
    ----------
    points : (n, d)
        More than `n_neighbors`, at most 5000.
    n_neighbors : int, at least 3
        How many neighbours the graph keeps per point, itself included: few show fine detail, and
        clumps where there are none; many show the large picture.
    min_dist : float in [0, 1)
        How near joined points may come on the map. A matter of taste: it changes no neighbour.
    metric : {"cosine", "euclidean"}
        Of the points.
    start : {"pca", "random"}
        Where the layout starts. ``"random"`` leaves the arrangement of clusters to chance.
    seed : int, at least 0
    epochs : int
        Steps of the layout.

    Returns
    -------
    (n, 2) float32
        Axes and units have no meaning.

    Raises
    ------
    ModuleNotFoundError
        If umap-learn is not installed.
    ValueError
        If points or settings do not fit.

    Notes
    -----
    Neighbours are exact and the graph is that of :func:`neighbour_graph`; the layout is
    umap-learn's, on one thread. Its first use in a process compiles for a second or two.

    References
    ----------
    Kobak and Linderman, "Initialization is critical for preserving global data structure in both
    t-SNE and UMAP", Nature Biotechnology 39, 2021: why the start is a PCA.
    """
    rows = checked_points(points, at_least=3)
    if not 3 <= n_neighbors < len(rows):
        raise ValueError(
            f"n_neighbors must be at least 3 and below the {len(rows)} points, got {n_neighbors}"
        )
    if not 0 <= min_dist < 1:
        raise ValueError(f"min_dist must be at least 0 and below 1, got {min_dist}")
    if start not in get_args(Start):
        raise ValueError(f"start must be one of {get_args(Start)}, got {start!r}")
    if seed < 0 or epochs < 1:
        raise ValueError(f"seed must be at least 0, epochs at least 1, got {seed} and {epochs}")
    graph = neighbour_graph(*nearest(rows, n_neighbors - 1, metric=metric))
    layout, curve, sparse = _umap_learn()
    generator = np.random.RandomState(seed)  # umap-learn takes no other kind
    if start == "random":
        first = generator.uniform(-10, 10, (len(rows), 2))
    else:
        first = pca(rows).coordinates
        first = first / max(float(np.abs(first).max()), 1e-12) * 10
        first += generator.normal(0, 1e-3, first.shape)  # equal points must be able to part
    a, b = curve(1.0, min_dist)
    coordinates, _ = layout(
        data=rows.astype(np.float32),
        graph=sparse(graph.astype(np.float32)),
        n_components=2,
        initial_alpha=1.0,
        a=a,
        b=b,
        gamma=1.0,
        negative_sample_rate=5,
        n_epochs=epochs,
        init=first.astype(np.float32),
        random_state=generator,
        metric=metric,
        metric_kwds={},
        densmap=False,
        densmap_kwds={},
        output_dens=False,
        parallel=False,
    )
    return np.asarray(coordinates, np.float32)


def neighbours_kept(
    points: ArrayLike, coordinates: ArrayLike, *, k: int = 15, metric: Metric = "cosine"
) -> FloatArray:
    """Per point, the share of its k nearest neighbours that are among its k nearest on the map.

    The honest measure of a map. By chance it would be ``k / (n - 1)``.

    Parameters
    ----------
    points : (n, d)
    coordinates : (n, 2)
        The map; its distances are Euclidean.
    k : int
    metric : {"cosine", "euclidean"}
        Of the points.

    Returns
    -------
    (n,) float64 in [0, 1]
    """
    before, _ = nearest(points, k, metric=metric)
    after, _ = nearest(coordinates, k, metric="euclidean")
    check_same_length(before, after)
    return (before[:, :, None] == after[:, None, :]).any(axis=2).mean(axis=1)


def trustworthiness(
    points: ArrayLike, coordinates: ArrayLike, *, k: int = 15, metric: Metric = "cosine"
) -> float:
    """How few of the map's neighbours are false, weighted by how far away they truly are.

    1: all neighbours on the map are true ones; about 0.5: a random map. It forgives neighbours
    that are torn apart, which :func:`neighbours_kept` does not.

    Parameters
    ----------
    points, coordinates, metric
        As for :func:`neighbours_kept`.
    k : int
        Below half the number of points.

    Returns
    -------
    float in [0, 1]

    References
    ----------
    Venna and Kaski, "Neighborhood preservation in nonlinear projection methods", ICANN 2001.
    """
    after, _ = nearest(coordinates, k, metric="euclidean")
    order, _ = nearest(points, len(after) - 1, metric=metric)
    check_same_length(order, after)
    count = len(after)
    if k >= count / 2:
        raise ValueError(f"k must be below half of the {count} points, got {k}")
    rank = np.zeros((count, count))
    np.put_along_axis(rank, order, np.arange(1, count)[None], axis=1)
    excess = np.maximum(np.take_along_axis(rank, after, axis=1) - k, 0).sum()
    return float(1 - 2 * excess / (count * k * (2 * count - 3 * k - 1)))


def _umap_learn() -> tuple[Any, Any, Any]:
    """umap-learn's layout and curve, and scipy's sparse matrix, which it takes its graph as."""
    try:
        with warnings.catch_warnings():
            # without TensorFlow, which nothing here uses, umap-learn warns while it is imported
            warnings.simplefilter("ignore", ImportWarning)
            from scipy.sparse import coo_matrix
            from umap.umap_ import find_ab_params, simplicial_set_embedding
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_INSTALL) from error
    return simplicial_set_embedding, find_ab_params, coo_matrix

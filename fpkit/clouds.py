"""Figures of clouds of points: the Frechet distance, how varied a cloud is, what it covers.

A point is the vector of one model, a cloud the (n, d) vectors of n models. These are the plain
formulas; :mod:`fpkit.populations` takes care of what they do at small n. numpy float64 throughout.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Kernel = Literal["rbf", "cosine"]
Radius = Literal["synthetic", "real"]


def frechet_distance(
    mean1: ArrayLike, covariance1: ArrayLike, mean2: ArrayLike, covariance2: ArrayLike
) -> float:
    """Squared Frechet (2-Wasserstein) distance between two Gaussians.

    ``|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))``, the distance inside FID and FFD.

    Parameters
    ----------
    mean1, mean2
        (d,) means.
    covariance1, covariance2
        (d, d) covariances: symmetric, positive semi-definite, singular allowed.

    Returns
    -------
    float
        At least 0. Estimated from n samples it is biased upwards: two draws of the same
        64-dimensional Gaussian are about 34 apart at n = 64 and still 0.5 at n = 4096, so always
        give n and d and compare with two draws of the same source.

    Raises
    ------
    ValueError
        If the shapes do not match.

    Notes
    -----
    The trace of ``(C1 C2)^(1/2)`` is the sum of the singular values of ``C1^(1/2) C2^(1/2)``:
    only symmetric square roots are needed and no complex number appears. Rounding can leave a
    sum slightly below 0, which is clipped.

    References
    ----------
    Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982.
    """
    mean1, mean2 = np.asarray(mean1, np.float64), np.asarray(mean2, np.float64)
    covariance1 = np.asarray(covariance1, np.float64)
    covariance2 = np.asarray(covariance2, np.float64)
    dim = mean1.size
    if not (mean1.shape == mean2.shape == (dim,)) or not (
        covariance1.shape == covariance2.shape == (dim, dim)
    ):
        raise ValueError(
            "two means (d,) and two covariances (d, d) expected, got "
            f"{mean1.shape}, {mean2.shape} and {covariance1.shape}, {covariance2.shape}"
        )
    overlap = np.linalg.norm(_square_root(covariance1) @ _square_root(covariance2), ord="nuc")
    spread = np.trace(covariance1) + np.trace(covariance2) - 2 * overlap
    return float(max(((mean1 - mean2) ** 2).sum() + spread, 0.0))


def sample_frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """:func:`frechet_distance` of the Gaussians fitted to two samples (n, d) and (m, d).

    Covariances divide by n - 1. They are never formed: the singular values that matter are
    those of the product of the centred samples, so n below d costs little and loses nothing.

    Raises
    ------
    ValueError
        If a sample has fewer than 2 vectors, or their lengths differ.
    """
    first, second = checked_pair(first, second)
    roots, spread = [], 0.0
    for sample in (first, second):
        centred = (sample - sample.mean(axis=0)) / np.sqrt(len(sample) - 1)
        roots.append(np.linalg.qr(centred, mode="r"))  # C = R'R: a square root of it
        spread += float((centred**2).sum())
    shift = float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum())
    overlap = float(np.linalg.norm(roots[0] @ roots[1].T, ord="nuc"))
    return max(shift + spread - 2 * overlap, 0.0)


def covered_share(
    real: ArrayLike, synthetic: ArrayLike, *, k: int = 3, radius: Radius = "synthetic"
) -> float:
    """Share of the real models that have a synthetic model near them.

    Parameters
    ----------
    real, synthetic
        (N, d) and (M, d).
    k
        How far is near: as far as the k-th nearest neighbour among one's own kind.
    radius
        Whose radius. ``"synthetic"``: a real model counts if it lies within the radius of some
        synthetic model, its distance to its k-th nearest synthetic neighbour; a few far-flung
        synthetic models have large radii and can cover much. ``"real"``: a real model counts if
        some synthetic model lies within the real model's own radius, its distance to its k-th
        nearest real neighbour; this is the coverage of the paper named below.

    Returns
    -------
    float
        In [0, 1]. With ``"real"`` and both samples from one source, expected is
        ``1 - prod_(i=1..k) (N - i) / (N + M - i)``: 0.875 for k = 3 and N = M large.

    Raises
    ------
    ValueError
        If k is not below the number of models whose radius is meant.

    References
    ----------
    Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020
    (radius of the real); Kynkaanniemi et al., "Improved precision and recall metric for assessing
    generative models", NeurIPS 2019 (radius of the synthetic, there called recall).
    """
    real, synthetic = checked_pair(real, synthetic)
    if radius not in get_args(Radius):
        raise ValueError(f"radius must be one of {', '.join(get_args(Radius))}, got {radius!r}")
    owners = synthetic if radius == "synthetic" else real
    if not 1 <= k < len(owners):
        raise ValueError(f"k must be 1 to {len(owners) - 1} for {len(owners)} models, got {k}")
    own = np.sort(_distances(owners, owners), axis=1)[:, k]  # column 0 is the model itself
    radii = own[None, :] if radius == "synthetic" else own[:, None]
    return float((_distances(real, synthetic) <= radii).any(axis=1).mean())


def vendi_score(vectors: ArrayLike, *, kernel: Kernel = "rbf", bandwidth: float = 1.0) -> float:
    """Effective number of different vectors: n if all differ, 1 if all are the same.

    Parameters
    ----------
    vectors
        (n, d), n at least 1.
    kernel
        ``"rbf"``: ``exp(-|x - y|^2 / (2 bandwidth^2))``; ``"cosine"``: cosine of the angle,
        whatever the lengths (none may be 0) and the bandwidth.
    bandwidth
        Vectors much nearer than this count as one.

    Returns
    -------
    float
        exp of the entropy of the eigenvalues of the kernel matrix / n, in [1, n].

    References
    ----------
    Friedman and Dieng, "The Vendi score: a diversity evaluation metric for machine learning",
    TMLR 2023.

    Examples
    --------
    >>> round(vendi_score([[1, 0], [1, 0], [0, 1], [0, 1]], kernel="cosine"), 6)
    2.0
    """
    vectors = checked_vectors("vectors", vectors, least=1)
    if kernel == "rbf":
        if not bandwidth > 0:
            raise ValueError(f"bandwidth must be above 0, got {bandwidth}")
        matrix = np.exp(-(_distances(vectors, vectors) ** 2) / (2 * bandwidth**2))
    elif kernel == "cosine":
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (lengths > 0).all():
            raise ValueError("a vector of length 0 has no direction: use kernel='rbf'")
        matrix = (vectors / lengths) @ (vectors / lengths).T
    else:
        raise ValueError(f"kernel must be one of {', '.join(get_args(Kernel))}, got {kernel!r}")
    shares = np.linalg.eigvalsh(matrix / len(vectors))
    shares = shares[shares > 1e-12]  # x log x is 0 there; rounding leaves some below 0
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_pairwise_distance(vectors: ArrayLike) -> float:
    """Mean Euclidean distance between two different ones of the (n, d) vectors, n at least 2."""
    vectors = checked_vectors("vectors", vectors, least=2)
    return float(_distances(vectors, vectors).sum() / (len(vectors) * (len(vectors) - 1)))


def checked_pair(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Two clouds (n, d) and (m, d) as float64, n and m at least 2; ValueError otherwise."""
    one = checked_vectors("the first set", first, least=2)
    two = checked_vectors("the second set", second, least=2)
    if one.shape[1] != two.shape[1]:
        raise ValueError(f"vectors differ in length: {one.shape[1]} and {two.shape[1]}")
    return one, two


def checked_vectors(name: str, values: ArrayLike, *, least: int) -> FloatArray:
    """A cloud (n, d) as float64, finite, n at least `least`; ValueError otherwise."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or len(array) < least or array.shape[1] == 0:
        raise ValueError(f"{name} must be (n, d) with n at least {least}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {np.count_nonzero(~np.isfinite(array))} NaN or infinite values")
    return array


def _distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """(n, m) Euclidean; a vector and itself are 0 apart to the last bit."""
    blocks = np.array_split(first, 1 + first.size * len(second) // 2**20)  # 8 MB each
    return np.concatenate([np.linalg.norm(part[:, None] - second, axis=2) for part in blocks])


def _square_root(covariance: FloatArray) -> FloatArray:
    """Symmetric square root; eigenvalues that rounding left below 0 count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T

"""Figures of merit of whole populations of models: how alike, how varied, how covered.

A model is one vector, a population the (n, d) vectors of n models. Distances and diversities of
small samples depend on the number of models as much as on the models, so the populations here
are compared at equal n: every figure is a mean over random groups of n models, with an interval,
and beside it stands the same figure for groups of one and the same source.
Everything is numpy float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpkit.clouds import (
    FloatArray,
    Kernel,
    Radius,
    checked_pair,
    checked_vectors,
    covered_share,
    mean_pairwise_distance,
    sample_frechet_distance,
    vendi_score,
)

Variety = Literal["vendi", "distance"]

GROUPS = 8  # per draw at most: from there on the real models, which are few, set the interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure of a population (or of two) at a stated number of models.

    Attributes
    ----------
    value
        Mean over the draws.
    interval
        Percentiles of the draws: where the value would lie with other models of the same kind.
    n, d
        Models per group (of each population) and length of a vector.
    baseline, baseline_interval
        The same figure, at the same n, within one source; None where there are too few models.
    draws
        (b,) the figure of every draw.

    Notes
    -----
    A draw takes half of each population (at least n models), without replacement, since repeated
    models would shrink every covariance, and averages the figure over the groups of n in it, at
    most 8. The spread of a mean over random halves is the standard error of the mean of all.
    Where n is more than half of a population, that population adds less than its due to the
    interval; where n is all of it, nothing.

    References
    ----------
    Half-samples: McCarthy, "Pseudo-replication: half samples", Review of the International
    Statistical Institute 37, 1969; Politis and Romano, "Large sample confidence regions based on
    subsamples under minimal assumptions", Annals of Statistics 22, 1994.
    """

    value: float
    interval: tuple[float, float]
    n: int
    d: int
    baseline: float | None = None
    baseline_interval: tuple[float, float] | None = None
    draws: FloatArray = field(repr=False, compare=False)

    def minus(self, other: Estimate, *, level: float = 0.95) -> tuple[float, tuple[float, float]]:
        """Difference to another estimate and its interval, draw by draw.

        Two estimates of one seed, n and real population share the draws of real models: what
        these add to both goes out.

        Raises
        ------
        ValueError
            If the two differ in n, d or the number of draws.
        """
        mine, theirs = (self.n, self.d, self.draws.size), (other.n, other.d, other.draws.size)
        if mine != theirs:
            raise ValueError(f"estimates differ in (n, d, draws): {mine} and {theirs}")
        gaps = self.draws - other.draws
        return float(gaps.mean()), _interval(gaps, level)


def ffd(
    real: ArrayLike,
    synthetic: ArrayLike,
    *,
    n: int | None = None,
    draws: int = 500,
    level: float = 0.95,
    seed: int,
) -> Estimate:
    """Frechet frequency distance between real and synthetic models, at equal n.

    Do the synthetic models shape spectra as the real ones do? Lower is closer; what is closest
    is not 0 but the baseline.

    Parameters
    ----------
    real, synthetic
        (N, d) and (M, d), one vector per model, see :mod:`fpkit.fidelity`.
    n
        Models per group of either; by default ``min(N // 2, M)``, the most that leaves a baseline.
    draws, level, seed
        Number of draws, share of them inside the interval, and their seed.

    Returns
    -------
    Estimate
        Its baseline is the distance between groups of the one and of the other half of the real
        models, None if there are fewer than 2 n. Estimates of one seed share the draws of real
        models.

    Raises
    ------
    ValueError
        If the vectors differ in length, or n is below 2 or more than there are models.

    References
    ----------
    Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025.
    """
    return _against(sample_frechet_distance, real, synthetic, n, draws, level, seed)


def coverage(
    real: ArrayLike,
    synthetic: ArrayLike,
    *,
    k: int = 3,
    radius: Radius = "synthetic",
    n: int | None = None,
    draws: int = 500,
    level: float = 0.95,
    seed: int,
) -> Estimate:
    """:func:`covered_share` (k, radius) at equal n; all else as in :func:`ffd`, and the baseline.

    The baseline tells how much n real models cover of n others: less than all.
    """

    def share(first: FloatArray, second: FloatArray) -> float:
        return covered_share(first, second, k=k, radius=radius)

    return _against(share, real, synthetic, n, draws, level, seed)


def diversity(
    vectors: ArrayLike,
    *,
    variety: Variety = "vendi",
    within: ArrayLike | None = None,
    kernel: Kernel = "rbf",
    bandwidth: float = 1.0,
    n: int | None = None,
    draws: int = 500,
    level: float = 0.95,
    seed: int,
) -> Estimate:
    """How varied are n models of a population?

    Parameters
    ----------
    vectors
        (N, d), one vector per model.
    variety
        ``"vendi"``: :func:`vendi_score`; ``"distance"``: :func:`mean_pairwise_distance`.
    within
        (m, r, d) with r at least n: for each of m models r vectors, each of other (resampled)
        images of that one model. The baseline is the figure of n vectors of ONE model: how
        varied models seem that are all the same.
    kernel, bandwidth
        Of the Vendi score.
    n
        Models per group; by default ``N // 2``.
    draws, level, seed
        As in :func:`ffd`.

    Raises
    ------
    ValueError
        If the shapes do not fit, or n is below 2 or more than there are vectors.
    """
    vectors = checked_vectors("vectors", vectors, least=2)
    n = len(vectors) // 2 if n is None else n
    if not 2 <= n <= len(vectors):
        raise ValueError(f"n must be 2 to {len(vectors)}, the number of models, got {n}")

    def figure(chosen: FloatArray) -> float:
        if variety == "vendi":
            return vendi_score(chosen, kernel=kernel, bandwidth=bandwidth)
        if variety == "distance":
            return mean_pairwise_distance(chosen)
        raise ValueError(f"variety must be one of {', '.join(get_args(Variety))}, got {variety!r}")

    generator = np.random.default_rng(seed)
    values = np.empty(draws)
    for draw in range(draws):
        groups, _ = _halves(generator.permutation(len(vectors)), n)
        values[draw] = np.mean([figure(vectors[group]) for group in groups])
    same = None
    if within is not None:
        resampled = np.asarray(within, dtype=np.float64)
        if resampled.ndim != 3 or resampled.shape[1] < n or resampled.shape[2] != vectors.shape[1]:
            raise ValueError(
                f"within must be (models, at least {n}, {vectors.shape[1]}), got {resampled.shape}"
            )
        models = generator.integers(len(resampled), size=draws)
        count = resampled.shape[1]
        same = np.array([figure(resampled[m][generator.permutation(count)[:n]]) for m in models])
    return _estimate(values, same, n, vectors.shape[1], level)


def _against(
    figure: Callable[[FloatArray, FloatArray], float],
    real: ArrayLike,
    synthetic: ArrayLike,
    n: int | None,
    draws: int,
    level: float,
    seed: int,
) -> Estimate:
    """`figure` of groups of real and synthetic models, and of one half of the real and another."""
    real, synthetic = checked_pair(real, synthetic)
    n = min(len(real) // 2, len(synthetic)) if n is None else n
    most = min(len(real), len(synthetic))
    if not 2 <= n <= most:
        raise ValueError(
            f"n must be 2 to {most} for {len(real)} real and {len(synthetic)} synthetic models, "
            f"got {n}"
        )
    # apart, so that the draws of real models are the same whatever they are compared with
    of_real, of_synthetic = np.random.default_rng(seed).spawn(2)
    values, same = np.empty(draws), []
    for draw in range(draws):
        ours, others = _halves(of_real.permutation(len(real)), n)
        theirs, _ = _halves(of_synthetic.permutation(len(synthetic)), n)
        count = max(len(ours), len(theirs))
        values[draw] = np.mean(
            [
                figure(real[ours[i % len(ours)]], synthetic[theirs[i % len(theirs)]])
                for i in range(count)
            ]
        )
        if len(others):
            pairs = zip(ours, others, strict=True)
            same.append(np.mean([figure(real[one], real[other]) for one, other in pairs]))
    return _estimate(values, np.array(same) if same else None, n, real.shape[1], level)


def _estimate(
    values: FloatArray, same: FloatArray | None, n: int, d: int, level: float
) -> Estimate:
    return Estimate(
        value=float(values.mean()),
        interval=_interval(values, level),
        n=n,
        d=d,
        baseline=None if same is None else float(same.mean()),
        baseline_interval=None if same is None else _interval(same, level),
        draws=values,
    )


def _interval(values: FloatArray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _halves(order: NDArray[np.intp], n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Groups of n out of the first half of `order`, (k, n), and as many of the second, if any."""
    half = max(n, len(order) // 2)
    size = n * min(half // n, GROUPS)
    second = order[half : half + size] if 2 * half <= len(order) else order[:0]
    return order[:size].reshape(-1, n), second.reshape(-1, n)

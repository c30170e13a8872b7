"""Figures of merit of whole populations of models: how alike, how varied, how covered.

A model is one vector, a population the (n, d) vectors of n models. Distances and diversities of
small samples depend on the number of models as much as on the models, so the populations here
are compared at equal n: every figure is a mean over random draws of n models, its interval holds
95% of the draws, and beside it stands the same figure for draws of one and the same source.
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


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure of a population (or of two) at a stated number of models.

    Attributes
    ----------
    value
        Mean over the draws.
    interval
        Percentiles of the draws: where one draw of n models falls.
    n, d
        Models per draw (of each population) and length of a vector.
    baseline, baseline_interval
        The same figure, at the same n, within one source; None where there are too few models.
    draws
        (b,) the figure of every draw.

    Notes
    -----
    Models are drawn without replacement: a repeated model would shrink every covariance. Drawing
    half of a population, the spread of a mean over the draws is just the standard error of the
    mean of all; drawing less, the interval is wider and so on the safe side; drawing all, that
    population adds nothing to the interval.

    References
    ----------
    Politis and Romano, "Large sample confidence regions based on subsamples under minimal
    assumptions", Annals of Statistics 22, 1994.
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
        Models drawn from either; by default ``min(N // 2, M)``, the most that leaves a baseline.
    draws, level, seed
        Number of draws, share of them inside the interval, and their seed.

    Returns
    -------
    Estimate
        Its baseline is the distance between n and n other of the real models, None if there
        are fewer than 2 n. Estimates of one seed share the draws of real models.

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
        Models drawn; by default ``N // 2``.
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
    values = np.array([figure(vectors[_pick(generator, len(vectors), n)]) for _ in range(draws)])
    same = None
    if within is not None:
        resampled = np.asarray(within, dtype=np.float64)
        if resampled.ndim != 3 or resampled.shape[1] < n or resampled.shape[2] != vectors.shape[1]:
            raise ValueError(
                f"within must be (models, at least {n}, {vectors.shape[1]}), got {resampled.shape}"
            )
        models = generator.integers(len(resampled), size=draws)
        same = np.array(
            [figure(resampled[m][_pick(generator, resampled.shape[1], n)]) for m in models]
        )
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
    """`figure` of n real and n synthetic models, and of n and n other real ones, over draws."""
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
    values, halves = [], []
    for _ in range(draws):
        order = of_real.permutation(len(real))
        half, other = real[order[:n]], real[order[n : 2 * n]]
        values.append(figure(half, synthetic[_pick(of_synthetic, len(synthetic), n)]))
        if len(other) == n:
            halves.append(figure(half, other))
    same = np.array(halves) if halves else None
    return _estimate(np.array(values), same, n, real.shape[1], level)


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


def _pick(generator: np.random.Generator, count: int, n: int) -> NDArray[np.intp]:
    return generator.permutation(count)[:n]

"""Figures of merit: what a set of scores, or two sets of vectors, says about a method.

Scores are similarities: higher means more alike. *Genuine* scores come from pairs with one
source, *impostor* scores from pairs with two. Everything is numpy float64. The figures of whole
populations of models live in :mod:`fpkit.clouds` (formulas) and :mod:`fpkit.populations` (at equal
n, with interval and baseline) and can be imported from here as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fpkit.clouds import (
    FloatArray,
    covered_share,
    frechet_distance,
    mean_pairwise_distance,
    sample_frechet_distance,
    vendi_score,
)
from fpkit.populations import Estimate, coverage, diversity, ffd

__all__ = [
    "Estimate",
    "auc",
    "bootstrap_interval",
    "coverage",
    "covered_share",
    "diversity",
    "eer",
    "ffd",
    "frechet_distance",
    "mean_pairwise_distance",
    "roc",
    "sample_frechet_distance",
    "tar_at_far",
    "threshold_at_far",
    "vendi_score",
]


def roc(genuine: ArrayLike, impostor: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Receiver operating characteristic of "same source if score >= threshold".

    Parameters
    ----------
    genuine, impostor
        Scores of any shape, at least one each, finite.

    Returns
    -------
    far, tar, threshold
        (t,) each, by falling threshold: share of impostor and of genuine scores accepted. The
        first threshold is infinite (nothing accepted), the last accepts everything. Equal
        scores are accepted together.

    Raises
    ------
    ValueError
        If either set is empty or holds a NaN or an infinity.

    Examples
    --------
    >>> far, tar, threshold = roc([0.9, 0.4], [0.5])
    >>> far.tolist(), tar.tolist()
    ([0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0])
    """
    genuine, impostor = _scores("genuine", genuine), _scores("impostor", impostor)
    levels = np.unique(np.concatenate([genuine, impostor]))[::-1]
    tar, far = (
        (scores.size - np.searchsorted(np.sort(scores), levels, side="left")) / scores.size
        for scores in (genuine, impostor)
    )
    return np.append(0.0, far), np.append(0.0, tar), np.append(np.inf, levels)


def auc(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Area under the ROC: the probability that a genuine pair scores above an impostor pair.

    Ties count one half. 0.5 is chance.

    Examples
    --------
    >>> auc([0.9, 0.4], [0.5, 0.4])
    0.625
    """
    genuine, impostor = _scores("genuine", genuine), _scores("impostor", impostor)
    impostor = np.sort(impostor)
    below = np.searchsorted(impostor, genuine, side="left")
    not_above = np.searchsorted(impostor, genuine, side="right")
    return float((below + not_above).mean() / 2 / impostor.size)


def eer(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Equal error rate: the error where as many genuine pairs are refused as impostors accepted.

    Read off the ROC, drawn with straight lines between its points.
    """
    far, tar, _ = roc(genuine, impostor)
    gap = far - (1 - tar)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = after - 1
    share = -gap[before] / (gap[after] - gap[before])
    return float(far[before] + share * (far[after] - far[before]))


def tar_at_far(genuine: ArrayLike, impostor: ArrayLike, far: float = 0.01) -> float:
    """Share of genuine pairs accepted by the lowest threshold whose FAR is at most `far`.

    Raises
    ------
    ValueError
        If `far` is outside [0, 1].
    """
    if not 0 <= far <= 1:
        raise ValueError(f"far must be in [0, 1], got {far}")
    fars, tars, _ = roc(genuine, impostor)
    return float(tars[fars <= far].max())


def threshold_at_far(impostor: ArrayLike, *, far: float = 0.01) -> float:
    """Lowest threshold that at most the share `far` of impostor scores reaches.

    As everywhere here, scores from the threshold on are accepted. Choose it on a development
    split; on the pairs that are then reported it would flatter.

    Examples
    --------
    >>> threshold = threshold_at_far([0.1, 0.2, 0.3, 0.4], far=0.25)
    >>> 0.3 < threshold < 0.4
    True
    """
    if not 0 <= far <= 1:
        raise ValueError(f"far must be in [0, 1], got {far}")
    impostor = np.sort(_scores("impostor", impostor))
    refused = impostor.size - int(far * impostor.size + 1e-9)
    return float(np.nextafter(impostor[refused - 1], np.inf) if refused else impostor[0])


def bootstrap_interval(
    values: ArrayLike, *, level: float = 0.95, draws: int = 1000, seed: int
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`.

    How far would the mean move if these few values (one per model, say) were drawn anew?

    Parameters
    ----------
    values
        (n,) independent values; one value gives an interval of width zero, which says nothing.
    level
        Share of the bootstrap means inside the interval, in (0, 1).
    draws
        Number of resamples.
    seed
        Of the resampling.

    Returns
    -------
    low, high

    Raises
    ------
    ValueError
        If `values` is empty or not finite, or `level` is outside (0, 1).

    References
    ----------
    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
    """
    values = _scores("values", values)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    picks = np.random.default_rng(seed).integers(values.size, size=(draws, values.size))
    means = values[picks].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _scores(name: str, values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0:
        raise ValueError(f"{name} is empty: at least one value is needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite")
    return array

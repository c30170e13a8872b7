"""Calibration of lineage scores, fitted on synthetic bases and fine-tunes of known truth.

Scores become likelihood ratios by logistic regression: how far a score may be believed is learnt
from models that the extractor was not trained on, never from images of real generators.

References
----------
J. Platt, "Probabilistic outputs for support vector machines", 1999 (logistic regression on
scores). N. Brümmer and J. du Preez, "Application-independent evaluation of speaker detection",
Computer Speech and Language 20, 2006 (likelihood ratios and their loss in bits). P. Vergeer et
al., "Numerical likelihood ratios outputted by LR systems are often based on extrapolation: when
to stop extrapolating?", Science and Justice 56, 2016 (why ratios are bounded).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpkit.finetunes import Kin
from fpkit.gallery import centred_scores, template
from fpkit.lineage import Calibration, FloatArray, effective_images, logistic_features
from fpkit.metrics import auc

_GALLERIES, _FOLDS, _BINS = 400, 5, 10
_SIZES = (1, 2, 4, 8, 16)  # bases in a gallery, images enrolled, images asked about
_RIDGE = 1e-3


def calibrate(kin: Kin, *, seed: int = 0) -> tuple[Calibration, dict[str, Any]]:
    """Fit a calibration on bases and fine-tunes.

    Many random galleries of 1 to 16 bases, with 1 to 16 images enrolled of each, are asked about
    1 to 16 images of every fine-tune: those of an enrolled base are genuine, all others impostors.
    Logistic regression with both kinds weighing the same gives the log-likelihood ratio. Decoders
    of one architecture are the harder impostors; as many real decoders share theirs, these pairs
    weigh as much as all other impostors.

    Returns
    -------
    calibration
        Of all bases.
    report : dict
        For the model card. ``held_out``: figures of calibrations fitted on four fifths of the
        bases, for the pairs of the last fifth: ``auc_strangers`` and ``auc_one_architecture``,
        genuine pairs against impostors of another and of one architecture (None without such);
        ``loss_bits``, the weighted log loss (0 is perfect, 1 knows nothing); and
        ``calibration_error``, the mean difference of probability and frequency over ten bins.

    Raises
    ------
    ValueError
        If there are fewer than 10 architectures among the bases, or the extractor does not tell
        fine-tunes apart at all.
    """
    bases, architectures = len(kin.base), int(kin.architecture.max()) + 1
    if architectures < 2 * _FOLDS:
        raise ValueError(
            f"a calibration needs bases of at least {2 * _FOLDS} architectures, got "
            f"{architectures}: take more random decoders"
        )
    generator = np.random.default_rng(seed)
    fold = (generator.permutation(architectures) % _FOLDS)[kin.architecture]
    parts = []
    for held_out in range(_FOLDS):
        inside, outside = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        fitted = _fit(_draw_pairs(kin, inside, generator), bases=len(inside))
        pairs = _draw_pairs(kin, outside, generator)
        parts.append((_apply(fitted, pairs), pairs))
    pairs = _draw_pairs(kin, np.arange(bases), generator)
    ratios, same, twin, weight = (
        np.concatenate(values)
        for values in zip(*((r, p.same, p.twin, p.weight) for r, p in parts), strict=True)
    )
    report = {
        "bases": bases,
        "genuine": int(pairs.same.sum()),
        "impostor": int((~pairs.same).sum()),
        "of_one_architecture": int(pairs.twin.sum()),
        "held_out": {
            "auc_strangers": auc(ratios[same], ratios[~same & ~twin]),
            "auc_one_architecture": auc(ratios[same], ratios[twin]) if twin.any() else None,
            "loss_bits": loss_bits(ratios, same, weight=weight),
            "calibration_error": calibration_error(ratios, same, weight=weight),
        },
        "from": kin.description,
        "seed": seed,
    }
    return _fit(pairs, bases=bases), report


def loss_bits(log_ratios: ArrayLike, same: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Mean log loss in bits, genuine and impostor pairs weighing the same ("Cllr").

    0 is perfect, 1 is what ratios of 1 give; above 1, believing the ratios does harm.
    `weight` of every pair (n,) replaces these weights; it is scaled to the sum 1.

    Examples
    --------
    >>> loss_bits([0.0, 0.0, 0.0], [True, False, False])
    1.0
    """
    ratios, same = np.asarray(log_ratios, dtype=np.float64), np.asarray(same, dtype=bool)
    losses = np.logaddexp(0, np.where(same, -ratios, ratios)) / math.log(2)
    return float(_shares(same, weight) @ losses)


def calibration_error(
    log_ratios: ArrayLike, same: ArrayLike, *, weight: ArrayLike | None = None
) -> float:
    """Mean absolute difference of probability and frequency over ten bins.

    Weights are those of :func:`loss_bits`.

    Examples
    --------
    >>> calibration_error([9.0, 9.0, -9.0], [True, True, False]) < 0.001
    True
    """
    ratios, same = np.asarray(log_ratios, dtype=np.float64), np.asarray(same, dtype=bool)
    probability, shares = 1 / (1 + np.exp(-ratios)), _shares(same, weight)
    place = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    gap = np.bincount(place, shares * (probability - same), minlength=_BINS)
    return float(np.abs(gap).sum())


def fit_logistic(
    features: FloatArray, target: NDArray[np.bool_], *, weight: FloatArray, ridge: float = _RIDGE
) -> FloatArray:
    """Weighted logistic regression by Newton's method, with a slight ridge.

    Parameters
    ----------
    features : (n, k)
        The first column is constant; the ridge leaves it alone.
    target : (n,) bool
    weight : (n,)
        Sums to 1.

    Returns
    -------
    (k,) coefficients of natural log-odds.

    Examples
    --------
    >>> weight = np.array([3, 1, 1, 3]) / 8  # odds of 3 at the feature 1, of 1/3 at -1
    >>> features = np.array([[1, 1], [1, 1], [1, -1], [1, -1]])
    >>> target = np.array([True, False, True, False])
    >>> np.exp(fit_logistic(features, target, weight=weight, ridge=0)).round(6).tolist()
    [1.0, 3.0]
    """
    penalty = np.full(features.shape[1], ridge)
    penalty[0] = 0.0
    solution = np.zeros(features.shape[1])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-features @ solution))
        slope = features.T @ (weight * (probability - target)) + penalty * solution
        curvature = (features * (weight * probability * (1 - probability))[:, None]).T @ features
        step = np.linalg.solve(curvature + np.diag(penalty), slope)
        solution -= step
        if np.abs(step).max() < 1e-9:
            break
    return solution


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Scores of folders against bases: (n,) each; ``images`` is m of `Calibration`."""

    score: FloatArray
    images: FloatArray
    same: NDArray[np.bool_]
    twin: NDArray[np.bool_]  # impostors of one architecture

    @property
    def weight(self) -> FloatArray:
        """Weights that sum to 1: half for genuine pairs, a quarter for twins if there are any."""
        weight = _balance(self.same)
        if self.twin.any():
            others = ~self.same & ~self.twin
            weight[self.twin] = 0.25 / np.count_nonzero(self.twin)
            weight[others] = 0.25 / np.count_nonzero(others)
        return weight


def _draw_pairs(kin: Kin, bases: NDArray[np.intp], generator: np.random.Generator) -> _Pairs:
    score, images, same, twin = [], [], [], []
    most = kin.base.shape[1]
    for _ in range(_GALLERIES):
        count, enrolled, asked = generator.choice(_SIZES, 3)
        inside = generator.permutation(bases)[: min(count, len(bases))]
        enrolled, asked = min(enrolled, most), min(asked, most)
        templates = np.stack([template(_some(kin.base[i], enrolled, generator)) for i in inside])
        probes = np.stack([_some(kin.tuned[i], asked, generator).mean(axis=0) for i in bases])
        scores = centred_scores(probes, templates)
        score.append(scores.ravel())
        images.append(np.full(scores.size, effective_images(asked, enrolled)))
        identical = bases[:, None] == inside[None]
        alike = kin.architecture[bases][:, None] == kin.architecture[inside][None]
        same.append(identical.ravel())
        twin.append((alike & ~identical).ravel())
    return _Pairs(
        score=np.concatenate(score),
        images=np.concatenate(images),
        same=np.concatenate(same),
        twin=np.concatenate(twin),
    )


def _some(
    rows: NDArray[np.float32], count: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    return rows[generator.permutation(len(rows))[:count]]


def _fit(pairs: _Pairs, *, bases: int) -> Calibration:
    features = logistic_features(pairs.score, pairs.images)
    solution = fit_logistic(features, pairs.same, weight=pairs.weight)
    intercept, by_score, by_images, both = solution.tolist()
    ends = np.log([pairs.images.min(), pairs.images.max()])
    if (by_score + both * ends).min() <= 0:
        raise ValueError(
            "this extractor scores synthetic fine-tunes no higher against their own bases than "
            "against others, so its scores are no evidence of lineage: train it longer"
        )
    return Calibration(
        intercept=intercept,
        slope=by_score,
        by_images=by_images,
        slope_by_images=both,
        fewest=float(pairs.images.min()),
        most=float(pairs.images.max()),
        bound=math.log(bases),
    )


def _apply(calibration: Calibration, pairs: _Pairs) -> FloatArray:
    # half of 1/m each, as if as many images were enrolled as asked about
    return calibration.log_ratio(pairs.score, images=2 * pairs.images, enrolled=2 * pairs.images)


def _shares(same: NDArray[np.bool_], weight: ArrayLike | None) -> FloatArray:
    if weight is None:
        return _balance(same)
    weight = np.asarray(weight, dtype=np.float64)
    return weight / weight.sum()


def _balance(same: NDArray[np.bool_]) -> FloatArray:
    """Weights that sum to 1, half of it for either kind."""
    genuine = np.count_nonzero(same)
    if not 0 < genuine < same.size:
        raise ValueError(f"genuine and impostor pairs are needed, got {genuine} of {same.size}")
    return np.where(same, 0.5 / genuine, 0.5 / (same.size - genuine))

"""Verification of pairs: did one model make both? With intervals over models.

Two images of a pair belong to models, and each model to many pairs: resampling pairs would claim
a precision that is not there. What is resampled here are the models, and with them their pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpkit.metrics import auc, eer, tar_at_far

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
RESAMPLES = 400
FAR = 0.01
NAMES = ("auc", "eer", "tar_at_far_0.01")


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Scored pairs of images.

    Attributes
    ----------
    score
        (p,) higher is more alike.
    first, second
        (p,) models of the two images, as indices.
    kin
        (p,) bool: two models with one decoder, a pair that is neither genuine nor impostor.
    content
        (p,) index of the subject that both show, -1 if they show two, or it is unknown.
    """

    score: FloatArray
    first: IntArray
    second: IntArray
    kin: NDArray[np.bool_]
    content: IntArray


def verification(
    draws: Iterable[PairScores], models: int, *, seed: int, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Figures of verification, averaged over draws.

    Parameters
    ----------
    draws
        The pairs of each draw.
    models
        How many models there are; `first` and `second` are below it.
    seed
        Of the resampling.
    resamples
        Of the models.

    Returns
    -------
    dict
        ``auc``, ``eer``, ``tar_at_far_0.01``, ``auc_within_content``: means over the draws in
        which there are such pairs, None if there is none. ``ci95``: the same names, each with
        ``[low, high]`` or None.

    Notes
    -----
    A resample draws as many models as there are, with replacement. A genuine pair then counts as
    often as its model was drawn, an impostor pair as often as the product of both counts; pairs
    between two copies of a model do not exist. A resample without genuine or impostor pairs (of
    two models, every other one) says nothing and is left out. ``auc_within_content`` compares
    pairs of equal content, of contents that several models (of the resample) show.

    References
    ----------
    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
    """
    picks = np.random.default_rng(seed).integers(models, size=(resamples, models))
    counts = np.stack([np.bincount(pick, minlength=models) for pick in picks])
    found: dict[str, list[float]] = defaultdict(list)
    moved: dict[str, list[FloatArray]] = defaultdict(list)
    for pairs in draws:
        for name, value, resampled in (*_overall(pairs, counts), *_within(pairs, counts)):
            found[name].append(value)
            moved[name].append(resampled)
    names = (*NAMES, "auc_within_content")
    figures: dict[str, Any] = {
        name: float(np.mean(found[name])) if found[name] else None for name in names
    }
    return figures | {"ci95": {name: _interval(moved[name]) for name in names}}


def _overall(pairs: PairScores, counts: IntArray) -> list[tuple[str, float, FloatArray]]:
    """Name, figure and resampled figures (resamples,); nothing without both kinds of pairs."""
    genuine = pairs.first == pairs.second
    impostor = ~genuine & ~pairs.kin
    if not (genuine.any() and impostor.any()):
        return []
    scores = pairs.score[genuine], pairs.score[impostor]
    values = auc(*scores), eer(*scores), tar_at_far(*scores, FAR)
    one = np.zeros_like(pairs.content)
    far, tar = resampled_roc(pairs, genuine, impostor, one, counts)
    resampled = _areas(far, tar), _equal_errors(far, tar), _tar_at_far(far, tar)
    return list(zip(NAMES, values, resampled, strict=True))


def _within(pairs: PairScores, counts: IntArray) -> list[tuple[str, float, FloatArray]]:
    genuine = (pairs.first == pairs.second) & (pairs.content >= 0)
    impostor = (pairs.first != pairs.second) & ~pairs.kin & (pairs.content >= 0)
    genuine &= np.isin(pairs.content, pairs.content[impostor])
    if not (genuine.any() and impostor.any()):
        return []
    value = auc(pairs.score[genuine], pairs.score[impostor])
    roc = resampled_roc(pairs, genuine, impostor, pairs.content, counts)
    return [("auc_within_content", value, _areas(*roc))]


def resampled_roc(
    pairs: PairScores,
    genuine: NDArray[np.bool_],
    impostor: NDArray[np.bool_],
    content: IntArray,
    counts: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """ROC of the pairs of each resample of the models.

    Pairs are counted once, by model (genuine) or pair of models (impostor) and level of score;
    each resample is then a product of its counts with these tables.

    Parameters
    ----------
    pairs
        Scored pairs.
    genuine, impostor
        (p,) which of them count as what.
    content
        (p,) genuine pairs count where an impostor pair of equal content is in the resample.
    counts
        (resamples, models) how often each model was drawn.

    Returns
    -------
    far, tar
        (resamples, t) each, by falling threshold, from nothing accepted to everything; NaN for
        a resample without genuine or without impostor pairs. Exact at each threshold; there are
        as many as different scores, up to a limit of about a thousand, dense at low FAR.
    """
    models, contents = counts.shape[1], int(content.max()) + 1
    low, high = np.sort([pairs.first[impostor], pairs.second[impostor]], axis=0)
    key = (low * models + high) * contents + content[impostor]
    between, of_pair = np.unique(key, return_inverse=True)
    key = pairs.first[genuine] * contents + content[genuine]
    within, of_model = np.unique(key, return_inverse=True)
    cuts = _cuts(pairs.score[genuine], pairs.score[impostor], groups=between.size)
    tables = (
        _table(of_pair, pairs.score[impostor], cuts),
        _table(of_model, pairs.score[genuine], cuts),
    )
    both, subject = np.divmod(between, contents)
    shows = np.eye(contents, dtype=np.float32)[subject]
    model, subject = np.divmod(within, contents)
    far, tar = [], []
    for part in np.array_split(counts, 1 + counts.shape[0] * between.size // 2**24):
        weight = (part[:, both // models] * part[:, both % models]).astype(np.float32)
        shown = weight @ shows > 0  # (resamples, contents)
        far.append(_accepted(weight, tables[0]))
        weight = (part[:, model] * shown[:, subject]).astype(np.float32)
        tar.append(_accepted(weight, tables[1]))
    return np.concatenate(far), np.concatenate(tar)


def _cuts(genuine: FloatArray, impostor: FloatArray, *, groups: int) -> FloatArray:
    """Rising thresholds: all scores, or as many as the tables may have columns."""
    limit = int(np.clip(2**22 // groups, 64, 1024))
    if genuine.size + impostor.size <= limit:
        return np.unique(np.concatenate([genuine, impostor]))
    half = limit // 2
    tail = 1 - np.geomspace(1e-5, 0.1, half)  # where TAR at a low FAR is read
    shares = np.concatenate([np.linspace(0, 1, half), tail])
    ordered = np.sort(impostor)
    return np.unique(ordered[np.round(shares * (impostor.size - 1)).astype(int)])


def _table(group: IntArray, score: FloatArray, cuts: FloatArray) -> NDArray[np.float32]:
    """(groups, levels) pairs of each group, by how many thresholds they reach."""
    levels = cuts.size + 1
    level = np.searchsorted(cuts, score, side="right")
    cells = np.bincount(group * levels + level, minlength=(int(group.max()) + 1) * levels)
    return cells.reshape(-1, levels).astype(np.float32)


def _accepted(weight: NDArray[np.float32], table: NDArray[np.float32]) -> FloatArray:
    """(resamples, levels + 1) share of the weight from each level up, the highest first."""
    pairs = (weight @ table).astype(np.float64)  # whole numbers: exact up to 2^24
    total = np.cumsum(pairs[:, ::-1], axis=1)
    whole = total[:, -1:]
    shares = np.divide(total, whole, out=np.full_like(total, np.nan), where=whole > 0)
    return np.concatenate([0 * shares[:, :1], shares], axis=1)


def _areas(far: FloatArray, tar: FloatArray) -> FloatArray:
    return (np.diff(far, axis=1) * (tar[:, 1:] + tar[:, :-1]) / 2).sum(axis=1)


def _equal_errors(far: FloatArray, tar: FloatArray) -> FloatArray:
    """As :func:`fpkit.metrics.eer`, per row."""
    gap = far - (1 - tar)
    after = np.argmax(gap >= 0, axis=1)
    before = after - 1
    row = np.arange(len(far))
    share = -gap[row, before] / (gap[row, after] - gap[row, before])
    return far[row, before] + share * (far[row, after] - far[row, before])


def _tar_at_far(far: FloatArray, tar: FloatArray) -> FloatArray:
    """As :func:`fpkit.metrics.tar_at_far`, per row."""
    undefined = np.isnan(far).any(axis=1) | np.isnan(tar).any(axis=1)
    return np.where(undefined, np.nan, np.where(far <= FAR, tar, 0).max(axis=1))


def _interval(draws: list[FloatArray]) -> list[float] | None:
    """95% of the resampled figures, each the mean over the draws."""
    if not draws:
        return None
    means = np.mean(draws, axis=0)
    means = means[~np.isnan(means)]
    return [float(v) for v in np.quantile(means, [0.025, 0.975])] if means.size else None

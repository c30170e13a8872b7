"""Calibration of verdicts, fitted on synthetic models of known truth.

Logistic regression turns scores into likelihood ratios; the tails of the impostors' ratios say
from which ratio on a verdict errs as seldom as the user wants. See :mod:`fpkit.verdict_bank` for
the models.

References
----------
N. Brümmer and J. du Preez, "Application-independent evaluation of speaker detection", Computer
Speech and Language 20, 2006 (likelihood ratios and their loss in bits). P. Vergeer et al.,
"Numerical likelihood ratios outputted by LR systems are often based on extrapolation: when to stop
extrapolating?", Science and Justice 56, 2016 (why ratios are bounded).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fpkit.calibration import calibration_error, fit_logistic, loss_bits
from fpkit.metrics import auc
from fpkit.verdict_bank import Bank
from fpkit.verdict_trials import (
    CROPS,
    MODELS,
    OTHER,
    STRANGER,
    TWIN,
    TWINS,
    Trials,
    draw_galleries,
    draw_pairs,
    joined,
)
from fpkit.verdicts import (
    FAR,
    FRR,
    GALLERY_FEATURES,
    PAIR_FEATURES,
    FloatArray,
    Scale,
    VerdictCalibration,
)

FARS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# benchmarks/verdicts.py compares them with fewer and more, on models of another kind
CHOSEN = tuple(name for name in GALLERY_FEATURES if name not in ("rest", "alike"))


def calibrate(
    bank: Bank, *, seed: int = 0, pairs: int = 20_000, galleries: int = 60
) -> tuple[VerdictCalibration, dict[str, Any]]:
    """Fit a calibration on a bank of models.

    Pairs of images and random galleries of 1 to 64 models, with 1 to 16 images each, are judged
    under all conditions. Models of one architecture are the harder impostors; as many real
    decoders share theirs, they have a weight of their own.

    Returns
    -------
    calibration
    report : dict
        For the model card. ``held_out``: figures of calibrations fitted on one half of the
        architectures, for the other half: ``loss_bits`` (0 is perfect, 1 knows nothing),
        ``calibration_error``, ``auc`` and ``far``, the share of impostors called "same" at 1%.

    Raises
    ------
    ValueError
        If there are fewer than 10 architectures, fewer than 4 images of each model, or the
        extractor does not tell models apart at all.
    """
    generator = np.random.default_rng(seed)
    architectures = np.unique(bank.architecture)
    if len(architectures) < 10 or bank.crops.shape[1] < 4:
        raise ValueError(
            f"a calibration needs 10 architectures and 4 images of each model, got "
            f"{len(architectures)} and {bank.crops.shape[1]}: take more of them"
        )
    first = np.isin(bank.architecture, generator.permutation(architectures)[::2])
    parts: dict[str, list[dict[str, float]]] = {"pairs": [], "galleries": []}
    halves = [draw(bank.of(half), generator, pairs, galleries) for half in (first, ~first)]
    for mine, theirs in (halves, halves[::-1]):
        fitted = fit(mine)
        parts["pairs"].append(measure(fitted.pairs, theirs[0]))
        parts["galleries"].append(measure(fitted.galleries, theirs[1]))
    report = {
        "models": len(bank.crops),
        "architectures": len(architectures),
        "held_out": {
            name: {key: float(np.mean([one[key] for one in both])) for key in both[0]}
            for name, both in parts.items()
        },
        "from": bank.description,
        "seed": seed,
    }
    return fit(draw(bank, generator, pairs, galleries)), report


def draw(
    bank: Bank, generator: np.random.Generator, pairs: int, galleries: int
) -> tuple[Trials, Trials]:
    """Trials of pairs and of galleries, see :mod:`fpkit.verdict_trials`."""
    return (
        joined(draw_pairs(bank, generator, pairs=pairs)),
        joined(draw_galleries(bank, generator, galleries=galleries)),
    )


def fit(trials: tuple[Trials, Trials]) -> VerdictCalibration:
    """The scales of trials of pairs and of galleries."""
    return VerdictCalibration(
        pairs=fit_scale(trials[0], PAIR_FEATURES, models=(1,)),
        galleries=fit_scale(trials[1], CHOSEN, models=MODELS),
    )


def measure(scale: Scale, trials: Trials, *, far: float = FAR) -> dict[str, float]:
    """How good ratios and verdicts are on trials of models that a scale was not fitted on.

    Returns
    -------
    dict
        ``auc``; ``loss_bits`` and ``calibration_error``, see :mod:`fpkit.calibration`; ``tar`` and
        ``far``, the shares of genuine and of impostors called "same" at `far` (one of the scale's
        levels); ``far_twin``, ``far_other`` and ``far_stranger``, of each kind of impostor.
    """
    ratio, same, weight = scale.log_ratio(trials.features), trials.same, trials.weights()
    accept = np.maximum(np.array(scale.accept)[..., scale.fars.index(far)], 0)
    accepted = ratio >= accept[tuple(trials.cell.T)]
    shares = {
        "tar": same,
        "far": ~same,
        **{f"far_{kind}": trials.kind == kind for kind in (TWIN, OTHER, STRANGER)},
    }
    return {
        "auc": auc(ratio[same], ratio[~same]),
        "loss_bits": loss_bits(ratio, same, weight=weight),
        "calibration_error": calibration_error(ratio, same, weight=weight),
        **{
            name: float(weight[chosen & accepted].sum() / weight[chosen].sum())
            for name, chosen in shares.items()
            if chosen.any()
        },
    }


def fit_scale(
    trials: Trials, names: tuple[str, ...], *, models: tuple[int, ...], twins: float = TWINS
) -> Scale:
    """Weights by logistic regression, and the tails of genuine and impostors in each cell.

    Parameters
    ----------
    trials : Trials
    names : tuple of str
        Features to use, the first of them ``"one"``.
    models : tuple of int
        Levels of gallery size.
    twins : float in [0, 1]
        Weight of models of one architecture among all models that are impostors.

    Raises
    ------
    ValueError
        If scores of one model are no higher than those of two.
    """
    columns = np.stack([trials.features[name] for name in names], axis=1)
    solution = fit_logistic(columns, trials.same, weight=trials.weights(twins))
    if np.cov(columns @ solution, trials.features["score"])[0, 1] <= 0:
        raise ValueError(
            "this extractor scores images of one model no higher than those of two, so its scores "
            "are no evidence: train it longer"
        )
    # where ratios are right, a share f of impostors cannot reach ratios above 1 / f
    bound = -math.log(FARS[0])
    ratio = np.clip(columns @ solution, -bound, bound)
    accept = np.zeros((2, len(CROPS), len(models), len(FARS)))
    refuse = np.zeros(accept.shape[:3])
    for cell in np.ndindex(refuse.shape):
        inside = (trials.cell == cell).all(axis=1)
        refuse[cell] = np.quantile(ratio[inside & trials.same], FRR)
        strangers = trials.kind == STRANGER
        for chosen in (~trials.same & ~strangers, strangers):  # neither errs more often than asked
            rows = np.flatnonzero(inside & chosen)
            if len(rows):
                reached = _reached(ratio[rows], trials.shares(rows, twins))
                accept[cell] = np.maximum(accept[cell], reached)
    return Scale(
        weights=dict(zip(names, solution.tolist(), strict=True)),
        bound=bound,
        crops=CROPS,
        models=models,
        fars=FARS,
        accept=_rounded(accept.tolist()),
        refuse=_rounded(refuse.tolist()),
    )


def _reached(values: FloatArray, shares: FloatArray) -> FloatArray:
    """Lowest levels that at most the shares `FARS` of weighted values reach."""
    order = np.argsort(-values)
    above = np.cumsum(shares[order])
    place = np.minimum(np.searchsorted(above, FARS, side="right"), len(order) - 1)
    return values[order][place] + 1e-4  # rounding takes off half of that at most


def _rounded(part: Any) -> Any:
    return tuple(map(_rounded, part)) if isinstance(part, list) else round(part, 4)

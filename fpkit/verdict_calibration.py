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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpkit.calibration import calibration_error, fit_logistic, loss_bits
from fpkit.gallery import centred_scores, template
from fpkit.metrics import auc
from fpkit.verdict_bank import FORMATS, Bank
from fpkit.verdicts import (
    FRR,
    GALLERY_FEATURES,
    PAIR_FEATURES,
    FloatArray,
    Scale,
    VerdictCalibration,
    gallery_features,
    pair_features,
)

CROPS = (1, 4, 9, 16)
MODELS = (1, 4, 16, 64)  # in a gallery
ENROLLED = (1, 2, 4, 8, 16)
FARS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
TWINS = 0.25  # weight of impostors of one architecture among all impostors
STRANGERS = 0.25  # weight of images of no model, where a gallery is asked
PAIRS = 6000  # of each kind and condition
GALLERIES = 60  # of each condition
PROBES = 120  # of each kind, per gallery

_TWIN, _OTHER, _STRANGER = "twin", "other", "stranger"


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Scores of known truth under known conditions, (n,) each.

    ``kind`` of an impostor: "twin" (another model of the same architecture), "other" or, where a
    gallery is asked, "stranger" (no model); ``cell`` are the conditions, as indices of the tables
    of a `Scale`.
    """

    features: dict[str, FloatArray]
    same: NDArray[np.bool_]
    kind: NDArray[np.str_]
    cell: NDArray[np.intp]  # (n, 3)

    @property
    def weight(self) -> FloatArray:
        """Weights that sum to 1; half of each cell's for the genuine."""
        weight = np.zeros(len(self.same))
        cells, place = np.unique(self.cell, axis=0, return_inverse=True)
        for i in range(len(cells)):
            inside = place.ravel() == i
            genuine = inside & self.same
            weight[genuine] = 0.5 / max(1, genuine.sum())
            shares = self._impostor_shares(inside & ~self.same)
            weight[inside & ~self.same] = 0.5 * shares
        return weight / weight.sum()

    def _impostor_shares(self, chosen: NDArray[np.bool_]) -> FloatArray:
        """Weights of some impostors, by kind: they sum to 1."""
        kinds = self.kind[chosen]
        parts = {_TWIN: TWINS, _STRANGER: STRANGERS, _OTHER: 1 - TWINS - STRANGERS}
        shares = np.zeros(len(kinds))
        for kind, part in parts.items():
            shares[kinds == kind] = part / max(1, (kinds == kind).sum())
        return shares / shares.sum()

    def of(self, chosen: NDArray[np.bool_]) -> Trials:
        """Some of the trials."""
        return Trials(
            features={name: values[chosen] for name, values in self.features.items()},
            same=self.same[chosen],
            kind=self.kind[chosen],
            cell=self.cell[chosen],
        )


def calibrate(bank: Bank, *, seed: int = 0) -> tuple[VerdictCalibration, dict[str, Any]]:
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
    for half in (first, ~first):
        fitted, other = fit(bank.of(half), generator), bank.of(~half)
        for name, trials in _trials(other, generator).items():
            parts[name].append(measure(getattr(fitted, name), trials))
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
    return fit(bank, generator), report


def fit(bank: Bank, generator: np.random.Generator) -> VerdictCalibration:
    """Scales of pairs and galleries, without a report."""
    trials = _trials(bank, generator)
    return VerdictCalibration(
        pairs=fit_scale(trials["pairs"], PAIR_FEATURES, models=(1,)),
        galleries=fit_scale(trials["galleries"], GALLERY_FEATURES, models=MODELS),
    )


def _trials(bank: Bank, generator: np.random.Generator) -> dict[str, Trials]:
    return {
        "pairs": _joined(draw_pairs(bank, generator)),
        "galleries": _joined(draw_galleries(bank, generator)),
    }


def measure(scale: Scale, trials: Trials, *, far: float = 0.01) -> dict[str, float]:
    """How well ratios and verdicts of a scale are on trials of other models."""
    ratio, same, weight = scale.log_ratio(trials.features), trials.same, trials.weight
    found = {
        "auc": auc(ratio[same], ratio[~same]),
        "loss_bits": loss_bits(ratio, same, weight=weight),
        "calibration_error": calibration_error(ratio, same, weight=weight),
    }
    table = np.array(scale.accept)[..., scale.fars.index(far)]
    accepted = ratio >= np.maximum(table[tuple(trials.cell.T)], 0)
    found["tar"] = float(weight[same & accepted].sum() / weight[same].sum())
    found["far"] = float(weight[~same & accepted].sum() / weight[~same].sum())
    for kind in (_TWIN, _OTHER, _STRANGER):
        chosen = trials.kind == kind
        if chosen.any():
            found[f"far_{kind}"] = float(accepted[chosen].mean())
    return found


def fit_scale(trials: Trials, names: tuple[str, ...], *, models: tuple[int, ...]) -> Scale:
    """Weights by logistic regression, bounds by the tails of genuine and impostors in each cell."""
    columns = np.stack([trials.features[name] for name in names], axis=1)
    weight = trials.weight
    solution = fit_logistic(columns, trials.same, weight=weight)
    if np.corrcoef(columns @ solution, trials.features["score"])[0, 1] <= 0:
        raise ValueError(
            "this extractor scores images of one model no higher than those of two, so its scores "
            "are no evidence: train it longer"
        )
    # where ratios are right, a share f of impostors cannot reach ratios above 1 / f
    bound = math.log(1 / FARS[0])
    ratio = np.clip(columns @ solution, -bound, bound)
    accept = np.zeros((2, len(CROPS), len(models), len(FARS)))
    refuse = np.zeros(accept.shape[:3])
    for cell in np.ndindex(refuse.shape):
        inside = (trials.cell == cell).all(axis=1)
        genuine = inside & trials.same
        refuse[cell] = np.quantile(ratio[genuine], FRR)
        levels = []
        for strangers in (False, True):
            chosen = inside & ~trials.same & ((trials.kind == _STRANGER) == strangers)
            if chosen.any():
                shares = trials._impostor_shares(chosen)
                levels.append(_reached(ratio[chosen], shares, FARS))
        accept[cell] = np.max(levels, axis=0)
    return Scale(
        weights=dict(zip(names, solution.tolist(), strict=True)),
        bound=bound,
        crops=CROPS,
        models=models,
        fars=FARS,
        accept=_nested(accept),
        refuse=_nested(refuse),
    )


def _reached(values: FloatArray, shares: FloatArray, fars: tuple[float, ...]) -> FloatArray:
    """Lowest levels that at most these shares of weighted values reach."""
    order = np.argsort(-values)
    above = np.cumsum(shares[order])
    place = np.minimum(np.searchsorted(above, np.array(fars), side="right"), len(order) - 1)
    return np.nextafter(values[order][place], np.inf)


def _nested(table: FloatArray) -> Any:
    def rounded(part: Any) -> Any:
        return tuple(map(rounded, part)) if isinstance(part, list) else round(part, 4)

    return rounded(table.tolist())


def _joined(parts: Iterator[Trials]) -> Trials:
    every = list(parts)
    return Trials(
        features={
            name: np.concatenate([part.features[name] for part in every])
            for name in every[0].features
        },
        same=np.concatenate([part.same for part in every]),
        kind=np.concatenate([part.kind for part in every]),
        cell=np.concatenate([part.cell for part in every]),
    )


# ---- drawing ------------------------------------------------------------------------------------


def _views(bank: Bank, crops: int, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Embeddings (p, k, 2, d) of all images, and (q, 2, d) of strangers, of so many crops.

    The crops of an image are a square block at a random place: an image that is smaller.
    """
    side, most = math.isqrt(crops), bank.crops.shape[3]
    top, left = generator.integers(0, most - side + 1, 2)
    found = []
    for part in (bank.crops, bank.strangers):
        mean = part[..., top : top + side, left : left + side, :].mean((-3, -2)) - bank.cohort
        found.append(mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12))
    return found[0], found[1]


def draw_pairs(bank: Bank, generator: np.random.Generator) -> Iterator[Trials]:
    """Pairs of images of one model, of two of one architecture, and of two of any."""
    models, images = bank.crops.shape[:2]
    views = {crops: _views(bank, crops, generator)[0] for crops in CROPS}
    for level, crops in enumerate(CROPS):
        for jpeg in range(len(FORMATS)):
            for kind in ("genuine", _TWIN, _OTHER):
                a = generator.integers(models, size=PAIRS)
                b = a if kind == "genuine" else generator.integers(models, size=PAIRS)
                alike = bank.architecture[a] == bank.architecture[b]
                if kind == _TWIN:
                    a, b = _twins(bank, generator)
                    if not len(a):
                        continue
                elif kind == _OTHER:
                    a, b = a[~alike], b[~alike]
                i, j = generator.integers(images, size=(2, len(a)))
                if kind == "genuine":
                    j = (i + 1 + generator.integers(images - 1, size=len(a))) % images
                # both through JPEG, or one of them
                first = np.full(len(a), jpeg)
                second = jpeg * (generator.random(len(a)) < 0.75).astype(int)
                x = views[crops][a, i, first]
                y = np.stack([views[c][b, j, second] for c in CROPS[level:]])
                y = y[generator.integers(len(y), size=len(a)), np.arange(len(a))]
                yield Trials(
                    features=pair_features((x * y).sum(-1), crops=crops, jpeg=jpeg),
                    same=np.full(len(a), kind == "genuine"),
                    kind=np.full(len(a), kind, dtype="U8"),
                    cell=np.tile([jpeg, level, 0], (len(a), 1)),
                )


def _twins(bank: Bank, generator: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    alike = bank.architecture[:, None] == bank.architecture
    pairs = np.argwhere(alike & ~np.eye(len(alike), dtype=bool))
    if not len(pairs):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    chosen = pairs[generator.integers(len(pairs), size=PAIRS)]
    return chosen[:, 0], chosen[:, 1]


def draw_galleries(bank: Bank, generator: np.random.Generator) -> Iterator[Trials]:
    """Random galleries, asked about images of their models, of other models and of none."""
    views = {crops: _views(bank, crops, generator) for crops in CROPS}
    count, images = bank.crops.shape[:2]
    for jpeg in range(len(FORMATS)):
        for level, crops in enumerate(CROPS):
            for size, models in enumerate(MODELS):
                for _ in range(GALLERIES):
                    inside = generator.permutation(count)[: min(models, count // 2)]
                    shots = min(int(generator.choice(ENROLLED)), images - 2)
                    order = generator.permutation(images)
                    # most galleries hold what they are asked about: equal formats and sizes
                    form = jpeg if generator.random() < 0.6 else generator.integers(2)
                    known = views[crops if generator.random() < 0.5 else CROPS[-1]][0]
                    templates = np.stack(
                        [template(known[model, order[:shots], form]) for model in inside]
                    )
                    probes, strangers = views[crops]
                    rest = order[shots:]
                    kinds = {
                        "genuine": probes[inside][:, rest, jpeg].reshape(-1, probes.shape[-1]),
                        _STRANGER: strangers[:, jpeg],
                    }
                    outside = np.setdiff1d(np.arange(count), inside)
                    kin = np.isin(bank.architecture[outside], bank.architecture[inside])
                    for kind, those in ((_TWIN, outside[kin]), (_OTHER, outside[~kin])):
                        kinds[kind] = probes[those][:, :, jpeg].reshape(-1, probes.shape[-1])
                    truth = np.repeat(np.arange(len(inside)), len(rest))
                    for kind, rows in kinds.items():
                        chosen = generator.permutation(len(rows))[:PROBES]
                        if not len(chosen):
                            continue
                        scores = centred_scores(rows[chosen], templates)
                        if kind == "genuine":  # a wrong name is an error of another kind
                            right = scores.argmax(1) == truth[chosen]
                            scores = scores[right]
                            if not len(scores):
                                continue
                        yield Trials(
                            features=gallery_features(
                                scores,
                                templates=templates,
                                enrolled=np.full(len(inside), shots),
                                crops=crops,
                                jpeg=jpeg,
                            ),
                            same=np.full(len(scores), kind == "genuine"),
                            kind=np.full(len(scores), kind, dtype="U8"),
                            cell=np.tile([jpeg, level, size], (len(scores), 1)),
                        )

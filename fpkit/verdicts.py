"""From a score to a verdict: same, different, or unsure in between.

A score becomes a likelihood ratio: how many times likelier is it if the answer is yes than if it
is no? Two bounds on the ratio leave room for "unsure"; the user names the share of wrong yeses.
:mod:`fpkit.verdict_calibration` fits ratios and bounds on synthetic models of known truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpkit.card_entries import CardEntry
from fpkit.gallery import BEST, Gallery, Identification, centred_scores

ENTRY = CardEntry(
    key="verdicts", noun="calibration of verdicts", command="fpkit calibrate-verdicts FOLDER"
)
FAR = 0.01  # share of wrong yeses, if none is named
FRR = 0.05  # share of right yeses that may be called "different"
MOST_CROPS = 16  # of an image, see `Embedder.embed`
PAIR_FEATURES = ("one", "score", "crops", "score_crops", "jpeg", "score_jpeg")
GALLERY_FEATURES = (
    *PAIR_FEATURES,
    "models",
    "score_models",
    "enrolled",
    "score_enrolled",
    "second",
    "rest",
    "alike",
)
FloatArray = NDArray[np.float64]
Answer = Literal["same", "different", "unsure"]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a verdict depends on besides the score.

    Attributes
    ----------
    crops
        Crops that the embedding was made of; for a pair, of the image with fewer.
    jpeg
        Whether any of the images was compressed.
    """

    crops: int
    jpeg: bool

    def __post_init__(self) -> None:
        if self.crops < 1:
            raise ValueError(f"crops must be at least 1, got {self.crops}")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An answer and what it rests on.

    Attributes
    ----------
    answer
        "same", "different" or "unsure": of a pair, whether one model made both; of an
        identification, whether the named model made the image ("same") or none of the enrolled
        ("different").
    score
        In [-1, 1].
    log_ratio
        Natural logarithm of the likelihood ratio of the score.
    accept, refuse
        "same" from `accept` on, "different" below `refuse`; refuse <= 0 <= accept.
    far
        Share of the wrong pairs, or of the images of models not enrolled, that reach `accept` on
        synthetic data.
    """

    answer: Answer
    score: float
    log_ratio: float
    accept: float
    refuse: float
    far: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Likelihood ratios of one kind of score, and where answers begin.

    Attributes
    ----------
    weights
        Of the features by name; their weighted sum is the log-ratio.
    bound
        Largest absolute log-ratio.
    crops, models
        Levels, rising, of the two tables; in between they are interpolated over the logarithm.
    fars
        Rising shares of false accepts.
    accept
        (2, crops, models, fars) log-ratios that these shares of impostors reach, without and
        with JPEG.
    refuse
        (2, crops, models) log-ratios below which 5% of the genuine lie.
    """

    weights: Mapping[str, float]
    bound: float
    crops: tuple[int, ...]
    models: tuple[int, ...]
    fars: tuple[float, ...]
    accept: Any
    refuse: Any

    def __post_init__(self) -> None:
        shape = (2, len(self.crops), len(self.models), len(self.fars))
        accept, refuse = np.array(self.accept, float), np.array(self.refuse, float)
        if accept.shape != shape or refuse.shape != shape[:3]:
            raise ValueError(
                f"accept and refuse must be {shape} and {shape[:3]}, got {accept.shape} and "
                f"{refuse.shape}"
            )
        numbers = [*self.weights.values(), self.bound, *accept.ravel(), *refuse.ravel()]
        if not np.isfinite(numbers).all() or self.bound <= 0:
            raise ValueError("all numbers must be finite and the bound positive")
        for name in ("crops", "models", "fars"):
            levels = np.array(getattr(self, name), float)
            if not levels.size or levels[0] <= 0 or (np.diff(levels) <= 0).any():
                raise ValueError(f"{name} must be positive and rise, got {levels.tolist()}")

    def log_ratio(self, features: Mapping[str, ArrayLike]) -> FloatArray:
        """Log-ratios (n,) of features (n,) each, bounded."""
        columns = np.stack([np.asarray(features[name], float) for name in self.weights], axis=-1)
        return np.clip(columns @ np.array(list(self.weights.values())), -self.bound, self.bound)

    def bounds(self, conditions: Conditions, *, models: int, far: float) -> tuple[float, float]:
        """Log-ratios from which on it is "same", and below which "different".

        Raises
        ------
        ValueError
            If `far` is stricter or laxer than what was measured.
        """
        if not self.fars[0] <= far <= self.fars[-1]:
            raise ValueError(
                f"far must be from {self.fars[0]:g} (the strictest that was measured) to "
                f"{self.fars[-1]:g}, got {far:g}"
            )
        accept, refuse = (
            _along(_along(np.array(table, float)[int(conditions.jpeg)], self.crops,
                          conditions.crops), self.models, models)
            for table in (self.accept, self.refuse)
        )  # fmt: skip
        # a ratio below 1 is no evidence for, one above none against
        at = max(0.0, float(_along(accept, self.fars, far)))
        return at, min(0.0, float(refuse))

    def verdict(
        self, score: float, log_ratio: float, conditions: Conditions, *, models: int, far: float
    ) -> Verdict:
        """The answer for one log-ratio; ValueError for a NaN."""
        if math.isnan(score) or math.isnan(log_ratio):
            raise ValueError("a score must be a number, got NaN")
        accept, refuse = self.bounds(conditions, models=models, far=far)
        answer: Answer = "unsure"
        if log_ratio >= accept:
            answer = "same"
        elif log_ratio < refuse:
            answer = "different"
        return Verdict(
            answer=answer, score=score, log_ratio=log_ratio, accept=accept, refuse=refuse, far=far
        )


@dataclass(frozen=True, kw_only=True)
class VerdictCalibration:
    """The scale of scores of pairs, and that of scores of galleries."""

    pairs: Scale
    galleries: Scale

    def __post_init__(self) -> None:
        for scale, names in ((self.pairs, PAIR_FEATURES), (self.galleries, GALLERY_FEATURES)):
            unknown = set(scale.weights) - set(names)
            if unknown or "score" not in scale.weights:
                raise ValueError(f"weights must name some of {names}, got {list(scale.weights)}")

    def verify(self, score: float, conditions: Conditions, *, far: float = FAR) -> Verdict:
        """Did one model make both images?

        Parameters
        ----------
        score : float in [-1, 1]
            See :func:`fpkit.gallery.verify`.
        conditions : Conditions
            Of both images.
        far : float
            Share of the pairs of two models that may be called "same".

        Raises
        ------
        ValueError
            If `score` is NaN, or `far` outside of what was measured.
        """
        features = pair_features(score, crops=conditions.crops, jpeg=conditions.jpeg)
        ratio = float(self.pairs.log_ratio(features))
        return self.pairs.verdict(float(score), ratio, conditions, models=1, far=far)

    def identify(
        self,
        identification: Identification,
        gallery: Gallery,
        conditions: Conditions,
        *,
        far: float = FAR,
    ) -> Verdict:
        """Did the named model make the image, or none of the enrolled?

        Parameters
        ----------
        identification : Identification
            What `gallery` said.
        gallery : Gallery
            Nothing may have been enrolled or removed since.
        conditions : Conditions
            Of the image.
        far : float
            Share of the images of models not enrolled that may be called "same".

        Raises
        ------
        ValueError
            If the identification is another gallery's, or `far` outside of what was measured.
        """
        big = gallery.is_big
        found = identification.scores
        if len(found) != (BEST if big else len(gallery)) or not all(n in gallery for n in found):
            raise ValueError("the identification names other models than the gallery: ask again")
        if big and (missing := {"rest", "alike"} & set(self.galleries.weights)):
            raise ValueError(
                f"these verdicts need {' and '.join(sorted(missing))}, unknown in a "
                f"gallery of {len(gallery)} models: calibrate with the usual features"
            )
        names = list(found) if big else gallery.models
        features = gallery_features(
            np.array([[found[name] for name in names]]),
            templates=None if big else gallery.templates,
            enrolled=[gallery.count(name) for name in names],
            crops=conditions.crops,
            jpeg=conditions.jpeg,
            models=len(gallery),
        )
        ratio = float(self.galleries.log_ratio(features)[0])
        return self.galleries.verdict(
            identification.score, ratio, conditions, models=len(gallery), far=far
        )


def pair_features(scores: ArrayLike, *, crops: ArrayLike, jpeg: ArrayLike) -> dict[str, FloatArray]:
    """Features of scores of any shape, by name; `crops` and `jpeg` broadcast with them."""
    s, c, j = np.broadcast_arrays(
        np.asarray(scores, float),
        np.log(np.clip(crops, 1, MOST_CROPS)) / math.log(MOST_CROPS),
        np.asarray(jpeg, float),
    )
    found = (np.ones_like(s), s, c, s * c, j, s * j)
    return dict(zip(PAIR_FEATURES, found, strict=True))


def gallery_features(
    scores: ArrayLike,
    *,
    templates: ArrayLike | None,
    enrolled: ArrayLike,
    crops: ArrayLike,
    jpeg: ArrayLike,
    models: int | None = None,
) -> dict[str, FloatArray]:
    """Features of the best enrolled model of each of n images.

    Parameters
    ----------
    scores : (n, m)
        Of every image against every enrolled model.
    templates : (m, d)
        None if `scores` are those of the best models only; "rest" and "alike" are then NaN.
    enrolled : (m,)
        Images of each model.
    crops, jpeg : (n,) or one for all
        Of the images.
    models : int
        In the gallery, if they are not the m.
    """
    scores = np.asarray(scores, float)
    best = scores.argmax(axis=1)
    found = pair_features(scores.max(axis=1), crops=crops, jpeg=jpeg)
    s, sizes = found["score"], np.full(len(scores), math.log(models or scores.shape[1]))
    images = np.log(np.minimum(np.asarray(enrolled, float), MOST_CROPS))[best]
    order = np.sort(scores, axis=1)
    if scores.shape[1] == 1:
        second = rest = alike = np.zeros(len(scores))
    else:
        second, rest = order[:, -2], order[:, :-1].std(axis=1)
        alike = np.full(len(scores), np.nan)
        if templates is None:
            rest = alike
        else:
            rows, place = np.unique(best, return_inverse=True)
            among = centred_scores(np.asarray(templates)[rows], templates)
            among[np.arange(len(rows)), rows] = -1.0
            alike = among.max(axis=1)[place]
    more = (sizes, s * sizes, images, s * images, second, rest, alike)
    return found | dict(zip(GALLERY_FEATURES[len(PAIR_FEATURES) :], more, strict=True))


def stored_verdicts(card: Mapping[str, Any], *, extractor_hash: str) -> VerdictCalibration:
    """The calibration on an extractor's card.

    Raises
    ------
    ValueError
        If there is none, or it was made for other weights; says how to make it.
    """
    return ENTRY.read(
        card,
        lambda scales: VerdictCalibration(
            pairs=_scale(scales["pairs"]), galleries=_scale(scales["galleries"])
        ),
        extractor_hash=extractor_hash,
    )


def _scale(stored: Mapping[str, Any]) -> Scale:
    return Scale(**{name: _frozen(value) for name, value in stored.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value  # JSON has no tuples


def _along(table: FloatArray, levels: tuple[float, ...], at: float) -> FloatArray:
    """First axis of a table read at a level in between, on a logarithmic scale."""
    place = float(np.interp(math.log(at), np.log(levels), np.arange(len(levels))))
    low = int(place)
    high = min(low + 1, len(levels) - 1)
    return table[low] + (place - low) * (table[high] - table[low])

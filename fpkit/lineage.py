"""Lineage: which base model shares its decoder with the model behind some images?

Fine-tunes and LoRA variants keep the decoder of their base, and with it the fingerprint. The score
of a folder of images against an enrolled base becomes a likelihood ratio: how many times likelier
is such a score if the two share a decoder than if they do not? :mod:`fpkit.calibration` fits that
ratio on synthetic bases and their fine-tunes, where the truth is known.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpkit.artefacts import check_fields
from fpkit.card_entries import CardEntry
from fpkit.gallery import Gallery, centred_scores

ENTRY = CardEntry(
    key="lineage", noun="lineage calibration", command="fpkit calibrate-lineage FOLDER"
)
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From a score to a likelihood ratio.

    The logarithm of the ratio is ``intercept + slope * s + by_images * l + slope_by_images * s*l``
    with the score s and ``l = log(m)``, where ``1/m = 1/n + 1/k`` for n images asked about and k
    enrolled: the mean of many images is a better witness than one image.

    Attributes
    ----------
    intercept, slope, by_images, slope_by_images
        Coefficients of natural log-odds.
    fewest, most
        m is clipped to what the calibration has seen.
    bound
        Largest absolute log-ratio: p pairs cannot show how rare an error below 1/p is.
    """

    intercept: float
    slope: float
    by_images: float
    slope_by_images: float
    fewest: float
    most: float
    bound: float

    def __post_init__(self) -> None:
        values = np.array(list(asdict(self).values()), dtype=np.float64)
        if not np.isfinite(values).all() or not 0 < self.fewest <= self.most or self.bound <= 0:
            raise ValueError(f"a calibration needs finite numbers and positive bounds, got {self}")
        ends = np.log([self.fewest, self.most])
        if (self.slope + self.slope_by_images * ends).min() <= 0:
            raise ValueError(f"a higher score must not mean less alike, got {self}")

    def log_ratio(self, scores: ArrayLike, *, images: ArrayLike, enrolled: ArrayLike) -> FloatArray:
        """Natural log of the likelihood ratio of scores in [-1, 1].

        `images` asked about and `enrolled` images, both at least 1, broadcast with `scores`.
        """
        scores = np.asarray(scores, dtype=np.float64)
        features = logistic_features(
            scores, np.clip(effective_images(images, enrolled), self.fewest, self.most)
        )
        weights = [self.intercept, self.slope, self.by_images, self.slope_by_images]
        return np.clip(features @ weights, -self.bound, self.bound)


@dataclass(frozen=True, kw_only=True)
class Relative:
    """How alike a folder of images and one enrolled base are.

    Attributes
    ----------
    base
        Name of the enrolled model.
    score
        In [-1, 1], of the mean embedding against the template, see
        :func:`fpkit.gallery.centred_scores`.
    score_interval
        95% bootstrap interval over the images; None for a single image.
    likelihood_ratio, probability
        Of sharing a decoder, given the score; None without a calibration.
    probability_interval
        The probabilities at both ends of `score_interval`.
    nearest
        Share of the bootstrap draws in which this base had the highest score; None for a single
        image.
    enrolled
        Images that the template was made of.
    """

    base: str
    score: float
    score_interval: tuple[float, float] | None
    likelihood_ratio: float | None
    probability: float | None
    probability_interval: tuple[float, float] | None
    nearest: float | None
    enrolled: int


def nearest_bases(
    embeddings: ArrayLike,
    gallery: Gallery,
    *,
    calibration: Calibration | None = None,
    prior: float = 0.5,
    draws: int = 1000,
    seed: int = 0,
) -> list[Relative]:
    """Compare the images of one model with every enrolled base, most alike first.

    Parameters
    ----------
    embeddings
        (n, d) embeddings of n >= 1 images of one model.
    gallery
        Of the bases.
    calibration
        Of the extractor, see :func:`stored_calibration`; without it there are only scores.
    prior
        Probability, before looking, that the model and a given base share a decoder. Bases are
        judged one by one: several may share a decoder, all may be strangers.
    draws, seed
        Of the bootstrap over images.

    Raises
    ------
    ValueError
        If nothing is enrolled, embeddings do not fit, or `prior` is not in (0, 1).
    """
    if not 0 < prior < 1:
        raise ValueError(f"prior must be between 0 and 1, both excluded, got {prior}")
    if not len(gallery):
        raise ValueError("the gallery is empty: enrol at least one base model first")
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != gallery.dim:
        raise ValueError(f"embeddings must be (n, {gallery.dim}) with n >= 1, got {rows.shape}")
    enrolled = np.array(list(gallery.counts.values()))
    scores = centred_scores(rows.mean(axis=0)[None], gallery.templates)[0]
    low = high = first = None
    if len(rows) > 1:
        share = np.full(len(rows), 1 / len(rows))
        times = np.random.default_rng(seed).multinomial(len(rows), share, size=draws)
        drawn = centred_scores(times @ rows / len(rows), gallery.templates)
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        first = np.bincount(drawn.argmax(axis=1), minlength=len(gallery)) / draws

    def judged(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        assert calibration is not None  # asked for only where there is one
        ratio = calibration.log_ratio(values, images=len(rows), enrolled=enrolled)
        return np.exp(ratio), 1 / (1 + np.exp(-ratio) * (1 - prior) / prior)

    found = []
    for i in np.argsort(-scores, kind="stable"):
        interval = None if low is None else (float(low[i]), float(high[i]))
        ratio = probability = ends = None
        if calibration is not None:
            ratio, probability = (float(values[i]) for values in judged(scores))
            if low is not None:
                ends = (float(judged(low)[1][i]), float(judged(high)[1][i]))
        found.append(
            Relative(
                base=gallery.models[i],
                score=float(scores[i]),
                score_interval=interval,
                likelihood_ratio=ratio,
                probability=probability,
                probability_interval=ends,
                nearest=None if first is None else float(first[i]),
                enrolled=int(enrolled[i]),
            )
        )
    return found


def stored_calibration(card: dict[str, Any], *, extractor_hash: str) -> Calibration:
    """The calibration on an extractor's card.

    Raises
    ------
    ValueError
        If there is none, or it was made for other weights; says how to make it.
    """
    names = [field.name for field in fields(Calibration)]
    return ENTRY.read(
        card,
        lambda stored: Calibration(**check_fields(stored, dict.fromkeys(names, float))),
        extractor_hash=extractor_hash,
    )


def effective_images(images: ArrayLike, enrolled: ArrayLike) -> FloatArray:
    """m with 1/m = 1/images + 1/enrolled: how many images the score's noise is that of."""
    images, enrolled = np.asarray(images, dtype=np.float64), np.asarray(enrolled, dtype=np.float64)
    return 1 / (1 / images + 1 / enrolled)


def logistic_features(scores: FloatArray, images: FloatArray) -> FloatArray:
    """(..., 4): 1, the score, log m, and their product; see `Calibration`."""
    scores, logs = np.broadcast_arrays(scores, np.log(images))
    return np.stack([np.ones_like(scores), scores, logs, scores * logs], axis=-1)

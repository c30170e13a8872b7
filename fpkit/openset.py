"""Open set: how well are images refused whose model nobody enrolled?

Identification names the nearest enrolled model, and always names one. Who uses it will meet
images of other models, and photographs: the best score must tell that none of the enrolled fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpkit.gallery import centred_scores
from fpkit.protocol import SHOTS, FloatArray, Plan, Result

SHARE = 1 / 3  # of the models that a draw leaves out
KEPT = 0.95
FARS = (0.01, 0.05)
ROUNDING = 1e-9  # of sums of weights


def open_set(
    plan: Plan, points: FloatArray, photos: FloatArray, *, prior: float, share: float = SHARE
) -> Result | None:
    """Leave models out of the gallery and ask for them all the same.

    Parameters
    ----------
    plan
        Who is enrolled in which draw, at k = 10; in each draw a random `share` of its models is
        not enrolled after all.
    points
        (n, d) features of the images of the plan.
    photos
        (p, d) features of photographs that no model made; may be none.
    prior
        See :func:`fpkit.gallery.centred_scores`.
    share
        Of the models that are left out, in (0, 1). Kin (one decoder) are left out together, so it
        is met as nearly as whole groups of kin allow.

    Returns
    -------
    dict or None
        None if there are fewer than three groups of kin. Else, means over the draws:

        - ``known_models``, ``unknown_models``: fewest and most in a draw.
        - ``oscr``, ``auroc``: known probes against the probes of the models left out.
        - ``far_at_tar_0.95``: share of those unknown probes accepted at the highest threshold
          that at least 95% of the known probes of the same draw reach, named rightly or not.
        - ``ccr_at_far_0.01``, ``ccr_at_far_0.05``: share of known probes accepted and named
          rightly at the lowest threshold that at most this share of those unknown probes reaches.
        - ``photos``: None without photographs; else ``images``, and with the photographs as the
          unknowns ``oscr``, ``auroc``, ``far_at_tar_0.95`` (the threshold as above), and
          ``far_at_unknown_0.01``, ``far_at_unknown_0.05``: the share of photographs accepted at
          the thresholds that were chosen on the probes of the models left out.

    Notes
    -----
    The score of a probe is that of the best enrolled model. Every model counts alike, whatever
    its number of probes. OSCR is the area under the correct classification rate (known probes
    accepted and named rightly; kin of the right model are wrong) against the false-positive rate
    (unknown probes accepted), from nothing accepted to everything. AUROC forgives wrong names,
    so it is never below OSCR.

    References
    ----------
    Dhamija, Günther, Boult, "Reducing network agnostophobia", NeurIPS 2018 (OSCR).
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    if plan.decoder.max() + 1 < 3:
        return None
    generator = np.random.default_rng(plan.seed)
    by_models, by_photos, counts = [], [], []
    for templates, probes in plan.galleries(points, max(SHOTS)):
        out = _left_out(plan.decoder, share, generator)
        names = np.flatnonzero(~out)
        scores = centred_scores(points[probes], templates[names], prior=prior)
        model = plan.model[probes]
        answers = Answers(
            score=scores.max(axis=1),
            right=names[scores.argmax(axis=1)] == model,
            weight=1 / np.bincount(model)[model],
        )
        known, unknown = answers.of(~out[model]), answers.of(out[model])
        by_models.append(_against(known, unknown) | _named(known, unknown))
        if len(photos):
            seen = centred_scores(photos, templates[names], prior=prior).max(axis=1)
            photo = Answers.of_nobody(seen)
            by_photos.append(_against(known, photo) | _mistaken(unknown, photo))
        counts.append(int(out.sum()))
    models = len(plan.models)
    return {
        "known_models": [models - max(counts), models - min(counts)],
        "unknown_models": [min(counts), max(counts)],
        **_means(by_models),
        "photos": {"images": len(photos), **_means(by_photos)} if by_photos else None,
    }


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The best enrolled model for each of n images.

    Attributes
    ----------
    score
        (n,) of that model.
    right
        (n,) whether it made the image.
    weight
        (n,) how much the image counts, above 0.
    """

    score: FloatArray
    right: NDArray[np.bool_]
    weight: FloatArray

    @classmethod
    def of_nobody(cls, score: FloatArray) -> Answers:
        """For images of no enrolled model, all of which count alike."""
        return cls(score=score, right=np.zeros(len(score), bool), weight=np.ones(len(score)))

    def of(self, some: NDArray[np.bool_]) -> Answers:
        """Those of some images."""
        return Answers(score=self.score[some], right=self.right[some], weight=self.weight[some])

    def accepted(self, thresholds: FloatArray, *, right: bool = False) -> FloatArray:
        """(t,) weighted share of the images that reach each threshold, and are right if asked."""
        order = np.argsort(self.score)
        weight = self.weight * self.right if right else self.weight
        below = np.append(0.0, np.cumsum(weight[order]))
        reached = below[-1] - below[np.searchsorted(self.score[order], thresholds, side="left")]
        return reached / self.weight.sum()


def curves(known: Answers, unknown: Answers) -> tuple[FloatArray, FloatArray, FloatArray]:
    """False-positive rate, correct classification rate and share of the known accepted.

    Returns
    -------
    fpr, ccr, kept
        (t,) each, by falling threshold, from nothing accepted to everything.
    """
    levels = np.unique(np.concatenate([known.score, unknown.score]))[::-1]
    levels = np.append(np.inf, levels)
    return (
        unknown.accepted(levels),
        known.accepted(levels, right=True),
        known.accepted(levels),
    )


def threshold_keeping(known: Answers, share: float) -> float:
    """Highest threshold that at least `share` of the known reaches."""
    levels = np.unique(known.score)[::-1]
    return float(levels[np.argmax(known.accepted(levels) >= share - ROUNDING)])


def threshold_refusing(unknown: Answers, far: float) -> float:
    """Lowest threshold that at most the share `far` < 1 of the unknown reaches."""
    levels = np.unique(unknown.score)
    too_low = levels[unknown.accepted(levels) > far + ROUNDING]
    return float(np.nextafter(too_low.max(), np.inf))


def _left_out(
    decoder: NDArray[np.intp], share: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """(m,) models of random groups of kin, as near to `share` as they allow; two groups stay."""
    order = generator.permutation(decoder.max() + 1)
    sizes = np.cumsum(np.bincount(decoder)[order])[:-2]
    groups = 1 + int(np.argmin(np.abs(sizes - share * len(decoder))))
    return np.isin(decoder, order[:groups])


def _against(known: Answers, unknown: Answers) -> dict[str, float]:
    fpr, ccr, kept = curves(known, unknown)
    threshold = threshold_keeping(known, KEPT)
    return {
        "oscr": _area(fpr, ccr),
        "auroc": _area(fpr, kept),
        f"far_at_tar_{KEPT}": float(unknown.accepted(np.array([threshold]))[0]),
    }


def _named(known: Answers, unknown: Answers) -> dict[str, float]:
    thresholds = np.array([threshold_refusing(unknown, far) for far in FARS])
    shares = known.accepted(thresholds, right=True)
    return {f"ccr_at_far_{far}": float(s) for far, s in zip(FARS, shares, strict=True)}


def _mistaken(unknown: Answers, photo: Answers) -> dict[str, float]:
    thresholds = np.array([threshold_refusing(unknown, far) for far in FARS])
    shares = photo.accepted(thresholds)
    return {f"far_at_unknown_{far}": float(s) for far, s in zip(FARS, shares, strict=True)}


def _area(x: FloatArray, y: FloatArray) -> float:
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def _means(draws: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}

"""From a score to a decision: accepted, refused, or unsure in between.

One threshold must say yes or no to every score, and scores near it mean neither. Two thresholds
leave room for "unsure"; each is set by one kind of error alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fpkit.metrics import threshold_at_far

Decision = Literal["accepted", "unsure", "refused"]

FAR = 0.01  # share of impostor scores that `accept` lets through
FRR = 0.05  # share of genuine scores that `refuse` turns away


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Scores from ``accept`` on are accepted, scores below ``refuse`` refused, others unsure.

    Raises
    ------
    ValueError
        Unless -1 <= refuse <= accept <= 1.

    Examples
    --------
    >>> thresholds = Thresholds(accept=0.8, refuse=0.5)
    >>> [thresholds.decide(score) for score in (0.8, 0.5, 0.4)]
    ['accepted', 'unsure', 'refused']
    """

    accept: float
    refuse: float

    def __post_init__(self) -> None:
        if not -1 <= self.refuse <= self.accept <= 1:
            raise ValueError(
                "thresholds must be -1 <= refuse <= accept <= 1, got "
                f"refuse={self.refuse:g}, accept={self.accept:g}"
            )

    @classmethod
    def measured(
        cls, genuine: ArrayLike, impostor: ArrayLike, *, far: float = FAR, frr: float = FRR
    ) -> "Thresholds":
        """Thresholds for scores whose sources are known; take them from a development set.

        Parameters
        ----------
        genuine, impostor : scores of any shape
            Of images with one source, and with two.
        far : float in [0, 1]
            Share of the impostor scores that may be accepted.
        frr : float in [0, 1)
            Share of the genuine scores that may be refused. Where the two sets hardly overlap
            this would lie above ``accept``: then both are ``accept``, and nothing is unsure.

        Examples
        --------
        >>> Thresholds.measured([0.4, 0.8, 0.9], [0.0, 0.2, 0.5], far=0.0, frr=0.0).refuse
        0.4
        """
        if not 0 <= frr < 1:
            raise ValueError(f"frr must be in [0, 1), got {frr}")
        scores = np.sort(np.asarray(genuine, dtype=np.float64).ravel())
        if not scores.size or not np.isfinite(scores).all():
            raise ValueError("genuine must hold at least one score, and finite ones only")
        accept = min(1.0, threshold_at_far(impostor, far=far))
        return cls(accept=accept, refuse=min(accept, float(scores[int(frr * scores.size)])))

    def decide(self, score: float) -> Decision:
        """The decision on one score; ValueError for a NaN."""
        if np.isnan(score):
            raise ValueError("a score must be a number, got NaN")
        if score >= self.accept:
            return "accepted"
        return "refused" if score < self.refuse else "unsure"


# benchmarks/verdicts.py: single crops of 160 synthetic models that the extractor was not trained
# on; for IDENTIFY, galleries of 10 models with 5 images each. On real generators no image of a
# model that is not enrolled is accepted, and 31% (PNG) to 61% (JPEG) of those of enrolled models
# are refused.
IDENTIFY = Thresholds(accept=0.92, refuse=0.75)
_VERIFY = Thresholds(accept=0.80, refuse=0.59)


def verification_thresholds(card: Mapping[str, Any]) -> Thresholds:
    """Thresholds for a pair of images, cosine of two embeddings.

    ``accept`` is the one on the extractor's card (1% false accepts among pairs of unlike synthetic
    models); ``refuse`` lets 95% of the pairs of one synthetic model through.

    Notes
    -----
    Both come from synthetic models. On real generators false accepts are more frequent: 6% of the
    pairs of two models that store PNG, 16% with JPEG (benchmarks/verdicts.py).
    """
    known = card.get("verification", {})
    accept = float(known.get("threshold", _VERIFY.accept))
    return Thresholds(accept=accept, refuse=min(accept, _VERIFY.refuse))

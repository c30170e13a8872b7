"""How many generators made these images, and which images belong together?

No model is known beforehand: embeddings are seen along the directions that vary little within
models, from the middle of what was found, and clustered up to a distance that was calibrated on
synthetic models (:mod:`fpkit.discovery_calibration`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpkit.agglomeration import agglomerate, cluster_means
from fpkit.card_entries import CardEntry
from fpkit.extractor import load_extractor
from fpkit.gallery import Gallery, gallery_centre, template, unit
from fpkit.verdicts import FAR, MOST_CROPS, Conditions, Verdict, VerdictCalibration, stored_verdicts

ENTRY = CardEntry(
    key="discovery",
    noun="calibration of discovery",
    command="fpkit calibrate-discovery FOLDER",
)
# How many clusters the middle of synthetic models counts for, see `fpkit.gallery.centred_scores`:
# a folder may hold one generator only, so more than for a gallery.
PRIOR = 8.0
ROUNDS = 3  # of clustering, each seen from the middle of the clusters of the one before
ALONE = -1

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DiscoveryCalibration:
    """What clusters of an extractor's embeddings rest on.

    Attributes
    ----------
    projection
        (d, k) from embeddings to the directions that are seen, scaled by how little they vary
        within a model.
    threshold
        Distance up to which clusters are merged, see :func:`fpkit.agglomeration.merge`.
    """

    projection: Any
    threshold: float

    def __post_init__(self) -> None:
        matrix = np.array(self.projection, float)
        if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
            raise ValueError(f"projection must be (d, k) finite numbers, got {matrix.shape}")
        if not (np.isfinite(self.threshold) and self.threshold > 0):
            raise ValueError(f"threshold must be positive, got {self.threshold}")

    def seen(self, embeddings: ArrayLike) -> FloatArray:
        """Embeddings (n, d) along these directions: (n, k), unit norm.

        Raises
        ------
        ValueError
            If they are no (n, d) with n >= 1, or hold NaN.
        """
        rows, matrix = np.asarray(embeddings, float), np.array(self.projection, float)
        if rows.ndim != 2 or not len(rows) or rows.shape[1] != len(matrix):
            raise ValueError(
                f"embeddings must be (n, {len(matrix)}) with n >= 1, got {rows.shape}: were they "
                "made by another extractor?"
            )
        if not np.isfinite(rows).all():
            raise ValueError("embeddings hold NaN or infinite values: leave those images out")
        return unit(rows @ matrix)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """Images that one generator made, as far as their fingerprints tell.

    Attributes
    ----------
    images
        Places of its images among the embeddings, the most typical first; at least two.
    typical
        (len(images),) cosine of each with the middle of the cluster, in [-1, 1].
    template
        (d,) mean embedding, unit norm: `Gallery.enrol` takes it.
    nearest, score
        The enrolled model that is most alike, and its score; None without a gallery.
    verdict
        Whether it is that model; None without a gallery or a calibration of verdicts.
    """

    images: NDArray[np.intp]
    typical: FloatArray
    template: NDArray[np.float32]
    nearest: str | None = None
    score: float | None = None
    verdict: Verdict | None = None

    @property
    def answer(self) -> str:
        """``"like NAME"``, ``"new"`` or ``"unsure"``; empty without a verdict."""
        if self.verdict is None:
            return ""
        answers = {"same": f"like {self.nearest}", "different": "new", "unsure": "unsure"}
        return answers[self.verdict.answer]


@dataclass(frozen=True, kw_only=True, eq=False)
class Discovery:
    """Which images belong together.

    Attributes
    ----------
    clusters
        Largest first.
    labels
        (n,) place of each image's cluster in `clusters`; `ALONE` (-1) for images that are like
        no other.
    vectors
        (n, k) unit vectors that were clustered, for maps.
    """

    clusters: tuple[Cluster, ...]
    labels: NDArray[np.intp]
    vectors: FloatArray

    @property
    def alone(self) -> NDArray[np.intp]:
        """Places of the images that are like no other."""
        return np.flatnonzero(self.labels == ALONE)


def discover(
    embeddings: ArrayLike,
    *,
    calibration: DiscoveryCalibration | None = None,
    gallery: Gallery | None = None,
    verdicts: VerdictCalibration | None = None,
    crops: ArrayLike = MOST_CROPS,
    jpeg: ArrayLike = False,
    far: float = FAR,
    seed: int = 0,
) -> Discovery:
    """Sort images by the generators that made them, without knowing any.

    Parameters
    ----------
    embeddings : (n, d)
        Of n >= 1 images.
    calibration : DiscoveryCalibration, optional
        Of their extractor; by default that of the extractor that ships.
    gallery : Gallery, optional
        Every cluster is compared with its models.
    verdicts : VerdictCalibration, optional
        Of the extractor; without it no cluster is called "like" a model or "new". If
        `calibration` is left out, too, and the gallery fits, that of the extractor that ships.
    crops, jpeg : (n,) or one for all
        Of the images, see :class:`fpkit.verdicts.Conditions`.
    far : float
        Share of the images of models not enrolled that may be called "like" one.
    seed : int
        Of the chunks in which more than 2000 images are clustered.

    Returns
    -------
    Discovery

    Raises
    ------
    ValueError
        If embeddings hold NaN or do not fit the calibration or the gallery, or the card of the
        extractor has none.
    ModuleNotFoundError
        If scikit-learn is not installed.

    Notes
    -----
    The centre from which clusters are told apart is found with them: real generators share traits
    that no synthetic model has, so their embeddings lean the same way; those of a folder by one
    generator must not be spread over all directions, though.
    """
    rows = np.asarray(embeddings)
    if calibration is None:
        shipped = load_extractor()
        calibration = stored_discovery(shipped.card, extractor_hash=shipped.hash)
        if gallery is not None and verdicts is None and gallery.extractor_hash == shipped.hash:
            verdicts = stored_verdicts(shipped.card, extractor_hash=shipped.hash)
    points = calibration.seen(rows)
    labels, points = find_clusters(points, calibration.threshold, seed=seed)
    sizes = np.bincount(labels)
    order = np.argsort(-sizes, kind="stable")
    many = order[sizes[order] > 1]
    crops_of = np.broadcast_to(np.asarray(crops), len(rows))
    jpeg_of = np.broadcast_to(np.asarray(jpeg, bool), len(rows))
    middles = unit(cluster_means(points, labels))
    by_label = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    means = [template(rows[by_label[label]]) for label in many]
    nearest = gallery.identify(np.stack(means)) if gallery is not None and means else []
    clusters = []
    for place, (label, mean) in enumerate(zip(many, means, strict=True)):
        images = by_label[label]
        typical = points[images] @ middles[label]
        best = np.argsort(-typical, kind="stable")
        found: dict[str, Any] = {}
        if gallery is not None:
            named = nearest[place]
            seen = Conditions(
                crops=int(min(crops_of[images].sum(), MOST_CROPS)), jpeg=bool(jpeg_of[images].any())
            )
            verdict = verdicts and verdicts.identify(named, gallery, seen, far=far)
            found = {"nearest": named.model, "score": named.score, "verdict": verdict}
        clusters.append(Cluster(images=images[best], typical=typical[best], template=mean, **found))
    number = np.full(len(sizes), ALONE)
    number[many] = np.arange(len(many))
    return Discovery(clusters=tuple(clusters), labels=number[labels], vectors=points)


def find_clusters(
    points: FloatArray, threshold: float, *, seed: int = 0
) -> tuple[NDArray[np.intp], FloatArray]:
    """Cluster unit vectors and find the middle to look from, in turns.

    Returns
    -------
    labels : (n,)
        From 0 on.
    points : (n, k)
        Unit vectors, seen from the middle of the last round but one.
    """
    seen = points
    for turn in range(ROUNDS):
        labels = agglomerate(seen, threshold, seed=seed)
        if turn < ROUNDS - 1:
            means, sizes = unit(cluster_means(points, labels)), np.bincount(labels)
            if (sizes > 1).any():
                means = means[sizes > 1]
            seen = unit(points - gallery_centre(means, prior=PRIOR))
    return labels, seen


def stored_discovery(card: Mapping[str, Any], *, extractor_hash: str) -> DiscoveryCalibration:
    """The calibration on an extractor's card.

    Raises
    ------
    ValueError
        If there is none, or it was made for other weights; says how to make it.
    """
    return ENTRY.read(
        card, lambda stored: DiscoveryCalibration(**stored), extractor_hash=extractor_hash
    )

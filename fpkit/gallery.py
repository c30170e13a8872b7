"""A gallery of known models: enrol them by a few images each, then ask who made a new image.

Works on embeddings alone (see :mod:`fpkit.extractor` for how images become embeddings), so any
feature vector will do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open

from fpkit.assets import save_safetensors_atomic

FORMAT = "fpkit-gallery-1"

# One enrolled model says little about where the middle of all models is, ten say a lot: with 4
# the cohort centre (0) counts as much as four enrolled models.
PRIOR = 4.0


def template(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Mean of the embeddings of one model, scaled back to unit norm: (n, d) -> (d,)."""
    rows = _rows("embeddings", embeddings)
    mean = rows.astype(np.float64).mean(axis=0)
    return (mean / max(np.linalg.norm(mean), 1e-12)).astype(np.float32)


def centred_scores(
    probes: ArrayLike, templates: ArrayLike, *, prior: float = PRIOR
) -> NDArray[np.float64]:
    """Cosine similarity of probes and templates, seen from the middle of the gallery.

    Real generators share traits that no synthetic model has, so all their embeddings lean the
    same way and plain cosines are all high. Looking from the middle of the enrolled models
    leaves what tells them apart.

    Parameters
    ----------
    probes
        (n, d) embeddings, 0 being the mean of a cohort of unrelated models.
    templates
        (m, d) one template per enrolled model.
    prior
        How many enrolled models the cohort's mean counts for. The centre is
        ``m / (m + prior) * mean(templates)``: near the cohort's for a single model, near the
        gallery's own for many. With 0 it is the gallery's mean (and a single enrolled model
        would sit on it, with no direction left: all its scores are 0).

    Returns
    -------
    ndarray
        (n, m) in [-1, 1]. The probes never shift the centre: a score depends on one probe and
        the gallery only.

    Raises
    ------
    ValueError
        If shapes disagree or `prior` is negative.
    """
    probes, templates = _rows("probes", probes), _rows("templates", templates)
    if probes.shape[1] != templates.shape[1]:
        raise ValueError(
            f"probes have {probes.shape[1]} dimensions, templates {templates.shape[1]}"
        )
    centre = gallery_centre(templates, prior=prior)
    return _unit(probes - centre) @ _unit(templates - centre).T


def gallery_centre(templates: ArrayLike, *, prior: float = PRIOR) -> NDArray[np.float64]:
    """Point from which :func:`centred_scores` looks: (m, d) -> (d,) float64."""
    if prior < 0:
        raise ValueError(f"prior must be at least 0, got {prior}")
    rows = _rows("templates", templates).astype(np.float64)
    return len(rows) / (len(rows) + prior) * rows.mean(axis=0)


def verify(first: ArrayLike, second: ArrayLike) -> float:
    """Score in [-1, 1] of "one model made both images": the cosine of two embeddings (d,).

    0 is what two images of unrelated models score on average, since embeddings are centred by
    a cohort of such models.
    """
    first, second = _rows("first", [first]), _rows("second", [second])
    return float((_unit(first) @ _unit(second).T).item())


@dataclass(frozen=True, kw_only=True)
class Identification:
    """Answer to "which enrolled model made this image?" for one image.

    Attributes
    ----------
    model
        The enrolled model with the highest score.
    score
        Its score, in [-1, 1]. No threshold has been applied: the true model may be none of the
        enrolled ones.
    scores
        Score of every enrolled model, highest first.
    """

    model: str
    score: float
    scores: dict[str, float]


class Gallery:
    """Templates of the enrolled models, all made by one extractor.

    Parameters
    ----------
    extractor_hash
        ``extractor.hash`` of the extractor whose embeddings go in. Embeddings of two extractors
        cannot be compared, so a gallery is bound to one.
    dim
        Length of an embedding.

    Examples
    --------
    >>> gallery = Gallery("3f2a", dim=3)
    >>> gallery.enrol("left", [[1.0, 0.0, 0.1], [1.0, 0.0, -0.1]])
    >>> gallery.enrol("right", [[0.0, 1.0, 0.0]])
    >>> gallery.identify([[0.9, 0.2, 0.0]])[0].model
    'left'
    """

    def __init__(self, extractor_hash: str, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.extractor_hash = extractor_hash
        self.dim = dim
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def __repr__(self) -> str:
        images = sum(self._counts.values())
        return f"Gallery({len(self)} models, {images} images, dim={self.dim})"

    @property
    def models(self) -> list[str]:
        """Names of the enrolled models, in the order of enrolment."""
        return list(self._sums)

    @property
    def counts(self) -> dict[str, int]:
        """Images enrolled per model."""
        return dict(self._counts)

    @property
    def templates(self) -> NDArray[np.float32]:
        """(m, d) unit-norm templates in the order of :attr:`models`."""
        rows = [template(total[None]) for total in self._sums.values()]
        return np.stack(rows) if rows else np.zeros((0, self.dim), np.float32)

    def enrol(self, model: str, embeddings: ArrayLike) -> None:
        """Add images of a model; a model that is enrolled already gets more of them.

        Parameters
        ----------
        model
            Its name, not empty.
        embeddings
            (n, d) embeddings of n >= 1 of its images.

        Raises
        ------
        ValueError
            If the name is empty, there is no embedding, or it has the wrong length or a NaN.
        """
        if not model:
            raise ValueError("a model needs a name, got an empty one")
        rows = self._embeddings(embeddings).astype(np.float64)
        self._sums[model] = self._sums.get(model, 0.0) + rows.sum(axis=0)
        self._counts[model] = self._counts.get(model, 0) + len(rows)

    def remove(self, model: str) -> None:
        """Forget a model; KeyError, naming those enrolled, if it is not there."""
        if model not in self._sums:
            raise KeyError(f"{model!r} is not enrolled; enrolled: {', '.join(self.models) or '-'}")
        del self._sums[model], self._counts[model]

    def identify(self, embeddings: ArrayLike, *, prior: float = PRIOR) -> list[Identification]:
        """Score each image against every enrolled model, see :func:`centred_scores`.

        Parameters
        ----------
        embeddings
            (n, d), one row per image.
        prior
            See :func:`centred_scores`.

        Raises
        ------
        ValueError
            If nothing is enrolled, or the embeddings do not fit.
        """
        if not self._sums:
            raise ValueError("the gallery is empty: enrol at least one model first")
        rows = centred_scores(self._embeddings(embeddings), self.templates, prior=prior)
        answers = []
        for row in rows:
            order = np.argsort(-row, kind="stable")
            scores = {self.models[i]: float(row[i]) for i in order}
            best = next(iter(scores))
            answers.append(Identification(model=best, score=scores[best], scores=scores))
        return answers

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (no pickle), whole or not at all."""
        header = {
            "format": FORMAT,
            "extractor_hash": self.extractor_hash,
            "models": json.dumps(self.models),
            "counts": json.dumps(list(self._counts.values())),
        }
        sums = np.stack(list(self._sums.values())) if self._sums else np.zeros((0, self.dim))
        tensors = {"sums": torch.from_numpy(np.ascontiguousarray(sums))}
        save_safetensors_atomic(path, tensors, metadata=header)

    @classmethod
    def load(cls, path: str | Path, *, extractor_hash: str) -> Gallery:
        """Read a gallery back, for the extractor with this hash.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no gallery, or another extractor's.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no gallery at {path}: make one with `fpkit enrol`")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ValueError(f"{path} is not a gallery of this version of fpkit")
                sums = file.get_tensor("sums").numpy()
        except SafetensorError as error:
            raise ValueError(f"{path} is not a gallery, or is damaged: {error}") from error
        if header["extractor_hash"] != extractor_hash:
            raise ValueError(
                f"{path} was made with the extractor {header['extractor_hash'][:12]}, the one in "
                f"use is {extractor_hash[:12]}: use that extractor, or enrol the images again"
            )
        gallery = cls(extractor_hash, dim=sums.shape[1])
        models, counts = json.loads(header["models"]), json.loads(header["counts"])
        gallery._sums = dict(zip(models, sums, strict=True))
        gallery._counts = dict(zip(models, counts, strict=True))
        return gallery

    def _embeddings(self, embeddings: ArrayLike) -> NDArray[np.floating]:
        rows = _rows("embeddings", embeddings)
        if rows.shape[1] != self.dim:
            raise ValueError(
                f"embeddings have {rows.shape[1]} dimensions, this gallery has {self.dim}: "
                "were they made by another extractor?"
            )
        return rows


def _rows(name: str, values: ArrayLike) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"{name} must have shape (n, d) with n >= 1, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return array


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

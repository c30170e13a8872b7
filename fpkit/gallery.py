"""A gallery of known models: enrol them by a few images each, then ask who made a new image.

Works on embeddings alone (see :mod:`fpkit.extractor` for how images become embeddings), so any
feature vector will do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fpkit.artefacts import check_fields, parse_json, shown
from fpkit.assets import save_safetensors_atomic
from fpkit.locks import locked
from fpkit.tensor_files import open_tensors

FORMAT = "fpkit-gallery-2"
FORMATS = ("fpkit-gallery-1", FORMAT)  # the first knew no images, only how many they were

MOST = 1e100  # of a sum: its square must be a number, too
HEADER_BYTES = 2**26  # of a file: names, and 70 bytes for every enrolled image

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
        self._images: dict[str, dict[str, None]] = {}  # of every model, in order of enrolment

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

    def enrol(
        self, model: str, embeddings: ArrayLike, *, images: Sequence[str] | None = None
    ) -> None:
        """Add images of a model; a model that is enrolled already gets more of them.

        Parameters
        ----------
        model
            Its name, not empty.
        embeddings
            (n, d) embeddings of n >= 1 of its images.
        images
            What tells the n images apart, see :func:`fpkit.embedding_cache.image_hash`: those that
            the model has already are left out, so that enrolling them again changes nothing.

        Raises
        ------
        ValueError
            If the name is empty, there is no embedding, it has the wrong length or a NaN, or
            `images` are not n.
        """
        if not model:
            raise ValueError("a model needs a name, got an empty one")
        rows = self._embeddings(embeddings).astype(np.float64)
        names = [None] * len(rows) if images is None else list(images)
        if len(names) != len(rows):
            raise ValueError(f"images must be one per embedding, got {len(names)} for {len(rows)}")
        known = self._images.setdefault(model, {})
        for row, name in zip(rows, names, strict=True):
            if name is not None:
                if name in known:
                    continue
                known[name] = None
            # one by one: the sum must not depend, in the last bit, on how often it was saved
            self._sums[model] = self._sums.get(model, 0.0) + row
            self._counts[model] = self._counts.get(model, 0) + 1

    def images(self, model: str) -> frozenset[str]:
        """Which images of a model are enrolled, as far as :meth:`enrol` was told; maybe none."""
        return frozenset(self._images.get(model, {}))

    def remove(self, model: str) -> None:
        """Forget a model; KeyError, naming those enrolled, if it is not there."""
        if model not in self._sums:
            raise KeyError(f"{model!r} is not enrolled; enrolled: {', '.join(self.models) or '-'}")
        del self._sums[model], self._counts[model], self._images[model]

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
            "images": json.dumps([list(self._images[model]) for model in self.models]),
        }
        sums = np.stack(list(self._sums.values())) if self._sums else np.zeros((0, self.dim))
        tensors = {"sums": torch.from_numpy(np.ascontiguousarray(sums))}
        save_safetensors_atomic(path, tensors, metadata=header)

    @classmethod
    @contextmanager
    def edit(cls, path: str | Path, *, extractor_hash: str, dim: int) -> Iterator[Gallery]:
        """Change a gallery file, or begin one: what the ``with`` block does to it is saved.

        Other processes that edit it wait meanwhile, so that nothing is lost if several enrol at
        the same time. Nothing is saved if the block raises.

        Raises
        ------
        ValueError
            As :meth:`load`.
        OSError
            If the file cannot be written, or another process keeps it for a minute.
        """
        with locked(path):
            if Path(path).exists():
                gallery = cls.load(path, extractor_hash=extractor_hash)
            else:
                gallery = cls(extractor_hash, dim)
            yield gallery
            gallery.save(path)

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
            with open_tensors(path, header=HEADER_BYTES) as file:
                made_with, models, counts, images = _stored_models(file.metadata)
                wanted = (torch.float64, (len(models), file.layout["sums"][1][-1]))
                if file.layout != {"sums": wanted} or wanted[1][1] < 1:
                    raise ValueError(f"its sums are {shown(file.layout)}, of {len(models)} models")
                sums = file.read()["sums"].numpy()
                if sums.size and abs(sums).max() > MOST:
                    raise ValueError(
                        f"its sums reach {abs(sums).max():g}, at most {MOST:g} is read"
                    )
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path} is not a gallery, or is damaged: {error}") from error
        if made_with != extractor_hash:
            raise ValueError(
                f"{path} was made with the extractor {shown(made_with[:12])}, the one in use is "
                f"{shown(extractor_hash[:12])}: use that extractor, or enrol the images again"
            )
        gallery = cls(extractor_hash, dim=sums.shape[1])
        gallery._sums = dict(zip(models, sums, strict=True))
        gallery._counts = dict(zip(models, counts, strict=True))
        gallery._images = {m: dict.fromkeys(i) for m, i in zip(models, images, strict=True)}
        return gallery

    def _embeddings(self, embeddings: ArrayLike) -> NDArray[np.floating]:
        rows = _rows("embeddings", embeddings)
        if rows.shape[1] != self.dim:
            raise ValueError(
                f"embeddings have {rows.shape[1]} dimensions, this gallery has {self.dim}: "
                "were they made by another extractor?"
            )
        return rows


def _stored_models(
    header: dict[str, str],
) -> tuple[str, list[str], list[int], list[list[str]]]:
    """Extractor's hash, names, counts and enrolled images of a gallery's header, if all fit."""
    if header.get("format") not in FORMATS:
        raise ValueError(
            f"its format is {shown(header.get('format'))}, this fpkit reads {', '.join(FORMATS)}"
        )
    lists = ("models", "counts", "images")[: 3 if header["format"] == FORMAT else 2]
    check_fields(header, dict.fromkeys(("format", "extractor_hash", *lists), str))
    models, counts, *rest = (parse_json(header[name]) for name in lists)
    images = rest[0] if rest else [[] for _ in models]
    for name, values, kind in (
        ("models", models, str),
        ("counts", counts, int),
        ("images", images, list),
    ):
        if type(values) is not list or {type(value) for value in values} - {kind}:
            raise ValueError(f"its {name} must be a list of {kind.__name__}, got {shown(values)}")
    if not len(models) == len(set(models)) == len(counts) == len(images) or "" in models:
        raise ValueError("its models need a name of their own, a count and images each")
    for count, known in zip(counts, images, strict=True):
        alike = len(known) != len(set(filter(lambda image: type(image) is str, known)))
        if alike or not len(known) <= count or count < 1:
            raise ValueError(f"it has a count of {count} for {len(known)} images")
    return header["extractor_hash"], models, counts, images


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

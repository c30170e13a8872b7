"""A gallery of known models: enrol them by a few images each, then ask who made a new image.

Works on embeddings alone (see :mod:`fpkit.extractor` for how images become embeddings), so any
feature vector will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpkit.artefacts import shown
from fpkit.gallery_file import Stored, read_stored, write_stored
from fpkit.gallery_search import BigSearch, scan, stamps_of, sum_of
from fpkit.locks import locked
from fpkit.vector_index import blocks

# One enrolled model says little about where the middle of all models is, ten say a lot: with 4
# the cohort centre (0) counts as much as four enrolled models.
PRIOR = 4.0

EXACT = 100_000  # models: with more, an index says which are scored
BEST = 100  # scores of an identification among more models than that


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
    return unit(probes - centre) @ unit(templates - centre).T


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
    return float((unit(first) @ unit(second).T).item())


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
        Score of every enrolled model, highest first; of more than `EXACT` models, of the best
        `BEST` only.
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
        self._models: list[str] = []  # in order of enrolment
        self._places: dict[str, int] = {}
        self._sums = np.empty((0, dim), np.float64)  # has room for more
        self._counts: list[int] = []
        self._images: dict[str, tuple[str, ...]] = {}  # in order of enrolment
        self._search: BigSearch | None = None
        self._path: Path | None = None

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, model: object) -> bool:
        return model in self._places

    def __repr__(self) -> str:
        return f"Gallery({len(self)} models, {sum(self._counts)} images, dim={self.dim})"

    @property
    def models(self) -> list[str]:
        """Names of the enrolled models, in the order of enrolment."""
        return list(self._models)

    @property
    def is_big(self) -> bool:
        """Whether an index says which models are scored: there are more than `EXACT`."""
        return len(self) > EXACT

    @property
    def counts(self) -> dict[str, int]:
        """Images enrolled per model."""
        return dict(zip(self._models, self._counts, strict=True))

    @property
    def templates(self) -> NDArray[np.float32]:
        """(m, d) unit-norm templates in the order of :attr:`models`."""
        found = np.empty((len(self), self.dim), np.float32)
        for part in blocks(len(self)):
            found[part] = self._templates_at(part)
        return found

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
        place = self._places.get(model, len(self))
        known = dict.fromkeys(self._images.get(model, ()))
        new = []
        for row, name in zip(rows, names, strict=True):
            if name is None or name not in known:
                new.append(row)
            if name is not None:
                known[name] = None
        if not new:
            return
        if place == len(self):
            self._begin(model)
        if self._search is not None:
            before = self._templates_at(slice(place, place + 1))[0]
            self._search.changed.setdefault(place, before)
        for row in new:
            # one by one: the sum must not depend, in the last bit, on how often it was saved
            self._sums[place] += row
        self._counts[place] += len(new)
        if known:
            self._images[model] = tuple(known)

    def images(self, model: str) -> frozenset[str]:
        """Which images of a model are enrolled, as far as :meth:`enrol` was told; maybe none."""
        return frozenset(self._images.get(model, ()))

    def count(self, model: str) -> int:
        """Images enrolled of a model; KeyError if it is not there."""
        return self._counts[self._places[model]]

    def remove(self, model: str) -> None:
        """Forget a model; KeyError, naming those enrolled, if it is not there."""
        if model not in self._places:
            few = ", ".join(self.models[:BEST]) or "-"
            more = f" and {len(self) - BEST} more" if len(self) > BEST else ""
            raise KeyError(f"{model!r} is not enrolled; enrolled: {few}{more}")
        place = self._places[model]
        self._sums = np.delete(self._sums[: len(self)], place, axis=0)
        del self._models[place], self._counts[place]
        self._images.pop(model, None)
        self._places = {name: row for row, name in enumerate(self._models)}
        self._search = None

    def identify(
        self, embeddings: ArrayLike, *, prior: float = PRIOR, exact: bool = False
    ) -> list[Identification]:
        """Score each image against every enrolled model, see :func:`centred_scores`.

        Parameters
        ----------
        embeddings
            (n, d), one row per image.
        prior
            See :func:`centred_scores`.
        exact
            Score all models of a gallery of more than `EXACT`, too, which takes some seconds.
            Without it, and at the usual `prior`, an index finds those to be scored: scores are
            exact, but the best model is missed now and then (``benchmarks/index.md``).

        Raises
        ------
        ValueError
            If nothing is enrolled, or the embeddings do not fit; for more than `EXACT` models
            also if faiss is not installed.

        Notes
        -----
        The index is made when it is first needed, within a minute for a million models, and kept
        in a file beside that of the gallery, named ``.index``, where that can be written. It
        belongs to the gallery's content and is brought up to date when that has changed; it can
        be deleted.
        """
        if not len(self):
            raise ValueError("the gallery is empty: enrol at least one model first")
        rows = self._embeddings(embeddings)
        models = self._models
        if not self.is_big:
            found = centred_scores(rows, self.templates, prior=prior)
            order = np.argsort(-found, axis=1, kind="stable")
            return [_answer(models, o, row[o]) for o, row in zip(order, found, strict=True)]
        if exact or prior != PRIOR:
            centre = sum_of(self._templates_at, len(self)) / (len(self) + prior)
            places = scan(self._templates_at, len(self), rows, centre)
        else:
            search = self._searched()
            centre, places = search.centre, search.candidates(rows)
        answers = []
        for row, near in zip(rows, places, strict=True):
            seen = unit(self._templates_at(near) - centre)
            scores = (unit(row[None] - centre) @ seen.T)[0]
            order = np.lexsort((near, -scores))[:BEST]  # ties in the order of enrolment
            answers.append(_answer(models, near[order], scores[order]))
        return answers

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (no pickle), whole or not at all."""
        stored = Stored(
            extractor_hash=self.extractor_hash,
            sums=self._sums[: len(self)],
            models=self._models,
            counts=self._counts,
            images=[self._images.get(model, ()) for model in self._models],
        )
        write_stored(path, stored)
        self._path = Path(path)

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
            stored = read_stored(path)
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path} is not a gallery, or is damaged: {error}") from error
        made_with = stored.extractor_hash
        if made_with != extractor_hash:
            raise ValueError(
                f"{path} was made with the extractor {shown(made_with[:12])}, the one in use is "
                f"{shown(extractor_hash[:12])}: use that extractor, or enrol the images again"
            )
        gallery = cls(extractor_hash, dim=stored.sums.shape[1])
        gallery._sums = stored.sums
        gallery._models = list(stored.models)
        gallery._places = {model: place for place, model in enumerate(stored.models)}
        gallery._counts = list(stored.counts)
        gallery._images = {
            model: tuple(images)
            for model, images in zip(stored.models, stored.images, strict=True)
            if images
        }
        gallery._path = path
        return gallery

    def _begin(self, model: str) -> None:
        """Make room for a model."""
        place = len(self)
        if place == len(self._sums):
            more = np.empty((max(16, place * 3 // 2), self.dim), np.float64)
            more[:place] = self._sums[:place]
            self._sums = more
        self._sums[place] = 0.0
        self._models.append(model)
        self._places[model] = place
        self._counts.append(0)

    def _templates_at(self, places: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """As :func:`template` makes them: a sum points where the mean does."""
        return unit(self._sums[places]).astype(np.float32)

    def _searched(self) -> BigSearch:
        """The index, of what is enrolled now."""
        if self._search is None or not self._search.update(len(self)):
            self._search = BigSearch(
                self._templates_at,
                stamps_of(self._sums[: len(self)]),
                prior=PRIOR,
                path=self._path,
            )
        return self._search

    def _embeddings(self, embeddings: ArrayLike) -> NDArray[np.floating]:
        rows = _rows("embeddings", embeddings)
        if rows.shape[1] != self.dim:
            raise ValueError(
                f"embeddings have {rows.shape[1]} dimensions, this gallery has {self.dim}: "
                "were they made by another extractor?"
            )
        return rows


def _answer(
    models: Sequence[str], order: NDArray[np.intp], scores: NDArray[np.float64]
) -> Identification:
    """`order` are places of models, the best first, `scores` theirs."""
    found = {
        models[place]: score for place, score in zip(order.tolist(), scores.tolist(), strict=True)
    }
    best = models[order[0]]
    return Identification(model=best, score=found[best], scores=found)


def _rows(name: str, values: ArrayLike) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"{name} must have shape (n, d) with n >= 1, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return array


def unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows (n, d) scaled to unit norm; a zero stays zero."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

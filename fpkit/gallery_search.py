"""The best of a gallery of many templates: an index finds candidates, kept beside the gallery.

The index sees templates from the middle of the gallery, as scores do. A few enrolments move that
middle by less than anything that matters for who is a candidate; scores are computed from where
it is now.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fpkit.vector_index import Lists, Points, Rows, VectorIndex, arrange, blocks

CANDIDATES = 200  # models that the index names for a probe: twice what an answer holds
FEW = 10_000  # enrolments: after more, the templates are taken anew
CHUNK = 8_192  # templates that a scan scores at a time


def index_path(path: str | Path) -> Path:
    """The index of the gallery in this file."""
    path = Path(path)
    return path.with_name(f"{path.name}.index")


class BigSearch:
    """Templates of a gallery, ready to be searched.

    Parameters
    ----------
    templates
        Gives those at a slice or at places (m,), as they are now: (m, d) unit norm.
    stamps
        (n,) from :func:`stamps_of`.
    prior
        See :func:`fpkit.gallery.centred_scores`.
    path
        Of the gallery, if it has a file; then its index is read, or written, beside it. A damaged
        one is made again, and one that cannot be written is not kept.

    Attributes
    ----------
    changed
        Templates (d,) by place, as they were before something was enrolled: zeros for new ones.
    """

    def __init__(
        self, templates: Rows, stamps: NDArray[np.int64], *, prior: float, path: Path | None
    ) -> None:
        self._templates, self._count, self._prior = templates, len(stamps), prior
        self._middle = sum_of(templates, len(stamps))
        self._from = self.centre
        before = None
        if path is not None:
            with suppress(OSError, ValueError):
                before = Lists.load(index_path(path), dim=len(self._middle))
        lists = arrange(self._seen, stamps, before=before)
        if path is not None and lists is not before:
            with suppress(OSError):
                lists.save(index_path(path))
        self._index = VectorIndex(lists, self._seen)
        self.changed: dict[int, Points] = {}

    @property
    def centre(self) -> NDArray[np.float64]:
        """From where scores are seen, (d,), see :func:`fpkit.gallery.gallery_centre`."""
        return self._middle / (self._count + self._prior)

    def update(self, count: int) -> bool:
        """Take over what has `changed`, in a gallery of `count`; False if it is too much."""
        if len(self.changed) > FEW:
            return False
        if self.changed:
            places = np.array(sorted(self.changed))
            now, self._count = self._templates(places), count
            before = np.stack([self.changed[place] for place in places])
            self._middle += (now.astype(np.float64) - before).sum(axis=0)
            self._index.put(places, self._seen(places))
            self.changed = {}
        return True

    def candidates(self, probes: NDArray[np.floating]) -> list[NDArray[np.intp]]:
        """Places of the templates that may be the best for each probe (n, d)."""
        return self._index.search(_directions(probes - self._from), CANDIDATES)

    def _seen(self, places: slice | NDArray[np.intp]) -> Points:
        return _directions(self._templates(places) - self._from)


def scan(
    templates: Rows, count: int, probes: NDArray[np.floating], centre: NDArray[np.float64]
) -> list[NDArray[np.intp]]:
    """As :meth:`BigSearch.candidates`, by scoring all; nothing is missed."""
    seen = _directions(probes - centre)
    places = np.empty((len(probes), 0), np.intp)
    best = np.empty((len(probes), 0), np.float32)
    for part in blocks(count, CHUNK):
        scores = seen @ _directions(templates(part) - centre).T
        here = np.broadcast_to(np.arange(part.start, part.stop), scores.shape)
        places, best = np.hstack([places, here]), np.hstack([best, scores])
        if best.shape[1] > CANDIDATES:
            keep = np.argpartition(-best, CANDIDATES - 1, axis=1)[:, :CANDIDATES]
            places = np.take_along_axis(places, keep, axis=1)
            best = np.take_along_axis(best, keep, axis=1)
    return list(places)


def sum_of(templates: Rows, count: int) -> NDArray[np.float64]:
    """Sum (d,) of `count` templates."""
    parts = [templates(part).sum(axis=0, dtype=np.float64) for part in blocks(count)]
    return np.sum(parts, axis=0)


def stamps_of(sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """A number for each of n rows (n, d) that tells it from what it was before.

    One row in 2^64 keeps its stamp by chance, and keeps its old list in the index then.
    """
    words = sums.view(np.uint64)
    odd = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    found = [np.bitwise_xor.reduce(words[p] * odd, axis=1) for p in blocks(len(words), CHUNK)]
    return np.concatenate(found).view(np.int64)


def _directions(rows: NDArray[np.floating]) -> Points:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(
        np.float32
    )

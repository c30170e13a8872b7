"""Which of a million directions lie near one? By lists of neighbours, from the library faiss.

Directions are put into lists, each around a centroid; a search looks through the lists whose
centroids are near (an inverted file, faiss's ``IndexIVFScalarQuantizer`` in float16). What it finds
are candidates, to be scored exactly by whoever asked.

What is kept on disk is which list every direction belongs to, not the directions: they come from
the gallery every time, so that a stale or foreign file can make a search miss, and never make it
wrong. It is read like every file from a stranger; faiss's own files are not.

``benchmarks/index.md`` says why faiss, and these lists.

References
----------
Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 2011 (inverted
files); Douze et al., "The Faiss library", 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpkit.artefacts import check_fields, parse_json
from fpkit.assets import save_safetensors_atomic
from fpkit.tensor_files import open_tensors

FORMAT = "fpkit-vector-index-1"
BLOCK = 65_536  # directions that are in memory at a time
PER_LIST = 64  # directions that a centroid is learnt from
ROUNDS = 8  # of k-means
PROBES = 64  # lists that a search looks through
MOST_LISTS = 16_384
GROWTH = 2  # times as many directions as the centroids were learnt from: learn them again

Points = NDArray[np.float32]
Rows = Callable[[Any], Points]


def blocks(count: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover ``range(count)``, at most `size` each."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@dataclass(frozen=True, kw_only=True, eq=False)
class Lists:
    """Which list each of n directions belongs to.

    Attributes
    ----------
    centroids
        (k, d) unit norm.
    lists
        (n,) int32 in [0, k).
    stamps
        (n,) int64 by which a direction is known again, see :func:`arrange`.
    trained
        How many directions there were when the centroids were learnt.
    """

    centroids: Points
    lists: NDArray[np.int32]
    stamps: NDArray[np.int64]
    trained: int

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; OSError if that is not possible."""
        arrays = {"centroids": self.centroids, "lists": self.lists, "stamps": self.stamps}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        metadata = {"format": FORMAT, "trained": str(self.trained)}
        save_safetensors_atomic(path, tensors, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path, *, dim: int) -> Lists:
        """Read what :meth:`save` wrote, for directions of length `dim`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, or something else.
        """
        with open_tensors(path) as file:
            check_fields(file.metadata, {"format": str, "trained": str})
            trained = parse_json(file.metadata["trained"])
            shapes = {name: shape for name, (_, shape) in file.layout.items()}
            count, k = (shapes.get(name, (0,))[0] for name in ("lists", "centroids"))
            wanted = {
                "centroids": (torch.float32, (k, dim)),
                "lists": (torch.int32, (count,)),
                "stamps": (torch.int64, (count,)),
            }
            if file.metadata["format"] != FORMAT or file.layout != wanted or not k:
                raise ValueError(f"it is no index of directions of length {dim}")
            if type(trained) is not int or trained < 1:
                raise ValueError(f"it was learnt from {trained} directions")
            found = {name: tensor.numpy() for name, tensor in file.read().items()}
        if count and not (found["lists"].min() >= 0 and found["lists"].max() < k):
            raise ValueError(f"its lists must be from 0 to {k - 1}")
        return cls(**found, trained=trained)


def arrange(rows: Rows, stamps: NDArray[np.int64], *, before: Lists | None = None) -> Lists:
    """Put n directions into lists.

    Parameters
    ----------
    rows
        Gives the directions (m, d) at a slice or at (m,) places from 0 to n - 1, unit norm.
    stamps
        (n,) equal for a direction that has not changed, different for others.
    before
        Lists of an earlier state: directions with a stamp that was there keep their list, others
        are added. The centroids are learnt again where most directions are new to them.

    Returns
    -------
    Lists
        `before` itself if nothing has changed.

    Raises
    ------
    ValueError
        If there is no direction, or faiss is missing.
    """
    count = len(stamps)
    if not count:
        raise ValueError("an index needs at least one direction, got none")
    if before is not None and np.array_equal(before.stamps, stamps):
        return before
    if before is None or not before.trained / GROWTH <= count <= before.trained * GROWTH:
        centroids, trained = _learn(rows, count), count
        lists, new = np.empty(count, np.int32), np.arange(count)
    else:
        centroids, trained = before.centroids, before.trained
        order = np.argsort(before.stamps, kind="stable")
        at = np.searchsorted(before.stamps, stamps, sorter=order).clip(max=len(order) - 1)
        at = order[at]
        lists, new = before.lists[at], np.flatnonzero(before.stamps[at] != stamps)
    nearest = _flat(centroids)
    for part in blocks(len(new)):
        lists[new[part]] = nearest.search(rows(new[part]), 1)[1][:, 0]
    return Lists(centroids=centroids, lists=lists, stamps=stamps, trained=trained)


class VectorIndex:
    """Directions in lists, in memory, to be searched.

    Parameters
    ----------
    lists
        Of `rows`, from :func:`arrange`.
    rows
        Gives the directions, unit norm. They may have turned a little since they were arranged.

    Raises
    ------
    ValueError
        If faiss is missing.
    """

    def __init__(self, lists: Lists, rows: Rows) -> None:
        faiss = _faiss()
        self._count = len(lists.lists)
        k, dim = lists.centroids.shape
        self._centroids = _flat(lists.centroids)
        self._index = faiss.IndexIVFScalarQuantizer(
            self._centroids,
            dim,
            k,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # by_residual
        )
        self._index.is_trained = True  # float16 has nothing to learn
        self._index.nprobe = min(PROBES, k)
        for part in blocks(self._count):
            self._add(np.arange(part.start, part.stop), rows(part), lists.lists[part])

    def __len__(self) -> int:
        return self._count

    def put(self, places: NDArray[np.intp], points: Points) -> None:
        """Replace the directions at these places; places from n on are new ones."""
        old = places[places < self._count]
        if len(old):
            self._index.remove_ids(old.astype(np.int64))
        self._add(places, points, self._centroids.search(points, 1)[1][:, 0])
        self._count = max(self._count, int(places.max()) + 1)

    def search(self, queries: Points, most: int) -> list[NDArray[np.intp]]:
        """Places of up to `most` directions near each query (n, d), the nearest first.

        A few may be missed: how many is measured in ``benchmarks/index.md``.
        """
        found = self._index.search(np.ascontiguousarray(queries, np.float32), most)[1]
        return [row[row >= 0].astype(np.intp) for row in found]

    def _add(self, places: NDArray[np.intp], points: Points, lists: NDArray[np.integer]) -> None:
        from faiss.contrib.ivf_tools import add_preassigned

        # names of our own: faiss takes addresses, and keeps no array alive
        points = np.ascontiguousarray(points, np.float32)
        lists, places = lists.astype(np.int64), places.astype(np.int64)
        add_preassigned(self._index, points, lists, places)


def _learn(rows: Rows, count: int) -> Points:
    """Centroids (k, d) of some of `count` directions, spread evenly over their places."""
    faiss = _faiss()
    k = min(max(int(2 * count**0.5), 1), MOST_LISTS, count)
    sample = rows(np.linspace(0, count - 1, min(PER_LIST * k, count)).astype(np.intp))
    kmeans = faiss.Kmeans(
        sample.shape[1], k, niter=ROUNDS, seed=0, spherical=True, min_points_per_centroid=1
    )
    kmeans.train(np.ascontiguousarray(sample, np.float32))
    return np.ascontiguousarray(kmeans.centroids, np.float32)


def _flat(centroids: Points) -> Any:
    index = _faiss().IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ValueError(
            "searching a big gallery needs faiss, which is not installed: "
            "pip install 'fpkit[corpus]'"
        ) from error
    return faiss

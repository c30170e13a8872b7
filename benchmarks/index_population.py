"""Templates of a million models, as dense as those of synthetic ones: for ``index.py``.

Embedding a million models would take weeks. Those of some hundred synthetic models tell where
models lie, and how the images of one scatter: new models are drawn between a measured one and one
of its nearest, with a scatter of their own, and every image of theirs scatters as measured.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fpkit as fp
from fpkit.verdict_bank import embed_bank

Points = NDArray[np.float32]
NEIGHBOURS = 8  # towards which a new model may lie
IMAGES = (1, 2, 4, 8)  # enrolled of a model
SPREAD = 1.0  # scatter of models about the line between two, in scatters of images


def measured(path: Path | None, *, quick: bool, seed: int) -> Points:
    """(p, k, d) embeddings of k images of each of p synthetic models.

    Parameters
    ----------
    path
        A bank as ``benchmarks/verdicts.py --bank`` keeps it; without it, random decoders are
        embedded here (some minutes).
    quick
        Embed a few only.
    seed
        Of the decoders.
    """
    if path is None:
        few, several = (24, 4) if quick else (120, 6)
        bank = embed_bank(fp.load_extractor(), random=few, images=several, seed=seed, progress=True)
        crops, cohort = bank.crops, bank.cohort
    else:
        with np.load(path, allow_pickle=False) as file:
            crops, cohort = file["crops"], file["cohort"]
    return crops[:, :, 0].mean(axis=(2, 3)) - cohort  # of the lossless images


class Population:
    """Endless models: where they lie, and images of theirs.

    Parameters
    ----------
    images
        (p, k, d), see :func:`measured`.
    seed
        Of all that is drawn.
    """

    def __init__(self, images: Points, *, seed: int) -> None:
        self.means = images.mean(axis=1)
        # k images about their own mean scatter too little
        few = np.sqrt(images.shape[1] / (images.shape[1] - 1))
        self.scatter = few * (images - self.means[:, None])
        self.size = np.sqrt((self.scatter**2).sum(axis=2).mean(axis=1))
        pooled = (self.scatter / self.size[:, None, None]).reshape(-1, images.shape[2])
        self.root = np.linalg.cholesky(
            pooled.T @ pooled / len(pooled) + 1e-6 * np.eye(images.shape[2])
        ).astype(np.float32)
        squares = (self.means**2).sum(axis=1)
        distance = squares[:, None] + squares - 2 * self.means @ self.means.T
        self.near = np.argsort(distance, axis=1)[:, 1 : NEIGHBOURS + 1]
        self.generator = np.random.default_rng(seed)

    def models(self, count: int) -> tuple[Points, NDArray[np.intp]]:
        """Middles (count, d) of new models, and the measured model that each is closest kin of."""
        g = self.generator
        kin = g.integers(len(self.means), size=count)
        other = self.near[kin, g.integers(self.near.shape[1], size=count)]
        share = g.uniform(0, 0.5, size=(count, 1)).astype(np.float32)
        middles = self.means[kin] + share * (self.means[other] - self.means[kin])
        return middles + SPREAD * self._scattered(kin), kin

    def images(self, middles: Points, kin: NDArray[np.intp], each: int) -> Iterator[Points]:
        """`each` times one image (count, d) of every model."""
        for _ in range(each):
            yield middles + self._scattered(kin)

    def enrolments(self, middles: Points, kin: NDArray[np.intp]) -> tuple[Points, NDArray[np.intp]]:
        """Mean embedding of one to eight images of every model, and how many they were."""
        counts = self.generator.choice(IMAGES, len(kin))
        sums = np.zeros_like(middles)
        for turn, images in enumerate(self.images(middles, kin, max(IMAGES))):
            sums += np.where((turn < counts)[:, None], images, 0)
        return sums / counts[:, None].astype(np.float32), counts

    def _scattered(self, kin: NDArray[np.intp]) -> Points:
        """What sets an image apart from its model.

        Half of its variance is a random mixture of what was measured on images of the kin, which
        spans few dimensions; the other half is as scatter is on average, in all dimensions.
        """
        g = self.generator
        weights = g.normal(size=(len(kin), self.scatter.shape[1])).astype(np.float32)
        weights *= np.sqrt(0.5 / self.scatter.shape[1], dtype=np.float32)
        found = g.normal(size=(len(kin), len(self.root))).astype(np.float32) @ self.root.T
        found *= np.sqrt(0.5, dtype=np.float32) * self.size[kin, None]
        order = np.argsort(kin, kind="stable")
        edges = np.searchsorted(kin[order], np.arange(len(self.means) + 1))
        for model, (begin, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            rows = order[begin:end]
            found[rows] += weights[rows] @ self.scatter[model]
        return found

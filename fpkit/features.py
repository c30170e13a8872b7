"""Feature vectors of many images by several methods, read once, degraded on the way if asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fpkit.baselines import ExtractorMethod, Method
from fpkit.degrade import Degradation
from fpkit.embedding_cache import image_hash
from fpkit.images import ImageReadError, read_image
from fpkit.manifest import ImageFacts

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Features:
    """What methods see of n images.

    Attributes
    ----------
    facts
        Of the images.
    vectors
        Per method (n, d) float32.
    seconds
        (methods, n) spent on the features, without reading or degrading the image.
    skipped
        ``file`` and ``reason`` of those that could not be used; not among the n.
    """

    facts: list[ImageFacts]
    vectors: list[NDArray[np.float32]]
    seconds: FloatArray
    skipped: list[dict[str, str]]

    def rows(self, index: NDArray[np.intp]) -> Features:
        """Some of the images, in the order of `index`."""
        return Features(
            facts=[self.facts[i] for i in index],
            vectors=[vectors[index] for vectors in self.vectors],
            seconds=self.seconds[:, index],
            skipped=self.skipped,
        )


def extract(
    facts: Sequence[ImageFacts],
    methods: Sequence[Method],
    *,
    steps: Sequence[Degradation] = (),
    seed: int = 0,
    on_error: Callable[[ImageReadError], None] | None = None,
    progress: bool = False,
    name: str = "images",
) -> Features:
    """Read each image, degrade it, and let each method see it.

    Parameters
    ----------
    facts
        Which images.
    methods
        At least one.
    steps
        Degradations, one after the other.
    seed
        Of their randomness, which depends on the model and name of the file beside: not on which
        other images there are.
    on_error
        Called with the error of each file that cannot be read, or is too small for a method.
    progress, name
        Show a progress bar of that name on stderr.
    """
    good, skipped = [], []
    vectors: list[list[NDArray[np.float32]]] = [[] for _ in methods]
    seconds: list[list[float]] = []
    for fact in tqdm(facts, desc=name, disable=not progress, file=sys.stderr):
        try:
            image = _degraded(fact, steps, seed)
            row, spent = [], []
            for method in methods:
                vector, took = _seen(method, image)
                row.append(vector)
                spent.append(took)
        except ValueError as error:
            if not isinstance(error, ImageReadError):
                error = ImageReadError(f"{fact.path}: {error}")
            if on_error is not None:
                on_error(error)
            skipped.append({"file": str(fact.path), "reason": str(error)})
            continue
        good.append(fact)
        seconds.append(spent)
        for column, vector in zip(vectors, row, strict=True):
            column.append(vector)
    return Features(
        facts=good,
        vectors=[np.stack(c) if c else np.zeros((0, 1), np.float32) for c in vectors],
        seconds=np.array(seconds).reshape(len(good), len(methods)).T,
        skipped=skipped,
    )


def _seen(method: Method, image: Tensor) -> tuple[NDArray[np.float32], float]:
    """Feature vector of an image and the seconds that it took, maybe in an earlier run."""
    cache = method.cache if isinstance(method, ExtractorMethod) else None
    key = "" if cache is None else image_hash(image)
    if cache is not None and (found := cache.find(key)) is not None:
        return found
    start = time.perf_counter()
    vector = method.features(image)
    took = time.perf_counter() - start
    if cache is not None:
        cache.add(key, vector, took)
    return vector, took


def _degraded(fact: ImageFacts, steps: Sequence[Degradation], seed: int) -> Tensor:
    image = read_image(fact.path)
    key = crc32(f"{fact.model}/{fact.path.name}".encode())
    generator = np.random.default_rng([seed, key])
    for step in steps:
        image = step(image, generator=generator)
    return image


def compact(vectors: NDArray[np.float32]) -> FloatArray:
    """Same lengths and angles in at most n dimensions: (n, d) -> (n, min(n, d)) float64.

    All scores depend on inner products only, so n long vectors may be replaced by coordinates in
    the subspace they span, and a draw costs little.
    """
    if vectors.shape[1] <= len(vectors):
        return vectors.astype(np.float64)
    gram = np.zeros((len(vectors), len(vectors)))
    for start in range(0, vectors.shape[1], 4096):
        block = vectors[:, start : start + 4096].astype(np.float64)
        gram += block @ block.T
    values, axes = np.linalg.eigh(gram)
    return axes * np.sqrt(np.maximum(values, 0.0))

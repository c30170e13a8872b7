"""Checks of lesson 11, a folder of strangers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpkit.checks import attempted, exercise


@exercise("purity")
def _purity(answer: Any) -> str | None:
    """`answer(truth, found)`: share of the images whose maker is the commonest of their group."""
    truth, found = np.array(list("aaaabbbbcc")), np.array([7, 7, 7, 2, 2, 2, 9, 2, 2, 5])
    # group 7: aaa, group 2: abbbc, group 9: b, group 5: c
    value = _number(answer, truth, found)
    for mistake, text in (
        (8, "a share is asked for: divide by the number of images"),
        ((3 / 3 + 3 / 5 + 1 + 1) / 4, "every image counts alike, not every group: add up first"),
        (6 / 8, "a group of one image counts as well: it is pure"),
        (7 / 10, "the other way round: take the commonest maker of each group"),
    ):
        if abs(value - mistake) < 1e-9:
            return text
    if abs(value - 8 / 10) > 1e-9:
        return f"for the groups aaa, abbbc, b and c it gives {value:.3f}, expected 0.8"
    every = _number(answer, truth, np.arange(10))
    if abs(every - 1) > 1e-9:
        return f"groups of one image are pure, all of them, got {every:.3f}"
    one = _number(answer, truth, np.zeros(10, dtype=int))
    if abs(one - 4 / 10) > 1e-9:
        return f"of one group of all, the commonest maker has 4 of 10 images, got {one:.3f}"
    return None


@exercise("adjusted-rand")
def _adjusted_rand(answer: Any) -> str | None:
    """`answer(truth, found)`: agreement over pairs of images, 0 by chance and 1 if perfect."""
    generator = np.random.default_rng(11)
    truth = np.repeat(list("abcd"), [9, 3, 6, 6])
    same = _number(answer, truth, np.repeat([3, 9, 1, 0], [9, 3, 6, 6]))
    if abs(same - 1) > 1e-9:
        return f"the same groups under other names agree perfectly, which is 1, got {same:.3f}"
    for _ in range(3):
        found = np.where(generator.random(24) < 0.3, generator.integers(5, size=24), truth == "a")
        value, wanted = _number(answer, truth, found), _rand(truth, found)
        if abs(value - wanted["adjusted"]) <= 1e-9:
            continue
        for name, text in (
            ("plain", "that is the share of the pairs judged alike, which chance makes large"),
            ("overlap", "that is 'both' as a share of 'truth': subtract what chance gives"),
            ("itself", "an image and itself are no pair: i must be smaller than j"),
        ):
            if abs(value - wanted[name]) <= 1e-9:
                return text
        return f"for a test grouping it gives {value:.3f}, expected {wanted['adjusted']:.3f}"
    return None


@exercise("group-means")
def _group_means(answer: Any) -> str | None:
    """`answer(embeddings, labels)`: from label to the mean of its rows, scaled to length 1."""
    generator = np.random.default_rng(12)
    rows = generator.normal(size=(12, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = np.array([4, 0, -1, 4, 0, 0, -1, 4, 2, 0, 2, 4])
    found = attempted(answer(rows.copy(), labels.copy()))
    if not isinstance(found, Mapping):
        return f"expected a dictionary from label to mean, got {type(found).__name__}"
    means = {int(label): np.asarray(mean, dtype=float) for label, mean in found.items()}
    if -1 in means:
        return "-1 says that an image belongs to no group: these images have nothing in common"
    if set(means) != {0, 2, 4}:
        return f"the labels are 0, 2 and 4, got {sorted(means)}"
    for label, mean in means.items():
        wanted = rows[labels == label].mean(axis=0)
        if mean.shape != wanted.shape:
            return f"a mean has as many numbers as an embedding, 5, got the shape {mean.shape}"
        if np.allclose(mean, wanted) or np.allclose(mean, wanted * np.sum(labels == label)):
            return "scale each mean to length 1, as embeddings are"
        if not np.allclose(mean, wanted / np.linalg.norm(wanted)):
            return f"the mean of group {label} is not that of its rows"
    return None


def _number(answer: Any, truth: NDArray[Any], found: NDArray[Any]) -> float:
    return float(attempted(answer(truth.copy(), found.copy())))


def _rand(truth: NDArray[Any], found: NDArray[Any]) -> dict[str, float]:
    """The adjusted Rand index, and what comes out if it is mistaken."""
    by_truth, by_found = truth[:, None] == truth, found[:, None] == found
    results = {}
    for name, first in (("adjusted", 1), ("itself", 0)):
        pairs = np.triu_indices(len(truth), k=first)
        t, f = by_truth[pairs], by_found[pairs]
        both, chance = np.sum(t & f), t.sum() * f.sum() / len(t)
        results[name] = float((both - chance) / ((t.sum() + f.sum()) / 2 - chance))
        if name == "adjusted":
            results |= {"plain": float(np.mean(t == f)), "overlap": float(both / t.sum())}
    return results

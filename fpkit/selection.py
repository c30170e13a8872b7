"""What a chosen set of embeddings has in common: its labels, its scores, its nearest others."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class SelectionSummary:
    """Figures of a selection; printed, a line for each.

    Attributes
    ----------
    size : int
        How many points were selected.
    counts : dict of column to dict of label to (selected, all)
        Labels in the selection, the most frequent first.
    within : float
        Mean score of two selected points; NaN for a single one.
    outside : float
        Mean score of a selected and another point; NaN where there is no other.
    nearest : tuple of (label, score)
        Labels of the points that were not selected with their mean scores to the selection, the
        highest first.
    """

    size: int
    counts: Mapping[str, Mapping[str, tuple[int, int]]]
    within: float
    outside: float
    nearest: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        lines = [f"{self.size} selected: mean score within {self.within:.2f}, to the others "]
        lines[0] += f"{self.outside:.2f}"
        for column, counts in self.counts.items():
            few = [f"{label} {n} of {total}" for label, (n, total) in list(counts.items())[:4]]
            lines.append(f"{column}: {', '.join(few)}{', ...' if len(counts) > 4 else ''}")
        near = ", ".join(f"{label} {score:.2f}" for label, score in self.nearest[:3])
        lines.append(f"nearest others: {near or 'none'}")
        return "\n".join(lines)


def selection_summary(
    embeddings: ArrayLike,
    labels: Mapping[str, Sequence[str]],
    selection: Sequence[int],
    *,
    by: str,
) -> SelectionSummary:
    """Count and score the selected embeddings.

    Parameters
    ----------
    embeddings : (n, d)
        Of any length but zero; scores are cosines.
    labels : mapping of column to n labels
    selection : sequence of int
        Numbers of the selected points, at least one, all different.
    by : str
        The column by which the nearest others are named.

    Examples
    --------
    >>> print(selection_summary([[1, 0], [1, 0], [0, 1]], {"model": ["a", "a", "b"]}, [0, 1],
    ...                         by="model"))
    2 selected: mean score within 1.00, to the others 0.00
    model: a 2 of 2
    nearest others: b 0.00
    """
    rows = np.asarray(embeddings, np.float64)
    chosen = np.unique(np.asarray(selection, np.intp))
    if not len(chosen) or len(chosen) != len(selection):
        raise ValueError(f"select at least one point, each once, got {list(selection)}")
    if chosen[0] < 0 or chosen[-1] >= len(rows):
        raise ValueError(f"points have numbers from 0 to {len(rows) - 1}, got {list(selection)}")
    if by not in labels:
        raise ValueError(f"by must be one of {list(labels)}, got {by!r}")
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    total = unit[chosen].sum(axis=0)
    size = len(chosen)
    others = np.setdiff1d(np.arange(len(rows)), chosen)
    to_selection = unit[others] @ total / size
    names = np.asarray(labels[by])[others]
    near = {str(name): float(to_selection[names == name].mean()) for name in np.unique(names)}
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for column, values in labels.items():
        everything = Counter(values)
        found = Counter(values[i] for i in chosen)
        counts[column] = {label: (n, everything[label]) for label, n in found.most_common()}
    return SelectionSummary(
        size=size,
        counts=counts,
        # the sum over all pairs, without those of a point and itself
        within=float((total @ total - size) / (size * (size - 1))) if size > 1 else float("nan"),
        outside=float(to_selection.mean()) if len(others) else float("nan"),
        nearest=tuple(sorted(near.items(), key=lambda item: -item[1])),
    )

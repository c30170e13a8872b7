"""Trials of known truth: pairs of images and questions to galleries, drawn from a bank.

See :mod:`fpkit.verdict_bank` for the models. Impostors are of three kinds: *twins*, other models of
the same architecture, which are the harder ones; models of other architectures; and *strangers*,
images of no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpkit.gallery import centred_scores, template
from fpkit.verdict_bank import FORMATS, Bank
from fpkit.verdicts import FloatArray, gallery_features, pair_features

CROPS = (1, 4, 9, 16)  # of an image
MODELS = (1, 4, 16, 64)  # in a gallery
ENROLLED = (1, 2, 4, 8, 16)  # images of a model, at most
GENUINE, TWIN, OTHER, STRANGER = "genuine", "twin", "other", "stranger"
TWINS = 0.25  # weight of twins among the models that are impostors
STRANGERS = 0.25  # of images of no model among all impostors, where a gallery is asked
ALIKE = 0.6  # share of galleries in the format of what they are asked about
PROBES = 120  # of each kind, per gallery


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Scores of known truth under known conditions.

    Attributes
    ----------
    features
        (n,) each, by name; see :func:`fpkit.verdicts.pair_features`.
    kind
        (n,) "genuine", "twin", "other" or, where a gallery is asked, "stranger".
    cell
        (n, 3) conditions as indices: JPEG, of `CROPS`, and of `MODELS` (0 for a pair).
    """

    features: dict[str, FloatArray]
    kind: NDArray[np.str_]
    cell: NDArray[np.intp]

    @property
    def same(self) -> NDArray[np.bool_]:
        """(n,) whether the answer is yes."""
        return self.kind == GENUINE

    def weights(self, twins: float = TWINS) -> FloatArray:
        """(n,) that sum to 1: as much for every cell, half of it for the genuine."""
        cells, place = np.unique(self.cell, axis=0, return_inverse=True)
        weight = np.zeros(len(self.kind))
        for i in range(len(cells)):
            for same in (True, False):
                chosen = np.flatnonzero((place.ravel() == i) & (self.same == same))
                weight[chosen] = self.shares(chosen, twins)
        return weight / weight.sum()

    def shares(self, chosen: NDArray[np.intp], twins: float = TWINS) -> FloatArray:
        """Weights of some trials that sum to 1: `twins` of the models among impostors are twins."""
        kinds = self.kind[chosen]
        models = 1 - STRANGERS
        parts = {
            GENUINE: 1.0,
            TWIN: models * twins,
            OTHER: models * (1 - twins),
            STRANGER: STRANGERS,
        }
        shares = np.zeros(len(kinds))
        for kind, part in parts.items():
            shares[kinds == kind] = part / max(1, np.count_nonzero(kinds == kind))
        return shares / max(shares.sum(), 1e-12)


def joined(parts: Iterable[Trials]) -> Trials:
    every = list(parts)
    return Trials(
        features={
            name: np.concatenate([part.features[name] for part in every])
            for name in every[0].features
        },
        kind=np.concatenate([part.kind for part in every]),
        cell=np.concatenate([part.cell for part in every]),
    )


def _views(bank: Bank, crops: int, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Embeddings (p, k, 2, d) of all images, and (q, 2, d) of strangers, of so many crops.

    The crops of an image are a square block at a random place: an image that is smaller.
    """
    side, most = math.isqrt(crops), bank.crops.shape[3]
    top, left = generator.integers(0, most - side + 1, 2)
    found = []
    for part in (bank.crops, bank.strangers):
        mean = part[..., top : top + side, left : left + side, :].mean((-3, -2)) - bank.cohort
        found.append(mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12))
    return found[0], found[1]


def draw_pairs(
    bank: Bank, generator: np.random.Generator, *, pairs: int = 20_000
) -> Iterator[Trials]:
    """Pairs of images of one model, of two of one architecture, and of two others.

    `pairs` of each kind and condition.
    """
    models, images = bank.crops.shape[:2]
    views = {crops: _views(bank, crops, generator)[0] for crops in CROPS}
    for level, crops in enumerate(CROPS):
        for jpeg in range(len(FORMATS)):
            for kind in (GENUINE, TWIN, OTHER):
                a = generator.integers(models, size=pairs)
                b = a if kind == GENUINE else generator.integers(models, size=pairs)
                alike = bank.architecture[a] == bank.architecture[b]
                if kind == TWIN:
                    a, b = _twins(bank, generator, pairs)
                    if not len(a):
                        continue
                elif kind == OTHER:
                    a, b = a[~alike], b[~alike]
                i, j = generator.integers(images, size=(2, len(a)))
                if kind == GENUINE:
                    j = (i + 1 + generator.integers(images - 1, size=len(a))) % images
                # both through JPEG, or one of them
                first = np.full(len(a), jpeg)
                second = jpeg * (generator.random(len(a)) < 0.75).astype(int)
                x = views[crops][a, i, first]
                y = np.stack([views[c][b, j, second] for c in CROPS[level:]])
                y = y[generator.integers(len(y), size=len(a)), np.arange(len(a))]
                yield Trials(
                    features=pair_features((x * y).sum(-1), crops=crops, jpeg=jpeg),
                    kind=np.full(len(a), kind, dtype="U8"),
                    cell=np.tile([jpeg, level, 0], (len(a), 1)),
                )


def _twins(
    bank: Bank, generator: np.random.Generator, count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    alike = bank.architecture[:, None] == bank.architecture
    pairs = np.argwhere(alike & ~np.eye(len(alike), dtype=bool))
    chosen = pairs[generator.integers(len(pairs), size=count)] if len(pairs) else pairs
    return chosen[:, 0], chosen[:, 1]


def draw_galleries(
    bank: Bank, generator: np.random.Generator, *, galleries: int = 60
) -> Iterator[Trials]:
    """Random galleries, asked about images of their models, of other models and of none.

    `galleries` for each condition. Where a gallery names the wrong one of its models, that is an
    error of another kind, and no trial.
    """
    views = {crops: _views(bank, crops, generator) for crops in CROPS}
    for jpeg, level, size in np.ndindex(len(FORMATS), len(CROPS), len(MODELS)):
        probes, strangers = (view[..., jpeg, :] for view in views[CROPS[level]])
        for _ in range(galleries):
            form = jpeg if generator.random() < ALIKE else generator.integers(len(FORMATS))
            known = views[CROPS[level] if generator.random() < ALIKE else CROPS[-1]][0][
                ..., form, :
            ]
            gallery = _gallery(bank, known, MODELS[size], generator)
            asked = {
                GENUINE: probes[gallery.inside][:, gallery.rest],
                STRANGER: strangers,
                TWIN: probes[gallery.kin],
                OTHER: probes[gallery.others],
            }
            for kind, rows in asked.items():
                flat = rows.reshape(-1, rows.shape[-1])
                chosen = generator.permutation(len(flat))[:PROBES]
                if kind == GENUINE and len(chosen):
                    best = centred_scores(flat[chosen], gallery.templates).argmax(axis=1)
                    chosen = chosen[best == chosen // len(gallery.rest)]
                if len(chosen):
                    features = gallery_features(
                        centred_scores(flat[chosen], gallery.templates),
                        templates=gallery.templates,
                        enrolled=np.full(len(gallery.inside), gallery.shots),
                        crops=CROPS[level],
                        jpeg=jpeg,
                    )
                    yield Trials(
                        features=features,
                        kind=np.full(len(chosen), kind, dtype="U8"),
                        cell=np.tile([jpeg, level, size], (len(chosen), 1)),
                    )


@dataclass(frozen=True, kw_only=True)
class _Gallery:
    templates: NDArray[np.float32]
    inside: NDArray[np.intp]  # the models enrolled
    shots: int  # images of each
    rest: NDArray[np.intp]  # the other images of each
    kin: NDArray[np.intp]  # models not enrolled, of an architecture that is
    others: NDArray[np.intp]


def _gallery(
    bank: Bank, known: FloatArray, models: int, generator: np.random.Generator
) -> _Gallery:
    """At most `models` models, and half of those there are."""
    count, images = known.shape[:2]
    order = generator.permutation(count)
    inside = order[: min(models, count // 2)]
    outside = order[len(inside) :]
    shots = min(int(generator.choice(ENROLLED)), images - 2)
    enrolled = generator.permutation(images)
    kin = np.isin(bank.architecture[outside], bank.architecture[inside])
    return _Gallery(
        templates=np.stack([template(known[model, enrolled[:shots]]) for model in inside]),
        inside=inside,
        shots=shots,
        rest=enrolled[shots:],
        kin=outside[kin],
        others=outside[~kin],
    )

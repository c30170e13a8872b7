"""The evaluation protocol behind :mod:`fpkit.bench`: who is enrolled, who is right.

Knows nothing of images: it sees one feature vector per image and what the manifest says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpkit.gallery import centred_scores, gallery_centre, template
from fpkit.manifest import ImageFacts
from fpkit.metrics import bootstrap_interval
from fpkit.pairs import PairScores, verification

SHOTS = (1, 5, 10)
MAX_VERIFIED = 2000  # probes whose pairs are all scored in one draw: 2 million pairs
Result = dict[str, Any]
FloatArray = NDArray[np.float64]


def with_two_images(facts: list[ImageFacts]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which images belong to a model with at least two, and the models that have fewer."""
    counts = Counter(fact.model for fact in facts)
    few = {model: count for model, count in counts.items() if count < 2}
    return np.array([fact.model not in few for fact in facts], dtype=bool), few


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which images are enrolled in which draw, and what counts as right.

    Attributes
    ----------
    rows
        (n,) its images, as indices of the facts it was drawn from.
    models
        Names of the m models, sorted.
    model
        (n,) index into `models`.
    decoder
        (m,) equal for kin.
    family
        (m,) kind of each model, empty if unknown.
    content
        (n,) equal for the same subject, -1 if unknown.
    rank
        (draws, n) place of an image in the random order of its model: the first are enrolled.
    seed
        Of the draws, and of the bootstrap.
    """

    rows: NDArray[np.intp]
    models: list[str]
    model: NDArray[np.intp]
    decoder: NDArray[np.intp]
    family: list[str]
    content: NDArray[np.intp]
    rank: NDArray[np.intp]
    seed: int

    @classmethod
    def draw(
        cls, facts: list[ImageFacts], draws: int, seed: int, *, format: str | None = None
    ) -> Plan:
        """Plan for all images, or for those of one format; ValueError if they are too few."""
        rows = np.array([i for i, f in enumerate(facts) if format in (None, f.format)])
        keep, _ = with_two_images([facts[i] for i in rows])
        rows = rows[keep]
        used = [facts[i] for i in rows]
        models, model = np.unique([fact.model for fact in used], return_inverse=True)
        if len(models) < 2:
            raise ValueError("fewer than 2 models with 2 images")
        first_of = {fact.model: fact for fact in reversed(used)}
        _, decoder = np.unique([first_of[name].decoder for name in models], return_inverse=True)
        contents = sorted({fact.content for fact in used} - {""})
        generator = np.random.default_rng(seed)
        first = np.searchsorted(np.sort(model), model)  # images of earlier models
        rank = np.empty((draws, len(used)), dtype=np.intp)
        for row in rank:
            order = np.lexsort((generator.random(len(used)), model))
            row[order] = np.arange(len(used))
        return cls(
            rows=rows,
            models=models.tolist(),
            model=model,
            decoder=decoder,
            family=[first_of[name].family for name in models],
            content=np.array([contents.index(f.content) if f.content else -1 for f in used]),
            rank=rank - first,
            seed=seed,
        )

    def enrolled_counts(self, shots: int) -> NDArray[np.intp]:
        """(m,) images enrolled per model: `shots`, at most half of what there is."""
        return np.minimum(shots, np.bincount(self.model) // 2)

    def galleries(
        self, points: FloatArray, shots: int
    ) -> list[tuple[NDArray[np.float32], NDArray[np.intp]]]:
        """Per draw the (m, d) templates and the probes, as indices of `points`."""
        galleries = []
        for rank in self.rank:
            enrolled = rank < self.enrolled_counts(shots)[self.model]
            groups = [enrolled & (self.model == j) for j in range(len(self.models))]
            templates = np.stack([template(points[group]) for group in groups])
            galleries.append((templates, np.flatnonzero(~enrolled)))
        return galleries


@dataclass(frozen=True, kw_only=True)
class Views:
    """The images of a plan as a method sees them.

    Attributes
    ----------
    enrolled
        (n, d) features of each image, where it is enrolled.
    asked
        (n, d) features of each image, where it is a probe.
    usable
        (n,) which of them can be probes.
    prior
        See :func:`fpkit.gallery.centred_scores`.
    """

    enrolled: FloatArray
    asked: FloatArray
    usable: NDArray[np.bool_]
    prior: float

    @classmethod
    def same(cls, points: FloatArray, prior: float) -> Views:
        """Of images that are seen alike as enrolled ones and as probes."""
        return cls(enrolled=points, asked=points, usable=np.ones(len(points), bool), prior=prior)

    def of(self, rows: NDArray[np.intp]) -> Views:
        """Those of some images."""
        return Views(
            enrolled=self.enrolled[rows],
            asked=self.asked[rows],
            usable=self.usable[rows],
            prior=self.prior,
        )


def figures(plan: Plan, views: Views) -> Result:
    """Identification, verification, recall by family and by model, and who is taken for whom."""
    recalls, identification = _identifications(plan, views)
    return {
        "identification": identification,
        **verification(_pairs(plan, views), len(plan.models), seed=plan.seed),
        "by_family": _by_family(plan, recalls),
        "per_model": {
            name: {shots: float(recall[j]) for shots, recall in recalls.items()}
            for j, name in enumerate(plan.models)
            if all(np.isfinite(recall[j]) for recall in recalls.values())
        },
        "taken_for": _taken_for(plan, views),
    }


def degraded_figures(plan: Plan, views: Views) -> Result:
    """:func:`figures` of degraded probes, and what they keep of the recall of the same ones clean.

    ``images`` and ``models`` count those that are left, ``clean`` is the recall of their clean
    images by k, ``kept`` the degraded one as a share of it.
    """
    found = figures(plan, views)
    _, clean = _identifications(plan, replace(views, asked=views.enrolled))
    before = {shots: entry["mean"] for shots, entry in clean.items()}
    return {
        "images": int(views.usable.sum()),
        "models": len(set(plan.model[views.usable].tolist())),
        **found,
        "clean": before,
        "kept": {
            shots: found["identification"][shots]["mean"] / mean if mean else None
            for shots, mean in before.items()
        },
    }


def _identifications(plan: Plan, views: Views) -> tuple[dict[str, FloatArray], dict[str, Result]]:
    """By k: the (m,) recalls of the models (NaN without a probe), and the figures."""
    recalls, entries = {}, {}
    for shots in SHOTS:
        by_kind = _identify(plan, views, shots)
        recall = by_kind["mean"]
        known = recall[np.isfinite(recall)]
        entry: Result = {
            kind: float(np.mean(values[np.isfinite(values)])) if known.size else None
            for kind, values in by_kind.items()
        }
        entry["ci95"] = list(bootstrap_interval(known, seed=plan.seed)) if known.size else None
        recalls[str(shots)], entries[str(shots)] = recall, entry
    return recalls, entries


def _identify(plan: Plan, views: Views, shots: int) -> dict[str, FloatArray]:
    """By kind of figure the (m,) recalls at `shots` enrolled images, means over the draws."""
    models = len(plan.models)
    kin = plan.decoder[:, None] == plan.decoder[None, :]
    rivals = ~kin | np.eye(models, dtype=bool)
    totals = {kind: np.zeros(models) for kind in ("mean", "kin_as_rivals", "decoder_level")}
    asked = np.zeros(models)  # draws in which a model has probes
    for templates, probes in plan.galleries(views.enrolled, shots):
        probes = probes[views.usable[probes]]
        if not probes.size:
            continue
        truth = plan.model[probes]
        scores = centred_scores(views.asked[probes], templates, prior=views.prior)
        best = scores.argmax(axis=1)
        without_kin = np.where(rivals[truth], scores, -np.inf).argmax(axis=1)
        probes_of = np.bincount(truth, minlength=models)
        asked += probes_of > 0
        hits = (without_kin == truth, best == truth, kin[best, truth])
        for total, hit in zip(totals.values(), hits, strict=True):
            total += np.bincount(truth, hit, models) / np.maximum(probes_of, 1)
    missing = np.full(models, np.nan)
    return {
        kind: np.divide(total, asked, out=missing.copy(), where=asked > 0)
        for kind, total in totals.items()
    }


def _taken_for(plan: Plan, views: Views, most: int = 3) -> Result:
    """Per model up to three others that its probes were given to most, at the most shots.

    Each with the share of the probes of all draws; kin are no candidates.
    """
    models = len(plan.models)
    rivals = plan.decoder[:, None] != plan.decoder[None, :]
    rivals |= np.eye(models, dtype=bool)
    counts = np.zeros((models, models))
    for templates, probes in plan.galleries(views.enrolled, max(SHOTS)):
        probes = probes[views.usable[probes]]
        if not probes.size:
            continue
        truth = plan.model[probes]
        scores = centred_scores(views.asked[probes], templates, prior=views.prior)
        given = np.where(rivals[truth], scores, -np.inf).argmax(axis=1)
        np.add.at(counts, (truth, given), 1)
    asked = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    return {
        plan.models[j]: {
            plan.models[other]: float(counts[j, other] / asked[j])
            for other in np.argsort(-counts[j], kind="stable")[:most]
            if counts[j, other]
        }
        for j in np.flatnonzero(asked)
    }


def _by_family(plan: Plan, recalls: dict[str, FloatArray]) -> Result:
    """Recall of the probes of each family, all models being candidates; one has no interval."""
    found = {}
    for family in sorted(set(plan.family) - {""}):
        members = np.array([name == family for name in plan.family])
        members &= np.isfinite([*recalls.values()]).all(axis=0)
        if members.any():
            found[family] = {
                "models": int(members.sum()),
                "identification": {
                    shots: {
                        "mean": float(recall[members].mean()),
                        "ci95": list(bootstrap_interval(recall[members], seed=plan.seed))
                        if members.sum() > 1
                        else None,
                    }
                    for shots, recall in recalls.items()
                },
            }
    return found


def _pairs(plan: Plan, views: Views) -> Iterator[PairScores]:
    """All pairs of probes of each draw, seen from the centre of its gallery."""
    generator = np.random.default_rng(plan.seed)
    for templates, probes in plan.galleries(views.enrolled, max(SHOTS)):
        probes = probes[views.usable[probes]]
        if len(probes) > MAX_VERIFIED:
            probes = generator.choice(probes, MAX_VERIFIED, replace=False)
        seen = views.asked[probes] - gallery_centre(templates, prior=views.prior)
        seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-12)
        first, second = np.triu_indices(len(probes), k=1)
        model, content = plan.model[probes], plan.content[probes]
        decoder = plan.decoder[model]
        yield PairScores(
            score=(seen @ seen.T)[first, second],
            first=model[first],
            second=model[second],
            kin=(decoder[first] == decoder[second]) & (model[first] != model[second]),
            content=np.where(content[first] == content[second], content[first], -1),
        )

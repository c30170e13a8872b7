"""The evaluation protocol behind :mod:`fpkit.bench`: who is enrolled, who is right.

Knows nothing of images: it sees one feature vector per image and what the manifest says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpkit.gallery import centred_scores, gallery_centre, template
from fpkit.manifest import ImageFacts
from fpkit.metrics import auc, bootstrap_interval, eer, tar_at_far

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
        decoder_of = {fact.model: fact.decoder for fact in reversed(used)}
        _, decoder = np.unique([decoder_of[name] for name in models], return_inverse=True)
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


def figures(plan: Plan, points: FloatArray, seconds: FloatArray, prior: float) -> Result:
    """All figures of one method for the images of one plan."""
    points = points[plan.rows]
    identification, per_model = {}, {name: {} for name in plan.models}
    for shots in SHOTS:
        entry, recall = _identify(plan, points, shots, prior)
        identification[str(shots)] = entry
        for name, value in zip(plan.models, recall, strict=True):
            per_model[name][str(shots)] = float(value)
    return {
        "identification": identification,
        **_verify(plan, points, prior),
        "per_model": per_model,
        "seconds_per_image": float(np.median(seconds[plan.rows])),
    }


def _identify(
    plan: Plan, points: FloatArray, shots: int, prior: float
) -> tuple[Result, FloatArray]:
    """Figures at `shots` enrolled images, and the (m,) recall of each model."""
    kinds = ("mean", "kin_as_rivals", "decoder_level")
    recalls: dict[str, list[FloatArray]] = {kind: [] for kind in kinds}
    kin = plan.decoder[:, None] == plan.decoder[None, :]
    rivals = ~kin | np.eye(len(plan.models), dtype=bool)
    for templates, probes in plan.galleries(points, shots):
        truth = plan.model[probes]
        scores = centred_scores(points[probes], templates, prior=prior)
        best = scores.argmax(axis=1)
        without_kin = np.where(rivals[truth], scores, -np.inf).argmax(axis=1)
        probes_of = np.bincount(truth, minlength=len(plan.models))
        hits = (without_kin == truth, best == truth, kin[best, truth])
        for kind, hit in zip(kinds, hits, strict=True):
            recalls[kind].append(np.bincount(truth, hit, len(plan.models)) / probes_of)
    per_model = np.mean(recalls["mean"], axis=0)
    entry: Result = {kind: float(np.mean(values)) for kind, values in recalls.items()}
    entry["ci95"] = list(bootstrap_interval(per_model, seed=plan.seed))
    return entry, per_model


def _verify(plan: Plan, points: FloatArray, prior: float) -> dict[str, float | None]:
    """Verification of all pairs of probes, averaged over the draws in which there are pairs."""
    found: dict[str, list[float]] = {
        name: [] for name in ("auc", "eer", "tar_at_far_0.01", "auc_within_content")
    }
    generator = np.random.default_rng(plan.seed)
    for templates, probes in plan.galleries(points, max(SHOTS)):
        if len(probes) > MAX_VERIFIED:
            probes = generator.choice(probes, MAX_VERIFIED, replace=False)
        seen = points[probes] - gallery_centre(templates, prior=prior)
        seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-12)
        first, second = np.triu_indices(len(probes), k=1)
        score = (seen @ seen.T)[first, second]
        model, content = plan.model[probes], plan.content[probes]
        genuine = model[first] == model[second]
        impostor = plan.decoder[model][first] != plan.decoder[model][second]
        subject = (content[first] == content[second]) & (content[first] >= 0)
        subject &= np.isin(content[first], content[first][subject & impostor])
        if genuine.any() and impostor.any():
            found["auc"].append(auc(score[genuine], score[impostor]))
            found["eer"].append(eer(score[genuine], score[impostor]))
            found["tar_at_far_0.01"].append(tar_at_far(score[genuine], score[impostor]))
        if (genuine & subject).any() and (impostor & subject).any():
            pairs = score[genuine & subject], score[impostor & subject]
            found["auc_within_content"].append(auc(*pairs))
    return {name: float(np.mean(values)) if values else None for name, values in found.items()}

"""Benchmark of attribution methods on a folder-per-model tree of real images.

The protocol: some images of each model are enrolled, all others are probes. Identification asks
for the model of each probe, verification whether two probes share one. This is repeated over
random draws of the enrolled images and summarised per model, so that a model with many images
counts no more than one with few.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fpkit.baselines import BASELINES, EmbeddingModel, ExtractorMethod, Method
from fpkit.gallery import PRIOR, centred_scores, gallery_centre, template
from fpkit.images import ImageReadError, list_models, read_image
from fpkit.manifest import PHOTO, ImageFacts, read_facts
from fpkit.metrics import auc, bootstrap_interval, eer, tar_at_far

METHODS = ("extractor", *BASELINES)
SHOTS = (1, 5, 10)
MAX_VERIFIED = 2000  # probes whose pairs are all scored in one draw: 2 million pairs
Result = dict[str, Any]
FloatArray = NDArray[np.float64]


def bench(
    folder: str | Path,
    *,
    methods: Sequence[str | Method] = ("extractor",),
    draws: int = 20,
    seed: int = 0,
    extractor: EmbeddingModel | None = None,
    on_error: Callable[[ImageReadError], None] | None = None,
    progress: bool = True,
) -> Result:
    """How well do methods tell the generators of real images apart?

    Parameters
    ----------
    folder
        ``folder/<model>/<image>`` and, if there is one, ``folder/manifest.csv``, see
        :func:`fpkit.manifest.read_facts`.
    methods
        Of ``"extractor"``, ``"spectrum"``, ``"residual"``, ``"colour"``, or objects like
        :class:`fpkit.baselines.Method`. All see the same draws.
    draws
        Random choices of the enrolled images.
    seed
        Of these choices and of the bootstrap.
    extractor
        For ``"extractor"``; None loads the shipped one.
    on_error
        Called with the error of each file that cannot be read or is too small; such files are
        left out and listed under ``"skipped"`` in any case.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    dict
        Ready for strict JSON (a figure that cannot be computed is None): ``models``, ``images``
        (those used), ``draws``, ``seed``, ``enrolled`` (fewest and most images enrolled per
        model, by k), ``skipped``, ``notes``, and ``methods``: per method ``identification``,
        ``auc``, ``eer``, ``tar_at_far_0.01``, ``auc_within_content``, ``per_model`` (recall by
        k), ``seconds_per_image`` (median, features only, after loading) and ``by_format`` with
        the same keys for the models, galleries and probes of one format.

    Raises
    ------
    ValueError
        If fewer than two models with two images are left, or a method is unknown.
    FileNotFoundError
        If there is no such folder.

    Notes
    -----
    - Enrolled are k images of each model, or half of them (rounded down) where it has fewer
      than 2 k. All others are probes, also in verification, which enrols as for k = 10.
    - Scores are those of :func:`fpkit.gallery.centred_scores`: centred by the gallery of the
      draw, never by the probes. A verification score is the cosine of two probes seen from the
      same centre.
    - Models with one decoder (manifest) are kin: no candidates for each other's probes, and
      their pairs are neither genuine nor impostor. In ``identification``, ``kin_as_rivals`` is
      the recall with kin among the candidates, and ``decoder_level`` the share of probes then
      given to a model with the right decoder.
    - Photographs (family ``photo``) are neither enrolled nor probes.
    - ``mean`` is the mean over draws of the mean recall over models. ``ci95`` bootstraps the
      models (each one's recall, averaged over draws, is one value): it says how the figure
      depends on which generators were met.
    - ``auc_within_content`` compares only pairs of equal ``content`` (the same subject), of
      contents that several models show.
    """
    if not methods:
        raise ValueError(f"methods is empty: name at least one of {', '.join(METHODS)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    chosen = [_method(method, extractor) for method in methods]
    folder = Path(folder)
    facts = read_facts(folder)
    notes = [f"{model}: no images" for model, paths in list_models(folder).items() if not paths]
    photos = sum(fact.family == PHOTO for fact in facts)
    if photos:
        notes.append(f"{photos} photographs (family photo) are no model's: left out")
    facts = [fact for fact in facts if fact.family != PHOTO]
    facts, features, seconds, skipped = _extract(facts, chosen, on_error, progress)

    keep, few = _with_two_images(facts)
    notes += [f"{model}: left out, only {count} readable image" for model, count in few.items()]
    facts = [fact for fact, kept in zip(facts, keep, strict=True) if kept]
    models = len({fact.model for fact in facts})
    if models < 2:
        raise ValueError(
            f"{folder}: a benchmark needs at least 2 models with 2 readable images each, found "
            f"{models}. Expected is one folder of images per model"
            + (f" ({'; '.join(notes)})" if notes else "")
        )
    plans = {"": _Plan.draw(facts, draws, seed)}
    formats = sorted({fact.format for fact in facts})
    for name in formats:
        try:
            plans[name] = _Plan.draw(facts, draws, seed, format=name)
        except ValueError:
            notes.append(f"format {name}: fewer than 2 models with 2 images, no figures of its own")
    if len(formats) > 1:
        notes.append(f"the overall figures mix formats ({', '.join(formats)}): see by_format")

    figures: dict[str, Result] = {}
    for method, vectors, times in zip(chosen, features, seconds, strict=True):
        points, spent = _compact(vectors[keep]), times[keep]
        each = {name: _figures(plan, points, spent, method.prior) for name, plan in plans.items()}
        figures[method.name] = {**each.pop(""), "by_format": each}
    sizes = plans[""].enrolled_counts
    return {
        "models": models,
        "images": len(facts),
        "draws": draws,
        "seed": seed,
        "enrolled": {str(k): [int(sizes(k).min()), int(sizes(k).max())] for k in SHOTS},
        "skipped": skipped,
        "notes": notes,
        "methods": figures,
    }


def format_table(result: Result) -> str:
    """Table of a :func:`bench` result, for people.

    One line per method over all images, then one per method and format. Recall is in per cent,
    in brackets its 95% interval over models.
    """
    header = ("images", "method", "1-shot", "5-shot", "10-shot", "AUC", "EER", "TAR@1%", "ms/image")
    lines = [header]
    methods = result["methods"]
    formats = sorted({name for figures in methods.values() for name in figures["by_format"]})
    for images in ("all", *(formats if len(formats) > 1 else ())):
        for name, overall in methods.items():
            figures = overall if images == "all" else overall["by_format"][images]
            shots = [_recall(figures["identification"][str(k)]) for k in SHOTS]
            verified = [_two_digits(figures[key]) for key in ("auc", "eer", "tar_at_far_0.01")]
            speed = f"{1000 * figures['seconds_per_image']:.1f}"
            lines.append((images, name, *shots, *verified, speed))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    head = f"{result['models']} models, {result['images']} images, {result['draws']} draws"
    notes = [f"note: {note}" for note in result["notes"]]
    notes += [f"skipped: {entry['reason']}" for entry in result["skipped"]]
    return "\n".join([head, "", *table, *([""] if notes else []), *notes])


def _recall(entry: Result) -> str:
    low, high = entry["ci95"]
    return f"{100 * entry['mean']:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _method(method: str | Method, extractor: EmbeddingModel | None) -> Method:
    if not isinstance(method, str):
        return method
    if method in BASELINES:
        return BASELINES[method]()
    if method != "extractor":
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if extractor is None:
        from fpkit.extractor import load_extractor  # only this method needs weights

        extractor = load_extractor()
    return ExtractorMethod(extractor, prior=PRIOR)


def _extract(
    facts: list[ImageFacts],
    methods: Sequence[Method],
    on_error: Callable[[ImageReadError], None] | None,
    progress: bool,
) -> tuple[list[ImageFacts], list[NDArray[np.float32]], FloatArray, list[dict[str, str]]]:
    """Facts of the good images; per method their (n, d) features; seconds (methods, n); the bad."""
    good, skipped = [], []
    features: list[list[NDArray[np.float32]]] = [[] for _ in methods]
    seconds: list[list[float]] = []
    for fact in tqdm(facts, desc="images", disable=not progress, file=sys.stderr):
        try:
            image = read_image(fact.path)
            row, spent = [], []
            for method in methods:
                start = time.perf_counter()
                row.append(method.features(image))
                spent.append(time.perf_counter() - start)
        except ValueError as error:
            if not isinstance(error, ImageReadError):
                error = ImageReadError(f"{fact.path}: {error}")
            if on_error is not None:
                on_error(error)
            skipped.append({"file": str(fact.path), "reason": str(error)})
            continue
        good.append(fact)
        seconds.append(spent)
        for column, vector in zip(features, row, strict=True):
            column.append(vector)
    stacked = [np.stack(column) if column else np.zeros((0, 1), np.float32) for column in features]
    return good, stacked, np.array(seconds).reshape(len(good), len(methods)).T, skipped


def _with_two_images(facts: list[ImageFacts]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which images belong to a model with at least two, and the models that have fewer."""
    counts = Counter(fact.model for fact in facts)
    few = {model: count for model, count in counts.items() if count < 2}
    return np.array([fact.model not in few for fact in facts], dtype=bool), few


def _compact(vectors: NDArray[np.float32]) -> FloatArray:
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


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Who is enrolled in which draw; `rows` are its n images among all."""

    rows: NDArray[np.intp]
    models: list[str]
    model: NDArray[np.intp]  # (n,) index into models
    decoder: NDArray[np.intp]  # (m,) equal for kin
    content: NDArray[np.intp]  # (n,) equal for the same subject, -1 if unknown
    rank: NDArray[np.intp]  # (draws, n) place of an image in its model's random order
    seed: int

    @classmethod
    def draw(
        cls, facts: list[ImageFacts], draws: int, seed: int, *, format: str | None = None
    ) -> _Plan:
        rows = np.array([i for i, f in enumerate(facts) if format in (None, f.format)])
        keep, _ = _with_two_images([facts[i] for i in rows])
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


def _figures(plan: _Plan, points: FloatArray, seconds: FloatArray, prior: float) -> Result:
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
    plan: _Plan, points: FloatArray, shots: int, prior: float
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


def _verify(plan: _Plan, points: FloatArray, prior: float) -> dict[str, float | None]:
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

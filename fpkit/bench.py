"""Benchmark of attribution methods on a folder-per-model tree of real images.

The protocol: some images of each model are enrolled, all others are probes. Identification asks
for the model of each probe, verification whether two probes share one. This is repeated over
random draws of the enrolled images and summarised per model, so that a model with many images
counts no more than one with few.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fpkit.baselines import BASELINES, EmbeddingModel, ExtractorMethod, Method
from fpkit.gallery import PRIOR
from fpkit.images import ImageReadError, list_models, read_image
from fpkit.manifest import PHOTO, ImageFacts, read_facts
from fpkit.protocol import SHOTS, FloatArray, Plan, Result, figures, with_two_images

METHODS = ("extractor", *BASELINES)


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
    names = [method.name for method in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"methods must have different names, got {', '.join(names)}")
    folder = Path(folder)
    facts = read_facts(folder)
    notes = [f"{model}: no images" for model, paths in list_models(folder).items() if not paths]
    photos = sum(fact.family == PHOTO for fact in facts)
    if photos:
        notes.append(f"{photos} photographs (family photo) are no model's: left out")
    facts = [fact for fact in facts if fact.family != PHOTO]
    facts, features, seconds, skipped = _extract(facts, chosen, on_error, progress)

    keep, few = with_two_images(facts)
    notes += [f"{model}: left out, only {count} readable image" for model, count in few.items()]
    facts = [fact for fact, kept in zip(facts, keep, strict=True) if kept]
    models = len({fact.model for fact in facts})
    if models < 2:
        reasons = notes + [entry["reason"] for entry in skipped[:3]]
        raise ValueError(
            f"{folder}: a benchmark needs at least 2 models with 2 readable images each, found "
            f"{models}. Expected is one folder of images per model"
            + (f" ({'; '.join(reasons)})" if reasons else "")
        )
    plans = {"": Plan.draw(facts, draws, seed)}
    formats = sorted({fact.format for fact in facts})
    for name in formats:
        try:
            plans[name] = Plan.draw(facts, draws, seed, format=name)
        except ValueError:
            notes.append(f"format {name}: fewer than 2 models with 2 images, no figures of its own")
    if len(formats) > 1:
        notes.append(f"the overall figures mix formats ({', '.join(formats)}): see by_format")

    summary: dict[str, Result] = {}
    for method, vectors, times in zip(chosen, features, seconds, strict=True):
        points, spent = _compact(vectors[keep]), times[keep]
        each = {name: figures(plan, points, spent, method.prior) for name, plan in plans.items()}
        summary[method.name] = {**each.pop(""), "by_format": each}
    sizes = plans[""].enrolled_counts
    return {
        "models": models,
        "images": len(facts),
        "draws": draws,
        "seed": seed,
        "enrolled": {str(k): [int(sizes(k).min()), int(sizes(k).max())] for k in SHOTS},
        "skipped": skipped,
        "notes": notes,
        "methods": summary,
    }


def format_table(result: Result) -> str:
    """Table of a :func:`bench` result, for people.

    One line per method over all images, then one per method and format. Recall is in per cent,
    in brackets its 95% interval over models.
    """
    header = ("images", "method", "1-shot", "5-shot", "10-shot", "AUC", "EER", "TAR@1%", "ms/image")
    lines = [header]
    methods = result["methods"]
    formats = sorted({name for overall in methods.values() for name in overall["by_format"]})
    for images in ("all", *(formats if len(formats) > 1 else ())):
        for name, overall in methods.items():
            part = overall if images == "all" else overall["by_format"][images]
            shots = [_recall(part["identification"][str(k)]) for k in SHOTS]
            verified = [_two_digits(part[key]) for key in ("auc", "eer", "tar_at_far_0.01")]
            speed = f"{1000 * part['seconds_per_image']:.1f}"
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

"""Benchmark of attribution methods on a folder-per-model tree of real images.

The protocol: some images of each model are enrolled, all others are probes. Identification asks
for the model of each probe, verification whether two probes share one. This is repeated over
random draws of the enrolled images and summarised per model, so that a model with many images
counts no more than one with few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from fpkit.baselines import BASELINES, EmbeddingModel, ExtractorMethod, Method
from fpkit.degrade import Degradation
from fpkit.embedding_cache import EmbeddingCache
from fpkit.features import Features, compact, extract
from fpkit.folders import list_models
from fpkit.gallery import PRIOR
from fpkit.images import ImageReadError
from fpkit.manifest import PHOTO, ImageFacts, read_facts, select_facts
from fpkit.openset import open_set
from fpkit.protocol import SHOTS, Plan, Result, Views, degraded_figures, figures, with_two_images

METHODS = ("extractor", *BASELINES)


def bench(
    folder: str | Path,
    *,
    methods: Sequence[str | Method] = ("extractor",),
    draws: int = 20,
    seed: int = 0,
    extractor: EmbeddingModel | None = None,
    contents: Sequence[str] = (),
    without_contents: Sequence[str] = (),
    format: str | None = None,
    recompress: int | None = None,
    degrade: Sequence[str] = (),
    on_error: Callable[[ImageReadError], None] | None = None,
    progress: bool = True,
    cache: str | Path | None = None,
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
        Of these choices, of the bootstrap, and of where crops are cut.
    extractor
        For ``"extractor"``; None loads the shipped one.
    contents, without_contents, format
        Which images to take, see :func:`fpkit.manifest.select_facts`; by default all.
    recompress
        Quality of a JPEG that every image, enrolled or asked, goes through first: format control.
    degrade
        Degradations of the probes, one after the other and each on its own, see
        :meth:`fpkit.degrade.Degradation.parse`; the gallery stays clean.
    on_error
        Called with the error of each file that cannot be read or is too small; such files are
        left out and listed under ``"skipped"`` in any case.
    progress
        Show a progress bar on stderr.
    cache
        Folder that keeps what the extractor made of each image, see
        :mod:`fpkit.embedding_cache`: a benchmark that was stopped goes on where it was.

    Returns
    -------
    dict
        Ready for strict JSON (a figure that cannot be computed is None): ``models``, ``images``
        (those of models that were used), ``photos``, ``draws``, ``seed``, ``subset`` (with
        ``contents``, ``without_contents``, ``format``), ``recompress``, ``degrade``,
        ``enrolled`` (fewest and most images enrolled per model, by k), ``skipped``, ``notes``,
        and ``methods``: per method ``identification``, ``auc``, ``eer``, ``tar_at_far_0.01``,
        ``auc_within_content``, ``ci95`` (of these four), ``by_family`` (``models`` and
        ``identification`` of the probes of a family), ``per_model`` (recall by k), ``taken_for``
        (by model, the others that got most of its probes at k = 10, and which share), ``open_set``
        (see :func:`fpkit.openset.open_set`), ``degraded`` (by name, see
        :func:`fpkit.protocol.degraded_figures`), ``seconds_per_image`` (median, features only,
        after loading) and ``by_format`` with the same keys for the models, galleries, probes and
        photographs of one format.

    Raises
    ------
    ValueError
        If fewer than two models with two images are left, or a method, content, format or
        degradation is unknown.
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
    - Photographs (family ``photo``) are neither enrolled nor probes: they are unknowns of the
      open set alone.
    - ``mean`` is the mean over draws of the mean recall over models. ``ci95`` bootstraps the
      models (each one's recall, averaged over draws, is one value): it says how the figure
      depends on which generators were met. So do the intervals of verification, see
      :func:`fpkit.pairs.verification`.
    - ``auc_within_content`` compares only pairs of equal ``content`` (the same subject), of
      contents that several models show.
    """
    if not methods:
        raise ValueError(f"methods is empty: name at least one of {', '.join(METHODS)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    first = [] if recompress is None else [Degradation(kind="jpeg", amount=recompress)]
    degradations = {name: Degradation.parse(name) for name in degrade}
    chosen = [_method(method, extractor) for method in methods]
    kept = _keep_in(cache, chosen)
    names = [method.name for method in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"methods must have different names, got {', '.join(names)}")
    subset = {"contents": list(contents), "without_contents": list(without_contents)}
    facts = select_facts(read_facts(folder, on_error=on_error), **subset, format=format)
    with kept:
        seen = extract(facts, chosen, steps=first, seed=seed, on_error=on_error, progress=progress)
        clean, photos, notes = _sorted_out(Path(folder), seen)
        plans, more = _plans(clean.facts, photos.facts, draws, seed)
        notes += more

        summary = {
            method.name: {
                part: _clean_figures(plan, part, clean, photos, i, method.prior)
                for part, plan in plans.items()
            }
            for i, method in enumerate(chosen)
        }
        for name, degradation in degradations.items():
            steps = [*first, degradation]
            worse = extract(
                clean.facts, chosen, steps=steps, seed=seed, progress=progress, name=name
            )
            if worse.skipped:
                lost, reason = len(worse.skipped), worse.skipped[0]["reason"]
                notes.append(f"{name}: {lost} degraded images cannot be used ({reason}, ...)")
            for i, method in enumerate(chosen):
                views = _views(clean, worse, i, method.prior)
                for part, plan in plans.items():
                    found = degraded_figures(plan, views.of(plan.rows))
                    summary[method.name][part]["degraded"][name] = found
    sizes = plans[""].enrolled_counts
    return {
        "models": len(plans[""].models),
        "images": len(clean.facts),
        "photos": len(photos.facts),
        "draws": draws,
        "seed": seed,
        "subset": {**subset, "format": format},
        "recompress": recompress,
        "degrade": list(degradations),
        "enrolled": {str(k): [int(sizes(k).min()), int(sizes(k).max())] for k in SHOTS},
        "skipped": seen.skipped,
        "notes": notes,
        "methods": {name: _by_format(parts, clean.facts) for name, parts in summary.items()},
    }


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


def _keep_in(
    cache: str | Path | None, methods: list[Method]
) -> AbstractContextManager[EmbeddingCache | None]:
    """Let the extractor among `methods` keep its embeddings in the folder `cache`."""
    if cache is None:
        return nullcontext()
    for method in methods:
        if isinstance(method, ExtractorMethod):
            method.cache = EmbeddingCache(cache, method.extractor.hash, method.extractor.dim)
            return method.cache
    raise ValueError(f"cache {cache} is for the extractor: name it among the methods")


def _sorted_out(folder: Path, seen: Features) -> tuple[Features, Features, list[str]]:
    """Images of models with at least two, photographs, and notes; ValueError if too few."""
    models = list_models(folder, on_error=lambda error: None)  # it was told by read_facts
    notes = [f"{model}: no images" for model, paths in models.items() if not paths]
    photo = np.array([fact.family == PHOTO for fact in seen.facts], dtype=bool)
    photos, images = (seen.rows(np.flatnonzero(which)) for which in (photo, ~photo))
    if photos.facts:
        notes.append(
            f"{len(photos.facts)} photographs (family photo) are no model's: asked in the open set"
        )
    keep, few = with_two_images(images.facts)
    notes += [f"{model}: left out, only {count} readable image" for model, count in few.items()]
    clean = images.rows(np.flatnonzero(keep))
    models = len({fact.model for fact in clean.facts})
    if models < 2:
        reasons = notes + [entry["reason"] for entry in seen.skipped[:3]]
        raise ValueError(
            f"{folder}: a benchmark needs at least 2 models with 2 readable images each, found "
            f"{models}. Expected is one folder of images per model"
            + (f" ({'; '.join(reasons)})" if reasons else "")
        )
    return clean, photos, notes


def _plans(
    facts: list[ImageFacts], photos: list[ImageFacts], draws: int, seed: int
) -> tuple[dict[str, Plan], list[str]]:
    """The plan of all images (named ""), those of each of several formats, and notes."""
    plans, notes = {"": Plan.draw(facts, draws, seed)}, []
    formats = sorted({fact.format for fact in facts})
    if len({fact.format for fact in (*facts, *photos)}) == 1:
        return plans, notes
    for name in formats:
        try:
            plans[name] = Plan.draw(facts, draws, seed, format=name)
        except ValueError:
            notes.append(f"format {name}: fewer than 2 models with 2 images, no figures of its own")
    if len(formats) > 1:
        notes.append(f"the overall figures mix formats ({', '.join(formats)}): see by_format")
    return plans, notes


def _by_format(parts: dict[str, Result], facts: list[ImageFacts]) -> Result:
    """Overall figures with those of each format in them; the same where there is one only."""
    overall, formats = parts.pop(""), {fact.format for fact in facts}
    if len(formats) == 1:
        parts = {name: parts.get(name, overall) for name in formats}
    return {**overall, "by_format": parts}


def _clean_figures(
    plan: Plan, part: str, clean: Features, photos: Features, method: int, prior: float
) -> Result:
    """Figures of one method for one plan; `part` is its format, or empty for all."""
    alike = np.array([part in ("", fact.format) for fact in photos.facts], dtype=bool)
    vectors = [clean.vectors[method][plan.rows], photos.vectors[method][alike]]
    points = compact(np.concatenate(vectors))
    images, others = points[: len(plan.rows)], points[len(plan.rows) :]
    return {
        **figures(plan, Views.same(images, prior)),
        "open_set": open_set(plan, images, others, prior=prior),
        "degraded": {},
        "seconds_per_image": float(np.median(clean.seconds[method][plan.rows])),
    }


def _views(clean: Features, worse: Features, method: int, prior: float) -> Views:
    """Clean images to enrol, degraded ones to ask for, as one method sees them."""
    left = {fact.path for fact in worse.facts}
    usable = np.array([fact.path in left for fact in clean.facts], dtype=bool)
    vectors = [features.vectors[method] for features in (clean, worse) if features.facts]
    points = compact(np.concatenate(vectors))
    enrolled, asked = points[: len(usable)], np.zeros_like(points[: len(usable)])
    asked[usable] = points[len(usable) :]
    return Views(enrolled=enrolled, asked=asked, usable=usable, prior=prior)

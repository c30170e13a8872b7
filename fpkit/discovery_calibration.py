"""Calibration of discovery: folders of synthetic models of known truth, clustered.

What varies within models is measured on a bank of models (:mod:`fpkit.verdict_bank`); the
threshold is the one whose clusters fit the truth best, over folders that differ as strangers'
folders do: in the number of models and of images, large and small images, formats, subjects, and
in how much all of it leans one way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fpkit.discovery import DiscoveryCalibration, find_clusters
from fpkit.gallery import unit
from fpkit.verdict_bank import FORMATS, Bank

DIMENSIONS = 32
SHRINKAGE = 0.5  # of the covariance within models, towards an equal one
MOST_MODELS = 40
COUNTS = (4, 8, 12, 24, 48)  # images of a model, at most
FEW_IMAGES = 500  # of a folder, here
KIN = 0.3  # share of folders with models of one architecture
ONE_MODEL = 1 / 8  # share of folders with a single model
LEANING, LEAN = 0.75, 1.2  # share of folders that lean one way, and by how much at most
SUBJECTS, SPREAD = 0.5, 1.0  # share of folders whose models have some subjects each; how far apart
THRESHOLDS = tuple(np.geomspace(0.7, 1.9, 21).round(3).tolist())

FloatArray = NDArray[np.float64]


def calibrate_discovery(
    bank: Bank, *, folders: int = 160, seed: int = 0, progress: bool = False
) -> tuple[DiscoveryCalibration, dict[str, Any]]:
    """Fit projection and threshold on a bank of models.

    Parameters
    ----------
    bank : Bank
        See :func:`fpkit.verdict_bank.embed_bank`.
    folders : int
        Drawn to choose the threshold; half of them, rounded up, for the figures.
    seed : int
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    calibration
    report : dict
        For the model card. ``held_out``: means of calibrations fitted on one half of the
        architectures, for folders of the other half: ``ari`` (adjusted Rand index), ``found``
        (clusters and single images over models, geometric mean), and ``one_model``, the ARI of
        folders by a single model (1 for one cluster, else 0).

    Raises
    ------
    ValueError
        If there are fewer than 10 architectures, or fewer than 4 images of each model.
    ModuleNotFoundError
        If scikit-learn is not installed.
    """
    architectures = np.unique(bank.architecture)
    if len(architectures) < 10 or bank.crops.shape[1] < 4:
        raise ValueError(
            f"a calibration needs 10 architectures and 4 images of each model, got "
            f"{len(architectures)} and {bank.crops.shape[1]}: take more of them"
        )
    generator = np.random.default_rng(seed)
    first = np.isin(bank.architecture, generator.permutation(architectures)[::2])
    bar = tqdm(total=2 * folders, unit="folder", disable=not progress)
    with bar:
        found = []
        for mine, theirs in ((first, ~first), (~first, first)):
            fitted = _fit(bank.of(mine), generator, -(-folders // 4), bar.update)
            projection, inside = fitted.projection, within_models(bank.of(mine))
            for _ in range(-(-folders // 4)):
                folder = draw_folder(bank.of(theirs), generator, inside)
                found.append(judge_folder(folder, projection, (fitted.threshold,))[0])
                bar.update()
        calibration = _fit(bank, generator, folders, bar.update)
    ari, ratio, models = np.array(found).T
    one = models == 1
    report = {
        "models": len(bank.crops),
        "architectures": len(architectures),
        "held_out": {
            "ari": float(ari.mean()),
            "found": float(np.exp(np.log(ratio).mean())),
            "one_model": float(ari[one].mean()) if one.any() else None,
        },
        "from": bank.description,
        "seed": seed,
    }
    return calibration, report


def _fit(
    bank: Bank, generator: np.random.Generator, folders: int, advance: Callable[[], Any]
) -> DiscoveryCalibration:
    projection, inside = fit_projection(bank), within_models(bank)
    total = np.zeros(len(THRESHOLDS))
    for _ in range(folders):
        folder = draw_folder(bank, generator, inside)
        total += [ari for ari, _, _ in judge_folder(folder, projection, THRESHOLDS)]
        advance()
    rounded = np.round(projection, 3).tolist()  # of scale 1 to 10: a card is no place for more
    return DiscoveryCalibration(projection=rounded, threshold=THRESHOLDS[int(total.argmax())])


def judge_folder(
    folder: tuple[FloatArray, NDArray[np.intp]], projection: Any, thresholds: tuple[float, ...]
) -> list[tuple[float, float, int]]:
    """For each threshold: adjusted Rand index, clusters over models, and models."""
    try:
        from sklearn.metrics import adjusted_rand_score
    except ImportError as error:
        raise ModuleNotFoundError(
            "a calibration of discovery needs scikit-learn: pip install 'fpkit[corpus]'"
        ) from error
    embeddings, truth = folder
    points, models = unit(embeddings @ np.array(projection)), len(np.unique(truth))
    rows = []
    for threshold in thresholds:
        labels, _ = find_clusters(points, threshold)
        ari = float(adjusted_rand_score(truth, labels))
        rows.append((ari, (int(labels.max()) + 1) / models, models))
    return rows


# ---- what varies within models -----------------------------------------------------------------


def image_embeddings(bank: Bank, model: int, form: int, crops: int) -> FloatArray:
    """Embeddings of images of a model: (m, d).

    Parameters
    ----------
    bank : Bank
    model : int
    form : int
        Place in `FORMATS`.
    crops : int
        Along each side of an image, 1 to as many as the bank has, g. Up to g / 2 the quarters of
        an image, which show different photographs, are images of their own.
    """
    of = bank.crops[model, :, form]
    side = of.shape[1]
    if crops > side // 2:
        parts = of[:, :crops, :crops].reshape(len(of), crops**2, -1)
    else:
        half = side // 2
        quarters = of.reshape(len(of), 2, half, 2, half, -1).transpose(0, 1, 3, 2, 4, 5)
        chosen = quarters[:, :, :, :crops, :crops]
        parts = chosen.reshape(4 * len(of), crops**2, -1)
    return unit(parts.astype(np.float64).mean(axis=1) - bank.cohort)


def within_models(bank: Bank) -> FloatArray:
    """(d, d) covariance of the images of a model, mean over models, formats and sizes."""
    return _covariances(bank)[0]


def fit_projection(bank: Bank) -> FloatArray:
    """(d, k): the directions in which models differ most for how much their images do.

    Linear discriminant analysis; the scale is such that the shrunk covariance within models is
    that of independent directions of unit variance.
    """
    inside, between = _covariances(bank)
    size = len(inside)
    shrunk = (1 - SHRINKAGE) * inside + SHRINKAGE * np.trace(inside) / size * np.eye(size)
    values, axes = np.linalg.eigh(shrunk)
    white = (axes * values**-0.5) @ axes.T
    _, directions = np.linalg.eigh(white @ between @ white)
    projection: FloatArray = white @ directions[:, ::-1][:, :DIMENSIONS]
    return projection


def _covariances(bank: Bank) -> tuple[FloatArray, FloatArray]:
    """Of images around their model, and of models."""
    side, dim = bank.crops.shape[3], bank.crops.shape[-1]
    inside, freedom, middles = np.zeros((dim, dim)), 0, []
    for model in range(len(bank.crops)):
        for form in range(len(FORMATS)):
            for crops in {max(1, side // 2), side}:
                rows = image_embeddings(bank, model, form, crops)
                middle = rows.mean(axis=0)
                inside += (rows - middle).T @ (rows - middle)
                freedom += len(rows) - 1
                middles.append(middle)
    return inside / freedom, np.cov(np.stack(middles).T)


# ---- folders -----------------------------------------------------------------------------------


def draw_folder(
    bank: Bank, generator: np.random.Generator, inside: FloatArray
) -> tuple[FloatArray, NDArray[np.intp]]:
    """A folder of images by some of the models.

    Parameters
    ----------
    bank : Bank
    generator : numpy.random.Generator
    inside : (d, d)
        Covariance within models: subjects differ by it.

    Returns
    -------
    embeddings : (n, d)
    truth : (n,)
        The model of each.
    """
    g = generator
    form, side = int(g.integers(len(FORMATS))), bank.crops.shape[3]
    most, uneven = int(g.choice(COUNTS)), g.random() < 0.5
    large = max(1, side // 2) if most > bank.crops.shape[1] else side
    size = int(g.integers(1, large + 1)) if g.random() < 0.5 or most > bank.crops.shape[1] else 0
    spread = g.uniform(0, SPREAD) if g.random() < SUBJECTS else 0.0
    rows, truth = [], []
    for place, model in enumerate(_some_models(bank, g)):
        images = image_embeddings(bank, int(model), form, size or int(g.integers(1, side + 1)))
        count = min(most, len(images))
        if uneven:
            count = int(np.exp(g.uniform(np.log(2), np.log(count + 1))))
        images = images[g.permutation(len(images))[:count]]
        if spread:
            subjects = g.multivariate_normal(np.zeros(len(inside)), spread**2 * inside, size=3)
            images = unit(images + subjects[g.integers(0, g.integers(1, 4), count)])
        rows.append(images)
        truth += [place] * count
    embeddings, labels = np.concatenate(rows), np.array(truth)
    if g.random() < LEANING:
        some = g.choice(len(bank.crops), 8)
        pull = bank.crops[some].mean(axis=(1, 2, 3, 4)) - bank.cohort
        way = g.normal(size=8) @ unit(pull.astype(np.float64))
        embeddings = unit(embeddings + g.uniform(0, LEAN) * unit(way[None]))
    kept = g.permutation(len(labels))[:FEW_IMAGES]
    return embeddings[kept], labels[kept]


def _some_models(bank: Bank, g: np.random.Generator) -> NDArray[np.intp]:
    """Places of the models of a folder."""
    order = g.permutation(len(bank.crops))
    if g.random() < ONE_MODEL:
        return order[:1]
    if g.random() >= KIN:
        _, first = np.unique(bank.architecture[order], return_index=True)
        order = order[np.sort(first)]
    most = min(MOST_MODELS, len(order))
    return order[: int(np.exp(g.uniform(np.log(2), np.log(most + 1))))]

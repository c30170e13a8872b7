"""fpkit's figures of merit beside those of scipy, scikit-learn and torchmetrics.

Imported by ``precision.py``, which prints what is found here. Every pair of numbers comes from the
same input; both sides work in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, optimize, spatial, stats
from sklearn import metrics as sk
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from fpkit import clouds, metrics
from fpkit.ffd_metric import FrechetFrequencyDistance
from fpkit.gallery import centred_scores

FloatArray = NDArray[np.float64]
Pair = tuple[str, str, float]  # what, against what, largest difference


class _Itself(nn.Module):
    """Vectors pass as if they were features of images."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors


def textbook_frechet(first: FloatArray, second: FloatArray) -> float:
    """The formula as it stands, with scipy's square root of a matrix that is not symmetric."""
    shift = first.mean(0) - second.mean(0)
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    return float(shift @ shift + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))


def torchmetrics_frechet(first: FloatArray, second: FloatArray) -> float:
    """The distance inside torchmetrics' FID, of these vectors."""
    metric = FrechetInceptionDistance(feature=_Itself(first.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(first), real=True)
    metric.update(torch.from_numpy(second), real=False)
    return float(metric.compute())


def streamed_frechet(first: FloatArray, second: FloatArray) -> float:
    """fpkit's metric for training loops, ten vectors at a time."""
    metric = FrechetFrequencyDistance(dim=first.shape[1])
    for vectors, real in ((first, True), (second, False)):
        for part in torch.from_numpy(vectors).split(10):
            metric.update(part, real=real)
    return float(metric.compute())


def _two_clouds(n: int, dim: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Correlated vectors in dB, as those of models are."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((2, dim, dim)) / math.sqrt(dim)
    first, second = generator.standard_normal((2, n, dim)) @ (np.eye(dim) + mixing)
    return 5 * first, 5 * second + 1


def scores_rows(seed: int) -> Iterator[Pair]:
    """Receiver operating characteristics, with ties and without."""
    generator = np.random.default_rng(seed)
    for name, digits in (("", 12), (", many ties", 1)):
        genuine = np.round(generator.normal(1, 1, 900), digits)
        impostor = np.round(generator.normal(0, 1, 4000), digits)
        truth = np.r_[np.ones(900), np.zeros(4000)]
        scores = np.r_[genuine, impostor]
        area = sk.roc_auc_score(truth, scores)
        yield f"auc{name}", "sklearn roc_auc_score", abs(metrics.auc(genuine, impostor) - area)
        rank = stats.mannwhitneyu(genuine, impostor).statistic / (900 * 4000)
        yield f"auc{name}", "scipy mannwhitneyu", abs(metrics.auc(genuine, impostor) - rank)
        far, tar, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
        ours = metrics.roc(genuine, impostor)
        difference = max(np.abs(ours[0] - far).max(), np.abs(ours[1] - tar).max())
        yield f"roc{name}", "sklearn roc_curve", float(difference)

        def gap(x: float, far: FloatArray = far, tar: FloatArray = tar) -> float:
            return 1 - x - float(np.interp(x, far, tar))

        if not name:  # with ties the curve has steps that interp cannot follow
            crossing = optimize.brentq(gap, 0, 1, xtol=1e-15)
            error = abs(metrics.eer(genuine, impostor) - crossing)
            yield "eer", "sklearn roc_curve, scipy brentq", error
        best = tar[far <= 0.01].max()
        error = abs(metrics.tar_at_far(genuine, impostor, 0.01) - best)
        yield f"tar_at_far{name}", "sklearn roc_curve", float(error)


def clouds_rows(seed: int) -> Iterator[Pair]:
    """Frechet distances (relative differences), diversity, coverage, scores of a gallery."""
    ours: dict[str, Callable[[FloatArray, FloatArray], float]] = {
        "sample_frechet_distance": clouds.sample_frechet_distance,
        "FrechetFrequencyDistance": streamed_frechet,
    }
    theirs = {
        "scipy sqrtm": textbook_frechet,
        "torchmetrics FrechetInceptionDistance": torchmetrics_frechet,
    }
    first, second = _two_clouds(500, 64, seed)
    for name, mine in ours.items():
        for library, other in theirs.items():
            value, expected = mine(first, second), other(first, second)
            yield f"{name}, relative", library, abs(value / expected - 1)
    few = first[:80]
    kernel = sk.pairwise.rbf_kernel(few, gamma=1 / (2 * 20**2)) / len(few)
    shares = linalg.eigvalsh(kernel)
    expected = math.exp(stats.entropy(shares[shares > 0]))
    difference = abs(clouds.vendi_score(few, bandwidth=20) - expected)
    yield "vendi_score", "sklearn rbf_kernel, scipy entropy", difference
    difference = abs(clouds.mean_pairwise_distance(few) - spatial.distance.pdist(few).mean())
    yield "mean_pairwise_distance", "scipy pdist", float(difference)
    radii = NearestNeighbors(n_neighbors=3).fit(second).kneighbors()[0][:, 2]
    covered = (spatial.distance.cdist(few, second) <= radii).any(1).mean()
    yield (
        "covered_share",
        "sklearn NearestNeighbors",
        abs(clouds.covered_share(few, second) - float(covered)),
    )
    difference = centred_scores(few, second[:9], prior=4.0) - _scores_by_hand(few, second[:9], 4.0)
    yield "centred_scores", "sklearn cosine_similarity", float(np.abs(difference).max())


def _scores_by_hand(probes: FloatArray, templates: FloatArray, prior: float) -> FloatArray:
    centre = templates.sum(0) / (len(templates) + prior)
    return sk.pairwise.cosine_similarity(probes - centre, templates - centre)


def singular_rows(seed: int) -> Iterator[Pair]:
    """32 vectors of length 64 against themselves: the distance is 0, whatever a method says."""
    few = _two_clouds(32, 64, seed)[0]
    yield "sample_frechet_distance", "exactly 0", clouds.sample_frechet_distance(few, few)
    moments = few.mean(0), np.cov(few, rowvar=False)
    yield "frechet_distance", "exactly 0", clouds.frechet_distance(*moments, *moments)
    yield "scipy sqrtm", "exactly 0", abs(textbook_frechet(few, few))
    yield "torchmetrics", "exactly 0", abs(torchmetrics_frechet(few, few))

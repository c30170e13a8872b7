"""Metrics against closed forms and brute force."""

import math

import numpy as np
import pytest

from fpkit.metrics import (
    auc,
    bootstrap_interval,
    eer,
    frechet_distance,
    roc,
    tar_at_far,
    threshold_at_far,
)


def normal_cdf(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def quantiles(mean: float, n: int = 4000) -> np.ndarray:
    """n evenly spread quantiles of a normal distribution of variance 1, by bisection."""
    target = (np.arange(n) + 0.5) / n
    grid = np.linspace(-6, 6, 24001)
    cdf = np.array([normal_cdf(x) for x in grid])
    return mean + np.interp(target, cdf, grid)


def test_two_gaussians_two_apart():
    genuine, impostor = quantiles(2.0), quantiles(0.0)
    assert auc(genuine, impostor) == pytest.approx(normal_cdf(2 / math.sqrt(2)), abs=2e-4)
    assert eer(genuine, impostor) == pytest.approx(normal_cdf(-1), abs=5e-4)
    # threshold at the 99th percentile of the impostors, 2.3263
    assert tar_at_far(genuine, impostor, 0.01) == pytest.approx(normal_cdf(2 - 2.3263), abs=2e-3)


def test_roc_against_counting():
    generator = np.random.default_rng(0)
    genuine = generator.integers(0, 6, 30) / 5  # few values: many ties
    impostor = generator.integers(-2, 5, 40) / 5
    far, tar, threshold = roc(genuine, impostor)
    assert threshold[0] == np.inf and far[0] == tar[0] == 0 and far[-1] == tar[-1] == 1
    for f, t, level in zip(far, tar, threshold, strict=True):
        assert f == pytest.approx((impostor >= level).mean(), abs=1e-12)
        assert t == pytest.approx((genuine >= level).mean(), abs=1e-12)
    pairs = genuine[:, None] - impostor[None, :]
    brute = (pairs > 0).mean() + (pairs == 0).mean() / 2
    assert auc(genuine, impostor) == pytest.approx(brute)
    assert ((tar[1:] + tar[:-1]) / 2 * np.diff(far)).sum() == pytest.approx(brute)


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [
        ([1.0, 2.0], [0.0, 0.5], (1.0, 0.0, 1.0)),  # perfect
        ([0.0, 0.5], [1.0, 2.0], (0.0, 1.0, 0.0)),  # upside down
        ([1.0, 1.0], [1.0, 1.0], (0.5, 0.5, 0.0)),  # nothing to see
        ([1.0], [1.0], (0.5, 0.5, 0.0)),
    ],
)
def test_extremes(genuine, impostor, expected):
    found = auc(genuine, impostor), eer(genuine, impostor), tar_at_far(genuine, impostor)
    assert found == pytest.approx(expected)


def test_scores_are_similarities_and_their_scale_does_not_matter():
    generator = np.random.default_rng(1)
    genuine, impostor = generator.normal(1, 1, 50), generator.normal(0, 1, 70)
    assert auc(impostor, genuine) == pytest.approx(1 - auc(genuine, impostor))
    assert auc(-impostor, -genuine) == pytest.approx(auc(genuine, impostor))
    assert eer(np.exp(genuine), np.exp(impostor)) == pytest.approx(eer(genuine, impostor))


def test_tar_needs_no_more_than_the_allowed_false_accepts():
    impostor = np.arange(100.0)
    assert tar_at_far([98.5, 97.5], impostor, far=0.01) == 0.5  # one of 100 may pass
    assert tar_at_far([98.5, 97.5], impostor, far=0.02) == 1.0
    assert tar_at_far([98.5, 99.5], impostor, far=0.0) == 0.5
    with pytest.raises(ValueError, match="far"):
        tar_at_far([1.0], [0.0], far=1.5)


def test_bootstrap_interval_of_a_normal_mean():
    values = quantiles(5.0, n=100)
    low, high = bootstrap_interval(values, draws=4000, seed=0)
    half = 1.96 * values.std() / 10
    assert low == pytest.approx(5 - half, abs=0.03) and high == pytest.approx(5 + half, abs=0.03)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    narrow = bootstrap_interval(values, level=0.5, seed=3)
    assert low < narrow[0] < narrow[1] < high


def test_frechet_of_commuting_covariances():
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    a, b = generator.uniform(0, 3, (2, 5))
    shift = generator.normal(size=5)
    found = frechet_distance(shift, (axes * a) @ axes.T, np.zeros(5), (axes * b) @ axes.T)
    assert found == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum() + (shift**2).sum())


def test_frechet_against_the_eigenvalues_of_the_product():
    generator = np.random.default_rng(1)
    samples = generator.normal(size=(2, 50, 4)) @ generator.normal(size=(2, 4, 4))
    first, second = (np.cov(x.T) for x in samples)
    root = np.sqrt(np.linalg.eigvals(first @ second)).real.sum()
    expected = np.trace(first) + np.trace(second) - 2 * root
    zero = np.zeros(4)
    assert frechet_distance(zero, first, zero, second) == pytest.approx(expected)
    assert frechet_distance(zero, second, zero, first) == pytest.approx(expected)


def test_frechet_of_a_singular_set_against_itself_is_zero():
    samples = np.random.default_rng(2).normal(size=(6, 20)) * 100
    mean, covariance = samples.mean(axis=0), np.cov(samples.T)
    distance = frechet_distance(mean, covariance, mean, covariance)
    assert 0 <= distance < 1e-6 * np.trace(covariance)


def test_frechet_of_two_draws_of_one_gaussian_is_biased():
    draws = np.random.default_rng(0).normal(size=(2, 256, 64))
    moments = [part for x in draws for part in (x.mean(axis=0), np.cov(x.T))]
    assert frechet_distance(*moments) == pytest.approx(8.5, abs=0.5)


@pytest.mark.parametrize("bad", [[], [np.nan], [np.inf]])
def test_empty_and_not_finite_scores_are_refused(bad):
    for metric in (auc, eer, tar_at_far, roc):
        with pytest.raises(ValueError, match="genuine"):
            metric(bad, [0.0])
        with pytest.raises(ValueError, match="impostor"):
            metric([0.0], bad)
    with pytest.raises(ValueError, match="values"):
        bootstrap_interval(bad, seed=0)


def test_frechet_and_bootstrap_arguments_are_checked():
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        frechet_distance(np.zeros(2), np.eye(3), np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1.0], level=1.0, seed=0)


@pytest.mark.parametrize("far", [0.0, 0.01, 0.29, 0.5])
def test_threshold_accepts_as_the_roc_does(far):
    generator = np.random.default_rng(0)
    # rounded: ties within and between the two sets
    genuine, impostor = generator.normal(1, 1, 150).round(1), generator.normal(0, 1, 100).round(1)
    threshold = threshold_at_far(impostor, far=far)
    assert (impostor >= threshold).mean() <= far
    assert (genuine >= threshold).mean() == tar_at_far(genuine, impostor, far=far)


def test_threshold_at_the_ends():
    assert threshold_at_far([0.2, 0.1], far=1.0) == 0.1
    assert threshold_at_far([0.2, 0.1], far=0.0) == np.nextafter(0.2, 1)
    with pytest.raises(ValueError, match="far must be"):
        threshold_at_far([0.1], far=1.1)

"""Figures of populations: closed forms, constructions and equal n."""

import numpy as np
import pytest

from fpkit.metrics import (
    coverage,
    covered_share,
    diversity,
    ffd,
    frechet_distance,
    mean_pairwise_distance,
    sample_frechet_distance,
    vendi_score,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# ---- plain figures of clouds -------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "d"), [(6, 9, 20), (50, 30, 4), (8, 40, 8)])
def test_sample_distance_is_that_of_the_fitted_gaussians(n, m, d):
    first = normal(n, d) @ normal(d, d, seed=1)
    second = normal(m, d, seed=2) * 3 + 1
    moments = [part for x in (first, second) for part in (x.mean(axis=0), np.cov(x.T))]
    assert sample_frechet_distance(first, second) == pytest.approx(frechet_distance(*moments))
    assert sample_frechet_distance(second, first) == pytest.approx(frechet_distance(*moments))


@pytest.mark.parametrize(("n", "expected"), [(64, 32.8), (256, 8.5), (1024, 2.1), (4096, 0.53)])
def test_two_draws_of_one_gaussian(n, expected):
    assert sample_frechet_distance(*normal(2, n, 64)) == pytest.approx(expected, rel=0.07)


def test_sample_distance_of_a_shift_is_its_square():
    cloud = normal(7, 5)
    assert sample_frechet_distance(cloud, cloud) == pytest.approx(0, abs=1e-12)
    assert sample_frechet_distance(cloud, cloud + 2) == pytest.approx(4 * 5)


@pytest.mark.parametrize("kernel", ["cosine", "rbf"])
def test_vendi_of_groups_is_their_number(kernel):
    corners = 100 * np.eye(5)
    assert vendi_score(np.repeat(corners, 3, axis=0), kernel=kernel) == pytest.approx(5)
    assert vendi_score(np.repeat(corners[:1], 7, axis=0), kernel=kernel) == pytest.approx(1)
    # groups of unequal weight: exp of the entropy of the weights
    weights = np.array([4, 1, 1]) / 6
    expected = np.exp(-(weights * np.log(weights)).sum())
    cloud = np.repeat(corners[:3], [4, 1, 1], axis=0)
    assert vendi_score(cloud, kernel=kernel) == pytest.approx(expected)


def test_vendi_of_two_points_from_the_kernel():
    # eigenvalues of [[1, s], [s, 1]] / 2 are (1 +- s) / 2, with s = exp(-3^2 / (2 * 2^2))
    shares = (1 + np.array([1, -1]) * np.exp(-9 / 8)) / 2
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert vendi_score([[0.0], [3.0]], bandwidth=2.0) == pytest.approx(expected)
    assert vendi_score([[1.0], [5.0]], kernel="cosine") == pytest.approx(1)  # one direction


def test_mean_pairwise_distance_leaves_out_the_zeros():
    assert mean_pairwise_distance([[0, 0], [3, 4]]) == pytest.approx(5)
    assert mean_pairwise_distance([[0.0], [1.0], [3.0]]) == pytest.approx((1 + 2 + 3) / 3)


@pytest.mark.parametrize("radius", ["synthetic", "real"])
def test_coverage_by_construction(radius):
    line = np.arange(10.0)[:, None]
    assert covered_share(line, line + 0.25, k=1, radius=radius) == 1
    assert covered_share(line, line + 100, k=1, radius=radius) == 0
    half = np.concatenate([line[:5] + 0.25, line[:5] + 1000])
    assert covered_share(line, half, k=1, radius=radius) == 0.6  # 5 lies 0.75 from 4.25


def test_whose_radius_it_is():
    real, synthetic = np.array([[0.0], [1.0], [2.0]]), np.array([[5.0], [105.0]])
    # the synthetic two are 100 apart: their wide balls hold all; the balls of the real hold none
    assert covered_share(real, synthetic, k=1, radius="synthetic") == 1
    assert covered_share(real, synthetic, k=1, radius="real") == 0
    # and every one has its own: 50 is far from the close pair at 0, whatever the pair at 1000 does
    pairs = np.array([[0.0], [1.0], [1000.0], [1100.0]])
    assert covered_share([[50.0], [1050.0]], pairs, k=1, radius="synthetic") == 0.5


def test_blocks_of_a_large_cloud_stay_in_order():
    cloud = normal(900, 5)  # four blocks of differences
    brute = np.mean([np.linalg.norm(cloud[i + 1 :] - cloud[i], axis=1).sum() for i in range(899)])
    assert mean_pairwise_distance(cloud) == pytest.approx(brute * 899 / (900 * 899 / 2))
    near = cloud[::100] + 1e-6
    own = np.sort(np.linalg.norm(cloud[:, None, :] - cloud[None], axis=2), axis=1)[:, 1]
    within = [
        (np.linalg.norm(near - x, axis=1) <= r).any() for x, r in zip(cloud, own, strict=True)
    ]
    assert covered_share(cloud, near, k=1, radius="real") == pytest.approx(np.mean(within))


def test_larger_k_covers_more():
    real, synthetic = normal(40, 3), normal(30, 3, seed=1) + 1
    for radius in ("synthetic", "real"):
        shares = [covered_share(real, synthetic, k=k, radius=radius) for k in (1, 3, 9)]
        assert shares == sorted(shares) and shares[0] < shares[-1]


# ---- at equal n --------------------------------------------------------------------------------


def test_ffd_of_one_source_is_its_baseline():
    cloud = normal(400, 4)
    found = ffd(cloud[:100], cloud[100:], seed=0)
    assert (found.n, found.d) == (50, 4)
    # four variances from 50 samples: any two of these 50s are alike, at a distance above zero
    assert found.interval[0] < found.baseline < found.interval[1]
    assert found.baseline > 0.1
    far = ffd(cloud[:100], cloud[100:] + 1, seed=0)
    assert far.value == pytest.approx(found.value + 4, abs=1)
    assert far.baseline == found.baseline  # the real halves are the same
    assert far.interval[0] > far.baseline_interval[1]


def test_baseline_is_the_mean_over_all_ways_to_halve():
    real = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
    ways = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    expected = [sample_frechet_distance(real[list(a)], real[list(b)]) for a, b in ways]
    found = ffd(real, real, n=2, draws=3000, seed=0)
    assert found.baseline == pytest.approx(np.mean(expected), rel=0.05)


def test_ffd_does_not_reward_a_larger_set():
    real, synthetic = normal(60, 16), normal(2000, 16, seed=1)
    few, many = (ffd(real, synthetic[:m], n=20, seed=0).value for m in (200, 2000))
    assert few == pytest.approx(many, rel=0.03)
    # without equal n a third of the distance would be gone
    assert sample_frechet_distance(real, synthetic) < 0.7 * few


@pytest.mark.parametrize("n", [100, 30])
def test_draws_of_half_spread_as_the_standard_error(n):
    # the Frechet distance to a far point is a square of a mean: its spread is known
    real, points = normal(200, 1), np.full((200, 1), 100.0)
    found = ffd(real, points, n=n, draws=2000, seed=0)
    error = 2 * 100 * real.std() / np.sqrt(200)
    width = found.interval[1] - found.interval[0]
    assert width == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_estimates_of_one_seed_share_the_real_draws():
    real = normal(40, 6) * np.linspace(1, 30, 40)[:, None]  # which models are drawn matters much
    near, far = normal(40, 6, seed=1), normal(60, 6, seed=2) + 2
    one, two = ffd(real, near, seed=0), ffd(real, far, seed=0)
    gap, (low, high) = two.minus(one)
    assert gap == pytest.approx(two.value - one.value)
    unpaired = two.draws - ffd(real, near, seed=1).draws
    assert high - low < 0.7 * np.diff(np.quantile(unpaired, [0.025, 0.975]))[0]
    with pytest.raises(ValueError, match="differ in"):
        one.minus(ffd(real, near, n=7, seed=0))


def test_coverage_of_one_source_is_known():
    # Naeem et al. 2020: 1 - prod (n - i) / (2n - i), i = 1..k
    cloud = normal(900, 8)
    found = coverage(cloud[:300], cloud[300:], k=3, radius="real", n=18, draws=150, seed=0)
    expected = 1 - (17 * 16 * 15) / (35 * 34 * 33)
    assert found.value == pytest.approx(expected, abs=0.02)
    assert found.baseline == pytest.approx(expected, abs=0.02)


def test_diversity_against_one_model_alone():
    corners = 50 * np.eye(12)
    within = corners[:3, None] + normal(3, 20, 12) * 1e-3  # images of a model, resampled
    found = diversity(np.repeat(corners, 2, axis=0), within=within, n=8, seed=0)
    assert 4 <= found.value <= 8 and found.baseline == pytest.approx(1, abs=1e-3)
    apart = diversity(corners, variety="distance", within=within, n=8, seed=0)
    assert apart.value == pytest.approx(50 * np.sqrt(2))
    assert apart.baseline == pytest.approx(1e-3 * np.sqrt(2 * 12), rel=0.15)
    assert diversity(corners, seed=0).baseline is None


def test_same_seed_same_estimate():
    real, synthetic = normal(20, 3), normal(30, 3, seed=1)
    for figure in (ffd, coverage):
        assert figure(real, synthetic, draws=50, seed=3) == figure(
            real, synthetic, draws=50, seed=3
        )
        assert figure(real, synthetic, draws=50, seed=3) != figure(
            real, synthetic, draws=50, seed=4
        )


def test_too_few_for_a_baseline():
    found = ffd(normal(10, 3), normal(10, 3, seed=1), n=8, seed=0)
    assert found.baseline is None and found.baseline_interval is None


def test_arguments_are_checked():
    cloud = normal(6, 3)
    with pytest.raises(ValueError, match="3 and 4"):
        ffd(cloud, normal(6, 4), seed=0)
    with pytest.raises(ValueError, match="2 to 6"):
        ffd(cloud, cloud, n=7, seed=0)
    with pytest.raises(ValueError, match="NaN"):
        ffd(cloud, np.full((6, 3), np.nan), seed=0)
    with pytest.raises(ValueError, match="at least 2"):
        sample_frechet_distance(cloud, cloud[:1])
    with pytest.raises(ValueError, match="k must be 1 to 5"):
        covered_share(cloud, cloud, k=6)
    with pytest.raises(ValueError, match="radius"):
        covered_share(cloud, cloud, radius="both")
    with pytest.raises(ValueError, match="length 0"):
        vendi_score([[0.0, 0.0]], kernel="cosine")
    with pytest.raises(ValueError, match="bandwidth"):
        vendi_score(cloud, bandwidth=0.0)
    with pytest.raises(ValueError, match="kernel"):
        vendi_score(cloud, kernel="linear")
    with pytest.raises(ValueError, match="variety"):
        diversity(cloud, variety="much", seed=0)
    with pytest.raises(ValueError, match="within"):
        diversity(cloud, within=normal(2, 2, 3), seed=0)
    with pytest.raises(ValueError, match="level"):
        ffd(cloud, cloud, level=1.0, seed=0)

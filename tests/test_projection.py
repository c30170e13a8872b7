"""Maps by their properties, and by umap-learn and scikit-learn as oracles."""

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from fpkit import projection
from fpkit.neighbours import distances, nearest, same_label
from fpkit.projection import neighbour_graph, neighbours_kept, pca, trustworthiness, umap


@pytest.fixture(scope="module")
def clusters() -> NDArray[np.float64]:
    """Three clusters of 30 points in 8 dimensions, far apart."""
    generator = np.random.default_rng(0)
    return np.repeat(10 * np.eye(3, 8), 30, axis=0) + generator.normal(0, 0.5, (90, 8))


LABELS = np.repeat(["a", "b", "c"], 30)


def test_distances_are_those_of_the_definition(clusters):
    rows = clusters[:12]
    euclidean = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.testing.assert_allclose(distances(rows, metric="euclidean"), euclidean, atol=1e-6)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(distances(3 * rows), 1 - unit @ unit.T, atol=1e-12)
    assert (distances(rows) == distances(rows).T).all()


def test_nearest_on_a_line():
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    indices, apart = nearest(line, 2, metric="euclidean")
    assert indices.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert apart.tolist() == [[1, 3], [1, 2], [2, 3], [4, 6]]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_graph_is_that_of_umap_learn(clusters, metric):
    projection._umap_learn()
    from umap.umap_ import fuzzy_simplicial_set

    points = np.vstack([clusters, clusters[:3]])  # with a few duplicates
    indices, apart = nearest(points, 9, metric=metric)
    own = np.arange(len(points))[:, None]  # umap-learn has each point as its own first neighbour
    wanted, _, _ = fuzzy_simplicial_set(
        points,
        10,
        np.random.RandomState(0),
        metric,
        knn_indices=np.hstack([own, indices]),
        knn_dists=np.hstack([0.0 * own, apart]).astype(np.float32),
    )
    graph = neighbour_graph(indices, apart)
    np.testing.assert_allclose(graph, wanted.toarray(), atol=2e-4)
    assert (graph == graph.T).all() and (np.diag(graph) == 0).all()


def test_the_graph_forgets_the_scale_and_the_density(clusters):
    indices, apart = nearest(clusters, 9, metric="euclidean")
    once = neighbour_graph(indices, apart)
    np.testing.assert_allclose(neighbour_graph(indices, 100 * apart), once, atol=1e-9)
    stretched = apart * np.linspace(0.1, 10, len(apart))[:, None]
    np.testing.assert_allclose(neighbour_graph(indices, stretched), once, atol=1e-9)


def test_umap_keeps_clusters_apart_and_the_seed_decides(clusters):
    first = umap(clusters, seed=3)
    assert first.shape == (90, 2) and first.dtype == np.float32
    assert same_label(first, LABELS, metric="euclidean").share == 1
    assert (umap(clusters, seed=3) == first).all()
    assert not np.allclose(umap(clusters, seed=4), first)
    assert not np.allclose(umap(clusters, seed=3, start="random"), first)
    assert not np.allclose(umap(clusters, seed=3, min_dist=0.8), first)


def test_umap_leaves_the_global_generator_alone_and_survives_equal_points(clusters):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - this is the generator it asks about
    assert np.isfinite(umap(np.vstack([clusters[:20]] * 3), n_neighbors=5, epochs=20)).all()
    assert np.isfinite(umap(np.ones((20, 3)), n_neighbors=5, epochs=20)).all()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_umap_gives_clusters_of_unlike_width_like_sizes():
    generator = np.random.default_rng(1)
    widths = np.repeat([0.1, 3.0], 40)[:, None]
    points = 40 * np.repeat(np.eye(2, 10), 40, axis=0) + widths * generator.normal(size=(80, 10))
    layout = umap(points, metric="euclidean")
    narrow, wide = (np.ptp(layout[part], axis=0).max() for part in (slice(40), slice(40, 80)))
    assert 0.5 < narrow / wide < 2


def test_pca_is_the_widest_plane(clusters):
    result = pca(clusters)
    values, axes = np.linalg.eigh(np.cov(clusters.T))
    flat = (clusters - clusters.mean(0)) @ axes[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(result.coordinates), np.abs(flat), atol=1e-9)
    np.testing.assert_allclose(result.share, values[[-1, -2]] / values.sum())
    mirrored = pca(-clusters)
    np.testing.assert_allclose(mirrored.share, result.share)
    true, shown = (distances(x, metric="euclidean") for x in (clusters, result.coordinates))
    assert (shown <= true + 1e-6).all()


def test_pca_of_a_plane_loses_nothing():
    plane = np.random.default_rng(2).normal(size=(40, 2))
    assert pca(plane).share.sum() == pytest.approx(1)
    kept = neighbours_kept(plane, pca(plane).coordinates, k=5, metric="euclidean")
    assert (kept == 1).all()
    assert trustworthiness(plane, pca(plane).coordinates, k=5, metric="euclidean") == 1


def test_neighbours_kept_by_hand():
    line = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]])
    swapped = np.c_[line[[0, 1, 4, 3, 2]], np.zeros(5)]  # the third and the last change places
    kept = neighbours_kept(line, swapped, k=2, metric="euclidean")
    truth = [{1, 2}, {0, 2}, {1, 0}, {2, 1}, {3, 2}]
    shown = [{1, 4}, {0, 4}, {3, 4}, {4, 1}, {1, 0}]
    assert kept.tolist() == [len(a & b) / 2 for a, b in zip(truth, shown, strict=True)]


def test_a_random_map_is_at_chance(clusters):
    layout = np.random.default_rng(3).normal(size=(90, 2))
    assert neighbours_kept(clusters, layout, k=20).mean() == pytest.approx(20 / 89, abs=0.03)
    assert trustworthiness(clusters, layout, k=20) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_trustworthiness_is_that_of_scikit_learn(clusters, metric):
    from sklearn.manifold import trustworthiness as oracle

    layout = np.random.default_rng(4).normal(size=(90, 2)) + clusters[:, :2] / 5
    for k in (1, 5, 40):
        wanted = oracle(clusters, layout, n_neighbors=k, metric=metric)
        assert trustworthiness(clusters, layout, k=k, metric=metric) == pytest.approx(wanted)


def test_same_label_with_and_without_the_own_group(clusters):
    everything = same_label(clusters, LABELS)
    assert everything.share == 1 and everything.chance == pytest.approx(29 / 89)
    # groups a and b share a label, and are each other's nearest; c is alone with its own
    near = clusters + np.repeat([[0.0] * 8, [8.0] + [0.0] * 7, [0.0] * 8], 30, axis=0)
    labels = np.where(LABELS == "c", "y", "x")
    others = same_label(near, labels, groups=LABELS, metric="euclidean")
    assert others.share == pytest.approx(2 / 3) and others.chance == pytest.approx(1 / 3)
    shuffled = np.random.default_rng(5).permutation(LABELS)
    assert same_label(clusters, shuffled).share == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: umap(x, n_neighbors=90), "below the 90 points, got 90"),
        (lambda x: umap(x, n_neighbors=2), "at least 3"),
        (lambda x: umap(x, min_dist=1.0), "below 1"),
        (lambda x: umap(x, start="spectral"), "one of .*'random'"),
        (lambda x: umap(x, seed=-1), "seed must be at least 0"),
        (lambda x: umap(x[0]), r"\(n, d\), got shape \(8,\)"),
        (lambda x: umap(x * np.nan), "finite"),
        (lambda x: umap(np.zeros((6000, 2))), "3 to 5000 points, got 6000"),
        (lambda x: distances(x, metric="manhattan"), "metric must be one of"),
        (lambda x: distances(0 * x), "other than zero"),
        (lambda x: nearest(x, 0), "at least 1"),
        (lambda x: nearest(x, 90), "91 to 5000 points, got 90"),
        (lambda x: neighbour_graph([[1], [0]], [[1], [1]]), "k at least 2"),
        (lambda x: neighbours_kept(x, x[:50, :2]), "got 90 and 50"),
        (lambda x: trustworthiness(x, x[:, :2], k=45), "below half of the 90"),
        (lambda x: same_label(x, LABELS[:3]), "got 90 and 3"),
        (lambda x: same_label(x, LABELS, groups=LABELS, k=61), "1 to 60"),
    ],
)
def test_what_does_not_fit_is_refused(clusters, call, match):
    with pytest.raises(ValueError, match=match):
        call(clusters)


def test_without_umap_learn_the_error_says_what_to_install(clusters, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "umap"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fpkit\[lab\]'"):
        umap(clusters)

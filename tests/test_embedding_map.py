"""The map of embeddings without a browser: traits, the figure, statistics, the static picture."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from plotly.callbacks import Points

from fpkit import projection
from fpkit.embedding_map import EmbeddingMap
from fpkit.names import options_of
from fpkit.procedural import procedural_images
from fpkit.projection import neighbours_kept, pca
from fpkit.scatter import MOST_LABELS, marker_of, scatter_figure, scatter_picture
from fpkit.selection import selection_summary

MODELS = [name for name in "abc" for _ in range(8)]
LABELS = {"model": MODELS, "upsampling": ["nearest"] * 8 + ["deconv"] * 16}


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    generator = np.random.default_rng(0)
    rows = np.repeat(np.eye(3, 6), 8, axis=0) + generator.normal(0, 0.1, (24, 6))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return procedural_images(24, 64, seed=1)


@pytest.fixture
def shown(embeddings, images) -> EmbeddingMap:
    return EmbeddingMap(embeddings, LABELS, images, method="pca")


def drawn(widget: EmbeddingMap) -> np.ndarray:
    points = widget._figure.data[0]
    return np.stack([points.x, points.y], axis=1)


def bright(widget: EmbeddingMap) -> tuple[int, ...]:
    return tuple(np.flatnonzero(np.asarray(widget._figure.data[0].marker.opacity) == 1))


def test_umap_is_that_of_the_projection_and_follows_its_settings(embeddings):
    widget = EmbeddingMap(embeddings, LABELS, n_neighbors=6, seed=2)
    wanted = projection.umap(embeddings, n_neighbors=6, seed=2)
    assert (widget.coordinates == wanted).all() and (drawn(widget) == wanted).all()
    widget._seed.value = 3
    assert widget.seed == 3
    assert (drawn(widget) == projection.umap(embeddings, n_neighbors=6, seed=3)).all()
    widget.n_neighbors, widget.min_dist, widget.start = 8, 0.4, "random"
    assert widget._neighbors.value == 8 and widget._min_dist.value == 0.4
    wanted = projection.umap(embeddings, n_neighbors=8, min_dist=0.4, seed=3, start="random")
    assert (drawn(widget) == wanted).all()
    kept = neighbours_kept(embeddings, wanted, k=11).mean()
    assert widget.kept == pytest.approx(kept) and f"{kept:.0%}" in widget.message.value
    assert not widget.busy


def test_a_known_map_is_not_computed_again(shown, monkeypatch):
    first = drawn(shown)
    shown.method = "umap"
    assert not np.allclose(drawn(shown), first)
    monkeypatch.setattr("fpkit.projection.umap", None)  # calling it again would fail
    shown.method = "pca"
    assert (drawn(shown) == first).all()
    shown.method = "umap"
    with pytest.raises(TypeError):
        shown.seed = 9
    assert shown.status.startswith("Error: TypeError") and 'role="alert"' in shown.message.value
    assert not shown.busy


def test_pca_needs_no_umap_settings_and_says_its_share(shown, embeddings):
    np.testing.assert_allclose(drawn(shown), pca(embeddings).coordinates, atol=1e-6)
    assert shown._seed.disabled and shown._neighbors.disabled
    share = pca(embeddings).share.sum()
    assert f"{share:.0%} of the variance" in shown._figure.layout.title.text
    shown.method = "umap"
    assert not shown._seed.disabled


def test_colours_follow_the_column_and_the_key_says_them(shown):
    points = shown._figure.data[0]
    for column in ("model", "upsampling"):
        shown._colour.value = column
        names = sorted(set(LABELS[column]))
        assert shown.colour_by == column
        assert [trace.name for trace in shown._figure.data[1:]] == names
        expected = [marker_of(names.index(label)) for label in LABELS[column]]
        assert list(zip(points.marker.color, points.marker.symbol, strict=True)) == expected
        assert shown._choice.options == options_of(["(nothing)", *names])
    assert shown._figure.data[0] is points  # with its callbacks


def test_hover_and_number_show_image_spectrum_labels_and_true_neighbours(shown, embeddings):
    assert "<img" not in shown._details.value
    shown._figure.data[0]._dispatch_on_hover(Points(point_inds=[9]), None)
    assert shown.point == 9 and shown._point.value == 9
    text = shown._details.value
    assert text.count("<img") == 2 and "<b>b</b>" in text and "<b>deconv</b>" in text
    order = np.argsort(-(embeddings @ embeddings[9]))
    assert text.index(f"#{order[1]} b") < text.index(f"#{order[2]} b")
    shown._point.value = 20
    assert shown.point == 20 and shown._details.value != text
    shown._point.value = -1
    assert "<img" not in shown._details.value


def test_without_images_there_is_still_the_text(embeddings):
    widget = EmbeddingMap(embeddings, {"model": ["<i>"] * 24}, method="pca", point=3)
    assert "<img" not in widget._details.value and "&lt;i&gt;" in widget._details.value
    assert "<i>" not in widget._details.value


def test_lasso_gives_the_statistics_of_the_selection(shown, embeddings):
    assert shown.summary is None
    points = shown._figure.data[0]
    points._dispatch_on_selection(Points(point_inds=[9, 1, 8]), None)
    assert shown.selection == (1, 8, 9)
    summary = shown.summary
    assert summary.counts["model"] == {"b": (2, 8), "a": (1, 8)}
    pairs = [embeddings[i] @ embeddings[j] for i, j in ((1, 8), (1, 9), (8, 9))]
    assert summary.within == pytest.approx(np.mean(pairs))
    assert "model: b 2 of 8, a 1 of 8" in shown._statistics.value
    assert bright(shown) == (1, 8, 9)
    # on the page a lasso that stays would go on deciding what is bright
    assert points.selectedpoints is None and shown._figure.layout.selections == ()
    points._dispatch_on_selection(Points(point_inds=[]), None)
    assert shown.selection == (1, 8, 9)
    points._dispatch_on_deselect([])
    assert shown.selection == () and shown.summary is None


def test_a_label_can_be_selected_without_a_mouse(shown):
    shown._choice.value = "c"
    assert shown.selection == tuple(range(16, 24))
    assert bright(shown) == shown.selection
    assert "8 selected" in shown._statistics.value
    shown._choice.value = "(nothing)"
    assert shown.selection == () and bright(shown) == tuple(range(24))
    assert shown.select("nearest", column="upsampling").size == 8
    with pytest.raises(ValueError, match="no label 'd' in column 'model'"):
        shown.select("d")


def test_the_selection_outlives_maps_and_colours_and_the_list_never_lies(shown):
    shown._choice.value = "a"
    chosen = tuple(range(8))
    shown.method = "umap"
    assert shown.selection == chosen == bright(shown) and shown._choice.value == "a"
    shown.colour_by = "upsampling"
    assert shown.selection == chosen == bright(shown) and shown._choice.value == "(nothing)"
    shown._choice.value = "deconv"
    shown.selection = (1, 2)
    assert shown._choice.value == "(nothing)" and bright(shown) == (1, 2)


def test_selection_summary_against_all_pairs(embeddings):
    chosen, others = [0, 1, 2, 8, 9], [3, 4, 5, 6, 7, *range(10, 24)]
    summary = selection_summary(3 * embeddings, LABELS, chosen, by="model")
    scores = embeddings @ embeddings.T
    within = [scores[i, j] for i in chosen for j in chosen if i != j]
    assert summary.within == pytest.approx(np.mean(within))
    assert summary.outside == pytest.approx(scores[np.ix_(chosen, others)].mean())
    near = {
        name: scores[np.ix_(chosen, [i for i in others if MODELS[i] == name])].mean()
        for name in "abc"
    }
    assert [name for name, _ in summary.nearest] == sorted(near, key=lambda n: -near[n])
    assert dict(summary.nearest) == pytest.approx(near)
    one = selection_summary(embeddings, LABELS, [3], by="model")
    assert np.isnan(one.within) and one.size == 1
    everything = selection_summary(embeddings, LABELS, range(24), by="model")
    assert everything.nearest == () and np.isnan(everything.outside)


@pytest.mark.parametrize(
    ("selection", "by", "match"),
    [
        ([], "model", "at least one"),
        ([1, 1], "model", "each once"),
        ([24], "model", "from 0 to 23"),
        ([-1], "model", "from 0 to 23"),
        ([1], "norm", "one of .*'model'"),
    ],
)
def test_selections_that_do_not_fit_are_refused(embeddings, selection, by, match):
    with pytest.raises(ValueError, match=match):
        selection_summary(embeddings, LABELS, selection, by=by)


def test_a_wrong_selection_is_shown_and_raised(shown):
    with pytest.raises(ValueError, match="from 0 to 23"):
        shown.selection = (99,)
    assert shown.status.startswith("Error: ValueError")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"embeddings": np.ones(24)}, r"\(n, d\)"),
        ({"embeddings": np.eye(7)}, "at least 8"),
        ({"labels": {}}, "at least one column"),
        ({"labels": {"model": MODELS[:5]}}, "5 labels for 24 points"),
        ({"images": torch.zeros(3, 3, 64, 64)}, "3 images for 24"),
    ],
)
def test_input_that_does_not_fit_is_refused(embeddings, change, match):
    with pytest.raises(ValueError, match=match):
        EmbeddingMap(**{"embeddings": embeddings, "labels": LABELS, "method": "pca"} | change)


def test_static_shows_colours_selection_and_point(shown):
    plain = shown.static()
    shown.colour_by = "upsampling"
    assert plain.size != shown.static().size or plain.tobytes() != shown.static().tobytes()
    before = shown.static()
    shown.select("nearest")
    assert shown.static().tobytes() != before.tobytes()
    shown.point = 4
    assert shown.static().height > before.height


def test_every_control_has_a_label(shown):
    controls = shown.children[0].children
    assert len(controls) == 8 and all(control.description for control in controls)


def test_all_markers_differ_and_neighbours_differ_in_both():
    markers = [marker_of(place) for place in range(MOST_LABELS)]
    assert len(set(markers)) == MOST_LABELS == 42
    for first, second in zip(markers, markers[1:], strict=False):
        assert first[0] != second[0] and first[1] != second[1]
    labels = [str(i) for i in range(43)]
    with pytest.raises(ValueError, match="42 labels, got 43"):
        scatter_figure(np.zeros((43, 2)), labels)
    with pytest.raises(ValueError, match="label for each"):
        scatter_picture(np.zeros((3, 2)), ["a", "b"])


def test_a_picture_has_points_where_they_are():
    picture = np.asarray(scatter_picture([[0, 0], [2, 1]], ["a", "b"], legend=False, size=200))
    blue, orange = (
        np.argwhere(np.abs(picture - rgb).sum(2) < 30) for rgb in ([0, 114, 178], [230, 159, 0])
    )
    assert len(blue) and len(orange)
    down, right = orange.mean(0) - blue.mean(0)
    assert right == pytest.approx(176, abs=3) and down == pytest.approx(-88, abs=3)


def test_the_widgets_load_neither_umap_nor_numba():
    code = (
        "import sys, numpy as np, fpkit.widgets as widgets\n"
        "widgets.EmbeddingMap(np.eye(9), {'model': ['a'] * 9}, method='pca').static()\n"
        "print({'umap', 'numba', 'scipy', 'sklearn'} & set(sys.modules))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"

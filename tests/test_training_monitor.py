"""The training monitor without a browser: small trainings, traits, figures."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes
from traitlets import TraitError

from fpkit.arch import PAPER
from fpkit.extractor import ExtractorConfig
from fpkit.procedural import procedural_images
from fpkit.stream import Sources, StreamConfig
from fpkit.synthesis import synthesize
from fpkit.train_plan import TrainConfig
from fpkit.training import train
from fpkit.training_monitor import TrainingMonitor
from fpkit.training_plots import (
    learning_curves,
    smoothed,
    snapshot_scatter,
    take_snapshot,
    training_picture,
)
from fpkit.zoo import Zoo

CONFIG = TrainConfig(
    steps=4,
    warmup=1,
    validate_every=2,
    checkpoint_every=100,
    stream=StreamConfig(models=3, images=2, sources=2, random_share=1.0, jpeg_share=0.0),
    extractor=ExtractorConfig(crop=32, widths=(4, 4), dim=4),
)
ROWS = [
    {"step": 1, "loss": 4.0, "seconds": 0.1},
    {"step": 2, "loss": 2.0, "seconds": 0.2, "one_shot": 0.25},
    {"step": 3, "loss": 1.0, "seconds": 0.3},
    {"step": 4, "loss": 0.5, "seconds": 0.4, "one_shot": 0.75},
]


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources(procedural=2)


@pytest.fixture(scope="module")
def done(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> TrainingMonitor:
    """A monitor that trained in the background to the end."""
    monitor = TrainingMonitor(CONFIG, sources, out=tmp_path_factory.mktemp("done"))
    assert monitor._start.description == "Start" and "press “Start”" in monitor.status
    monitor.begin()
    assert monitor.busy and monitor._start.disabled and not monitor._stop.disabled
    with pytest.raises(RuntimeError, match="still busy"):
        monitor.begin()
    monitor.wait(120)
    return monitor


# ---- doing -------------------------------------------------------------------------------------


def test_it_trains_what_train_trains(done, sources, tmp_path):
    assert done.error is None and done.progress == 1 and done._start.description == "Done"
    assert done._start.disabled and done._stop.disabled
    alone = train(CONFIG, sources=sources, out=tmp_path, progress=False)
    assert done.extractor.hash == alone.hash
    assert [row["step"] for row in done.rows] == [1, 2, 3, 4]
    assert done.rows[-1]["one_shot"] == alone.card["curve"][-1]["one_shot"]
    assert f"{done.rows[-1]['one_shot']:.0%} (chance 6%) at step 4" in done.status  # 16 decoders
    assert [s.step for s in done.snapshots] == [1, 2, 4] and done.shown == 2


def test_stop_and_resume_end_where_an_undisturbed_training_does(done, sources, tmp_path):
    monitor = TrainingMonitor(CONFIG, sources, out=tmp_path)
    second = threading.Event()

    def press(change):
        if change["new"] == 2:
            monitor._stop.click()
            second.set()

    monitor.observe(press, names="step")
    monitor._start.click()
    assert second.wait(120)
    monitor.wait(120)
    assert monitor.error is None and "Step 2 of 4" in monitor.status
    assert "Stopped, with a checkpoint" in monitor.status and not monitor.busy
    assert monitor.extractor is None and monitor._start.description == "Resume"

    again = TrainingMonitor(CONFIG, sources, out=tmp_path)  # as after a restart of the kernel
    assert again.step == 2 and again.rows == monitor.rows and again.progress == 0.5
    assert again._start.description == "Resume"
    again.train()
    assert again.extractor.hash == done.extractor.hash
    assert [row["loss"] for row in again.rows] == [row["loss"] for row in done.rows]

    finished = TrainingMonitor(CONFIG, sources, out=tmp_path)
    assert finished.extractor.hash == done.extractor.hash and finished._start.disabled
    finished.train()  # nothing is left to do
    assert finished.step == 4 and "Step 4 of 4" in finished.status


def test_errors_are_shown(done, sources):
    changed = replace(CONFIG, learning_rate=0.1)
    monitor = TrainingMonitor(replace(changed, steps=5), sources, out=done.out)
    monitor.begin()
    monitor.wait(120)
    assert isinstance(monitor.error, ValueError) and not monitor.busy
    assert monitor.status.startswith("Error: ValueError") and "learning_rate" in monitor.status
    assert 'role="alert"' in monitor.message.value and not monitor._start.disabled
    with pytest.raises(ValueError, match="learning_rate"):
        monitor.train()


def test_held_out_models_of_a_zoo_are_the_ones_that_are_shown(sources, tmp_path):
    images = procedural_images(2, 64, seed=0)
    zoo = Zoo.create(tmp_path / "zoo", source="two images")
    for spec in list(PAPER)[::72]:
        zoo.add(synthesize(spec, images, max_steps=2, progress=False))
    config = replace(CONFIG, steps=2, held_out_share=0.5, max_residual=1.0)
    monitor = TrainingMonitor(config, sources, zoo, out=tmp_path / "run")
    assert len(monitor.held_out) == 2 and monitor.chance == 1 / 18
    monitor.train(stop_after=1)
    assert monitor.extractor is None and monitor.step == 1
    assert monitor.names == [name.split("/")[0] for name in monitor.held_out]
    assert len(monitor._probes) == 16 and set(monitor.snapshots[0].models) == set(monitor.names)
    assert {trace.name for trace in monitor._scatter.data[1:]} == set(monitor.names)
    # each crop lies under the name of the model that made it: its own zoo model alone gives it
    for name, part in zip(monitor.held_out, monitor._probes.split(8), strict=True):
        alone = TrainingMonitor(config, sources, zoo, out=tmp_path / "run")
        alone.held_out = [name] * 2
        assert any(torch.equal(part, other) for other in alone._probes.split(8))


# ---- showing -----------------------------------------------------------------------------------


def test_figures_follow_traits_and_are_updated_in_place(done):
    curves, scatter = done._curves, done._scatter
    assert curves.data[0].y.tolist() == [row["loss"] for row in done.rows]
    assert curves.data[2].x.tolist() == [2, 4]
    done._slider.value = 3  # there is none at step 3: the one before
    assert done.shown == 1 and done._slider.value == 2
    done._slider.value = 0
    assert done.shown == 0 and done._slider.value == 1 and "step 1" in scatter.layout.title.text
    done._slider.value = 2
    done._slider.value = 3  # an arrow key: on to the next one
    assert done.shown == 2 and done._slider.value == 4
    done._slider.value = 0
    first = np.asarray(scatter.data[0].x).copy()
    done.shown = 2
    assert done._slider.value == 4 and "step 4" in scatter.layout.title.text
    assert not np.allclose(first, scatter.data[0].x)
    done.rows = tuple(ROWS)
    assert done._curves is curves and curves.data[2].y.tolist() == [25, 75]
    with pytest.raises(TraitError, match="0 to 2, got 3"):
        done.shown = 3


def test_every_control_has_a_label(done):
    assert all(c.description for c in (done._start, done._stop, done._slider))
    assert done._slider.max == CONFIG.steps


def test_static_needs_steps_and_shows_them(done, sources, tmp_path):
    picture = done.static()
    assert picture.width <= 1000 and np.asarray(picture).std() > 10
    with pytest.raises(ValueError, match="train first"):
        TrainingMonitor(CONFIG, sources, out=tmp_path).static()


def test_the_running_mean_is_a_weighted_mean_of_the_past():
    losses = np.array([5.0, 1.0, 4.0, 2.0])
    weights = np.exp(-np.arange(4)[::-1] / 3)
    np.testing.assert_allclose(smoothed(losses, over=3)[-1], weights @ losses / weights.sum())
    assert smoothed([]).shape == (0,)


def test_curves_have_loss_and_identification_in_per_cent():
    figure = learning_curves(ROWS, chance=0.1, steps=8)
    loss, mean, skill = figure.data
    assert loss.y.tolist() == [4, 2, 1, 0.5] and mean.y.tolist() == smoothed(loss.y).tolist()
    assert skill.x.tolist() == [2, 4] and skill.y.tolist() == [25, 75]
    assert figure.layout.annotations[0].text == "chance 10%" and figure.layout.shapes[0].y0 == 10
    assert figure.layout.xaxis.range == (0, 8)
    assert len(learning_curves([], chance=0.1, steps=8).data) == 3


def test_a_snapshot_is_turned_like_the_one_before_and_keeps_all_distances():
    generator = np.random.default_rng(0)
    flat = generator.normal(size=(20, 2)) * [3, 1]
    models = ["a", "b"] * 10
    first = take_snapshot(flat @ generator.normal(size=(2, 5)), models, step=1)
    assert abs(first.share - 1) < 1e-9  # a plane in five dimensions
    before = take_snapshot(flat, models, step=1)
    angle = 2.0
    turn = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])
    after = take_snapshot(flat @ turn + 7, models, step=2, before=before)
    np.testing.assert_allclose(after.points, before.points, atol=1e-9)
    other = generator.normal(size=(20, 5))
    alone, turned = (take_snapshot(other, models, step=3, before=b) for b in (None, before))
    assert procrustes(alone.points, turned.points)[2] < 1e-20  # the same up to a rotation
    error = [np.square(s.points - before.points).sum() for s in (alone, turned)]
    assert error[1] < error[0]


def test_wrong_snapshots_are_refused():
    with pytest.raises(ValueError, match="one per embedding, got 3 of 4"):
        take_snapshot(np.eye(4), ["a", "b", "c"], step=1)


def test_a_snapshot_is_drawn_with_a_symbol_for_every_model():
    snapshot = take_snapshot(torch.eye(4), ["a", "b", "b", "a"], step=9)
    points = snapshot_scatter(snapshot, snapshot.models).data[0]
    np.testing.assert_allclose(points.x, snapshot.points[:, 0], rtol=1e-6)
    symbols = points.marker.symbol
    assert symbols[0] == symbols[3] != symbols[1] == symbols[2]
    empty = snapshot_scatter(None, snapshot.models)
    assert np.isnan(empty.data[0].x).all() and "no snapshot yet" in empty.layout.title.text


def test_a_picture_shows_at_most_three_snapshots():
    snapshots = [take_snapshot(np.eye(6), list("aabbcc"), step=i) for i in range(5)]
    heights = [training_picture(ROWS, snapshots[:n], chance=0.1).size for n in (0, 1, 3, 5)]
    assert heights[0] < heights[1] and heights[1][1] == heights[2][1]
    assert heights[2] == heights[3]
    before_validation = training_picture(ROWS[:1], [], chance=0.1)
    assert before_validation.height < heights[0][1]

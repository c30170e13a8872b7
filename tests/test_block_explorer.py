"""One generation block: measured against computed, and the widget that shows both."""

import importlib.util
import json
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import traitlets

from fpkit.block_explorer import BlockExplorer
from fpkit.generation_block import BlockNorm, BlockSettings, block_views, periodic_part
from fpkit.observations import Upsampling, replicas
from fpkit.procedural import procedural_images

EXACT = 1e-6  # dB: rounding, over frequencies down to 100 dB below the strongest


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- measured and computed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upsampling", "norm"), list(product(get_args(Upsampling), get_args(BlockNorm)))
)
def test_linear_blocks_agree_to_rounding(upsampling, norm):
    settings = BlockSettings(
        upsampling=upsampling, sharpness=0.6, roughness=0.8, overlap=0.3, norm=norm, offset=0.4,
        strength=1.7, repeats=2,
    )  # fmt: skip
    views = block_views(settings, 0.5 + noise(3, 8, 10))
    assert views.output.shape == (3, 32, 40) and views.measured.shape == (32, 40)
    assert views.difference < EXACT


def test_polynomial_activations_agree_from_their_degree_on():
    for activation, degree in (("square", 2), ("cube", 3)):
        settings = BlockSettings(upsampling="deconv", activation=activation, offset=0.3)
        code = noise(2, 16, 16)
        assert block_views(settings, code, degree=degree).difference < EXACT
        assert block_views(settings, code, degree=degree - 1).difference > 0.1


def test_a_bare_block_is_the_observed_upsampling():
    code = noise(1, 16, 16)
    views = block_views(BlockSettings(upsampling="bilinear"), code)
    np.testing.assert_allclose(
        views.measured, np.fft.fftshift(replicas("bilinear", code).measured[0])
    )


def test_the_input_repeated_is_zero_insertion():
    views = block_views(BlockSettings(upsampling="zero"), noise(1, 16, 16))
    np.testing.assert_allclose(views.repeated, views.measured)


def test_sharpness_is_the_documented_response():
    code = noise(1, 16, 16)
    plain = block_views(BlockSettings(upsampling="zero"), code).measured
    frequency = (np.arange(32) - 16) / 32
    for sharpness, response in ((-1, np.cos(np.pi * frequency) ** 2),
                                (1, 1 + np.sin(np.pi * frequency) ** 2)):  # fmt: skip
        views = block_views(BlockSettings(upsampling="zero", sharpness=sharpness), code)
        wanted = plain * np.outer(response, response) ** 2
        np.testing.assert_allclose(views.measured, wanted, atol=1e-12)


def test_half_overlap_leaves_nothing_at_nyquist_and_equal_taps_do():
    code = 1 + 0.1 * noise(1, 16, 16)
    power = {
        w: block_views(BlockSettings(upsampling="deconv", overlap=w), code).measured
        for w in (0.5, 1.0)
    }
    assert power[0.5][0].max() < 1e-20 and power[0.5][:, 0].max() < 1e-20
    assert power[1.0][16, 0] == pytest.approx(power[1.0][16, 16] / 9)  # (1 - 2) / (1 + 2), squared


@pytest.mark.parametrize("upsampling", [u for u in get_args(Upsampling) if u != "zero"])
def test_a_flat_image_stays_as_bright(upsampling):
    settings = BlockSettings(upsampling=upsampling, sharpness=-0.7, overlap=0.2)
    output = block_views(settings, torch.ones(1, 8, 8, dtype=torch.float64)).output
    assert output.mean() == pytest.approx(1)


def test_an_activation_keeps_the_zeros_of_nearest_and_fills_those_of_bilinear():
    code = noise(1, 16, 16)
    for upsampling, filled in (("nearest", False), ("bilinear", True)):
        views = block_views(BlockSettings(upsampling=upsampling, activation="relu"), code)
        assert (views.measured[0].max() > 1e-3) == filled


def test_norms_leave_mean_zero_and_variance_one():
    for norm, axes in (("instance", (1, 2)), ("layer", (0, 1, 2))):
        settings = BlockSettings(norm=norm, activation="relu", strength=3)
        output = block_views(settings, noise(3, 16, 16)).output
        np.testing.assert_allclose(output.mean(axis=axes), 0, atol=1e-12)
        np.testing.assert_allclose(output.var(axis=axes), 1, atol=1e-3)


def test_a_silenced_channel_has_no_spectrum_and_raises_nothing():
    views = block_views(BlockSettings(activation="relu", offset=-99), noise(1, 16, 16))
    assert views.output.max() == 0 and np.isfinite(views.difference)


def test_random_weights_follow_the_seed():
    def output(seed: int) -> np.ndarray:
        return block_views(BlockSettings(roughness=1, seed=seed), noise(1, 8, 8)).output

    assert (output(1) == output(1)).all() and not np.allclose(output(1), output(2))


def test_the_periodic_part_has_no_cross_and_seamless_images_stay():
    axis = torch.arange(32, dtype=torch.float64)
    arch = torch.sin(torch.pi * axis / 31)
    hill = torch.outer(arch, arch)  # zero all around: no jump
    torch.testing.assert_close(periodic_part(hill), hill)
    ramp = (axis[:, None] + 0 * axis)[None]
    before, after = (torch.fft.fft2(x).abs().square()[0, 1:, 0].sum() for x in
                     (ramp, periodic_part(ramp)))  # fmt: skip
    assert after < 0.05 * before
    assert periodic_part(ramp).mean() == pytest.approx(ramp.mean())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upsampling": "lanczos"}, "upsampling must be one of"),
        ({"activation": "softmax"}, "activation must be one of"),
        ({"norm": "batch"}, "norm must be one of"),
        ({"overlap": 1.5}, r"overlap must be in \[0, 1\], got 1.5"),
        ({"repeats": 4}, "repeats must be in"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BlockSettings(**settings)


def test_codes_and_degrees_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="8 pixels or more"):
        block_views(BlockSettings(), noise(1, 4, 4))
    with pytest.raises(ValueError, match="degree must be from 1 to 8, got 9"):
        block_views(BlockSettings(), noise(1, 8, 8), degree=9)


# ---- the widget --------------------------------------------------------------------------------


@pytest.fixture
def explorer() -> BlockExplorer:
    return BlockExplorer(upsampling="deconv", activation="tanh", roughness=0.2)


def test_controls_and_traits_follow_each_other(explorer: BlockExplorer):
    assert explorer._controls["upsampling"].value == "deconv"
    for name, value in {"sharpness": -0.5, "norm": "layer", "repeats": 2, "degree": 3}.items():
        explorer._controls[name].value = value
        assert getattr(explorer, name) == value
    explorer.offset = 0.5
    assert explorer._controls["offset"].value == 0.5
    assert explorer.settings.offset == 0.5 and explorer.settings.norm == "layer"


def test_figures_show_the_views(explorer: BlockExplorer):
    explorer.sharpness = 0.35
    views = block_views(explorer.settings, explorer.code(), degree=explorer.degree)
    measured, computed, apart = (np.asarray(trace.z) for trace in explorer._spectra.data)
    assert measured.dtype == np.float32 and measured.shape == (128, 128)
    np.testing.assert_allclose(measured, views.decibels(views.measured), atol=0.126)
    np.testing.assert_allclose(computed, views.decibels(views.computed), atol=0.126)
    np.testing.assert_allclose(apart, measured - computed, atol=0.38)
    mean = 10 * np.log10(views.measured.mean(axis=0))
    np.testing.assert_allclose(explorer._chart.data[1].y, np.append(mean[64:], mean[0]), atol=1e-3)
    assert f"{views.difference:.2g} dB off" in explorer.status


def test_every_setting_changes_what_is_shown(explorer: BlockExplorer):
    changes = {
        "source": "clouds", "repeats": 2, "upsampling": "shuffle", "sharpness": 0.5, "seed": 3,
        "activation": "relu", "strength": 2.0, "offset": 1.0, "norm": "instance", "degree": 2,
    }  # fmt: skip
    for name, value in {"overlap": 0.5, **changes}.items():
        before = np.asarray([trace.z for trace in explorer._spectra.data])
        setattr(explorer, name, value)
        assert (before != np.asarray([trace.z for trace in explorer._spectra.data])).any(), name


def test_an_update_sends_each_picture_once_and_little_text(explorer: BlockExplorer, monkeypatch):
    sent = []
    figure = explorer._spectra
    monkeypatch.setattr(
        type(figure),
        "_send_update_msg",
        lambda self, restyle_data, **_: sent.append((self, restyle_data)),
    )
    explorer.sharpness = 0.6
    (message,) = (style for sender, style in sent if sender is figure)
    assert len(json.dumps([z.tolist() for z in message["z"]])) < 150_000 * 3


def test_the_input_is_drawn_anew_only_when_it_changes(explorer: BlockExplorer):
    seen = []
    explorer._input.observe(lambda change: seen.append(change["new"]), names="value")
    explorer.sharpness = 0.5
    assert not seen
    explorer.source = "stripes"
    assert len(seen) == 1 and "64 x 64 pixels" in seen[0]


def test_settings_without_effect_are_switched_off(explorer: BlockExplorer):
    assert not explorer._controls["overlap"].disabled and not explorer._controls["seed"].disabled
    explorer.upsampling, explorer.activation, explorer.roughness = "nearest", "none", 0.0
    off = {name for name, control in explorer._controls.items() if control.disabled}
    assert off == {"overlap", "seed", "strength", "offset", "degree"}
    assert "exact" in explorer.status


def test_own_images_take_the_place_of_the_scenes():
    images = procedural_images(2, 140, seed=5)
    explorer = BlockExplorer(images, source="image 2")
    assert explorer.sources[:2] == ("image 1", "image 2")
    code = explorer.code()
    assert code.shape == (3, 64, 64)
    assert code.mean() == pytest.approx(0, abs=1e-9) and code.std() == pytest.approx(1)
    middle = images[1, :, 6:134, 6:134].double()
    small = torch.nn.functional.avg_pool2d(middle, 2)
    assert torch.corrcoef(torch.stack([code.ravel(), small.ravel()]))[0, 1] > 0.9
    with pytest.raises(ValueError, match="128 pixels or more"):
        BlockExplorer(images[..., :100])


def test_unknown_settings_and_inputs_are_refused():
    with pytest.raises(TypeError, match="no setting"):
        BlockExplorer(kernel=3)
    with pytest.raises(traitlets.TraitError, match="source must be one of"):
        BlockExplorer(source="a cat")


def test_errors_are_shown_and_raised(explorer: BlockExplorer, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise ValueError("no such block")

    monkeypatch.setattr("fpkit.block_explorer.block_views", fails)
    with pytest.raises(ValueError, match="no such block"):
        explorer.sharpness = 1.0
    assert 'role="alert"' in explorer.message.value and "no such block" in explorer.message.value
    monkeypatch.undo()
    explorer.sharpness = 0.0
    assert explorer.error is None


def test_static_shows_what_is_set(explorer: BlockExplorer):
    one = np.asarray(explorer.static())
    explorer.overlap = 0.5
    two = np.asarray(explorer.static())
    assert one.shape == two.shape and one.shape[1] <= 1000 and (one != two).any()


def test_every_control_is_labelled_and_explained(explorer: BlockExplorer):
    for name, control in explorer._controls.items():
        assert control.description and control.tooltip, name
    assert 'alt="output of the block"' in explorer._output.value


# ---- the benchmark -----------------------------------------------------------------------------


def test_the_benchmark_moves_sliders_that_exist(explorer: BlockExplorer):
    pytest.importorskip("playwright")
    file = Path(__file__).parent.parent / "benchmarks" / "widgets.py"
    spec = importlib.util.spec_from_file_location("widgets_benchmark", file)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    names: dict[str, object] = {}
    exec(benchmark.CELL.replace("widgets.Block", "shown = widgets.Block"), names)
    controls = {control.description: control for control in names["shown"]._controls.values()}
    assert all(not controls[name].disabled for name in benchmark.SLIDERS)
    assert len(benchmark.SLIDERS) * 12 >= 60

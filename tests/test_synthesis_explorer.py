"""Widgets without a browser: traits are set and read, controls moved as a browser would."""

import numpy as np
import pytest
import torch

from fpkit.arch import ArchSpec
from fpkit.procedural import procedural_images
from fpkit.spectrum import average_spectrum
from fpkit.synthesis import synthesize
from fpkit.synthesis_explorer import SynthesisExplorer


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return procedural_images(6, 160, seed=3)


@pytest.fixture
def explorer(images: torch.Tensor) -> SynthesisExplorer:
    return SynthesisExplorer(images, images[:2], max_steps=2)


def test_controls_and_traits_follow_each_other(explorer: SynthesisExplorer):
    explorer._axes["upsample"].value = "deconv"
    explorer._axes["blocks"].value = 1
    assert explorer.spec == ArchSpec(norm="none", upsample="deconv", blocks=1)
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), names="spec")
    wanted = ArchSpec(upsample="bilinear", activation="tanh", norm="batch", order="pre", layers=2)
    explorer.spec = wanted
    assert seen == [wanted]  # no half-changed spec in between
    assert {field: control.value for field, control in explorer._axes.items()} == {
        field: getattr(wanted, field) for field in explorer._axes
    }
    explorer._seed.value = 9
    assert explorer.seed == 9


def test_the_fingerprint_is_that_of_the_same_model_made_by_hand(explorer, images):
    made = explorer.make()
    model = synthesize(explorer.spec, images, seed=0, max_steps=2, progress=False).model
    with torch.no_grad():
        outputs = model(images[:2])[..., 16:-16, 16:-16]
    np.testing.assert_allclose(made.power, average_spectrum(outputs).mean(0), rtol=1e-4)
    assert explorer.progress == 1 and explorer.residual == made.residual and not explorer.busy


def test_make_redraws_heat_map_profile_and_strip(explorer: SynthesisExplorer):
    explorer.make()
    first = np.asarray(explorer._heatmap.data[0].z).copy()
    explorer.spec = ArchSpec(upsample="deconv", norm="none")
    assert "Settings changed" in explorer.status
    assert (np.asarray(explorer._heatmap.data[0].z) == first).all()
    explorer._make.click()
    assert not np.allclose(explorer._heatmap.data[0].z, first)
    assert explorer._heatmap.data[0].z.dtype == np.float32
    assert len(explorer._profiles.data) == 2 and len(explorer._strip.children) == 2
    assert "K2-L1-Udeconv" in explorer.message.value


def test_gain_is_output_over_input_in_decibels(explorer: SynthesisExplorer):
    explorer.make()
    power = np.asarray(explorer._heatmap.data[0].z, dtype=float)
    explorer.view = "gain"
    gain = np.asarray(explorer._heatmap.data[0].z, dtype=float)
    inputs = average_spectrum(explorer.probes[..., 16:-16, 16:-16]).mean(0)
    np.testing.assert_allclose(power - gain, 10 * np.log10(inputs), atol=1e-3)
    assert "output / input" in explorer._profiles.layout.yaxis.title.text


def test_auto_makes_on_change_and_known_models_are_not_trained_again(explorer, monkeypatch):
    explorer.auto = True
    explorer.seed = 1
    explorer.seed = 2
    assert [made.seed for made in explorer.history] == [1, 2]
    monkeypatch.setattr("fpkit.synthesis_explorer.synthesize", None)  # calling it again would fail
    explorer.seed = 1
    assert explorer.current is explorer.history[0] and len(explorer.history) == 2


def test_history_keeps_six_and_colours_stay_with_their_models(explorer: SynthesisExplorer):
    for seed in range(7):
        explorer.seed = seed
        explorer.make()
    assert [made.number for made in explorer.history] == [7, 2, 3, 4, 5, 6]


def test_errors_are_shown_and_raised(images: torch.Tensor):
    explorer = SynthesisExplorer(images * 255, images[:2], max_steps=2)
    with pytest.raises(ValueError, match="divide by 255"):
        explorer.make()
    assert explorer.status.startswith("Error: ValueError") and "divide by 255" in explorer.status
    assert 'role="alert"' in explorer.message.value
    assert not explorer.busy and not explorer._make.disabled
    explorer.images = images
    explorer.make()
    assert 'role="status"' in explorer.message.value


def test_text_from_errors_is_escaped(explorer: SynthesisExplorer):
    explorer.status = "<script>"
    assert "<script>" not in explorer.message.value


def test_static_needs_no_browser_and_shows_all_of_the_history(explorer: SynthesisExplorer):
    one = explorer.static()  # trains the first model itself
    assert len(explorer.history) == 1
    explorer.seed = 1
    explorer.make()
    two = explorer.static()
    assert np.asarray(one).std() > 10
    assert one.size != two.size or (np.asarray(one) != np.asarray(two)).any()


def test_every_control_has_a_label(explorer: SynthesisExplorer):
    controls = [*explorer._axes.values(), explorer._seed, explorer._steps, explorer._view]
    assert all(control.description for control in [*controls, explorer._make, explorer._auto])

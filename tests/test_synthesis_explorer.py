"""Widgets without a browser: traits are set and read, controls moved as a browser would."""

import re
import threading

import numpy as np
import pytest
import torch

from fpkit.arch import EXTENDED, PAPER, ArchSpec
from fpkit.images import quantise
from fpkit.nearest import nearest_real
from fpkit.procedural import procedural_images
from fpkit.spectrum import average_spectrum, radial_profile
from fpkit.synthesis import synthesize
from fpkit.synthesis_explorer import SynthesisExplorer

LONG = 4000  # steps: far more than a test waits for


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return procedural_images(6, 160, seed=3)


@pytest.fixture
def explorer(images: torch.Tensor) -> SynthesisExplorer:
    return SynthesisExplorer(images, images[:2], spec=ArchSpec(blocks=1, norm="none"), max_steps=2)


def step_of(explorer: SynthesisExplorer, number: int) -> threading.Event:
    """An event that is set when training has reached a step."""
    reached = threading.Event()

    def watch(change: dict) -> None:
        step = re.search(r"step (\d+) of", change["new"])
        if step and int(step[1]) >= number:
            reached.set()

    explorer.observe(watch, names="status")
    return reached


# ---- settings ----------------------------------------------------------------------------------


def test_controls_and_traits_follow_each_other(explorer: SynthesisExplorer):
    explorer._axes["upsample"].value = "deconv"
    explorer._axes["blocks"].value = 2
    assert explorer.spec == ArchSpec(norm="none", upsample="deconv", blocks=2)
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), names="spec")
    wanted = ArchSpec(upsample="bilinear", activation="tanh", norm="batch", order="pre", layers=2)
    explorer.spec = wanted
    assert seen == [wanted]  # no half-changed spec in between
    assert {field: control.value for field, control in explorer._axes.items()} == vars(wanted)
    explorer._seed.value = 9
    assert explorer.seed == 9


def test_settings_beyond_the_sliders_reach_them(explorer: SynthesisExplorer):
    explorer.seed, explorer.steps = 77, 900
    assert (explorer.seed, explorer.steps) == (77, 900)
    assert (explorer._seed.value, explorer._steps.value) == (77, 900)


def offered(explorer: SynthesisExplorer) -> dict[str, tuple]:
    return {field: control.options for field, control in explorer._axes.items()}


def test_the_switch_offers_every_option_beyond_the_paper(explorer: SynthesisExplorer):
    before = explorer.spec
    assert offered(explorer) == {field: getattr(PAPER, field) for field in vars(before)}
    assert explorer._axes["kernel"].layout.display == "none"
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), names="spec")
    explorer._extended.value = True
    assert offered(explorer) == {field: getattr(EXTENDED, field) for field in vars(before)}
    assert explorer._axes["kernel"].layout.display is None
    assert explorer.spec == before and not seen  # new options choose nothing by themselves


def test_a_spec_beyond_the_paper_turns_the_switch_on_and_back(explorer: SynthesisExplorer):
    explorer.spec = ArchSpec(blocks=3, upsample="shuffle", activation="tanh", kernel="mix")
    assert explorer.extended and explorer._axes["kernel"].value == "mix"
    explorer.extended = False
    assert explorer.spec == ArchSpec(activation="tanh")
    assert explorer._axes["upsample"].value == "nearest"
    explorer.spec = ArchSpec(upsample="nearest", kernel=1)
    assert "leaves this combination out" in explorer.status


def test_it_can_begin_beyond_the_paper(images: torch.Tensor):
    explorer = SynthesisExplorer(images, images[:2], spec=ArchSpec(skip="shortcut"), max_steps=2)
    assert explorer.extended and explorer._axes["skip"].value == "shortcut"
    explorer.make()
    assert "Xshortcut" in explorer._strip.children[0].children[0].value


# ---- making ------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_same_model_made_by_hand(explorer, images):
    made = explorer.make()
    synthesis = synthesize(explorer.spec, images, seed=0, max_steps=2, progress=False)
    with torch.no_grad():
        outputs = quantise(synthesis.model(images[:2]))[..., 16:-16, 16:-16]
    np.testing.assert_allclose(made.power, average_spectrum(outputs).mean(0), rtol=1e-4)
    assert made.residual == pytest.approx(synthesis.residual)
    assert explorer.progress == 1 and not explorer.busy


def test_the_button_makes_in_the_background_and_redraws(explorer: SynthesisExplorer):
    explorer.make()
    first = np.asarray(explorer._heatmap.data[0].z).copy()
    explorer.spec = ArchSpec(upsample="deconv", blocks=1, norm="none")
    assert "Settings changed" in explorer.status
    assert (np.asarray(explorer._heatmap.data[0].z) == first).all()
    main, threads = threading.current_thread(), []
    explorer.observe(lambda _: threads.append(threading.current_thread()), names="current")
    explorer._make.click()
    explorer.wait(30)
    assert threads and main not in threads
    assert not np.allclose(explorer._heatmap.data[0].z, first)
    assert explorer._heatmap.data[0].z.dtype == np.float32
    assert len(explorer._strip.children) == 2
    assert "K1-L1-Udeconv" in explorer.message.value


def test_cancel_ends_a_training_and_keeps_nothing(explorer: SynthesisExplorer):
    explorer.steps = LONG
    reached = step_of(explorer, 2)
    explorer._make.click()
    assert reached.wait(30) and explorer.busy
    assert explorer._make.disabled and not explorer._cancel.disabled
    with pytest.raises(RuntimeError, match="still busy"):
        explorer.make()
    explorer._cancel.click()
    explorer.wait(30)
    assert explorer.status.startswith("Cancelled at step") and explorer.error is None
    assert not explorer.busy and explorer._cancel.disabled and not explorer._make.disabled
    assert explorer.history == () and 0 < explorer.progress < 1
    explorer.steps = 2
    assert explorer.make().number == 1  # a cancelled training does not disturb the next


def test_auto_drops_a_training_when_its_settings_change(explorer: SynthesisExplorer):
    explorer.steps = LONG
    explorer.auto = True
    reached = step_of(explorer, 2)
    explorer.seed = 1
    assert reached.wait(30)
    explorer.steps = 2
    explorer.wait(30)
    assert [(made.seed, made.settings.steps) for made in explorer.history] == [(1, 2)]
    explorer.seed = 2
    explorer.wait(30)
    assert [made.seed for made in explorer.history] == [1, 2] and explorer.current.seed == 2


def test_known_models_are_not_trained_again(explorer: SynthesisExplorer, monkeypatch):
    first = explorer.make()
    explorer.seed = 1
    explorer.make()
    monkeypatch.setattr("fpkit.model_maker.make_model", None)  # calling it again would fail
    explorer.seed = 0
    assert explorer.make() is first is explorer.current
    assert len(explorer.history) == 2


def test_history_keeps_six_and_places_stay_with_their_models(explorer: SynthesisExplorer):
    for seed in range(8):
        explorer.seed = seed
        explorer.make()
    assert [made.number for made in explorer.history] == [7, 8, 3, 4, 5, 6]
    colours = [trace.line.color for trace in explorer._profiles.data[:6]]
    assert len(set(colours)) == 6
    assert all(
        colour in slot.children[0].value
        for colour, slot in zip(colours, explorer._strip.children, strict=True)
    )


def test_going_back_restores_the_settings(explorer: SynthesisExplorer):
    first = explorer.make()
    explorer.spec = ArchSpec(blocks=1, upsample="deconv", kernel=5, norm="none")
    explorer.seed, explorer.steps = 3, 3
    explorer.make()
    explorer.auto = True  # restoring settings must not train anything
    seen = []
    explorer.observe(lambda _: seen.append(explorer.settings), names=["spec", "seed", "steps"])
    explorer._strip.children[0].children[1].click()
    explorer.wait(30)
    assert explorer.current is first and set(seen) == {first.settings}
    assert explorer._heatmap.layout.title.text == "fingerprint of #1"
    assert len(explorer.history) == 2
    with pytest.raises(ValueError, match="no model 9 in the history: there is 1, 2"):
        explorer.recall(9)


@pytest.mark.parametrize("background", [False, True])
def test_errors_are_shown(images: torch.Tensor, background: bool):
    explorer = SynthesisExplorer(images * 255, images[:2], max_steps=2)
    if background:
        explorer._make.click()
        explorer.wait(30)
    else:
        with pytest.raises(ValueError, match="divide by 255"):
            explorer.make()
    assert explorer.status.startswith("Error: ValueError") and "divide by 255" in explorer.status
    assert isinstance(explorer.error, ValueError) and 'role="alert"' in explorer.message.value
    assert not explorer.busy and not explorer._make.disabled
    explorer.images = images
    explorer._make.click()
    explorer.wait(30)
    assert explorer.current.number == 1 and 'role="status"' in explorer.message.value


# ---- views -------------------------------------------------------------------------------------


def test_gain_is_output_over_input_in_decibels(explorer: SynthesisExplorer):
    explorer.make()
    power = np.asarray(explorer._heatmap.data[0].z, dtype=float)
    explorer.view = "gain"
    gain = np.asarray(explorer._heatmap.data[0].z, dtype=float)
    inputs = average_spectrum(quantise(explorer.probes)[..., 16:-16, 16:-16]).mean(0)
    np.testing.assert_allclose(power - gain, 10 * np.log10(inputs), atol=1e-3)
    assert "output / input" in explorer._profiles.layout.yaxis.title.text
    assert len(explorer._profiles.data) == 1  # neither the inputs nor a real model


def test_profiles_show_inputs_and_the_real_model_at_the_level_of_the_model(explorer):
    made = explorer.make()
    own, inputs, real = explorer._profiles.data
    assert (own.name, inputs.name, real.name) == (made.label, "inputs", explorer.real)
    assert np.mean(real.y[1:]) == pytest.approx(np.mean(own.y[1:]), abs=1e-3)
    # the shape stays that of the measured spectrum
    _, profile = nearest_profile(explorer)
    assert np.ptp(np.asarray(real.y)[1:] - profile[1:]) < 1e-3


def nearest_profile(explorer: SynthesisExplorer) -> tuple[np.ndarray, np.ndarray]:
    frequency, power = radial_profile(explorer.neighbours[0].fingerprint.spectra["median"])
    return frequency, 10 * np.log10(power)


def test_the_nearest_real_model_is_shown_and_another_can_be_chosen(explorer: SynthesisExplorer):
    made = explorer.make()
    nearest = nearest_real(made.power)
    assert [n.model for n in explorer.neighbours] == [n.model for n in nearest]
    assert explorer.real == explorer._real.value == nearest[0].model
    assert list(explorer._bars.data[0].y)[-1] == nearest[0].model  # on top
    explorer.nearness = "profile"
    assert explorer.real == nearest_real(made.power, by="profile")[0].model
    assert "dB" in explorer._bars.layout.xaxis.title.text
    assert list(explorer._bars.data[0].y)[0] == explorer.real
    assert explorer._bars.layout.yaxis.autorange == "reversed"
    explorer._real.value = "dalle2"
    assert explorer.real == "dalle2" and explorer._real_map.layout.title.text == "dalle2"
    assert explorer._profiles.data[-1].name == "dalle2"
    assert explorer.neighbours[0].model != "dalle2"


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
    explorer.make()
    controls = [*explorer._axes.values(), explorer._seed, explorer._steps, explorer._view]
    controls += [explorer._make, explorer._cancel, explorer._auto, explorer._extended]
    controls += [explorer._nearness, explorer._real, explorer._strip.children[0].children[1]]
    labels = [control.description for control in controls]
    assert all(labels) and len(set(labels)) == len(labels)

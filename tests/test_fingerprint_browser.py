"""The fingerprint browser without a page: traits are set, controls moved as a page would."""

import numpy as np
import pytest
import torch

from fpkit.fingerprint_browser import FingerprintBrowser
from fpkit.fingerprint_sources import caveats, real_source
from fpkit.lattice import ring_peaks
from fpkit.nearest import spectral_pattern
from fpkit.procedural import procedural_images
from fpkit.realworld import real_fingerprints
from fpkit.spectrum import autocorrelation, average_spectrum, radial_profile, to_db
from fpkit.zoo import Zoo

REAL = {f.model: f for f in real_fingerprints()}
A, B = "sd1x-compvis", "anythingxl-xl"
SYNTHETIC = "K1-L1-Udeconv-Asigmoid-Nbatch-Spost/seed0"


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def browser(noise: torch.Tensor) -> FingerprintBrowser:
    return FingerprintBrowser(A, B, images={"noise": noise})


@pytest.fixture(autouse=True)
def as_at_first(browser: FingerprintBrowser):
    yield
    browser.left, browser.right, browser.residual = A, B, "median"
    browser.scale, browser.shared = "db", True


def shown(figure) -> np.ndarray:
    return np.asarray(figure.data[0].z, dtype=float)


def test_the_heat_maps_show_the_measured_spectra(browser):
    for side, name in (("left", A), ("right", B)):
        power = REAL[name].spectra["median"]
        np.testing.assert_allclose(shown(browser._heatmaps[side]), to_db(power), atol=1e-4)
        middle = autocorrelation(power)[32:97, 32:97]
        np.testing.assert_allclose(shown(browser._autos[side]), middle, atol=1e-6)
        assert name in browser._heatmaps[side].layout.title.text
    assert "cycles/pixel" in browser._heatmaps["left"].data[0].hovertemplate
    curves = browser._chart.data
    for curve, name in zip(curves, (A, B), strict=True):
        frequency, rings = radial_profile(REAL[name].spectra["median"])
        np.testing.assert_allclose(curve.x, frequency, atol=1e-6)
        np.testing.assert_allclose(curve.y, to_db(rings), atol=1e-4)


def test_controls_and_traits_follow_each_other(browser):
    browser._group["left"].value = "real: gan"
    assert browser.left == "attngan-bird" == browser._model["left"].value
    browser._model["left"].value = "progan-lsun128-rosinality"
    assert browser.left == "progan-lsun128-rosinality"
    browser.left = "dalle2"
    assert browser._group["left"].value == "real: diffusion"
    assert browser._model["left"].value == "dalle2" and (A, A) in browser._model["left"].options
    assert "24 images of ducks" in browser._facts["left"].value
    browser._residual.value, browser._scale.value = "none", "pattern"
    browser._shared.value = False
    assert (browser.residual, browser.scale, browser.shared) == ("none", "pattern", False)
    browser.scale = "linear"
    assert browser._scale.value == "linear"


def test_residual_and_scale_choose_what_is_shown(browser):
    browser.residual = "none"
    power = REAL[A].spectra["none"]
    np.testing.assert_allclose(shown(browser._heatmaps["left"]), to_db(power), atol=1e-4)
    browser.scale = "pattern"
    pattern = spectral_pattern(power)
    np.testing.assert_allclose(shown(browser._heatmaps["left"]), pattern, atol=1e-4)
    np.testing.assert_allclose(browser._chart.data[0].y, ring_peaks(pattern)[1], atol=1e-4)
    assert "highest" in browser._chart.layout.yaxis.title.text
    browser.scale = "linear"
    assert shown(browser._heatmaps["left"]).mean() == pytest.approx(1, rel=1e-5)
    assert browser._heatmaps["left"].data[0].hovertemplate.count("x mean")
    assert "x mean" in browser._chart.layout.yaxis.title.text


def test_shared_colours_mean_the_same_values_on_both_sides(browser):
    def ends(side):
        return browser._heatmaps[side].data[0].zmin, browser._heatmaps[side].data[0].zmax

    assert ends("left") == ends("right")
    browser.shared = False
    for side in ("left", "right"):
        expected = np.percentile(shown(browser._heatmaps[side]), [1, 99.5])
        np.testing.assert_allclose(ends(side), expected, atol=1e-3)
    assert ends("left") != ends("right")


def test_synthetic_models_and_own_images_are_measured_when_chosen(browser, noise):
    browser.right = SYNTHETIC
    scenes = procedural_images(24, 160, seed=0)
    made = Zoo.load().apply(SYNTHETIC, scenes)[..., 16:-16, 16:-16]
    np.testing.assert_allclose(browser.power(SYNTHETIC), average_spectrum(made).mean(0), rtol=1e-5)
    assert browser.power(SYNTHETIC) is browser.power(SYNTHETIC)  # measured once
    browser.left = "noise"
    expected = average_spectrum(noise, residual="median").mean(0)
    np.testing.assert_array_equal(browser.power("noise"), expected)
    assert browser._group["left"].value == "your images"
    a, b = (to_db(browser.power(name)).ravel() for name in ("noise", SYNTHETIC))
    assert browser.alike == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert "Careful" not in browser.status  # nothing is known of the noise


def test_it_says_what_else_differs_between_two_models(browser):
    assert "file formats differ (png, jpeg)" in browser.status
    same = [real_source(REAL[name]) for name in (B, "dreamshaperxl-alpha2xl10")]
    assert caveats(*same) == []
    browser.left = "dreamshaperxl-alpha2xl10"
    assert "Careful" not in browser.status


def test_an_unknown_model_is_refused_and_the_old_one_stays(browser):
    with pytest.raises(ValueError, match="no model 'nosuch'"):
        browser.left = "nosuch"
    assert browser.left == A == browser._model["left"].value


def test_errors_of_a_measurement_are_shown(noise):
    browser = FingerprintBrowser(A, B, images={"small": noise[..., :64, :64]})
    with pytest.raises(ValueError, match="128"):
        browser.left = "small"
    assert browser.status.startswith("Error: ") and 'role="alert"' in browser.message.value
    browser.left = A
    assert browser.error is None and 'role="status"' in browser.message.value


def test_static_shows_the_view_without_a_page(browser):
    browser.shared = False
    first = np.asarray(browser.static())
    assert first.std() > 10 and first.shape[1] <= 1000
    browser.right = "dalle2"
    second = np.asarray(browser.static())
    spectra = slice(30, 150)  # rows
    assert (second[spectra, 10:260] == first[spectra, 10:260]).all()  # the left model stayed
    assert (second[spectra, 290:520] == first[spectra, 290:520]).mean() < 0.5


def test_every_control_has_a_label(browser):
    controls = [*browser._group.values(), *browser._model.values()]
    controls += [browser._residual, browser._scale, browser._shared]
    assert all(control.description for control in controls)

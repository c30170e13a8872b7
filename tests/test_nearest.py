"""Nearest real models: by construction, and by what each measure must not see."""

from dataclasses import replace

import numpy as np
import pytest

from fpkit.nearest import nearest_real, profile_shape, published_as_png, spectral_pattern
from fpkit.spectrum import radial_profile


@pytest.fixture(scope="module")
def power() -> np.ndarray:
    return next(f for f in published_as_png() if f.model == "sd1x-compvis").spectra["median"]


def rings(side: int = 128) -> np.ndarray:
    at = (np.arange(side) - side // 2) / side
    return np.hypot(at[:, None], at)


@pytest.mark.parametrize("by", ["pattern", "profile"])
def test_a_measured_model_is_its_own_nearest(power, by):
    nearest = nearest_real(power, by=by)
    assert nearest[0].model == "sd1x-compvis" and len(nearest) == 5
    assert nearest[0].correlation == pytest.approx(1)
    assert nearest[0].profile_distance == pytest.approx(0, abs=1e-9)


def test_the_order_is_that_of_the_chosen_measure(power):
    correlations = [n.correlation for n in nearest_real(power, count=99)]
    distances = [n.profile_distance for n in nearest_real(power, by="profile", count=99)]
    assert correlations == sorted(correlations, reverse=True)
    assert distances == sorted(distances)
    assert len(correlations) == len(published_as_png()) == 38


def test_only_png_models_are_neighbours():
    assert all(f.format == "png" and f.family != "photo" for f in published_as_png())


def test_a_blur_and_a_gain_leave_the_pattern_alone(power):
    # rings of equal index get one factor: exactly what the pattern takes away
    ring = np.rint(rings() * 128)
    blurred = 3 * power * np.exp(-0.02 * ring)
    np.testing.assert_allclose(spectral_pattern(blurred), spectral_pattern(power), atol=0.02)
    assert nearest_real(blurred)[0].model == "sd1x-compvis"
    assert nearest_real(blurred, by="profile")[0].profile_distance > 0.5


def test_a_pattern_has_mean_zero_on_every_ring(power):
    ring = np.rint(rings() * 128).astype(int).ravel()
    sums = np.bincount(ring, weights=spectral_pattern(power).ravel())
    np.testing.assert_allclose(sums, 0, atol=1e-9)


def test_a_gain_leaves_the_shape_of_a_profile_alone(power):
    np.testing.assert_allclose(profile_shape(5 * power), profile_shape(power), atol=0.01)
    _, profile = radial_profile(power)
    expected = 10 * np.log10(profile[1:] / profile[1])
    np.testing.assert_allclose(profile_shape(power) - profile_shape(power)[0], expected, atol=0.01)


def test_other_measured_models_can_be_given(power):
    one = replace(published_as_png()[0], model="mine", spectra={"median": power})
    assert [n.model for n in nearest_real(power, fingerprints=[one])] == ["mine"]


def test_wrong_arguments_are_named(power):
    with pytest.raises(ValueError, match=r"\(128, 128\), got \(64, 64\)"):
        nearest_real(power[:64, :64])
    with pytest.raises(ValueError, match="by must be one of"):
        nearest_real(power, by="colour")
    with pytest.raises(ValueError, match="count must be at least 1"):
        nearest_real(power, count=0)
    with pytest.raises(ValueError, match="at least one measured model"):
        nearest_real(power, fingerprints=[])

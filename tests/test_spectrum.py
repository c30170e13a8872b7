"""Power spectra against the identities that define them."""

import numpy as np
import pytest
import torch

from fpkit.residual import residual
from fpkit.spectrum import (
    autocorrelation,
    average_spectrum,
    power_spectrum,
    radial_profile,
    to_db,
)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image(height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((3, height, width), generator=generator, dtype=torch.float64)


# ---- power -------------------------------------------------------------------------------------


def test_parseval():
    images = gaussian(2, 3, 16, 24)
    power = power_spectrum(images, window="none")
    torch.testing.assert_close(power.mean(dim=(-2, -1)), images.square().mean(dim=(-2, -1)))


@pytest.mark.parametrize("window", ["hann", "none"])
def test_white_noise_is_flat_at_its_variance(window):
    power = power_spectrum(0.3 * gaussian(3000, 16, 16), window=window).mean(dim=0)
    standard_error = 0.09 * (2 / 3000) ** 0.5  # bins at 0 and Nyquist: one real coefficient
    assert (power - 0.09).abs().max() < 5 * standard_error


def test_zero_insertion_tiles_the_spectrum():
    small = gaussian(1, 8, 8)
    large = torch.zeros(1, 16, 16, dtype=torch.float64)
    large[:, ::2, ::2] = small
    tiled = power_spectrum(small, window="none", centred=False).repeat(1, 2, 2) / 4
    torch.testing.assert_close(power_spectrum(large, window="none", centred=False), tiled)


def test_nearest_upsampling_weights_the_replicas():
    small = gaussian(1, 8, 8)
    large = small.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    gain = 4 * torch.cos(torch.pi * torch.fft.fftfreq(16, dtype=torch.float64)) ** 2
    tiled = power_spectrum(small, window="none", centred=False).repeat(1, 2, 2) / 4
    power = power_spectrum(large, window="none", centred=False)
    torch.testing.assert_close(power, tiled * gain[:, None] * gain[None, :])
    assert power[..., 8, :].abs().max() < 1e-12  # nothing at Nyquist


def test_centred_puts_frequency_zero_in_the_middle():
    power = power_spectrum(torch.ones(6, 9, dtype=torch.float64), window="none")
    assert power[3, 4].item() == pytest.approx(54) == power.sum().item()


def test_hann_keeps_a_wave_in_its_neighbourhood():
    x = torch.arange(64, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * 10.37 * x / 64).expand(64, 64)
    rows = power_spectrum(wave, window="hann", centred=False)[0]
    far = rows[20:44].sum() / rows.sum()
    plain = power_spectrum(wave, window="none", centred=False)[0]
    assert far < 1e-5 < 1e-3 < plain[20:44].sum() / plain.sum()


def test_power_spectrum_refuses_bytes_and_unknown_windows():
    with pytest.raises(TypeError, match="uint8"):
        power_spectrum(torch.zeros(4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="hamming"):
        power_spectrum(torch.zeros(4, 4), window="hamming")


# ---- average -----------------------------------------------------------------------------------


def test_average_is_the_mean_of_power_over_images():
    images = torch.stack([image(seed=seed) for seed in range(4)])
    images[0] *= 0.1  # a mean of decibels, or of amplitudes, would differ
    expected = power_spectrum(residual(images, method="highpass")).mean(dim=0)
    found = average_spectrum(images, residual="highpass", crop=32)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_average_takes_any_iterable_and_weighs_images_alike():
    small, large = image(32, 32, seed=1), image(48, 80, seed=2)
    both = average_spectrum((x for x in (small, large)), crop=32)
    apart = [average_spectrum([x], crop=32) for x in (small, large)]
    np.testing.assert_allclose(both, (apart[0] + apart[1]) / 2, rtol=1e-12)


def test_average_refuses_nothing_and_too_small():
    with pytest.raises(ValueError, match="at least one image"):
        average_spectrum([])
    with pytest.raises(ValueError, match="smaller than one"):
        average_spectrum([image(32, 32)], crop=64)


# ---- profiles, decibels, autocorrelation -------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (16, 24)])
@pytest.mark.parametrize("centred", [True, False])
def test_profile_of_a_radial_function_is_that_function(shape, centred):
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])
    power = np.rint(radius * min(shape)) ** 2 + 1.0
    frequency, profile = radial_profile(
        np.fft.fftshift(power) if centred else power, centred=centred
    )
    np.testing.assert_allclose(frequency, np.arange(min(shape) // 2 + 1) / min(shape))
    np.testing.assert_allclose(profile, np.arange(len(frequency)) ** 2 + 1.0)


def test_profile_drops_the_corners_and_keeps_leading_dimensions():
    power = torch.ones(2, 3, 16, 16)
    power[..., 0, 0] = 1e9  # centred: the corner of the plane
    frequency, profile = radial_profile(power)
    assert profile.shape == (2, 3, len(frequency)) and frequency[-1] == 0.5
    np.testing.assert_array_equal(profile, 1.0)


def test_to_db():
    assert to_db([1.0, 10.0, 0.0], floor=1e-3).tolist() == [0.0, 10.0, -30.0]


@pytest.mark.parametrize("centred", [True, False])
def test_autocorrelation_is_the_circular_one(centred):
    x = gaussian(11, 10)
    found = autocorrelation(power_spectrum(x, window="none", centred=centred), centred=centred)
    if centred:
        found = np.fft.ifftshift(found)
    for dy, dx in [(0, 0), (1, 0), (0, 3), (5, 7)]:
        expected = (x * x.roll((dy, dx), (0, 1))).sum() / x.square().sum()
        assert found[dy, dx] == pytest.approx(expected.item())


def test_autocorrelation_peaks_at_the_period():
    x = gaussian(8, 8).repeat(4, 4)
    found = autocorrelation(power_spectrum(x, window="none"))
    assert found[16, 16] == found[16 + 8, 16] == pytest.approx(1.0)


def test_autocorrelation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="zero everywhere"):
        autocorrelation(np.zeros((2, 4, 4)))

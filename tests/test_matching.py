import pytest
import torch

from fpkit.matching import KNOTS, LIMIT, match_spectrum
from fpkit.procedural import procedural_images
from fpkit.spectrum import power_spectrum, radial_profile

SIDE = 64


@pytest.fixture(scope="module")
def sources():
    return procedural_images(8, SIDE, seed=0).unflatten(0, (2, 4))


def profile(images):
    """Mean radial profile of the luminance, (p, k, 3, s, s) to (p, bins)."""
    power = power_spectrum(images.mean(2), window="none").mean(1)
    return torch.from_numpy(radial_profile(power)[1])


def blurred(images):
    flat = images.flatten(0, 2)[:, None]
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    padded = torch.nn.functional.pad(flat, (1, 1, 1, 1), mode="circular")
    out = torch.nn.functional.conv2d(padded, torch.outer(kernel, kernel)[None, None])
    return out.reshape(images.shape)


def match(images, sources, *, strength=1.0, curves=None):
    none = torch.zeros(len(images), KNOTS)
    return match_spectrum(
        images,
        sources,
        strength=torch.full((len(images),), strength),
        curves=none if curves is None else curves,
    )


def test_the_profile_of_the_sources_comes_back(sources):
    before, after = (
        (profile(images).log() - profile(sources).log())[:, 2 : SIDE // 3].abs().mean()
        for images in (blurred(sources), match(blurred(sources), sources))
    )
    assert before > 0.5
    assert after < 0.1


def test_nothing_happens_at_strength_0_or_to_the_sources_themselves(sources):
    images = blurred(sources)
    torch.testing.assert_close(match(images, sources, strength=0.0), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(match(sources, sources), sources, atol=1e-5, rtol=0)


def test_half_the_strength_is_half_the_decibels(sources):
    images = blurred(sources)
    whole, half = (
        (profile(match(images, sources, strength=s)).log() - profile(images).log())[:, 2:20]
        for s in (1.0, 0.5)
    )
    torch.testing.assert_close(half, whole / 2, atol=0.05, rtol=0)


def test_one_filter_for_all_images_of_a_model(sources):
    images = blurred(sources)
    before, after = (torch.fft.rfft2(x) for x in (images, match(images, sources)))
    gain = (after / before)[..., 1:20, 1:20]
    torch.testing.assert_close(gain.real, gain.real[:, :1, :1].expand_as(gain), atol=2e-2, rtol=0)
    assert gain.imag.abs().max() < 2e-2


def test_gains_are_bounded_and_the_mean_stays(sources):
    faint = sources * 1e-3 + 0.5
    made = match(faint, sources)
    assert ((made - 0.5).std() / (faint - 0.5).std()) < LIMIT * 1.01
    torch.testing.assert_close(made.mean((3, 4)), faint.mean((3, 4)), atol=1e-5, rtol=0)


def test_a_curve_is_a_further_gain(sources):
    curves = torch.zeros(2, KNOTS)
    curves[0] = 0.5
    made = match(sources, sources, curves=curves)
    inside = slice(1, None)
    ratio = (profile(made) / profile(sources))[0, inside]
    torch.testing.assert_close(ratio, torch.full_like(ratio, torch.e), rtol=1e-3, atol=0)
    torch.testing.assert_close(made[1], sources[1], atol=1e-5, rtol=0)

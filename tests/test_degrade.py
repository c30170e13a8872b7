"""Degradations against what they must do to known images."""

import numpy as np
import pytest
import torch

from fpkit.degrade import DEGRADATIONS, Degradation
from fpkit.images import jpeg


def degrade(name, image, seed=0):
    return Degradation.parse(name)(image, generator=np.random.default_rng(seed))


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def wave(frequency, size=128):
    """Horizontal cosine, `frequency` in cycles/pixel, around grey."""
    x = torch.arange(size)
    return (0.5 + 0.4 * torch.cos(2 * torch.pi * frequency * x)).expand(3, size, size).clone()


def amplitude(image, frequency):
    x = torch.arange(image.shape[-1])
    inside = image[0, image.shape[-2] // 2]
    return abs(((inside - 0.5) * torch.exp(-2j * torch.pi * frequency * x)).mean()) * 2


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_results_are_8_bit_images(name):
    image = noise(3, 64, 80)
    result = degrade(name, image)
    assert result.dtype == torch.float32 and result.min() >= 0 and result.max() <= 1
    assert torch.equal((result * 255).round() / 255, result)
    assert not torch.equal(result, image)


@pytest.mark.parametrize("name", ["downscale0.5", "blur", "crop", "jpeg95"])
def test_a_flat_image_stays_flat(name):
    flat = torch.full((3, 48, 40), 100 / 255)
    assert torch.allclose(degrade(name, flat), torch.tensor(100 / 255), atol=1e-6)


def test_jpeg_is_that_of_images():
    image = noise(3, 40, 40)
    assert torch.equal(degrade("jpeg65", image), jpeg(image, 65))


def test_downscale_halves_the_sides_and_keeps_low_frequencies_only():
    assert degrade("downscale0.5", noise(3, 65, 130)).shape == (3, 32, 65)
    low = degrade("downscale0.5", wave(1 / 16))
    assert amplitude(low, 1 / 8) == pytest.approx(0.4, rel=0.05)
    # beyond the new Nyquist frequency: would be folded to 1/8 if there were no antialiasing
    assert amplitude(degrade("downscale0.5", wave(7 / 16)), 1 / 8) < 0.04


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_blur_has_the_response_of_a_gaussian(sigma):
    blurred = degrade(f"blur{sigma:g}", wave(1 / 16))
    expected = 0.4 * np.exp(-2 * (np.pi * sigma / 16) ** 2)
    assert amplitude(blurred[..., 16:112], 1 / 16) == pytest.approx(expected, rel=0.02)
    down = degrade(f"blur{sigma:g}", wave(1 / 16).transpose(1, 2))
    torch.testing.assert_close(down, blurred.transpose(1, 2), atol=1.1 / 255, rtol=0)


def test_blur_of_a_tiny_image():
    assert degrade("blur20", noise(3, 3, 9)).shape == (3, 3, 9)


def test_crop_is_a_window_off_every_even_grid():
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    image = torch.stack([rows, columns, rows]) / 255
    places = set()
    for seed in range(60):
        window = (degrade("crop", image, seed) * 255).round().int()
        top, left = window[0, 0, 0].item(), window[1, 0, 0].item()
        expected = (image[:, top : top + 30, left : left + 45] * 255).round().int()
        assert torch.equal(window, expected)
        places.add((top, left))
    tops, lefts = map(set, zip(*places, strict=True))
    assert tops == set(range(1, 11, 2)) and lefts == set(range(1, 16, 2))
    assert torch.equal(degrade("crop", image, 5), degrade("crop", image, 5))


def test_names_with_and_without_a_number():
    assert Degradation.parse("blur") == Degradation.parse("blur1") == Degradation.parse("blur1.0")
    assert Degradation.parse("crop").amount == 0.75
    assert Degradation.parse("downscale.25").amount == 0.25
    assert Degradation.parse("jpeg") == Degradation(kind="jpeg", amount=85)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fog", "unknown degradation 'fog': expected one of jpeg95"),
        ("jpeg-5", "unknown degradation"),
        ("jpeg0", "jpeg needs a quality, an integer from 1 to 100, got 0"),
        ("jpeg85.5", "integer"),
        ("downscale2", "downscale needs a share of each side, between 0 and 1, got 2"),
        ("crop1", "crop needs a share"),
        ("blur0", "blur needs a standard deviation"),
        ("blur21", "at most 20, got 21"),
    ],
)
def test_names_that_will_not_do(name, message):
    with pytest.raises(ValueError, match=message):
        Degradation.parse(name)


def test_kinds_that_will_not_do():
    with pytest.raises(ValueError, match="kind must be one of jpeg, downscale"):
        Degradation(kind="fog", amount=1)


def test_nothing_left():
    with pytest.raises(ValueError, match="image is 4x1, of which downscale0.5 leaves nothing"):
        degrade("downscale0.5", noise(3, 1, 4))

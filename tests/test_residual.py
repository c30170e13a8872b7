"""Residuals against filters computed by hand, the denoiser by what it does to noise."""

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from fpkit.assets import denoiser_path
from fpkit.residual import (
    RESIDUALS,
    DnCNN,
    binomial_blur,
    load_dncnn,
    median_blur,
    residual,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_median_is_the_middle_of_nine_neighbours():
    images = noise(2, 3, 9, 12)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    neighbours = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)
    assert torch.equal(median_blur(images), neighbours.median(dim=-1).values)


def test_median_residual_keeps_a_speck_and_not_an_edge():
    images = torch.zeros(1, 1, 8, 8)
    images[..., 4:] = 1
    images[..., 2, 1] = 0.5
    expected = torch.zeros(1, 1, 8, 8)
    expected[..., 2, 1] = 0.5
    assert torch.equal(residual(images, method="median"), expected)


def test_binomial_blur_of_a_point_is_its_kernel():
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2, 2] = 16
    row = torch.tensor([1.0, 2.0, 1.0])
    assert torch.equal(binomial_blur(image)[0, 0, 1:4, 1:4], torch.outer(row, row))


@pytest.mark.parametrize(("fy", "fx"), [(0.0, 0.5), (0.25, 0.125), (0.5, 0.5), (0.0, 0.0)])
def test_highpass_has_the_documented_response(fy, fx):
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    wave = torch.cos(2 * torch.pi * (fy * y + fx * x)).double()[None, None]
    fx, fy = torch.tensor(fx), torch.tensor(fy)
    gain = 1 - torch.cos(torch.pi * fx) ** 2 * torch.cos(torch.pi * fy) ** 2
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(
        residual(wave, method="highpass")[inside], gain * wave[inside], atol=1e-5, rtol=0
    )


def test_none_removes_the_mean_of_each_channel_of_each_image():
    images = noise(2, 3, 6, 7)
    result = residual(images, method="none")
    assert result.mean(dim=(-2, -1)).abs().max() < 1e-12
    offset = images - result
    assert torch.allclose(offset, offset[..., :1, :1].expand_as(offset))


@pytest.mark.parametrize("method", RESIDUALS)
def test_images_of_a_batch_do_not_meet(method):
    images = noise(3, 3, 24, 20).float()
    together = residual(images, method=method)
    alone = torch.cat([residual(image[None], method=method) for image in images])
    assert together.shape == images.shape and together.dtype == images.dtype
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", RESIDUALS)
def test_nothing_is_left_of_a_flat_image(method):
    flat = torch.full((1, 3, 32, 32), 0.5)
    assert residual(flat, method=method).abs().max() < 0.01


@pytest.mark.parametrize("variant", ["dncnn6N", "dncnn17N"])
def test_trained_dncnn_removes_noise(variant):
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 96), indexing="ij")
    disc = ((y - 0.4) ** 2 + (x - 0.6) ** 2 < 0.08).float()
    clean = torch.stack([0.2 + 0.5 * x, 0.3 + 0.4 * disc, 0.8 - 0.5 * y * (1 - disc)])[None]
    generator = torch.Generator().manual_seed(0)
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    found = load_dncnn(variant)(noisy, noise_level=0.1)
    before, after = (noisy - clean).square().mean(), (noisy - found - clean).square().mean()
    assert 10 * torch.log10(before / after) > 8  # dB


def test_dncnn_finds_more_when_told_of_more_noise():
    images = noise(1, 1, 32, 32).float()
    dncnn = load_dncnn("dncnn6N")
    low, high = (dncnn(images, noise_level=level).square().mean() for level in (0.02, 0.2))
    assert low < high


def test_dncnn_is_a_stack_of_wrapped_convolutions():
    dncnn = load_dncnn("dncnn6N")
    image = noise(1, 1, 16, 16).float()
    with safe_open(denoiser_path() / "dncnn6N.safetensors", framework="pt") as file:
        x = torch.cat([image, torch.full_like(image, 0.05)], dim=1)
        for layer in range(6):
            weight, bias = (
                file.get_tensor(f"{layer}.{part}").float() for part in ("weight", "bias")
            )
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, bias)
            x = x.relu() if layer < 5 else x
    torch.testing.assert_close(dncnn(image, noise_level=0.05), x, atol=1e-6, rtol=0)


def test_residual_can_be_trained_through():
    images = noise(1, 3, 8, 8).float().requires_grad_()
    residual(images, method="median").square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_errors_say_what_is_wrong():
    image = torch.zeros(1, 3, 8, 8)
    with pytest.raises(TypeError, match="uint8"):
        residual(image.to(torch.uint8))
    with pytest.raises(ValueError, match=r"\(3, 8, 8\)"):
        residual(image[0])
    with pytest.raises(ValueError, match="none, median, highpass, dncnn"):
        residual(image, method="wavelet")
    with pytest.raises(ValueError, match="divide by 255"):
        residual(image + 200, method="dncnn")
    with pytest.raises(ValueError, match="noise_level"):
        DnCNN(depth=2)(image, noise_level=10.0)
    with pytest.raises(ValueError, match="depth"):
        DnCNN(depth=1)
    with pytest.raises(ValueError, match="dncnn17N"):
        load_dncnn("dncnn17M")

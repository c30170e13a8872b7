import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from fpkit.decoders import RandomDecoder
from fpkit.encoder import CHANNELS, WEIGHTS, SharedEncoder, load_encoder
from fpkit.kernels import (
    TRANSPOSED,
    UPSAMPLERS,
    identity_kernel,
    mixed_kernel,
    near,
    upsampling_kernel,
    widened_kernel,
)
from fpkit.procedural import procedural_images


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return procedural_images(2, 64, seed=0)


@pytest.mark.parametrize("factor", CHANNELS)
def test_encoder_starts_near_the_average_pooled_image(images, factor):
    latent = SharedEncoder()(images, factor)
    assert latent.shape == (2, CHANNELS[factor], 64 // factor, 64 // factor)
    pooled = functional.avg_pool2d(images, factor) - 0.5
    assert (latent[:, :3] - pooled).abs().max() < 0.2 * pooled.abs().max()
    with pytest.raises(ValueError, match=r"\(2, 4, 8\), got 3"):
        SharedEncoder()(images, 3)


def test_every_weight_learns_from_some_decoder(images):
    encoder = SharedEncoder()
    for seed in range(150):
        decoder = RandomDecoder(seed, space="wide", encoder=encoder)
        output = decoder.reconstruct(images[:1, :, :32, :32], generator=generator())
        (output - images[:1, :, :32, :32]).square().mean().backward()
    still = [
        name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum()
    ]
    assert not still


def test_seed_decides_the_start():
    one, again, two = (SharedEncoder(seed).heads[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, two)


def test_shipped_encoder_is_frozen_and_small():
    encoder = load_encoder()
    assert encoder is load_encoder()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 500_000


def test_files_that_hold_no_encoder_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="holds no shared encoder"):
        load_encoder(tmp_path)


# ---- kernels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "channels"), [(3, 3), (6, 3), (3, 8), (4, 3)])
def test_identity_keeps_brightness(out, channels):
    kernel = identity_kernel(out, channels, 3)
    grey = functional.conv2d(torch.full((1, channels, 5, 5), 0.3), kernel)
    torch.testing.assert_close(grey, torch.full((1, out, 3, 3), 0.3))


def test_noise_has_the_size_asked_for():
    kernel = near(torch.zeros(50, 20, 3, 3), 0.1, generator())
    assert kernel.flatten(1).norm(dim=1).mean() == pytest.approx(0.2, rel=0.05)


def test_mixture_of_identities_is_the_identity():
    for seed in range(20):
        kernel = mixed_kernel(4, 0.0, generator(seed))
        torch.testing.assert_close(kernel, identity_kernel(4, 4, kernel.shape[2]))


@pytest.mark.parametrize("name", [*UPSAMPLERS, "patch"])
def test_widened_kernel_is_the_kernel_then_the_lift(name):
    kernel = torch.randn(upsampling_kernel(name, 3, 12).shape, generator=generator())
    lift = torch.randn(5, 3, generator=generator(1))
    z = torch.randn(1, 12, 6, 6, generator=generator(2))

    def run(weight):
        if name in TRANSPOSED:
            return functional.conv_transpose2d(z, weight, stride=2)
        y = functional.conv2d(z, weight)
        return functional.pixel_shuffle(y, 2) if name == "shuffle" else y

    rgb = run(kernel)
    torch.testing.assert_close(
        run(widened_kernel(name, kernel, lift)), torch.einsum("co,nohw->nchw", lift, rgb)
    )

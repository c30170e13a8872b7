"""Upsampling, convolution and activations against closed forms; normalisation against algebra."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fpkit.arch import ArchSpec
from fpkit.blocks import SyntheticModel, upsampler
from fpkit.harmonics import fourier_cosines, harmonics, image_harmonics
from fpkit.normalisation import (
    direct_effect,
    fold_batch_norm,
    kernel_shapes,
    normalisation_effect,
    shape_db,
)
from fpkit.observations import convolution, frequency_response, replicas, upsampling_kernel
from fpkit.procedural import procedural_images
from fpkit.synthesis import synthesize


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- upsampling --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zero", "nearest", "bilinear", "bicubic", "fir", "shuffle"])
def test_replicas_follow_the_closed_form(name):
    result = replicas(name, noise(4 if name == "shuffle" else 1, 12, 10))
    assert result.measured.shape == result.predicted.shape == (1, 24, 20)
    assert result.predicted.max() > 1
    np.testing.assert_allclose(result.measured, result.predicted, atol=1e-10)
    assert result.error < 1e-12


def test_replicas_of_a_deconvolution_with_several_channels():
    weight = noise(3, 2, 3, 4, seed=1)
    result = replicas("deconv", noise(3, 12, 10), weight=weight)
    assert result.measured.shape == (2, 24, 20) and result.response.shape == (2, 3, 24, 20)
    np.testing.assert_allclose(result.measured, result.predicted, atol=1e-9)


def test_the_error_shows_a_wrong_kernel():
    signal = noise(1, 12, 10)
    bicubic = replicas("bicubic", signal)
    bilinear = replicas("bilinear", signal)
    difference = np.abs(bicubic.measured - bilinear.predicted).max() / bilinear.predicted.max()
    assert difference > 0.1


def test_zero_insertion_tiles():
    result = replicas("zero", noise(1, 8, 8))
    np.testing.assert_allclose(result.measured[0], np.tile(result.source[0], (2, 2)) / 4)


def test_nearest_is_four_cosine_squared_per_axis():
    gain = 4 * np.cos(np.pi * np.fft.fftfreq(16)) ** 2
    result = replicas("nearest", noise(1, 8, 8))
    np.testing.assert_allclose(result.response[0, 0], np.outer(gain, gain), atol=1e-12)
    assert result.measured[0, 8].max() < 1e-20  # nothing at Nyquist


def test_bilinear_is_nearest_smoothed_once_more():
    # (1, 3, 3, 1) / 4 = (1, 1) * (1, 2, 1) / 4
    gain = 4 * np.cos(np.pi * np.fft.fftfreq(16)) ** 6
    response = np.abs(frequency_response(upsampling_kernel("bilinear"), (16, 16))) ** 2
    np.testing.assert_allclose(response[0, 0], np.outer(gain, gain), atol=1e-12)


def test_bicubic_taps_are_keys_cubic():
    a, d = -0.75, np.array([0.25, 0.75, 1.25, 1.75])
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    half = np.where(d < 1, near, far)
    taps = np.r_[half[::-1], half]
    np.testing.assert_allclose(upsampling_kernel("bicubic")[0, 0], np.outer(taps, taps))


def test_pixel_shuffle_of_equal_channels_is_nearest():
    plane = noise(1, 8, 8)
    np.testing.assert_allclose(
        replicas("shuffle", plane.repeat(4, 1, 1)).predicted,
        replicas("nearest", plane).predicted,
        atol=1e-12,
    )


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "fir"])
def test_the_blocks_of_the_models_have_these_kernels(name):
    impulse = torch.zeros(1, 1, 13, 13)
    impulse[0, 0, 6, 6] = 1
    response = np.abs(np.fft.fft2(upsampler(name, 1)(impulse)[0, 0].numpy())) ** 2
    expected = np.abs(frequency_response(upsampling_kernel(name), (26, 26)))[0, 0] ** 2
    np.testing.assert_allclose(response, expected, atol=1e-4 * expected.max())


def test_upsampling_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="signal must be \\(4, h, w\\)"):
        replicas("shuffle", noise(1, 8, 8))
    with pytest.raises(ValueError, match="upsampling must be one of"):
        replicas("lanczos", noise(1, 8, 8))
    for name, weight in (("deconv", None), ("nearest", noise(1, 1, 3, 3))):
        with pytest.raises(ValueError, match="only for it"):
            replicas(name, noise(1, 8, 8), weight=weight)


# ---- convolution -------------------------------------------------------------------------------


def test_convolution_is_a_filter():
    bias = torch.tensor([0.0, 2.0])
    result = convolution(noise(3, 16, 12), noise(2, 3, 3, 5, seed=1), bias=bias)
    np.testing.assert_allclose(result.measured, result.predicted, atol=1e-9)
    plain = convolution(noise(3, 16, 12), noise(2, 3, 3, 5, seed=1))
    changed = np.abs(plain.measured - result.measured) > 1e-9
    assert np.argwhere(changed).tolist() == [[1, 0, 0]]  # the bias shows at frequency zero alone


def test_one_channel_multiplies_powers():
    result = convolution(noise(1, 16, 16), noise(1, 1, 3, 3, seed=1))
    np.testing.assert_allclose(result.measured[0], result.source[0] * result.response[0, 0])


def test_a_difference_kernel_has_a_sine_response():
    result = convolution(noise(1, 4, 16), torch.tensor([[[[1.0, -1.0]]]]))
    expected = 4 * np.sin(np.pi * np.fft.fftfreq(16)) ** 2
    np.testing.assert_allclose(result.response[0, 0, 0], expected, atol=1e-12)


def test_convolution_refuses_kernels_that_do_not_fit():
    with pytest.raises(ValueError, match="at least as large"):
        convolution(noise(1, 2, 8), noise(1, 1, 3, 3))
    with pytest.raises(ValueError, match="weight must be"):
        convolution(noise(1, 8, 8), noise(3, 3))


# ---- activations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["none", "square", "cube", "relu", "leaky", "sigmoid", "tanh", "silu", "gelu", "elu"]
)
@pytest.mark.parametrize("offset", [0.0, -0.4])
def test_harmonics_follow_the_fourier_integral(name, offset):
    result = harmonics(name, amplitude=1.7, offset=offset)
    assert result.measured.shape == result.predicted.shape == (9,)
    assert np.abs(result.predicted).max() > 0.2
    np.testing.assert_allclose(result.measured, result.predicted, atol=1e-6)
    assert result.error < 1e-6


def test_half_wave_rectifier():
    expected = [1 / math.pi, 1 / 2, 2 / (3 * math.pi), 0, -2 / (15 * math.pi), 0]
    np.testing.assert_allclose(
        fourier_cosines("relu", amplitude=1, offset=0, count=5), expected, atol=1e-15
    )


def test_powers_are_trigonometric_identities():
    cube = harmonics("cube", amplitude=2).measured
    np.testing.assert_allclose(cube[:4], [0, 6, 0, 2], atol=1e-12)  # 8 (3 cos + cos 3) / 4
    square = harmonics("square", amplitude=2, offset=1).measured
    np.testing.assert_allclose(square[:3], [3, 4, 2], atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_saturating_activations_make_weak_odd_harmonics(name):
    result = harmonics(name).measured
    assert np.abs(result[2::2]).max() < 1e-12
    assert 0.001 < abs(result[3] / result[1]) < 0.1


def test_a_sinusoid_that_never_reaches_the_kink_stays_one():
    np.testing.assert_allclose(
        fourier_cosines("relu", amplitude=1, offset=3, count=3), [3, 1, 0, 0], atol=1e-12
    )


@pytest.mark.parametrize("name", ["relu", "leaky", "tanh", "elu"])
def test_harmonics_of_an_image_fold_at_nyquist(name):
    result = image_harmonics(name, cycles=(3, 5), size=32)
    np.testing.assert_allclose(result.measured, result.predicted, atol=1e-5)
    assert result.predicted[3, 5] == pytest.approx(result.predicted[-3, -5])
    order = 2 if name in ("relu", "leaky") else 7  # 7 * (3, 5) = (21, 35) folds to (21, 3)
    assert result.measured[order * 3 % 32, order * 5 % 32] > 1e-7
    assert result.measured[1, 0] < 1e-9  # no multiple of (3, 5) folds here


def test_activations_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="activation must be one of"):
        harmonics("softmax")
    with pytest.raises(ValueError, match="amplitude must be above 0"):
        harmonics("relu", amplitude=0)
    with pytest.raises(ValueError, match="count must be"):
        harmonics("relu", count=8, samples=8)
    with pytest.raises(ValueError, match="cycles must not"):
        image_harmonics("relu", cycles=(0, 32), size=32)


# ---- normalisation -----------------------------------------------------------------------------


def chain(*layers: nn.Module) -> nn.Sequential:
    """The layers with a batch norm whose statistics and weights are far from the identity."""
    for module in layers:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.linspace(-1, 1, module.num_features))
            module.running_var.copy_(torch.linspace(0.5, 2, module.num_features))
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return nn.Sequential(*layers).double().eval()


def test_folding_behind_a_convolution_is_exact():
    layers = chain(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.Identity(), nn.BatchNorm2d(5))
    folded = fold_batch_norm(layers)
    assert [type(layer) for layer in folded] == [nn.Conv2d]
    x = noise(2, 3, 8, 8)
    torch.testing.assert_close(folded(x), layers(x), rtol=0, atol=1e-12)
    assert layers[0].bias is None  # the original is left alone


def test_folding_before_a_convolution_is_exact_inside():
    layers = chain(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3, padding=1))
    folded = fold_batch_norm(layers)
    assert [type(layer) for layer in folded] == [nn.ReLU, nn.Conv2d]
    x = noise(2, 3, 8, 8)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(folded(x)[inside], layers(x)[inside], rtol=0, atol=1e-12)


def test_a_batch_norm_without_a_neighbour_stays():
    layers = chain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Upsample(scale_factor=2))
    assert len(fold_batch_norm(layers)) == 4


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_rescaling_leaves_the_shape_of_spectra(norm):
    model = SyntheticModel(ArchSpec(norm=norm)).eval()
    assert direct_effect(model, procedural_images(2, 32, seed=0)) < 1e-5


def test_the_direct_effect_sees_a_layer_that_does_more():
    class Sharpening(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input) + 0.1 * input.roll(1, -1)

    model = SyntheticModel(ArchSpec(norm="batch")).eval()
    model.decoder[0][-1] = Sharpening(32).eval()
    assert direct_effect(model, procedural_images(2, 32, seed=0)) > 0.1
    with pytest.raises(ValueError, match="no batch or instance norm"):
        direct_effect(SyntheticModel(ArchSpec(norm="none")), procedural_images(2, 32, seed=0))


def test_shapes_do_not_depend_on_gain():
    power = noise(2, 8, 8).exp().numpy()
    np.testing.assert_allclose(shape_db(power), shape_db(7 * power), atol=1e-9)
    assert np.abs(shape_db(power).mean(axis=(-2, -1))).max() < 1e-12


def test_norms_start_from_the_same_kernels_and_end_with_others():
    spec = ArchSpec(blocks=1, order="pre")
    images = procedural_images(6, 64, seed=0)
    starts = []
    for norm in ("none", "batch"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            starts.append(
                kernel_shapes(SyntheticModel(ArchSpec.parse(spec.id.replace("Nbatch", f"N{norm}"))))
            )
    np.testing.assert_array_equal(*starts)
    effect = normalisation_effect(spec, images, seeds=(0, 1), norms=("none", "batch"), max_steps=3)
    assert effect.direct < 1e-5
    assert effect.kernels["none"].shape == (2, 1, 32, 32)
    assert effect.fingerprints["batch"].shape == (2, 64, 64)
    assert set(effect.kernels_across) == {"none-batch"}
    assert effect.kernels_across["none-batch"].values.shape == (2,)
    assert effect.kernels_within.values.shape == (2,)
    assert effect.kernels_across["none-batch"].mean > 100 * effect.direct
    assert effect.fingerprints_across["none-batch"].mean > 0
    alone = synthesize(spec, images, seed=1, eta=0.0, max_steps=3, progress=False)
    np.testing.assert_allclose(effect.kernels["batch"][1], kernel_shapes(alone.model), atol=1e-6)


def test_normalisation_effect_needs_a_yardstick():
    with pytest.raises(ValueError, match="two seeds and two norms"):
        normalisation_effect(ArchSpec(), procedural_images(2, 64, seed=0), seeds=(0,))

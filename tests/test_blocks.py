import numpy as np
import pytest
import torch
from torch import nn

from fpkit.arch import ArchSpec, paper_specs
from fpkit.blocks import SyntheticModel, UpBlock, activation, normalisation, upsampler


@pytest.mark.parametrize("spec", paper_specs()[::7], ids=str)
def test_every_kind_of_model_keeps_shape_and_range(spec):
    model = SyntheticModel(spec).eval()
    output = model(torch.rand(2, 3, 32, 24))
    assert output.shape == (2, 3, 32, 24)
    assert output.min() >= 0 and output.max() <= 1


def test_number_of_blocks_and_layers():
    for blocks in (1, 2):
        for layers in (1, 2):
            model = SyntheticModel(ArchSpec(blocks=blocks, layers=layers, upsample="bilinear"))
            kernels = [m for m in model.decoder.modules() if isinstance(m, nn.Conv2d)]
            assert len(model.decoder) == len(model.encoder) == blocks
            assert len(kernels) == blocks * layers


def test_order_decides_what_comes_last():
    post = UpBlock(ArchSpec(order="post"), 32, 3)
    pre = UpBlock(ArchSpec(order="pre"), 32, 3)
    assert [type(m) for m in post] == [nn.Upsample, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    assert [type(m) for m in pre] == [nn.Upsample, nn.ReLU, nn.BatchNorm2d, nn.Conv2d]


def test_nearest_multiplies_the_tiled_power_by_its_closed_form():
    signal = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    power = torch.fft.fft2(upsampler("nearest", 1)(signal)).abs() ** 2
    tiled = (torch.fft.fft2(signal).abs() ** 2).tile(1, 1, 2, 2)
    frequency = np.fft.fftfreq(32)
    kernel = torch.from_numpy(4 * np.cos(np.pi * frequency) ** 2)
    torch.testing.assert_close(power, tiled * kernel[:, None] * kernel[None])
    assert power[0, 0, 16].abs().max() < 1e-20  # exactly zero at Nyquist


def test_transposed_convolution_keeps_replicas_at_nyquist():
    torch.manual_seed(0)
    flat = torch.ones(1, 1, 16, 16)
    output = upsampler("deconv", 1)(flat)[0, 0, 4:-4, 4:-4]
    power = torch.fft.fft2(output - output.mean()).abs() ** 2
    nyquist = power[len(power) // 2].sum() + power[:, len(power) // 2].sum()
    assert nyquist > 0.99 * power.sum()


def test_training_mode_does_not_clip():
    model = SyntheticModel(ArchSpec(norm="none", activation="none")).train()
    with torch.no_grad():
        model.decoder[-1][1].bias.fill_(3.0)
    assert model(torch.rand(1, 3, 16, 16)).max() > 1


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 30, 32)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match="got"):
        SyntheticModel(ArchSpec())(torch.rand(shape))


def test_unknown_options_are_refused():
    for make in (lambda: upsampler("cubic", 3), lambda: activation("mish")):
        with pytest.raises(ValueError, match="got"):
            make()
    with pytest.raises(ValueError, match="norm"):
        normalisation("spectral", 3)

"""Lattices with known answers: a comb, a checkerboard, blocks."""

import numpy as np
import pytest
import torch

from fpkit.lattice import block_steps, lattice_contrast, ring_peaks
from fpkit.spectrum import power_spectrum, radial_profile


def spectrum_of_comb(period: int, *, size: int = 128, height: float = 0.0) -> np.ndarray:
    """Mean spectrum of white noise plus a comb of unit-free height at every `period`-th pixel."""
    noise = torch.randn(60, size, size, generator=torch.Generator().manual_seed(0))
    noise[:, ::period, ::period] += height
    return power_spectrum(noise - noise.mean((-2, -1), keepdim=True)).mean(0).double().numpy()


def test_the_highest_of_each_ring_is_found_whatever_the_direction():
    generator = np.random.default_rng(0)
    values = generator.uniform(-1, 0, (32, 48))
    values[16 - 4, 24] = 3  # 4/32 cycles/pixel up
    values[16, 24 + 12] = 5  # 12/48 = 8/32 to the right
    values[0, 0] = 9  # in the corner, beyond the last ring
    frequency, peaks = ring_peaks(values)
    np.testing.assert_array_equal(frequency, radial_profile(values)[0])
    assert {float(f): p for f, p in zip(frequency, peaks, strict=True) if p > 0} == {
        0.125: 3,
        0.25: 5,
    }


def test_contrast_of_peaks_on_a_flat_spectrum_is_their_height():
    power = np.ones((64, 64))
    power[::16, ::16] = 100
    assert lattice_contrast(power, period=4) == pytest.approx(20)
    # of period 2 are only three of them, and those stand above nothing else
    assert lattice_contrast(power, period=2) == pytest.approx(20)
    power = np.ones((128, 128))
    power[64, [32, 96]] = 100  # two of the fifteen
    power[np.arange(-8, 9)] *= 1e4  # as bright around four of them, and so no matter
    assert lattice_contrast(power, period=4) == pytest.approx(2 / 15 * 20)
    power = np.ones((64, 64))
    power[32, 32] = 100  # frequency zero alone is no lattice
    assert lattice_contrast(power, period=4) == 0


def test_a_comb_is_found_at_its_own_period_and_noise_has_none():
    assert abs(lattice_contrast(spectrum_of_comb(4), period=4)) < 0.5
    combed = spectrum_of_comb(4, height=0.5)
    # unit-energy Hann window: a line of amplitude a has power a^2 n^2 (mean w)^2 / mean w^2
    line = (0.5 / 16) ** 2 * 128**2 * (0.5**2 / 0.375) ** 2
    assert lattice_contrast(combed, period=4) == pytest.approx(10 * np.log10(line + 1), abs=0.5)
    assert lattice_contrast(combed, period=8) < lattice_contrast(combed, period=4) / 2


def test_the_border_of_blocks_is_the_last_step():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(4, 3, 64, 64, generator=generator)
    steps = block_steps(smooth)
    assert steps.shape == (8,) and steps[:7].mean() == pytest.approx(1)
    assert steps[7] == pytest.approx(1, abs=0.03)
    # inside a block 0.1 per pixel, across a border down by 0.7 and up by `jump`
    ramp = (torch.arange(64) % 8) * 0.1
    ramps = (ramp[:, None] + ramp[None]).expand(1, 3, 64, 64)
    np.testing.assert_allclose(block_steps(ramps), [1] * 7 + [7], rtol=1e-6)
    assert block_steps(ramps, period=4)[3] < 7
    shifted = block_steps(ramps[..., 3:, 3:])
    assert shifted.argmax() == 4  # the corner must lie on the grid


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ring_peaks(np.ones((3, 8, 8))), r"one spectrum \(h, w\)"),
        (lambda: lattice_contrast(np.ones((64, 32)), period=4), "square"),
        (lambda: lattice_contrast(np.ones((64, 64)), period=6), "multiple"),
        (lambda: lattice_contrast(np.ones((64, 64)), period=16), "at least 128"),
        (lambda: lattice_contrast(np.ones((64, 64)), period=1), "period 1"),
        (lambda: block_steps(torch.rand(3, 64, 64)), r"\(n, c, h, w\)"),
        (lambda: block_steps(torch.rand(1, 3, 8, 64)), "above the period 8"),
        (lambda: block_steps(torch.ones(1, 3, 64, 64)), "constant"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

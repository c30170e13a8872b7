import numpy as np
import pytest
import torch

from fpkit.coherence import CYCLIC, EDGE, STRIDE, spectral_coherence


def windowed(planes):
    side = planes.shape[-1]
    return torch.fft.rfft2(planes * torch.outer(torch.hann_window(side), torch.hann_window(side)))


@pytest.fixture(scope="module")
def noise():
    return torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_equals_the_definition_bin_by_bin(noise):
    size, distances = 64, len(CYCLIC)
    maps = spectral_coherence(torch.fft.rfft2(noise[:1]))[0].numpy()
    assert maps.shape == (3 * distances, size // STRIDE, size // (2 * STRIDE) + 1)
    plane = np.fft.fft2(noise[0].double().numpy())
    around = range(-EDGE, EDGE + 1)
    for k, (vertical, horizontal) in enumerate(CYCLIC):
        for row, column in ((0, 0), (3, 8), (8, 0), (13, 5)):
            v, h = STRIDE * (row - size // STRIDE // 2), STRIDE * column
            places = [((v + i) % size, (h + j) % size) for i in around for j in around]
            far = [
                ((y + int(vertical * size)) % size, (x + int(horizontal * size)) % size)
                for y, x in places
            ]
            a, b = (np.array([plane[place] for place in where]) for where in (places, far))
            expected = (a * b.conj()).sum() / np.linalg.norm(a) / np.linalg.norm(b)
            found = maps[2 * k, row, column] + 1j * maps[2 * k + 1, row, column]
            assert abs(found - expected) < 1e-4
            assert abs(maps[2 * distances + k, row, column] - abs(expected)) < 1e-4


def test_upsampling_makes_copies_and_noise_has_none(noise):
    enlarged = noise[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2)
    halves = slice(2 * len(CYCLIC), 2 * len(CYCLIC) + 3)
    before, after = (
        spectral_coherence(windowed(planes))[:, halves].mean() for planes in (noise, enlarged)
    )
    assert before < 0.35
    assert after > 0.75


def test_moving_the_picture_turns_the_phase_and_keeps_the_magnitude(noise):
    half = CYCLIC.index((0, 1 / 2))
    enlarged = noise.repeat_interleave(2, 2)[:, :, :64].clone()
    maps, moved = (spectral_coherence(torch.fft.rfft2(x)) for x in (enlarged, enlarged.roll(1, 2)))
    torch.testing.assert_close(moved[:, 2 * half], -maps[:, 2 * half], atol=1e-4, rtol=0)
    magnitudes = slice(2 * len(CYCLIC), None)
    torch.testing.assert_close(moved[:, magnitudes], maps[:, magnitudes], atol=1e-4, rtol=0)


def test_silence_has_no_coherence():
    assert torch.equal(spectral_coherence(torch.zeros(1, 32, 17) + 0j), torch.zeros(1, 33, 8, 5))


@pytest.mark.parametrize("shape", [(2, 48, 25), (2, 64, 64), (64, 33)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="s a multiple of 32, got"):
        spectral_coherence(torch.zeros(shape) + 0j)

"""Spectral coherence: what upsampling leaves beside peaks.

Upsampling by 2 repeats the spectrum, so what an image holds at a frequency, it holds again half a
cycle/pixel further on, filtered otherwise. A power spectrum shows how MUCH there is at either
place; the coherence of the two shows that they are COPIES, whatever the picture shows. A scene
by itself has none. Decoders that enlarge by 4 or 8 give copies at quarters and eighths as well.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Distances in cycles/pixel (vertical, horizontal) between the two frequencies that are compared.
# Their negatives would tell the same.
CYCLIC = (
    (0, 1 / 2),
    (1 / 2, 0),
    (1 / 2, 1 / 2),
    (0, 1 / 4),
    (1 / 4, 0),
    (1 / 4, 1 / 4),
    (1 / 4, 3 / 4),
    (0, 1 / 8),
    (1 / 8, 0),
    (0, 3 / 8),
    (3 / 8, 0),
)
STRIDE, EDGE = 4, 3  # bins from one estimate to the next; bins on either side averaged for it
FLOOR = (0.1 / 255) ** 2  # power of a tenth of an 8-bit step: below it there is only rounding


def spectral_coherence(spectrum: Tensor) -> Tensor:
    """Complex coherence of each frequency with those at the distances :data:`CYCLIC`.

    Is what an image holds at one frequency a copy of what it holds at another?

    Parameters
    ----------
    spectrum
        (n, s, s // 2 + 1) complex, ``rfft2`` of one plane of windowed crops, frequency zero at
        (0, 0); s a multiple of 32.

    Returns
    -------
    Tensor
        (n, 3 m, s // 4, s // 8 + 1) for the m distances: real and imaginary parts (m pairs), then
        the m magnitudes (0: unrelated, 1: a copy), each estimated from 7 x 7 bins at every fourth.
        Rows by vertical frequency with zero in the middle, columns by horizontal frequency from 0
        to 0.5 cycles/pixel.

    Raises
    ------
    ValueError
        If the shape is another.

    Notes
    -----
    Moving a picture by one pixel turns the phase by the distance: on the pixel grid of the
    generator the real and imaginary parts mean something, off it the magnitudes still do.

    References
    ----------
    Gardner, "Exploitation of spectral redundancy in cyclostationary signals", IEEE Signal
    Processing Magazine 8(2), 1991; as a test for resampled images: Vazquez-Padin, Mosquera,
    Perez-Gonzalez, "Two-dimensional statistical test for the presence of almost cyclostationarity
    on images", ICIP 2010.
    """
    size, half = spectrum.shape[-2:]
    if spectrum.dim() != 3 or size % 32 or half != size // 2 + 1:
        raise ValueError(
            "spectrum must be (n, s, s // 2 + 1) with s a multiple of 32, got "
            f"{tuple(spectrum.shape)}"
        )
    real = _plane(spectrum.real, mirror=1)
    imaginary = _plane(spectrum.imag, mirror=-1)
    rows, columns = (window.to(real) for window in _windows(size))

    power = real.square() + imaginary.square()
    power = rows @ power @ rows.roll(-(size // STRIDE // 2), 0).T  # columns from zero on
    wide = columns.shape[1]
    r, i = _continued(real), _continued(imaginary)
    r0, i0 = r[:, :size, :wide], i[:, :size, :wide]
    products = real.new_empty(len(spectrum), len(CYCLIC), 2, size, wide)
    scales = []
    for k, shift in enumerate(CYCLIC):
        top, left = (round(distance * size) for distance in shift)
        r1, i1 = (part[:, top : top + size, left : left + wide] for part in (r, i))
        torch.mul(r0, r1, out=products[:, k, 0]).addcmul_(i0, i1)
        torch.mul(i0, r1, out=products[:, k, 1]).addcmul_(r0, i1, value=-1)
        there = power.roll((-top // STRIDE, -left // STRIDE), (-2, -1))
        scales.append((power * there + FLOOR**2).rsqrt()[..., : len(columns)])
    parts = rows @ (products @ columns.T) * torch.stack(scales, 1)[:, :, None]
    return torch.cat([parts.flatten(1, 2), parts.square().sum(2).sqrt()], 1)


def _plane(half: Tensor, *, mirror: int) -> Tensor:
    """(n, s, s // 2 + 1) to (n, s, s): the other half has the same values, times `mirror`."""
    return torch.cat([half, mirror * half[:, :, 1:-1].flip((-2, -1)).roll(1, -2)], -1)


def _continued(plane: Tensor) -> Tensor:
    """Repeat a periodic (n, s, s) plane, from column -EDGE on, as far as any shift looks."""
    size = plane.shape[-1]
    below = round(max(top for top, _ in CYCLIC) * size)
    beyond = round(max(left for _, left in CYCLIC) * size) + size // 2 + 1 + EDGE - size
    plane = torch.cat([plane[..., -EDGE:], plane, plane[..., :beyond]], -1)
    return torch.cat([plane, plane[:, :below]], -2)


@lru_cache(maxsize=4)
def _windows(size: int) -> tuple[Tensor, Tensor]:
    """Matrices that average rows, all around, and the columns from -EDGE to beyond the half."""
    cells = size // STRIDE
    distance = torch.arange(size) - STRIDE * (torch.arange(cells) - cells // 2)[:, None]
    rows = ((distance + size // 2) % size - size // 2).abs() <= EDGE
    wide = size // 2 + 1 + 2 * EDGE
    distance = torch.arange(wide) - EDGE - STRIDE * torch.arange(cells // 2 + 1)[:, None]
    width = 2 * EDGE + 1
    return rows.float() / width, (distance.abs() <= EDGE).float() / width

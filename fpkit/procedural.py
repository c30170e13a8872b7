"""Procedural images: natural-looking statistics from a seed, nothing to download.

Three families with the power spectrum of photographs (about 1/f^2) and different phases: dead
leaves (edges and occlusion), power-law noise (no edges), and warped stripes (textures).
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from fpkit.parallel import one_thread

Kind = Literal["leaves", "noise", "texture"]


def procedural_images(
    n: int, size: int = 160, *, seed: int, kinds: tuple[Kind, ...] = get_args(Kind)
) -> Tensor:
    """Return `n` procedural images, the kinds in turn.

    Parameters
    ----------
    n : int
    size : int
        Height and width in pixels.
    seed : int
        Same seed, same images.
    kinds : tuple of {"leaves", "noise", "texture"}

    Returns
    -------
    Tensor, (n, 3, size, size) float32 in [0, 1]

    References
    ----------
    Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 41, 2001 (dead leaves).

    Examples
    --------
    >>> procedural_images(3, 64, seed=0).shape
    torch.Size([3, 3, 64, 64])
    """
    if n < 1 or size < 8:
        raise ValueError(f"n must be at least 1 and size at least 8, got n={n}, size={size}")
    unknown = set(kinds) - set(get_args(Kind))
    if unknown or not kinds:
        raise ValueError(f"kinds must be some of {get_args(Kind)}, got {kinds}")
    generator = torch.Generator().manual_seed(seed)
    makers = {"leaves": dead_leaves, "noise": power_law_noise, "texture": texture}
    with one_thread():  # the images shall not depend on the number of cores
        images = [makers[kinds[i % len(kinds)]](size, generator=generator) for i in range(n)]
    return torch.stack(images)


def dead_leaves(size: int, *, generator: torch.Generator) -> Tensor:
    """Discs with radii of density r^-3 that occlude each other, shaded: (3, size, size)."""
    scale = 2  # drawn at twice the size, then averaged: edges as soft as a lens makes them
    side = size * scale
    canvas = torch.zeros(3, side, side)
    rows = torch.arange(side)
    background = torch.rand(3, generator=generator)
    canvas += background[:, None, None]
    count = 220
    smallest, largest = 3.0, side / 3
    uniform = torch.rand(count, generator=generator)
    # inverse of the cumulative distribution of r^-3 between the two radii
    radii = (smallest**-2 + uniform * (largest**-2 - smallest**-2)).rsqrt()
    for radius in radii.flip(0).tolist():
        y, x = (torch.rand(2, generator=generator) * side).tolist()
        top, bottom = max(0, int(y - radius)), min(side, int(y + radius) + 2)
        left, right = max(0, int(x - radius)), min(side, int(x + radius) + 2)
        dy, dx = rows[top:bottom] - y, rows[left:right] - x
        inside = dy[:, None] ** 2 + dx[None] ** 2 <= radius**2
        colour = torch.rand(3, generator=generator)
        slope = (torch.rand(2, generator=generator) - 0.5) * 0.6 / radius
        shade = 1 + slope[0] * dy[:, None] + slope[1] * dx[None]
        patch = (colour[:, None, None] * shade).clamp(0, 1)
        canvas[:, top:bottom, left:right] = torch.where(
            inside, patch, canvas[:, top:bottom, left:right]
        )
    leaves = functional.avg_pool2d(canvas[None], scale)[0]
    grain = torch.randn(leaves.shape, generator=generator) * 0.01
    return (leaves + grain).clamp(0, 1)


def power_law_noise(size: int, *, generator: torch.Generator) -> Tensor:
    """Coloured noise of power 1/f^a, a in [1.6, 2.6], channels correlated: (3, size, size)."""
    exponent = 1.6 + torch.rand(1, generator=generator).item()
    return _stretch(_mix(_power_law(3, size, exponent, generator), generator), generator)


def texture(size: int, *, generator: torch.Generator) -> Tensor:
    """Stripes of a random period and direction, warped by slow noise: (3, size, size)."""
    warp = _power_law(3, size, 3.0, generator)
    angle, period = torch.rand(2, generator=generator).tolist()
    direction, wavelength = angle * math.pi, 6 + 40 * period
    axis = torch.arange(size, dtype=torch.float32)
    along = math.cos(direction) * axis[:, None] + math.sin(direction) * axis[None]
    phase = 2 * math.pi * along / wavelength + 2.0 * warp[:2]
    stripes = torch.stack([torch.sin(phase[0]), torch.sin(2.1 * phase[1]), warp[2]])
    return _stretch(_mix(stripes, generator), generator)


def _power_law(channels: int, size: int, exponent: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of power f^-exponent, unit variance per channel: (channels, size, size)."""
    white = torch.randn(channels, size, size, generator=generator)
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    radius = torch.sqrt(fy**2 + fx**2).clamp_min(1 / size)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * radius ** (-exponent / 2), s=(size, size))
    return (noise - noise.mean((1, 2), keepdim=True)) / noise.std((1, 2), keepdim=True)


def _mix(channels: Tensor, generator: torch.Generator) -> Tensor:
    """Random mixture of three channels into colours that share most of their luminance."""
    matrix = 0.7 + 0.6 * torch.randn(3, 3, generator=generator)
    return torch.einsum("oc,chw->ohw", matrix, channels)


def _stretch(image: Tensor, generator: torch.Generator) -> Tensor:
    """Map to [0, 1] with a random mean and contrast."""
    mean, contrast = torch.rand(2, generator=generator).tolist()
    unit = (image - image.mean()) / image.std()
    return (0.35 + 0.3 * mean + (0.1 + 0.15 * contrast) * unit).clamp(0, 1)

"""Give images of synthetic models the spectrum that pictures have, and keep their fingerprint.

What trains a real generator (a discriminator, a perceptual loss, the likelihood) sees to it that
its images have the power spectrum of photographs. A small autoencoder blurs, a random decoder adds
noise, and an extractor then learns to tell apart shapes of spectra that no real generator has. A
linear filter for each model takes that difference away, and leaves what is not radial: peaks,
replicas, their coherence and colour.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

LIMIT = 6.0  # largest gain: beyond it 8-bit rounding would be all that is heard
KNOTS = 7  # of the random curve, from frequency 0 to the corners


def match_spectrum(images: Tensor, sources: Tensor, *, strength: Tensor, curves: Tensor) -> Tensor:
    """Filter each model's images towards the radial power spectrum of their sources' luminance.

    Parameters
    ----------
    images : Tensor, (p, k, 3, s, s)
        What p models made of k images each.
    sources : Tensor, (p, k, 3, s, s)
        What they were made of.
    strength : Tensor, (p,)
        0 leaves a model's images as they are, 1 gives them the sources' mean profile.
    curves : Tensor, (p, 7)
        Natural logarithms of a further gain, from frequency 0 to the corners of the plane, with
        straight lines between them; zeros for none.

    Returns
    -------
    Tensor, (p, k, 3, s, s)
        Not rounded; the mean of each plane is kept. One real gain per model and frequency, of at
        most 6 before the curve: no image of a model is treated unlike the others.
    """
    size = images.shape[-1]
    ring, place = _rings(size)
    ring, place = ring.to(images.device), place.to(images.device)
    fourier = torch.fft.rfft2(images)
    profiles = []
    for planes in (fourier.mean(2), torch.fft.rfft2(sources.mean(2))):
        power = (planes.real.square() + planes.imag.square()).mean(1).flatten(1)
        sums = power.new_zeros(len(power), int(ring.max()) + 1).index_add_(1, ring, power)
        profiles.append(sums / torch.bincount(ring))
    gain = (profiles[1] / profiles[0].clamp_min(1e-12)).sqrt()
    smooth = functional.avg_pool1d(gain.log()[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    bound = torch.tensor(LIMIT).log().item()
    logs = strength[:, None] * smooth.clamp(-bound, bound)
    logs = (
        logs
        + functional.interpolate(
            curves[:, None], size=logs.shape[1], mode="linear", align_corners=True
        )[:, 0]
    )
    gains = logs[:, ring].exp().unflatten(1, place.shape)
    gains[:, 0, 0] = 1
    return torch.fft.irfft2(fourier.mul_(gains[:, None, None]), s=images.shape[-2:])


@lru_cache(maxsize=4)
def _rings(size: int) -> tuple[Tensor, Tensor]:
    """Ring of every bin of rfft2, flat, and the plane of them, (size, size // 2 + 1)."""
    rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)
    plane = (torch.hypot(rows.expand(-1, len(columns)), columns.expand(size, -1)) * size).round()
    return plane.long().flatten(), plane

"""Power spectra of images and residuals: where a fingerprint becomes visible.

Conventions, the same everywhere in fpkit: spectra are POWER (magnitude squared) until they are
shown, frequencies are in cycles/pixel (0.5 is Nyquist), and a *centred* spectrum has frequency
zero at index ``(h // 2, w // 2)``, as ``fftshift`` leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fpkit.images import grid_crops
from fpkit.residual import ResidualName
from fpkit.residual import residual as noise_residual

WindowName = Literal["hann", "none"]


def power_spectrum(images: Tensor, *, window: WindowName = "hann", centred: bool = True) -> Tensor:
    """Power spectrum of every image plane.

    How much of an image's variance sits at which frequency?

    Parameters
    ----------
    images
        (..., h, w) float, any number of leading dimensions; usually residuals.
    window
        ``"hann"`` tapers the borders, so that the jump from one edge of a crop to the other does
        not draw a cross through the spectrum; ``"none"`` keeps every pixel.
    centred
        Frequency zero at ``(h // 2, w // 2)``; otherwise at ``(0, 0)``.

    Returns
    -------
    Tensor
        (..., h, w), the dtype of `images`, in squared image units.

    Notes
    -----
    The window has unit energy, so white noise of variance s2 has mean power s2 at every
    frequency whatever the window and the size, and with ``"none"`` the mean of the spectrum is
    the mean of the squared image (Parseval).

    Examples
    --------
    >>> power_spectrum(torch.ones(1, 4, 4), window="none", centred=False)[0, 0]
    tensor([16.,  0.,  0.,  0.])
    """
    if not images.is_floating_point() or images.ndim < 2:
        raise TypeError(
            f"images must be floating point of shape (..., h, w), got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    weights = taper(window, *images.shape[-2:]).to(images)
    power = torch.fft.fft2(images * weights).abs().square()
    return torch.fft.fftshift(power, dim=(-2, -1)) if centred else power


def average_spectrum(
    images: Tensor | Iterable[Tensor],
    *,
    residual: ResidualName = "median",
    window: WindowName = "hann",
    crop: int = 128,
) -> NDArray[np.float64]:
    """Mean power spectrum of the residuals of many images: the fingerprint of their source.

    Content differs from image to image and averages out; what the source adds to all of them
    stays. The mean is taken of POWER: a mean of decibels would favour the quiet images.

    Parameters
    ----------
    images
        (n, c, h, w), or any iterable of (c, h, w) (sizes may differ, `c` may not), float in
        [0, 1], at least `crop` pixels high and wide. Read in one pass, so a generator will do.
    residual
        Noise residual taken of each crop, see :func:`fpkit.residual.residual`.
    window
        See :func:`power_spectrum`.
    crop
        Side of the square crops, up to a 3 x 3 grid of them per image.

    Returns
    -------
    ndarray
        (c, crop, crop) float64, centred. Every image counts alike, however many crops it gave.

    Raises
    ------
    ValueError
        If there is no image, or one is smaller than `crop`.
    """
    total: Tensor | None = None
    count = 0
    for image in images:
        crops = grid_crops(image, size=crop)
        with torch.no_grad():
            power = power_spectrum(noise_residual(crops, method=residual), window=window)
        mean = power.double().mean(dim=0).cpu()
        total = mean if total is None else total + mean
        count += 1
    if total is None:
        raise ValueError("average_spectrum needs at least one image, got none")
    return (total / count).numpy()


def to_db(power: ArrayLike, *, floor: float = 1e-12) -> NDArray[np.float64]:
    """Decibels of a power: ``10 * log10(max(power, floor))``.

    Examples
    --------
    >>> to_db([1.0, 100.0, 0.0]).tolist()
    [0.0, 20.0, -120.0]
    """
    return 10.0 * np.log10(np.maximum(np.asarray(power, dtype=np.float64), floor))


def radial_profile(
    power: ArrayLike, *, centred: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power over rings of equal frequency.

    Which frequencies, in whatever direction, carry the power?

    Parameters
    ----------
    power
        (..., h, w) power spectra, array or CPU tensor.
    centred
        Where frequency zero is, as in :func:`power_spectrum`.

    Returns
    -------
    frequency
        (b,) cycles/pixel from 0 to at most 0.5, with ``b = min(h, w) // 2 + 1``.
    profile
        (..., b) mean power of the ring whose centre line is at `frequency`.

    Notes
    -----
    Rings are ``1 / min(h, w)`` wide. The corners of the plane (beyond the last ring, about 0.5
    cycles/pixel, where only diagonal directions exist) are dropped.
    """
    power = np.asarray(power, dtype=np.float64)
    height, width = power.shape[-2:]
    side = min(height, width)
    bins = side // 2 + 1
    ring = ring_numbers(height, width, centred=centred).ravel()
    kept = ring < bins
    planes = power.reshape(-1, height * width)[:, kept]
    sums = np.stack([np.bincount(ring[kept], weights=p, minlength=bins) for p in planes])
    profile = sums / np.bincount(ring[kept], minlength=bins)
    return np.arange(bins) / side, profile.reshape(*power.shape[:-2], bins)


def ring_numbers(height: int, width: int, *, centred: bool = True) -> NDArray[np.intp]:
    """(height, width) number of the ring, ``1 / min(height, width)`` wide, of each frequency."""
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    if centred:
        frequencies = np.fft.fftshift(frequencies)
    return np.rint(frequencies * min(height, width)).astype(np.intp)


def autocorrelation(power: ArrayLike, *, centred: bool = True) -> NDArray[np.float64]:
    """Autocorrelation that belongs to a (mean) power spectrum.

    At which distance do pixels repeat? A grid of peaks at lags of 8 is the mark of upsampling
    by 8. (JPEG, whose blocks repeat by size and not by sign, leaves none.)

    Parameters
    ----------
    power
        (..., h, w) power spectra, array or CPU tensor.
    centred
        Where frequency zero is in `power`, and where lag zero will be in the result.

    Returns
    -------
    ndarray
        (..., h, w), 1 at lag zero, between -1 and 1 elsewhere; lags in pixels, circular.

    Raises
    ------
    ValueError
        If a spectrum is zero everywhere.

    References
    ----------
    Wiener-Khinchin theorem; as a forensic tool: Corvi et al., "Intriguing properties of
    synthetic images: from generative adversarial networks to diffusion models", 2023.
    """
    power = np.asarray(power, dtype=np.float64)
    if centred:
        power = np.fft.ifftshift(power, axes=(-2, -1))
    lags = np.fft.ifft2(power).real
    at_zero = lags[..., :1, :1]
    if not (at_zero > 0).all():
        raise ValueError("a power spectrum is zero everywhere: it has no autocorrelation")
    lags = lags / at_zero
    return np.fft.fftshift(lags, axes=(-2, -1)) if centred else lags


def taper(name: WindowName, height: int, width: int) -> Tensor:
    """(height, width) float64 window whose squares sum to 1."""
    if name == "hann":
        rows = torch.hann_window(height, dtype=torch.float64)
        columns = torch.hann_window(width, dtype=torch.float64)
    elif name == "none":
        rows = torch.ones(height, dtype=torch.float64)
        columns = torch.ones(width, dtype=torch.float64)
    else:
        raise ValueError(f"window must be 'hann' or 'none', got {name!r}")
    weights = torch.outer(rows, columns)
    return weights / weights.square().sum().sqrt()

"""Noise residuals: an image minus its denoised self.

The subject of a picture hides the much weaker trace of the network that made it. A denoiser
keeps the subject; what it takes away, the *noise residual*, holds the trace. Four of them, from
free to dear: nothing at all, a median, a linear high-pass, and a trained DnCNN.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

ResidualName = Literal["none", "median", "highpass", "dncnn"]
RESIDUALS: tuple[ResidualName, ...] = get_args(ResidualName)


def residual(images: Tensor, *, method: ResidualName = "median") -> Tensor:
    """Noise residual ``images - denoised(images)``.

    Parameters
    ----------
    images
        (n, c, h, w) float in [0, 1], at least 2 x 2 pixels.
    method
        ``"none"``: only the mean of each channel of each image is taken away.
        ``"median"``: minus the 3 x 3 median; edges stay out of the residual.
        ``"highpass"``: minus the binomial blur [1 2 1]/4 in both directions; linear, so its
        effect on a power spectrum is known: times ``(1 - cos^2(pi fx) cos^2(pi fy))^2``.

    Returns
    -------
    Tensor
        (n, c, h, w), same dtype and device, around 0. Borders are mirrored (without repeating
        the edge pixel).

    Raises
    ------
    TypeError
        If `images` is not a floating-point tensor.
    ValueError
        If the shape is not (n, c, h, w), or `method` is none of :data:`RESIDUALS`.
    """
    _check(images)
    if method == "none":
        return images - images.mean(dim=(-2, -1), keepdim=True)
    if method == "median":
        return images - median_blur(images)
    if method == "highpass":
        return images - binomial_blur(images)
    raise ValueError(f"method must be one of {', '.join(RESIDUALS)}, got {method!r}")


def median_blur(images: Tensor) -> Tensor:
    """Median of each 3 x 3 neighbourhood, (n, c, h, w) to the same shape.

    Sorts the vertical triples once; the median of nine is then the median of the largest of the
    three lows, the median of the three middles and the smallest of the three highs.

    References
    ----------
    J. L. Smith, "Implementing median filters in XC4000E FPGAs", Xcell 23, 1996.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    low, middle, high = _sort3(*_triple(padded, -2))
    largest_low = _largest(*_triple(low, -1))
    middle_middle = _sort3(*_triple(middle, -1))[1]
    smallest_high = -_largest(*_triple(-high, -1))
    return _sort3(largest_low, middle_middle, smallest_high)[1]


def binomial_blur(images: Tensor) -> Tensor:
    """Blur with [1 2 1]/4 along rows and columns, (n, c, h, w) to the same shape."""
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    above, here, below = _triple(padded, -2)
    left, centre, right = _triple((above + 2 * here + below) / 4, -1)
    return (left + 2 * centre + right) / 4


def _check(images: Tensor) -> None:
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], got {images.dtype}")
    if images.ndim != 4 or min(images.shape[-2:]) < 2:
        raise ValueError(
            f"images must have shape (n, c, h, w) with h, w >= 2, got {tuple(images.shape)}"
        )


def _triple(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Three views of `x`, shifted by 0, 1 and 2 along `dim`, each 2 shorter."""
    length = x.shape[dim] - 2
    return x.narrow(dim, 0, length), x.narrow(dim, 1, length), x.narrow(dim, 2, length)


def _sort3(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    b, c = torch.minimum(b, c), torch.maximum(b, c)
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    return a, b, c


def _largest(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.maximum(a, b), c)

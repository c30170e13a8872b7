"""Why fingerprints look as they do: activations make new frequencies.

A sinusoid goes through an activation; what comes out has its harmonics. The functions here
measure their amplitudes, predict them from the Fourier integral, in closed form where there is
one, and return both with the largest difference between them. All in float64.

References
----------
Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025, sec. III-B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpkit.blocks import LEAKY_SLOPE
from fpkit.blocks import activation as activation_layer

FloatArray = NDArray[np.float64]
ActivationName = Literal[
    "none", "square", "cube", "relu", "leaky", "sigmoid", "tanh", "silu", "gelu", "elu"
]


@dataclass(frozen=True, kw_only=True)
class Harmonics:
    """Amplitudes of the harmonics that an activation makes of one sinusoid.

    Attributes
    ----------
    measured, predicted : (count + 1,) or (h, w)
        For :func:`harmonics` amplitude of ``cos(k theta)`` in the output, ``k`` from 0 (the mean)
        to ``count``; for :func:`image_harmonics` magnitude of the image's spectrum, divided by
        the number of pixels: a unit sinusoid shows as two peaks of 1/2.
    error : float
        Largest absolute difference.
    """

    measured: FloatArray
    predicted: FloatArray
    error: float


def harmonics(
    activation: ActivationName,
    *,
    amplitude: float = 1.0,
    offset: float = 0.0,
    count: int = 8,
    samples: int = 1 << 14,
) -> Harmonics:
    """Pass one period of ``offset + amplitude cos(theta)`` through an activation.

    Which new frequencies does it make? A power ``x^n`` convolves the spectrum n times with itself.
    ReLU, half of a straight line, has the mean 1/pi, the fundamental 1/2 and even harmonics only;
    around 0, tanh and sigmoid have weak odd ones.

    Parameters
    ----------
    activation
        ``"leaky"`` has the slope 0.2 below zero.
    amplitude, offset
        Of the sinusoid before the activation.
    count
        Highest harmonic.
    samples
        Points of the period: harmonics beyond half of them fold back, 4e-9 with ReLU.

    Returns
    -------
    Harmonics
        Measured by a DFT of torch's operator, predicted in closed form for the polynomials, ReLU
        and LeakyReLU, elsewhere by Gauss-Legendre integration of the Fourier integral.
    """
    if not 0 < count < samples // 2:
        raise ValueError(f"count must be between 1 and samples / 2, got {count}")
    theta = torch.arange(samples, dtype=torch.float64) * (2 * math.pi / samples)
    out = activation_function(activation)(offset + amplitude * theta.cos())
    measured = np.fft.rfft(out.numpy()).real[: count + 1] * (2 / samples)
    measured[0] /= 2
    predicted = fourier_cosines(activation, amplitude=amplitude, offset=offset, count=count)
    error = float(np.abs(measured - predicted).max())
    return Harmonics(measured=measured, predicted=predicted, error=error)


def image_harmonics(
    activation: ActivationName,
    *,
    cycles: tuple[int, int] = (3, 5),
    size: int = 64,
    amplitude: float = 1.0,
    offset: float = 0.0,
) -> Harmonics:
    """The same for an image of one plane wave: harmonics in two dimensions, folded at Nyquist.

    A wave of frequency (u, v) gets company at every multiple k (u, v). Pixels cannot show
    frequencies above Nyquist, so the high ones fold back to low frequencies: peaks all over the
    spectrum from one smooth wave.

    Parameters
    ----------
    cycles
        Periods down and across the image.
    size
        Height and width in pixels.

    Returns
    -------
    Harmonics
        (size, size) magnitudes; the prediction sums the first 400 000 harmonics of ReLU and
        LeakyReLU, the first 512 of the smooth activations, each at the place it folds to.
    """
    if size < 2 or not any(c % size for c in cycles):
        raise ValueError(f"cycles must not be multiples of the size, got {cycles} and {size}")
    axis = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    theta = cycles[0] * axis[:, None] + cycles[1] * axis[None]
    out = activation_function(activation)(offset + amplitude * theta.cos())
    measured = np.abs(np.fft.fft2(out.numpy())) / size**2
    count = 400_000 if activation in ("relu", "leaky") else 512
    values = fourier_cosines(activation, amplitude=amplitude, offset=offset, count=count)
    orders = np.arange(1, count + 1)
    folded = np.zeros((size, size))
    folded[0, 0] = values[0]
    for sign in (1, -1):
        places = tuple(sign * orders * c % size for c in cycles)
        np.add.at(folded, places, values[1:] / 2)
    predicted = np.abs(folded)
    error = float(np.abs(measured - predicted).max())
    return Harmonics(measured=measured, predicted=predicted, error=error)


def fourier_cosines(
    activation: ActivationName, *, amplitude: float, offset: float, count: int
) -> FloatArray:
    """Coefficients c_k of ``phi(offset + amplitude cos theta) = sum_k c_k cos(k theta)``.

    Returns
    -------
    ndarray
        (count + 1,) for k from 0 to `count`; c_0 is the mean.
    """
    if not amplitude > 0:
        raise ValueError(f"amplitude must be above 0, got {amplitude}")
    activation_function(activation)
    if activation in ("relu", "leaky"):
        slope = LEAKY_SLOPE if activation == "leaky" else 0.0
        rectified = _rectified_cosines(amplitude, offset, count)
        straight = np.zeros(count + 1)
        straight[:2] = offset, amplitude
        return (1 - slope) * rectified + slope * straight
    # two pieces, joined where the argument is 0: an ELU is not smooth there
    kink = math.acos(min(max(-offset / amplitude, -1.0), 1.0))
    nodes, weights = _quadrature(1200)
    total = np.zeros(count + 1)
    for low, high in ((0.0, kink), (kink, math.pi)):
        theta = low + (high - low) * (nodes + 1) / 2
        values = _SCALAR[activation](offset + amplitude * np.cos(theta)) * weights
        total += np.cos(np.outer(np.arange(count + 1), theta)) @ values * (high - low) / math.pi
    total[0] /= 2
    return total


_quadrature = lru_cache(maxsize=1)(np.polynomial.legendre.leggauss)


def _rectified_cosines(amplitude: float, offset: float, count: int) -> FloatArray:
    """Fourier series of ``max(0, offset + amplitude cos theta)``: a sinusoid cut at `cut`."""
    cut = math.acos(min(max(-offset / amplitude, -1.0), 1.0))
    k = np.arange(2, count + 1)
    cosine = np.sin((k + 1) * cut) / (k + 1) + np.sin((k - 1) * cut) / (k - 1)
    first = [
        (amplitude * math.sin(cut) + offset * cut) / math.pi,
        (amplitude * (cut + math.sin(2 * cut) / 2) + 2 * offset * math.sin(cut)) / math.pi,
    ]
    rest = (amplitude * cosine + 2 * offset * np.sin(k * cut) / k) / math.pi
    return np.concatenate([first, rest])[: count + 1]


# the layers of the models are what is measured; the prediction evaluates the formulas on its own
_SCALAR: dict[str, Callable[[FloatArray], FloatArray]] = {
    "none": lambda x: x,
    "square": lambda x: x * x,
    "cube": lambda x: x * x * x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: 1 - 2 / (1 + np.exp(2 * x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
}


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    if name not in get_args(ActivationName):
        raise ValueError(f"activation must be one of {get_args(ActivationName)}, got {name!r}")
    powers = {"square": 2, "cube": 3}
    return partial(torch.pow, exponent=powers[name]) if name in powers else activation_layer(name)

"""Why fingerprints look as they do: upsampling and convolution against their closed forms.

A generation block is ``y = N(A(F(U z)))``. The functions here pass a signal through one of its
two linear steps, measure the spectrum that comes out, compute the spectrum that theory predicts,
and return both with the largest difference between them. The activation is in
:mod:`fpkit.harmonics`, the normalisation, whose effect is one of training, in
:mod:`fpkit.normalisation`, and what the order of blocks does in :mod:`fpkit.swap`.

Everything is float64, spectra are power with frequency zero at ``[0, 0]``, scaled as
:func:`fpkit.spectrum.power_spectrum` with ``window="none"``: white noise of variance s2 has mean
power s2. Borders wrap around: an image that repeats is the only one whose DFT is exact.

References
----------
Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025, sec. III-B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from fpkit.spectrum import power_spectrum

FloatArray = NDArray[np.float64]
Upsampling = Literal["zero", "nearest", "bilinear", "bicubic", "fir", "deconv", "shuffle"]

# Taps of the fixed upsamplers: what zero insertion must be convolved with, along one axis.
# StyleGAN3's filter, as in fpkit.blocks: a sinc of half the bandwidth in a Kaiser window
_WINDOWED_SINC = np.sinc((np.arange(12) - 5.5) / 2) * np.kaiser(12, 3.47)
TAPS: dict[str, FloatArray] = {
    "zero": np.array([1.0]),
    "nearest": np.array([1.0, 1.0]),
    # the filter of StyleGAN and StyleGAN2, too, is linear interpolation at pixel centres
    "bilinear": np.array([1.0, 3.0, 3.0, 1.0]) / 4,
    # Keys' cubic with a = -0.75 (torch's choice) at distances 0.25, 0.75, 1.25, 1.75
    "bicubic": np.array([-9.0, -27.0, 67.0, 225.0, 225.0, 67.0, -27.0, -9.0]) / 256,
    "fir": 2 * _WINDOWED_SINC / _WINDOWED_SINC.sum(),
}
_WRAP = 8  # low-resolution pixels of wrapped border: more than any kernel here reaches


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """A spectrum measured after a linear step, and predicted from the spectrum before it.

    Attributes
    ----------
    source : (i, h, w) power before the step
    response : (o, i, H, W) squared magnitude of the kernels' frequency response
    measured, predicted : (o, H, W) power after the step
    error : float
        Largest difference between the two, as a share of the largest predicted power.
    """

    source: FloatArray
    response: FloatArray
    measured: FloatArray
    predicted: FloatArray
    error: float


def frequency_response(kernel: ArrayLike, size: tuple[int, int]) -> NDArray[np.complex128]:
    """Frequency response of kernels (..., k, l), sampled on a grid: (..., height, width) complex.

    Examples
    --------
    >>> abs(frequency_response([[1.0, 1.0]], (1, 4))).round(3).tolist()
    [[2.0, 1.414, 0.0, 1.414]]
    """
    return np.fft.fft2(np.asarray(kernel, dtype=np.float64), s=size)


def upsampling_kernel(upsampling: Upsampling, *, weight: Tensor | None = None) -> FloatArray:
    """Kernels (o, i, k, l) that follow zero insertion in this x2 upsampling.

    Parameters
    ----------
    upsampling
        ``"zero"`` inserts zeros and stops there; ``"fir"`` then applies the low-pass filter of
        StyleGAN3; ``"shuffle"`` is the pixel shuffle of four channels into one: one tap per
        channel, each at another place of the 2 x 2 cell.
    weight
        For ``"deconv"``, (i, o, k, l) as in ``ConvTranspose2d``.
    """
    if upsampling not in get_args(Upsampling):
        raise ValueError(f"upsampling must be one of {get_args(Upsampling)}, got {upsampling!r}")
    if (upsampling == "deconv") != (weight is not None):
        raise ValueError("weight must be given for upsampling 'deconv', and only for it")
    if weight is not None:
        return weight.detach().double().transpose(0, 1).numpy()
    if upsampling == "shuffle":
        return np.eye(4).reshape(1, 4, 2, 2)
    taps = TAPS[upsampling]
    return np.outer(taps, taps)[None, None]


def replicas(upsampling: Upsampling, signal: Tensor, *, weight: Tensor | None = None) -> Filtered:
    """Upsample `signal` by 2 and compare its spectrum with the repeated and weighted one.

    Which replicas of the low-resolution spectrum stay? Zero insertion repeats the spectrum 2 x 2;
    all that upsamplers differ in is the response of the kernel that follows:
    ``Y(f) = sum_i H_i(f) Z_i(2f)``.

    Parameters
    ----------
    upsampling
        See :func:`upsampling_kernel`. Measured with torch's own operators.
    signal
        (i, h, w) one low-resolution image; four channels for ``"shuffle"``, any number for
        ``"deconv"``, elsewhere one.
    weight
        (i, o, k, l) of a ``"deconv"``, stride 2, at most 9 taps.

    Returns
    -------
    Filtered
        With H, W = 2h, 2w.

    Raises
    ------
    ValueError
        If the signal does not have the channels that the kernels expect.
    """
    kernel = upsampling_kernel(upsampling, weight=weight)
    z = _signal(signal, kernel.shape[1])
    inner = upsampled(upsampling, z[None], weight=weight)[0]
    height, width = inner.shape[1:]
    response = frequency_response(kernel, (height, width))
    tiled = np.tile(np.fft.fft2(z.numpy()), (1, 2, 2))
    return _filtered(z, inner, response, (response * tiled).sum(axis=1))


def upsampled(upsampling: Upsampling, signals: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Upsample by 2 with torch's own operators, as if every signal repeated beyond its borders.

    Parameters
    ----------
    upsampling, weight
        See :func:`replicas`.
    signals
        (n, i, h, w) float64.

    Returns
    -------
    Tensor
        (n, o, 2h, 2w).
    """
    height, width = (2 * side for side in signals.shape[2:])
    wrapped = functional.pad(signals, [_WRAP] * 4, mode="circular")
    if upsampling in ("nearest", "bilinear", "bicubic"):
        aligned = None if upsampling == "nearest" else False
        large = functional.interpolate(
            wrapped, scale_factor=2, mode=upsampling, align_corners=aligned
        )
    elif upsampling == "shuffle":
        large = functional.pixel_shuffle(wrapped, 2)
    else:
        taps = torch.from_numpy(upsampling_kernel(upsampling, weight=weight)).transpose(0, 1)
        large = functional.conv_transpose2d(wrapped, taps, stride=2)
    return large[:, :, 2 * _WRAP :, 2 * _WRAP :][:, :, :height, :width]


def convolution(signal: Tensor, weight: Tensor, *, bias: Tensor | None = None) -> Filtered:
    """Convolve `signal` and compare its spectrum with the product of spectrum and response.

    Which frequencies does this kernel let pass? ``Y(f) = sum_i H_i(f) X_i(f)``, and the bias adds
    its value times the number of pixels to ``Y(0)``: with one input channel, power times squared
    response.

    Parameters
    ----------
    signal
        (i, h, w).
    weight
        (o, i, k, l) with k <= h and l <= w, as in ``Conv2d``.
    bias
        (o,), none if not given.

    Returns
    -------
    Filtered
        With H, W = h, w. For independent white channels of variances s2, the power to expect is
        ``(response * s2).sum(1)``, which is how a trained kernel's filter can be read off it.

    Raises
    ------
    ValueError
        If the shapes do not match.
    """
    if weight.ndim != 4:
        raise ValueError(f"weight must be (out, in, k, l), got {tuple(weight.shape)}")
    weight = weight.detach().double()
    x = _signal(signal, weight.shape[1])
    rows, columns = weight.shape[2:]
    if rows > x.shape[1] or columns > x.shape[2]:
        raise ValueError(
            f"the signal must be at least as large as the kernel, got {tuple(x.shape[1:])} and "
            f"{rows} x {columns}"
        )
    wrapped = functional.pad(x[None], [columns - 1, 0, rows - 1, 0], mode="circular")
    offsets = torch.zeros(len(weight)) if bias is None else bias.detach()
    y = functional.conv2d(wrapped, weight, offsets.double())[0]
    # what networks call convolution is correlation: the kernel of the filter is the flipped one
    response = frequency_response(weight.flip(-2, -1).numpy(), tuple(x.shape[1:]))
    predicted = (response * np.fft.fft2(x.numpy())).sum(axis=1)
    predicted[:, 0, 0] += offsets.double().numpy() * x[0].numel()
    return _filtered(x, y, response, predicted)


def _signal(signal: Tensor, channels: int) -> Tensor:
    if signal.ndim != 3 or len(signal) != channels:
        raise ValueError(f"signal must be ({channels}, h, w), got {tuple(signal.shape)}")
    return signal.detach().double()


def _filtered(
    source: Tensor,
    measured: Tensor,
    response: NDArray[np.complex128],
    predicted: NDArray[np.complex128],
) -> Filtered:
    """Powers of the two spectra, as :func:`fpkit.spectrum.power_spectrum` scales them."""
    before, after = (
        power_spectrum(planes, window="none", centred=False).numpy()
        for planes in (source, measured)
    )
    power = np.abs(predicted) ** 2 / measured[0].numel()
    return Filtered(
        source=before,
        response=np.abs(response) ** 2,
        measured=after,
        predicted=power,
        error=float(np.abs(after - power).max() / power.max()),
    )

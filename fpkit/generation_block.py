"""One generation block ``y = N(A(F(U z)))``, measured and computed in the spectrum alone.

The measured side runs the operators of torch on pixels. The computed side begins with the
spectrum of the input, repeats it, multiplies it by frequency responses, convolves it with itself
and scales it. Where the two part, something happened that the closed form does not know.

References
----------
Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025, sec. III-B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fpkit.harmonics import ActivationName, activation_function
from fpkit.observations import Upsampling, frequency_response, upsampled, upsampling_kernel
from fpkit.spectrum import power_spectrum, to_db

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
BlockNorm = Literal["none", "instance", "layer"]

MAX_DEGREE = 8
_EPSILON = 1e-5  # torch's, in every normalisation
_ROUGH = 0.3  # standard deviation of kernel weights at roughness 1, beside a middle tap of 1


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """What a block does, each setting of its own.

    Parameters
    ----------
    upsampling
        See :func:`fpkit.observations.upsampling_kernel`. ``"shuffle"`` begins with the
        convolution that makes its four channels.
    overlap : 0 to 1
        Outer taps of the transposed convolution, whose kernel is (w, 1, w) in either direction:
        0.5 interpolates linearly, 1 is the textbook source of checkerboards.
    sharpness : -1 to 1
        The 3x3 convolution F: -1 multiplies frequency f by cos^2(pi f), 0 leaves it alone, 1
        multiplies it by 1 + sin^2(pi f), in either direction.
    roughness : 0 to 1
        Random weights added to every learnt kernel: the convolutions, and the upsampling where
        it is learnt. 1 is a kernel whose weights have a third of the size of its middle tap.
    seed : int
        Of the random weights.
    activation
        See :func:`fpkit.harmonics.harmonics`.
    strength, offset
        Applied before the activation: ``strength * x + offset``. The input has mean 0 and
        standard deviation 1.
    norm
        ``"instance"``: every channel gets mean 0 and variance 1 (for one image batch norm does
        the same); ``"layer"``: all channels together.
    repeats : 1 to 3
        Blocks in a row, each with random weights of its own.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    upsampling: Upsampling = "nearest"
    overlap: float = 1.0
    sharpness: float = 0.0
    roughness: float = 0.0
    seed: int = 0
    activation: ActivationName = "none"
    strength: float = 1.0
    offset: float = 0.0
    norm: BlockNorm = "none"
    repeats: int = 1

    def __post_init__(self) -> None:
        for name, options in (
            ("upsampling", get_args(Upsampling)),
            ("activation", get_args(ActivationName)),
            ("norm", get_args(BlockNorm)),
        ):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} must be one of {options}, got {getattr(self, name)!r}")
        for name, low, high in (
            ("overlap", 0, 1), ("sharpness", -1, 1), ("roughness", 0, 1), ("repeats", 1, 3),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockViews:
    """A block's output and its spectrum, measured and computed.

    Attributes
    ----------
    output : (c, h, w)
    measured, computed : (h, w)
        Centred power, mean over channels.
    repeated : (h, w)
        The same of the input with zeros inserted, before any kernel.
    """

    output: FloatArray
    measured: FloatArray
    computed: FloatArray
    repeated: FloatArray

    def decibels(self, power: FloatArray, *, floor: float = 100.0) -> FloatArray:
        """Decibels of one of the powers, at least `floor` below the strongest measured one.

        A zero of the closed form is a number like 1e-32 when measured: rounding, not a mark.
        """
        strongest = max(float(self.measured.max()), np.finfo(np.float64).tiny)
        return to_db(power, floor=strongest * 10 ** (-floor / 10))

    @property
    def difference(self) -> float:
        """Root mean square difference of measured and computed power, in dB."""
        apart = self.decibels(self.measured) - self.decibels(self.computed)
        return float(np.sqrt(np.mean(apart**2)))


def block_views(settings: BlockSettings, code: Tensor, *, degree: int = MAX_DEGREE) -> BlockViews:
    """Pass `code` through the block, and its spectrum through the closed form.

    Parameters
    ----------
    settings
    code
        (c, h, w) with h, w at least 8; best of mean 0 and standard deviation 1. It counts as
        periodic: see :func:`periodic_part`.
    degree
        1 to 8. The computed side takes the polynomial of this degree that is nearest to the
        activation (least squares over the values that occur), because a power ``x^n`` is a
        spectrum convolved n - 1 times with itself. With 1 it is the best straight line, and what
        the line lacks are the new frequencies.

    Returns
    -------
    BlockViews
        With height 2^repeats h. Without an activation, or with a polynomial one of at most
        `degree`, both sides agree to rounding.

    Raises
    ------
    ValueError
        If `code` or `degree` do not fit.
    """
    if code.ndim != 3 or min(code.shape[1:]) < 8:
        raise ValueError(f"code must be (c, h, w) of 8 pixels or more, got {tuple(code.shape)}")
    if not 1 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree must be from 1 to {MAX_DEGREE}, got {degree}")
    x = code.double()
    spectrum = np.fft.fft2(x.numpy())
    repeated = np.tile(spectrum, (1, 2**settings.repeats, 2**settings.repeats))
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.repeats):
        spread, weight = _kernels(settings, generator)
        x = _block(settings, spread, weight, x)
        spectrum = _spectrum_of_block(settings, spread, weight, spectrum, degree)
    return BlockViews(
        output=x.numpy(),
        measured=power_spectrum(x, window="none").mean(dim=0).numpy(),
        computed=_power(spectrum),
        repeated=_power(repeated),
    )


def periodic_part(image: Tensor) -> Tensor:
    """The image without the jumps between opposite borders: what repeats without a seam.

    The DFT takes every image as a tile of an endless pattern, and the seams of the tiles draw a
    cross through the spectrum. This takes away the smooth image that causes them, and hardly
    anything else.

    Parameters
    ----------
    image
        (..., h, w) float64.

    References
    ----------
    Moisan, "Periodic plus smooth image decomposition", J. Math. Imaging and Vision 39, 2011.
    """
    height, width = image.shape[-2:]
    jumps = torch.zeros_like(image)
    down, across = image[..., -1, :] - image[..., 0, :], image[..., -1] - image[..., 0]
    jumps[..., 0, :] += down
    jumps[..., -1, :] -= down
    jumps[..., 0] += across
    jumps[..., -1] -= across
    rows = torch.cos(2 * torch.pi * torch.arange(height) / height).to(image)
    columns = torch.cos(2 * torch.pi * torch.arange(width) / width).to(image)
    laplacian = 2 * rows[:, None] + 2 * columns[None] - 4
    laplacian[0, 0] = 1  # the mean of the smooth part is free: none
    smooth = torch.fft.fft2(jumps) / laplacian
    smooth[..., 0, 0] = 0
    return image - torch.fft.ifft2(smooth).real


# ---- kernels -----------------------------------------------------------------------------------


def _kernels(settings: BlockSettings, generator: torch.Generator) -> tuple[Tensor | None, Tensor]:
    """Weights of the upsampling, where it is learnt, and of the 3x3 convolution (1, 1, 3, 3)."""

    def rough(*shape: int) -> Tensor:
        weights = torch.randn(shape, generator=generator, dtype=torch.float64)
        return _ROUGH * settings.roughness * weights

    side = settings.sharpness / 4
    line = torch.tensor([-side, 1 + 2 * side, -side], dtype=torch.float64)
    weight = torch.outer(line, line)[None, None] + rough(1, 1, 3, 3)
    spread = None
    if settings.upsampling == "deconv":
        taps = torch.tensor([settings.overlap, 1.0, settings.overlap], dtype=torch.float64)
        taps *= 2 / taps.sum()  # the brightness stays
        spread = torch.outer(taps, taps)[None, None] + rough(1, 1, 3, 3)
    elif settings.upsampling == "shuffle":
        spread = rough(4, 1, 3, 3)
        spread[:, :, 1, 1] += 1  # four equal channels: nearest
    return spread, weight


# ---- on pixels ---------------------------------------------------------------------------------


def _block(settings: BlockSettings, spread: Tensor | None, weight: Tensor, x: Tensor) -> Tensor:
    channels = x[:, None]  # every channel by itself, as a batch
    if settings.upsampling == "shuffle" and spread is not None:
        channels = upsampled("shuffle", _convolved(channels, spread))
    else:
        channels = upsampled(settings.upsampling, channels, weight=spread)
    x = _convolved(channels, weight)[:, 0]
    x = activation_function(settings.activation)(settings.strength * x + settings.offset)
    if settings.norm == "instance":
        x = functional.instance_norm(x[None], eps=_EPSILON)[0]
    elif settings.norm == "layer":
        x = functional.layer_norm(x, x.shape, eps=_EPSILON)
    return x


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="circular"), weight)


# ---- on spectra --------------------------------------------------------------------------------


def _spectrum_of_block(
    settings: BlockSettings,
    spread: Tensor | None,
    weight: Tensor,
    spectrum: ComplexArray,
    degree: int,
) -> ComplexArray:
    height, width = (2 * side for side in spectrum.shape[1:])
    if settings.upsampling == "shuffle" and spread is not None:
        parts = spectrum[:, None] * _response(spread, spectrum.shape[1:])[:, 0]
        kernel = upsampling_kernel("shuffle")
    else:
        parts, kernel = spectrum[:, None], upsampling_kernel(settings.upsampling, weight=spread)
    tiled = np.tile(parts, (1, 1, 2, 2))
    spectrum = (tiled * frequency_response(kernel[0], (height, width))).sum(axis=1)
    spectrum = spectrum * _response(weight, (height, width))[0, 0] * settings.strength
    spectrum[:, 0, 0] += settings.offset * height * width
    if settings.activation != "none":
        spectrum = _self_convolved(settings.activation, spectrum, degree)
    return _rescaled(settings.norm, spectrum)


def _response(weight: Tensor, size: tuple[int, int]) -> ComplexArray:
    """Response of what networks call a convolution, centred: the flipped kernel."""
    height, width = size
    shift = np.exp(2j * np.pi * np.fft.fftfreq(height))[:, None]
    shift = shift * np.exp(2j * np.pi * np.fft.fftfreq(width))
    return frequency_response(weight.flip(-2, -1).numpy(), size) * shift


def _self_convolved(name: ActivationName, spectrum: ComplexArray, degree: int) -> ComplexArray:
    """Spectrum of the polynomial nearest to the activation.

    Products of pixels are convolutions of spectra, and cheaper.
    """
    values = np.fft.ifft2(spectrum).real
    occurring = np.quantile(values, np.linspace(0, 1, 257))
    if occurring[-1] - occurring[0] < 1e-12:
        occurring = occurring[0] + np.linspace(-1e-6, 1e-6, 257)
    targets = activation_function(name)(torch.from_numpy(occurring)).numpy()
    return np.fft.fft2(Chebyshev.fit(occurring, targets, degree)(values))


def _rescaled(norm: BlockNorm, spectrum: ComplexArray) -> ComplexArray:
    """Mean 0 and variance 1, read off the spectrum (Parseval)."""
    if norm == "none":
        return spectrum
    if norm == "layer":
        spectrum = spectrum.copy()
        spectrum[:, 0, 0] -= spectrum[:, 0, 0].mean()
        axes: tuple[int, ...] = (0, 1, 2)
    else:
        spectrum = spectrum.copy()
        spectrum[:, 0, 0] = 0
        axes = (1, 2)
    pixels = spectrum.shape[1] * spectrum.shape[2]
    variance = (np.abs(spectrum) ** 2).mean(axis=axes, keepdims=True) / pixels
    return spectrum / np.sqrt(variance + _EPSILON)


def _power(spectrum: ComplexArray) -> FloatArray:
    """Centred power, mean over channels, scaled as :func:`fpkit.spectrum.power_spectrum`."""
    power = (np.abs(spectrum) ** 2).mean(axis=0) / (spectrum.shape[1] * spectrum.shape[2])
    return np.fft.fftshift(power)

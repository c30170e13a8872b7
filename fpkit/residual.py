"""Noise residuals: an image minus its denoised self.

The subject of a picture hides the much weaker trace of the network that made it. A denoiser
keeps the subject; what it takes away, the *noise residual*, holds the trace. Four of them, from
free to dear: nothing at all, a median, a linear high-pass, and a trained DnCNN.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpkit.assets import denoiser_path
from fpkit.tensor_files import open_tensors

ResidualName = Literal["none", "median", "highpass", "dncnn"]
RESIDUALS: tuple[ResidualName, ...] = get_args(ResidualName)
DnCNNVariant = Literal["dncnn6N", "dncnn17N"]
DEPTHS: dict[DnCNNVariant, int] = {"dncnn6N": 6, "dncnn17N": 17}

# At the noise level below, the 6-layer network denoises as well as the 17-layer one (a photograph
# from 34.2 dB to 37.9 and 37.8 dB) for a quarter of the work.
DNCNN: DnCNNVariant = "dncnn6N"

# What a generator leaves is about as faint as the rounding and sensor noise of a good picture;
# a higher level would also smooth texture and edges into the residual.
NOISE_LEVEL = 5 / 255


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
        ``"dncnn"``: the noise that the trained 6-layer :class:`DnCNN` finds at a noise level of
        5/255. By far the dearest: 0.15 million multiplications per pixel and channel.

    Returns
    -------
    Tensor
        (n, c, h, w), same dtype and device, around 0. Borders are mirrored (without repeating
        the edge pixel), with ``"dncnn"`` wrapped around.

    Raises
    ------
    TypeError
        If `images` is not a floating-point tensor.
    ValueError
        If the shape is not (n, c, h, w), `method` is none of :data:`RESIDUALS`, or ``"dncnn"``
        gets values outside [0, 1].
    """
    _check(images)
    if method == "none":
        return images - images.mean(dim=(-2, -1), keepdim=True)
    if method == "median":
        return images - median_blur(images)
    if method == "highpass":
        return images - binomial_blur(images)
    if method == "dncnn":
        return dncnn_residual(images, variant=DNCNN)
    raise ValueError(f"method must be one of {', '.join(RESIDUALS)}, got {method!r}")


def dncnn_residual(images: Tensor, *, variant: DnCNNVariant) -> Tensor:
    """The noise that a trained :class:`DnCNN` finds in images at a noise level of 5/255.

    Parameters
    ----------
    images
        (n, c, h, w) float in [0, 1].
    variant
        See :func:`load_dncnn`; loaded once per device.

    Returns
    -------
    Tensor
        (n, c, h, w), same dtype and device.
    """
    return _shared_dncnn(variant, images.device)(images, noise_level=NOISE_LEVEL)


class DnCNN(nn.Module):
    """Denoiser that predicts the noise of an image, not the image.

    A stack of 3 x 3 convolutions with 64 channels and ReLU between them. It sees one colour
    channel at a time, beside a constant plane that tells the noise level.

    Parameters
    ----------
    depth
        Number of convolutions, at least 2.

    Notes
    -----
    The original has batch normalisations, folded into the convolutions here. Every layer wraps
    images around at the border, as in training; on noisy photographs mirroring there costs up to
    0.7 dB.

    References
    ----------
    Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian denoiser: residual learning of deep CNN for
    image denoising", IEEE TIP 26, 2017. The variant with a noise level and its weights: SCICO
    (Balke et al., JOSS 7, 2022), BSD-3-Clause, see ``data/denoiser/README.md``.
    """

    def __init__(self, depth: int = 17) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"depth must be at least 2, got {depth}")
        channels = [2] + [64] * (depth - 1) + [1]
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular")
            for inputs, outputs in zip(channels[:-1], channels[1:], strict=True)
        )

    def forward(self, images: Tensor, *, noise_level: float) -> Tensor:
        """Noise in the images: subtract it to denoise them.

        Parameters
        ----------
        images
            (n, c, h, w) float in [0, 1]; channels are treated alike and apart.
        noise_level
            Standard deviation of the expected noise, 0 to 0.2 (as in training).

        Returns
        -------
        Tensor
            (n, c, h, w), dtype of `images`.

        Raises
        ------
        ValueError
            If the images or the noise level are out of range.
        """
        if not 0 <= noise_level <= 0.2:
            raise ValueError(f"noise_level must be in [0, 0.2], got {noise_level}")
        if images.numel() and (images.min() < 0 or images.max() > 1):
            raise ValueError(
                f"images must be in [0, 1], got {images.min().item():g} to "
                f"{images.max().item():g}: divide by 255?"
            )
        planes = images.flatten(0, 1)[:, None].to(self.layers[0].weight.dtype)
        x = torch.cat([planes, torch.full_like(planes, noise_level)], dim=1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x).reshape(images.shape).to(images.dtype)


def load_dncnn(variant: DnCNNVariant = "dncnn17N") -> DnCNN:
    """Trained denoiser from ``data/denoiser``, in evaluation mode, float32, on the CPU.

    Parameters
    ----------
    variant
        ``"dncnn17N"`` (17 layers) or ``"dncnn6N"`` (6 layers, a quarter of the cost).
    """
    if variant not in get_args(DnCNNVariant):
        raise ValueError(
            f"variant must be one of {', '.join(get_args(DnCNNVariant))}, got {variant!r}"
        )
    path = denoiser_path() / f"{variant}.safetensors"
    model = DnCNN(depth=DEPTHS[variant])
    try:
        with open_tensors(path) as file:
            file.expect(model.layers.state_dict())
            model.layers.load_state_dict(file.read())
    except ValueError as error:
        raise ValueError(f"{path} holds no denoiser, reinstall fpkit: {error}") from error
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=4)
def _shared_dncnn(variant: DnCNNVariant, device: torch.device) -> DnCNN:
    return load_dncnn(variant).to(device)


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

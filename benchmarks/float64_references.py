"""What fpkit computes, written once more from the definitions, in numpy and scipy float64.

Nothing here comes from fpkit or torch but numbers: the places of crops, the distances at which
coherence is taken, trained weights. ``precision.py`` measures fpkit against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy import fft, ndimage, signal

from fpkit.assets import denoiser_path
from fpkit.coherence import CYCLIC, EDGE, FLOOR, STRIDE
from fpkit.embedder import WEIGHTS
from fpkit.extractor import COLOUR, POOLING
from fpkit.residual import DNCNN, NOISE_LEVEL

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
EPSILON = 1e-5  # of torch's batch normalisation


def residual(image: FloatArray, method: str) -> FloatArray:
    """Noise residual of an image (c, h, w)."""
    if method == "none":
        return image - image.mean((1, 2), keepdims=True)
    if method == "median":
        return image - ndimage.median_filter(image, size=(1, 3, 3), mode="mirror")
    if method == "highpass":
        binomial = np.outer([1, 2, 1], [1, 2, 1])[None] / 16
        return image - ndimage.convolve(image, binomial, mode="mirror")
    weights = load_file(denoiser_path() / f"{DNCNN}.safetensors")
    depth = len(weights) // 2
    return np.stack([_dncnn(plane, weights, depth) for plane in image])


def _dncnn(plane: FloatArray, weights: Mapping[str, NDArray], depth: int) -> FloatArray:
    """Convolutions on a torus, as nine shifted products."""
    x = np.stack([plane, np.full_like(plane, NOISE_LEVEL)])
    for layer in range(depth):
        kernel = weights[f"{layer}.weight"].astype(np.float64)
        total = weights[f"{layer}.bias"].astype(np.float64)[:, None, None] + 0 * plane
        for dy in range(3):
            for dx in range(3):
                moved = np.roll(x, (1 - dy, 1 - dx), (1, 2))
                total = total + np.tensordot(kernel[:, :, dy, dx], moved, 1)
        x = total if layer == depth - 1 else np.maximum(total, 0)
    return x[0]


def window(name: str, height: int, width: int) -> FloatArray:
    """(height, width) whose squares sum to 1."""
    kind = {"hann": "hann", "none": "boxcar"}[name]
    rows, columns = (signal.get_window(kind, n, fftbins=True) for n in (height, width))
    plane = np.outer(rows, columns)
    return plane / np.sqrt((plane**2).sum())


def power_spectrum(planes: FloatArray, *, taper: str) -> FloatArray:
    """Centred power of (..., h, w)."""
    fourier = fft.fft2(planes * window(taper, *planes.shape[-2:]))
    return fft.fftshift(fourier.real**2 + fourier.imag**2, axes=(-2, -1))


def radial_profile(power: FloatArray) -> FloatArray:
    """Means over rings 1 / s wide of a centred (s, s) power, out to 0.5 cycles/pixel."""
    size = len(power)
    steps = np.arange(size) - size // 2
    ring = np.rint(np.hypot(steps[:, None], steps[None])).astype(int)
    return ndimage.mean(power, ring, np.arange(size // 2 + 1))


def autocorrelation(plane: FloatArray) -> FloatArray:
    """Circular, by sums over pixels: lag zero in the middle, where it is 1."""
    lags = [np.arange(n) - n // 2 for n in plane.shape]
    found = [
        [(plane * np.roll(plane, (-dy, -dx), (0, 1))).sum() for dx in lags[1]] for dy in lags[0]
    ]
    return np.array(found) / (plane**2).sum()


def coherence(fourier: ComplexArray) -> FloatArray:
    """Of a whole Fourier plane (s, s): real and imaginary parts in turn, then magnitudes."""
    size, width = len(fourier), 2 * EDGE + 1
    power = ndimage.uniform_filter(np.abs(fourier) ** 2, width, mode="wrap")
    rows = STRIDE * (np.arange(size // STRIDE) - size // STRIDE // 2) % size
    columns = STRIDE * np.arange(size // STRIDE // 2 + 1)
    parts = []
    for shift in CYCLIC:
        places = [-round(distance * size) for distance in shift]
        product = fourier * np.roll(fourier, places, (0, 1)).conj()
        product = ndimage.uniform_filter(product, width, mode="wrap")
        there = np.roll(power, places, (0, 1))
        parts.append((product / np.sqrt(power * there + FLOOR**2))[np.ix_(rows, columns)])
    values = np.stack(parts)
    both = np.stack([values.real, values.imag], 1).reshape(-1, *values.shape[1:])
    return np.concatenate([both, np.abs(values)])


def _mean_where_there_is_any(planes: FloatArray, width: int, stride: int) -> FloatArray:
    """Means over width x width bins at every stride-th; what lies outside does not count."""
    size = (1, width, width)
    sums = ndimage.uniform_filter(planes, size, mode="constant")
    shares = ndimage.uniform_filter(np.ones_like(planes[:1]), size, mode="constant")
    return (sums / shares)[:, ::stride, ::stride]


def maps(crop: FloatArray) -> list[FloatArray]:
    """What an extractor without residual sees of a crop (3, s, s), level by level."""
    size = crop.shape[-1]
    fourier = fft.fft2(residual(crop, "none") * window("hann", size, size))
    differences = np.tensordot(np.array(COLOUR, np.float64), fourier, 1)
    power = fft.fftshift(np.abs(differences) ** 2, axes=1)[:, :, : size // 2 + 1]
    levels = [np.log(_mean_where_there_is_any(power, *pooling) + FLOOR) for pooling in POOLING]
    levels[-1] = np.concatenate([levels[-1], coherence(fourier.sum(0))])
    return levels


class Reference:
    """An extractor of fpkit's own kind, from its file."""

    def __init__(self, folder: Path) -> None:
        stored = load_file(folder / WEIGHTS)
        self.weights = {name: value.astype(np.float64) for name, value in stored.items()}

    def raw(self, crop: FloatArray) -> FloatArray:
        """Embedding of one crop (3, s, s), not normalised."""
        weights, seen = self.weights, maps(crop)
        x, level = weights["positions"], 0
        while f"stages.{level}.down.0.weight" in weights:
            if level < len(seen):
                mean, std = (weights[f"standardise.{level}.{key}"] for key in ("mean", "std"))
                standard = (seen[level] - mean) / std
                power = standard[: len(COLOUR)]
                power -= power.mean((1, 2), keepdims=True)
                x = np.concatenate([x, standard])
            x = self._unit(f"stages.{level}.down", x, stride=2)
            x = x + self._unit(f"stages.{level}.block", x, stride=1)
            level += 1
        return weights["head.weight"] @ x.ravel() + weights["head.bias"]

    def _unit(self, name: str, x: FloatArray, *, stride: int) -> FloatArray:
        """3 x 3 convolution with a border of zeros, batch normalisation, ReLU."""
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
        y = np.tensordot(
            self.weights[f"{name}.0.weight"], patches[:, ::stride, ::stride], ([1, 2, 3], [0, 3, 4])
        )
        mean, variance, gain, offset = (
            self.weights[f"{name}.1.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return np.maximum((y - mean) / np.sqrt(variance + EPSILON) * gain + offset, 0)

    def embed(self, crops: FloatArray) -> FloatArray:
        """Embedding of an image from its crops (m, 3, s, s)."""
        rows = np.stack([self.raw(crop) for crop in crops])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        centred = rows.mean(0) - self.weights["cohort"]
        return centred / np.linalg.norm(centred)

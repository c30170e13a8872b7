"""Why fingerprints look as they do: what normalisation does, at once and by way of training.

A normalisation layer scales and shifts every channel. That multiplies a spectrum by one number
and moves its value at frequency zero; its shape stays, and a trained batch norm can be merged
into the convolution beside it. Yet models trained with and without one have other fingerprints,
because the layer changes the way downhill, and so the kernels that training ends with.

References
----------
Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025, sec. III-B.
Folding: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fpkit.arch import ArchSpec, Norm
from fpkit.blocks import SyntheticModel
from fpkit.metrics import bootstrap_interval
from fpkit.observations import frequency_response
from fpkit.spectrum import average_spectrum, power_spectrum, to_db
from fpkit.synthesis import synthesize_stack

FloatArray = NDArray[np.float64]
NORMS: tuple[Norm, ...] = ("none", "batch", "instance")
GRID = 32  # frequencies per axis at which the responses of kernels are compared


@dataclass(frozen=True, kw_only=True)
class ShapeDifference:
    """Differences of spectral shapes in dB RMS, their mean and a 95% bootstrap interval of it."""

    values: FloatArray
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class NormEffect:
    """What normalisation does to spectra, directly and by way of training.

    Attributes
    ----------
    direct : float
        Largest change of the shape of a channel's spectrum through a normalisation layer of a
        trained model, in dB: rounding.
    kernels, fingerprints : dict of norm to array
        Shapes in dB: (seeds, layers, GRID, GRID) mean power response of the convolutions of the
        decoder, and (seeds, crop, crop) average spectrum of residuals of the outputs, centred.
    kernels_across, fingerprints_across : dict of "norm-norm" to ShapeDifference
        Between two norms at the same seed, where the same weights were the start: (seeds,).
    kernels_within, fingerprints_within : ShapeDifference
        Between two seeds of the same norm, the yardstick: (norms * seed pairs,).
    """

    direct: float
    kernels: dict[str, FloatArray]
    fingerprints: dict[str, FloatArray]
    kernels_across: dict[str, ShapeDifference]
    kernels_within: ShapeDifference
    fingerprints_across: dict[str, ShapeDifference]
    fingerprints_within: ShapeDifference


def shape_db(power: ArrayLike) -> FloatArray:
    """Decibels of power spectra (..., h, w) minus their mean over frequencies.

    Two spectra that differ by a factor have the same shape.

    Examples
    --------
    >>> bool(np.allclose(shape_db([[1.0, 10.0]]), shape_db([[3.0, 30.0]])))
    True
    """
    decibels = to_db(power, floor=1e-30)
    return decibels - decibels.mean(axis=(-2, -1), keepdims=True)


def fold_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    """Merge every batch norm into the convolution directly before or after it.

    Parameters
    ----------
    layers
        Any chain of modules, e.g. a block of ``SyntheticModel.decoder``; its batch norms are
        taken in evaluation mode.

    Returns
    -------
    nn.Sequential
        A chain without those batch norms that gives the same output: exactly if they stood
        behind the convolution; if they stood before it, up to the outermost pixels, where zeros
        are padded in before the shift and not after it. A batch norm with no convolution beside
        it (an activation or upsampling between) stays.

    Examples
    --------
    >>> chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> [type(layer).__name__ for layer in fold_batch_norm(chain)]
    ['Conv2d', 'ReLU']
    """
    chain = [copy.deepcopy(layer) for layer in layers if not isinstance(layer, nn.Identity)]
    folded: list[nn.Module] = []
    for layer in chain:
        before = folded[-1] if folded else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            _fold_behind(before, layer)
        elif isinstance(layer, nn.Conv2d) and isinstance(before, nn.BatchNorm2d):
            _fold_before(before, layer)
            folded[-1] = layer
        else:
            folded.append(layer)
    return nn.Sequential(*folded).train(layers.training)


def direct_effect(model: SyntheticModel, images: Tensor) -> float:
    """Largest change of shape, in dB, of a channel's spectrum through a norm of the decoder.

    Compares the spectrum of every channel of every image before and after each batch or instance
    norm at all frequencies but zero, in float64. Channels that are constant (a ReLU silenced
    them) have no spectrum and are left out, as are frequencies 150 dB below a channel's mean.

    Parameters
    ----------
    model
        With a normalisation.
    images
        (n, 3, h, w) in [0, 1].

    Raises
    ------
    ValueError
        If the model has no normalisation in its decoder.
    """
    twin = copy.deepcopy(model).double().eval()
    layers = [
        m for m in twin.decoder.modules() if isinstance(m, nn.BatchNorm2d | nn.InstanceNorm2d)
    ]
    if not layers:
        raise ValueError(f"the decoder of {model.spec.id} has no batch or instance norm")
    changes: list[float] = []

    def compare(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before, after = (
            power_spectrum(x, window="none", centred=False).flatten(2)[..., 1:]
            for x in (inputs[0], output)
        )
        floor = before.mean(-1, keepdim=True) * 1e-15
        alive = (before > floor) & (floor > 1e-30) & (after > 0)
        ratio = torch.where(alive, 10 * torch.log10(after / before), torch.nan)
        middle = ratio.nanmedian(-1, keepdim=True).values
        changes.append(float((ratio - middle).abs().nan_to_num(0).max()))

    hooks = [layer.register_forward_hook(compare) for layer in layers]
    with torch.no_grad():
        twin(images.double())
    for hook in hooks:
        hook.remove()
    return max(changes)


def kernel_shapes(model: SyntheticModel, *, size: int = GRID) -> FloatArray:
    """(layers, size, size) shape in dB of the mean power response of the decoder's convolutions."""
    weights = [m.weight for m in model.decoder.modules() if isinstance(m, nn.Conv2d)]
    responses = [
        (np.abs(frequency_response(weight.detach().double().numpy(), (size, size))) ** 2)
        for weight in weights
    ]
    return np.stack([shape_db(response.mean(axis=(0, 1))) for response in responses])


def normalisation_effect(
    spec: ArchSpec,
    images: Tensor,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    norms: Sequence[Norm] = NORMS,
    max_steps: int = 100,
    crop: int = 64,
) -> NormEffect:
    """Train one architecture with each norm, from the same weights, on the same images.

    Does normalisation act on the fingerprint by its rescaling, or through the kernels that
    training ends with?

    Parameters
    ----------
    spec
        Its ``norm`` is replaced. With ``order="pre"`` a seed gives the same kernels to start
        from whatever the norm; with ``"post"`` the last layer differs.
    images
        (n, 3, h, w) float32 in [0, 1] for :func:`fpkit.synthesis.synthesize_stack`; the
        fingerprints are of the outputs for the same images.
    seeds
        At least two.
    norms
        At least two of those of the architecture's axis N.
    max_steps
        Of every training; all get the same number.
    crop
        Side of the fingerprints in pixels.

    Raises
    ------
    ValueError
        If there are fewer than two seeds or norms.
    """
    if len(set(seeds)) < 2 or len(set(norms)) < 2:
        raise ValueError(f"two seeds and two norms at least, got {list(seeds)} and {list(norms)}")
    kernels: dict[str, list[FloatArray]] = {norm: [] for norm in norms}
    fingerprints: dict[str, list[FloatArray]] = {norm: [] for norm in norms}
    direct = 0.0
    for norm in norms:
        stack = synthesize_stack(
            replace(spec, norm=norm), images, seeds=seeds, eta=0.0, max_steps=max_steps,
            progress=False,
        )  # fmt: skip
        for trained in stack:
            if norm in ("batch", "instance"):
                direct = max(direct, direct_effect(trained.model, images[:2]))
            kernels[norm].append(kernel_shapes(trained.model))
            with torch.no_grad():
                outputs = trained.model(images)
            power = average_spectrum(outputs, crop=crop).mean(axis=0)
            fingerprints[norm].append(shape_db(power))
    kernel_stacks = {norm: np.stack(several) for norm, several in kernels.items()}
    fingerprint_stacks = {norm: np.stack(several) for norm, several in fingerprints.items()}
    return NormEffect(
        direct=direct,
        kernels=kernel_stacks,
        fingerprints=fingerprint_stacks,
        kernels_across=_across(kernel_stacks),
        kernels_within=_within(kernel_stacks),
        fingerprints_across=_across(fingerprint_stacks),
        fingerprints_within=_within(fingerprint_stacks),
    )


def _across(shapes: dict[str, FloatArray]) -> dict[str, ShapeDifference]:
    """Same seed, other norm."""
    return {
        f"{one}-{other}": _difference(
            [_rms(a, b) for a, b in zip(shapes[one], shapes[other], strict=True)]
        )
        for one, other in combinations(shapes, 2)
    }


def _within(shapes: dict[str, FloatArray]) -> ShapeDifference:
    """Same norm, other seed."""
    return _difference(
        [_rms(a, b) for several in shapes.values() for a, b in combinations(several, 2)]
    )


def _rms(a: FloatArray, b: FloatArray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def _difference(values: list[float]) -> ShapeDifference:
    low, high = bootstrap_interval(values, seed=0)
    return ShapeDifference(values=np.array(values), mean=float(np.mean(values)), low=low, high=high)


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The two (c,) vectors of a batch norm in evaluation mode."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


@torch.no_grad()
def _fold_behind(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    scale, shift = _scale_and_shift(norm)
    _ensure_bias(convolution)
    convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias.mul_(scale).add_(shift)


@torch.no_grad()
def _fold_before(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> None:
    scale, shift = _scale_and_shift(norm)
    _ensure_bias(convolution)
    convolution.bias.add_(convolution.weight.sum((2, 3)) @ shift)
    convolution.weight.mul_(scale[None, :, None, None])


def _ensure_bias(convolution: nn.Conv2d) -> None:
    if convolution.groups != 1:
        raise ValueError(f"grouped convolutions are not folded, got {convolution.groups} groups")
    if convolution.bias is None:
        convolution.bias = nn.Parameter(convolution.weight.new_zeros(len(convolution.weight)))

"""Random decoders: synthetic models without training, a new architecture at every draw.

A decoder near the identity rebuilds an image from a smaller one, so content stays natural, while
its random upsampling, kernels, activations and normalisation leave a fingerprint as a trained
decoder's would. Nothing is trained or stored: 10 ms replace seconds.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fpkit.images import quantise

UPSAMPLERS = ("nearest", "bilinear", "bicubic", "deconv2", "deconv4", "shuffle", "fir")
ACTIVATIONS = ("none", "relu", "leaky", "sigmoid", "tanh", "silu", "gelu")
_FIR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4  # StyleGAN's binomial kernel, gain 2 per axis


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One level: what upsamples, then kernels (out, in, k, k) with an activation after each."""

    upsampler: str
    weight: Tensor  # of the upsampler, empty where it has none
    kernels: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activation: str
    mix: float  # share of the activated signal
    gain: float
    shift: float
    instance_norm: float  # share of the normalised signal
    detail: float  # standard deviation of the fresh noise that becomes texture


class RandomDecoder:
    """One random synthetic model; the same seed gives the same model.

    Parameters
    ----------
    seed : int
        Decides the architecture and all weights.

    Notes
    -----
    The image is average-pooled by 2, 4 or 8 and lifted to 4 to 8 channels; every level then
    upsamples by 2, adds fresh detail, convolves with kernels that are the identity plus Gaussian
    noise of relative size 0.005 to 0.16, and mixes in an activation; some let the source's own
    detail skip to the last level. Back in RGB, each image gets
    the mean and the standard deviation of its source.

    References
    ----------
    The idea of random instead of trained decoders: "One for All: synthesis-free fingerprint
    learning", AAAI 2026. There decoders follow a trained encoder; here they stay near the identity.

    Examples
    --------
    >>> images = torch.rand(2, 3, 64, 64)
    >>> RandomDecoder(0)(images, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.factor = 2 ** (1 + _choice([0.45, 0.35, 0.2], g))
        channels = (4, 6, 8)[_integer(3, g)]
        self.noise = 10 ** _between(-2.3, -0.8, g)  # relative size of the weights' deviation
        # as in U-Nets and networks for restoration, part of the source's detail goes around
        self.skip = _between(0.2, 1.0, g) if _uniform(g) < 0.6 else 0.0
        self.padding = ("zeros", "reflect")[_integer(2, g)]
        self.lift = _near(_identity(channels, 3), self.noise, g)
        self.to_rgb = _near(_identity(3, channels), self.noise, g)
        shared = UPSAMPLERS[_integer(len(UPSAMPLERS), g)]
        mixed = _uniform(g) < 0.3  # most networks use one upsampler throughout
        activation = ACTIVATIONS[_integer(len(ACTIVATIONS), g)]
        normalises = _uniform(g) < 0.25
        self.levels = [
            self._level(
                UPSAMPLERS[_integer(len(UPSAMPLERS), g)] if mixed else shared,
                channels, activation, normalises, g,
            )
            for _ in range(int(math.log2(self.factor)))
        ]  # fmt: skip

    def _level(
        self, name: str, channels: int, activation: str, normalises: bool, g: torch.Generator
    ) -> _Level:
        size = {"deconv2": 2, "deconv4": 4, "shuffle": 1}.get(name, 0)
        weight = torch.empty(0)
        if name == "shuffle":
            same = _identity(channels, channels).repeat_interleave(4, 0)
            weight = _near(same, self.noise, g)
        elif size:
            # (in, out, k, k): a box (2 taps) or a tent (4 taps) per channel keeps the brightness
            tap = torch.ones(2) if size == 2 else torch.tensor([0.5, 1.5, 1.5, 0.5]) / 2
            kernel = tap[:, None] * tap[None]
            weight = _near(torch.eye(channels)[:, :, None, None] * kernel, self.noise, g)
        sizes = [(1, 3, 3, 5)[_integer(4, g)] for _ in range(1 + _integer(2, g))]
        kernels = tuple(_near(_identity(channels, channels, k), self.noise, g) for k in sizes)
        biases = tuple(torch.randn(channels, generator=g) * self.noise * 0.2 for _ in sizes)
        return _Level(
            upsampler=name,
            weight=weight,
            kernels=kernels,
            biases=biases,
            activation=activation,
            mix=_between(0.05, 0.8, g),
            gain=10 ** _between(-0.3, 0.5, g),
            shift=_between(-0.3, 0.3, g),
            instance_norm=_between(0.1, 0.9, g) if normalises else 0.0,
            detail=10 ** _between(-3.0, -1.3, g) if _uniform(g) < 0.6 else 0.0,
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """Pass images through the decoder.

        Parameters
        ----------
        images : Tensor, (n, 3, h, w) float32 in [0, 1]
            h and w multiples of 8.
        generator : torch.Generator
            Draws the fresh detail, which differs from image to image.

        Returns
        -------
        Tensor, (n, 3, h, w)
            In [0, 1], rounded to 8 bit. Borders carry the mark of the padding: cut 16 pixels.
        """
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % 8 or images.shape[3] % 8:
            raise ValueError(
                f"images must be (n, 3, h, w) with sides that are multiples of 8, "
                f"got {tuple(images.shape)}"
            )
        low = functional.avg_pool2d(images, self.factor) - 0.5
        z = _convolve(low, self.lift, self.padding)
        for depth, level in enumerate(self.levels):
            z = _upsample(level, z)
            if self.skip and depth == len(self.levels) - 1:
                blurred = functional.interpolate(low, images.shape[2:], mode="bilinear") + 0.5
                z = z + self.skip * _convolve(images - blurred, self.lift, self.padding)
            z = self._apply(level, z, generator)
        output = _convolve(z, self.to_rgb, self.padding)
        return quantise(_match(output, images))

    def _apply(self, level: _Level, z: Tensor, generator: torch.Generator) -> Tensor:
        if level.detail:
            z = z + level.detail * torch.randn(z.shape, generator=generator, device=z.device)
        for kernel, bias in zip(level.kernels, level.biases, strict=True):
            z = _convolve(z, kernel, self.padding) + bias[:, None, None]
            if level.activation != "none":
                y = _activate(level.activation, level.gain * z + level.shift) / level.gain
                z = (1 - level.mix) * z + level.mix * y
        if level.instance_norm:
            normal = functional.instance_norm(z) * 0.25
            z = (1 - level.instance_norm) * z + level.instance_norm * normal
        return z


def _upsample(level: _Level, z: Tensor) -> Tensor:
    name, weight = level.upsampler, level.weight
    if name == "nearest":
        return functional.interpolate(z, scale_factor=2, mode="nearest")
    if name in ("bilinear", "bicubic"):
        return functional.interpolate(z, scale_factor=2, mode=name, align_corners=False)
    if name == "shuffle":
        return functional.pixel_shuffle(functional.conv2d(z, weight), 2)
    if name == "fir":
        channels = z.shape[1]
        kernel = (_FIR[:, None] * _FIR[None]).expand(channels, 1, 4, 4)
        return functional.conv_transpose2d(z, kernel, stride=2, padding=1, groups=channels)
    padding = (weight.shape[2] - 2) // 2
    return functional.conv_transpose2d(z, weight, stride=2, padding=padding)


def _activate(name: str, z: Tensor) -> Tensor:
    if name == "relu":
        return functional.relu(z)
    if name == "leaky":
        return functional.leaky_relu(z, 0.2)
    if name == "sigmoid":
        return 4 * (torch.sigmoid(z) - 0.5)  # unit slope at 0
    if name == "tanh":
        return torch.tanh(z)
    if name == "silu":
        return functional.silu(z)
    return functional.gelu(z)


def _convolve(z: Tensor, kernel: Tensor, padding: str) -> Tensor:
    margin = kernel.shape[2] // 2
    if margin and padding == "reflect":
        return functional.conv2d(functional.pad(z, (margin,) * 4, mode="reflect"), kernel)
    return functional.conv2d(z, kernel, padding=margin)


def _match(output: Tensor, images: Tensor) -> Tensor:
    """Give every channel of every image the mean and standard deviation of its source."""
    axes = (2, 3)
    unit = (output - output.mean(axes, keepdim=True)) / (output.std(axes, keepdim=True) + 1e-4)
    matched = unit * images.std(axes, keepdim=True) + images.mean(axes, keepdim=True)
    return matched.clamp(0, 1)


def _identity(out: int, channels: int, size: int = 1) -> Tensor:
    """(out, channels, size, size) kernel that copies channels round-robin, brightness kept."""
    kernel = torch.zeros(out, channels, size, size)
    for i in range(max(out, channels)):
        kernel[i % out, i % channels, size // 2, size // 2] = 1
    return kernel / kernel.sum((1, 2, 3), keepdim=True)


def _near(kernel: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """`kernel` plus Gaussian noise whose norm is about `noise` times the kernel's per output."""
    fan = kernel[0].numel() ** 0.5
    return kernel + noise * torch.randn(kernel.shape, generator=generator) * (2 / fan)


def _uniform(generator: torch.Generator) -> float:
    return torch.rand(1, generator=generator).item()


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * _uniform(generator)


def _integer(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (1,), generator=generator).item())


def _choice(weights: list[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator).item())

"""Random decoders: synthetic models without training, a new architecture at every draw.

A decoder near the identity rebuilds an image from a smaller one, so content stays natural, while
its random upsampling, kernels, activations and normalisation leave a fingerprint as a trained
decoder's would. Nothing is trained or stored: 10 ms replace seconds.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from fpkit.encoder import CHANNELS, SharedEncoder
from fpkit.images import quantise
from fpkit.kernels import (
    INTERPOLATIONS,
    UPSAMPLERS,
    identity_kernel,
    mixed_kernel,
    near,
    upsampling_kernel,
    widened_kernel,
)

ACTIVATIONS = ("none", "relu", "leaky", "sigmoid", "tanh", "silu", "gelu")
WIDE_ACTIVATIONS = (*ACTIVATIONS, "elu")
NORMS = ("none", "none", "instance", "group", "batch")  # of the wide space, equally likely
Space = Literal["plain", "wide"]
_FIR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4  # StyleGAN's binomial kernel, gain 2 per axis


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One level: upsampling, fresh detail, then ``steps`` in their order."""

    upsampler: str
    scale: int
    weight: Tensor  # of the upsampler, empty where it has none
    steps: tuple[Literal["conv", "act", "norm"], ...]
    kernels: tuple[Tensor, ...]  # (out, in, k, k), one for each "conv"
    biases: tuple[Tensor, ...]
    activation: str
    mix: float  # share of the activated signal
    gain: float
    shift: float
    norm: str
    norm_share: float  # share of the normalised signal
    affine: Tensor  # (2, channels, 1, 1): gain and shift of "batch", whose statistics are fixed
    detail: float  # standard deviation of the fresh noise that becomes texture


class RandomDecoder:
    """One random synthetic model; the same seed and options give the same model.

    Parameters
    ----------
    seed : int
        Decides the architecture and all weights.
    space : {"plain", "wide"}
        ``"wide"`` adds patch un-embedding, ELU, mixtures of four kernels, group and batch
        normalisation, and shuffles the order of convolution, activation and normalisation.
    encoder : SharedEncoder, optional
        Gives the latent that is decoded, and the kernels around which the upsamplers are drawn;
        without it, the average-pooled image is decoded and they are drawn around the identity.

    Notes
    -----
    The image is average-pooled by 2, 4 or 8 and lifted to 4 to 8 channels; every level then
    upsamples by 2, adds fresh detail, convolves with kernels that are the identity plus Gaussian
    noise of relative size 0.005 to 0.16, and mixes in an activation; some let the source's own
    detail skip to the last level, which none does with an encoder. Back in RGB, each image gets
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

    def __init__(
        self, seed: int, *, space: Space = "plain", encoder: SharedEncoder | None = None
    ) -> None:
        if space not in get_args(Space):
            raise ValueError(f"space must be one of {get_args(Space)}, got {space!r}")
        g = torch.Generator().manual_seed(seed)
        wide = space == "wide"
        self.seed = seed
        self.encoder = encoder
        self.factor = 2 ** (1 + _choice([0.45, 0.35, 0.2], g))
        channels = (4, 6, 8)[_integer(3, g)]
        self.noise = 10 ** _between(-2.3, -0.8, g)  # relative size of the weights' deviation
        # as in U-Nets and networks for restoration, part of the source's detail goes around
        skip = _between(0.2, 1.0, g) if _uniform(g) < 0.6 else 0.0
        self.skip = skip if encoder is None else 0.0
        self.padding = ("zeros", "reflect")[_integer(2, g)]
        self.lift = near(identity_kernel(channels, 3), self.noise, g)
        self.to_rgb = near(identity_kernel(3, channels), self.noise, g)
        upsamplers = (*UPSAMPLERS, "patch") if wide else UPSAMPLERS
        shared = upsamplers[_integer(len(upsamplers), g)]
        mixed = _uniform(g) < 0.3  # most networks use one upsampler throughout
        activations = WIDE_ACTIVATIONS if wide else ACTIVATIONS
        activation = activations[_integer(len(activations), g)]
        if wide:
            norm = NORMS[_integer(len(NORMS), g)]
        else:
            norm = "instance" if _uniform(g) < 0.25 else "none"
        self.levels: list[_Level] = []
        factor = self.factor
        while factor > 1:
            name = UPSAMPLERS[_integer(len(UPSAMPLERS), g)] if mixed else shared
            scale = factor if name == "patch" else 2
            last = factor == scale
            weight = self._weight(name, factor, scale, channels, last, g)
            width = channels if last or encoder is None else CHANNELS[factor // 2]
            self.levels.append(self._level(name, scale, weight, width, activation, norm, wide, g))
            factor //= scale

    def _weight(
        self, name: str, factor: int, scale: int, channels: int, last: bool, g: torch.Generator
    ) -> Tensor:
        """The upsampler's kernel: noise around what the encoder knows, or around plain copies."""
        if self.encoder is not None:
            kernel = self.encoder.kernel(name, factor).cpu()
            if last:  # it gives RGB
                kernel = widened_kernel(name, kernel, identity_kernel(channels, 3)[:, :, 0, 0])
        elif name in INTERPOLATIONS:
            return torch.empty(0)
        else:
            kernel = upsampling_kernel(name, channels, channels, scale)
        return near(kernel, self.noise, g)

    def _level(
        self, name: str, scale: int, weight: Tensor, channels: int, activation: str, norm: str,
        wide: bool, g: torch.Generator,
    ) -> _Level:  # fmt: skip
        affine = torch.tensor([1.0, 0.0])[:, None, None, None].expand(2, channels, 1, 1)
        if wide:
            blocks = 1 + _integer(2, g)
            kernels = tuple(mixed_kernel(channels, self.noise, g) for _ in range(blocks))
            biases = tuple(torch.randn(channels, generator=g) * self.noise * 0.2 for _ in kernels)
            orders = [torch.randperm(3, generator=g).tolist() for _ in kernels]
            steps = tuple(("conv", "act", "norm")[i] for order in orders for i in order)
            affine = affine + self.noise * torch.randn(2, channels, 1, 1, generator=g)
        else:
            sizes = [(1, 3, 3, 5)[_integer(4, g)] for _ in range(1 + _integer(2, g))]
            kernels = tuple(
                near(identity_kernel(channels, channels, k), self.noise, g) for k in sizes
            )
            biases = tuple(torch.randn(channels, generator=g) * self.noise * 0.2 for _ in sizes)
            steps = ("conv", "act") * len(sizes) + ("norm",)
        return _Level(
            upsampler=name,
            scale=scale,
            weight=weight,
            steps=steps,
            kernels=kernels,
            biases=biases,
            activation=activation,
            mix=_between(0.05, 0.8, g),
            gain=10 ** _between(-0.3, 0.5, g),
            shift=_between(-0.3, 0.3, g),
            norm=norm,
            norm_share=0.0 if norm == "none" else _between(0.1, 0.9, g),
            affine=affine,
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
            Draws the fresh detail, which differs from image to image; on the images' device.

        Returns
        -------
        Tensor, (n, 3, h, w)
            In [0, 1], rounded to 8 bit. Borders carry the mark of the padding: cut 16 pixels.
        """
        return quantise(self.reconstruct(images, generator=generator))

    def reconstruct(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """As a call, before the rounding to 8 bit; gradients reach the encoder."""
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % 8 or images.shape[3] % 8:
            raise ValueError(
                f"images must be (n, 3, h, w) with sides that are multiples of 8, "
                f"got {tuple(images.shape)}"
            )
        low = functional.avg_pool2d(images, self.factor) - 0.5
        if self.encoder is None:
            z = _convolve(low, self.lift, self.padding)
        else:
            z = self.encoder(images, self.factor)
        for level in self.levels:
            z = _upsample(level, z, self.padding)
            if self.skip and level is self.levels[-1]:
                blurred = functional.interpolate(low, images.shape[2:], mode="bilinear") + 0.5
                z = z + self.skip * _convolve(images - blurred, self.lift, self.padding)
            z = self._apply(level, z, generator)
        output = _convolve(z, self.to_rgb, self.padding)
        return _match(output, images)

    def _apply(self, level: _Level, z: Tensor, generator: torch.Generator) -> Tensor:
        if level.detail:
            noise = torch.randn(z.shape, generator=generator, device=z.device)
            z = noise.mul_(level.detail).add_(z)
        convolutions = zip(level.kernels, level.biases, strict=True)
        for step in level.steps:
            if step == "conv":
                kernel, bias = next(convolutions)
                z = _convolve(z, kernel, self.padding).add_(bias.to(z.device)[:, None, None])
            elif step == "act" and level.activation != "none":
                y = _activate(level.activation, (level.gain * z).add_(level.shift))
                z = z.mul_(1 - level.mix).add_(y, alpha=level.mix / level.gain)
            elif step == "norm" and level.norm != "none":
                y = _normalise(level, z).mul_(level.norm_share)
                z = y.add_(z, alpha=1 - level.norm_share)
        return z


def _upsample(level: _Level, z: Tensor, padding: str) -> Tensor:
    name, weight = level.upsampler, level.weight.to(z.device)
    if name == "shuffle":
        return functional.pixel_shuffle(functional.conv2d(z, weight), 2)
    if name not in INTERPOLATIONS:
        margin = (weight.shape[2] - level.scale) // 2
        return functional.conv_transpose2d(z, weight, stride=level.scale, padding=margin)
    if name == "fir":
        channels = z.shape[1]
        kernel = (_FIR[:, None] * _FIR[None]).expand(channels, 1, 4, 4).to(z.device)
        z = functional.conv_transpose2d(z, kernel, stride=2, padding=1, groups=channels)
    elif name == "nearest":
        z = functional.interpolate(z, scale_factor=2, mode="nearest")
    else:
        z = functional.interpolate(z, scale_factor=2, mode=name, align_corners=False)
    return _convolve(z, weight, padding) if weight.numel() else z


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
    if name == "elu":
        return functional.elu(z)
    return functional.gelu(z)


def _normalise(level: _Level, z: Tensor) -> Tensor:
    """Normalised to the standard deviation of an image, about 0.25."""
    if level.norm == "batch":
        gain, shift = level.affine.to(z.device)
        return gain * z + shift
    if level.norm == "group":
        return functional.group_norm(z, 2).mul_(0.25)
    return functional.instance_norm(z).mul_(0.25)


def _convolve(z: Tensor, kernel: Tensor, padding: str) -> Tensor:
    kernel = kernel.to(z.device)
    margin = kernel.shape[2] // 2
    if not margin:
        return functional.conv2d(z.contiguous(), kernel)
    # with so few channels, channels_last is up to four times as fast on a CPU
    z = z.contiguous(memory_format=torch.channels_last)
    if padding == "reflect":
        return functional.conv2d(functional.pad(z, (margin,) * 4, mode="reflect"), kernel)
    return functional.conv2d(z, kernel, padding=margin)


def _match(output: Tensor, images: Tensor) -> Tensor:
    """Give every channel of every image the mean and standard deviation of its source."""
    axes = (2, 3)
    unit = (output - output.mean(axes, keepdim=True)) / (_std(output) + 1e-4)
    matched = unit * _std(images) + images.mean(axes, keepdim=True)
    return matched.clamp(0, 1)


def _std(images: Tensor) -> Tensor:
    """(n, c, 1, 1) standard deviations; float64 sums, ten times as fast as torch.std on a CPU."""
    n = images.shape[2] * images.shape[3]
    total = images.sum((2, 3), keepdim=True, dtype=torch.float64)
    square = torch.linalg.vector_norm(images, dim=(2, 3), keepdim=True, dtype=torch.float64) ** 2
    return ((square - total**2 / n) / (n - 1)).clamp_min(0).sqrt().to(images.dtype)


def _uniform(generator: torch.Generator) -> float:
    return torch.rand(1, generator=generator).item()


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * _uniform(generator)


def _integer(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (1,), generator=generator).item())


def _choice(weights: list[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator).item())

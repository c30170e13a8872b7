"""Kernels that only copy, and random ones around them: what random decoders are made of."""

import torch
from torch import Tensor
from torch.nn import functional

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "fir")
TRANSPOSED = ("deconv2", "deconv4", "patch")
UPSAMPLERS = ("nearest", "bilinear", "bicubic", "deconv2", "deconv4", "shuffle", "fir")


def identity_kernel(out: int, channels: int, size: int = 1) -> Tensor:
    """(out, channels, size, size) kernel that copies channels round-robin, brightness kept."""
    kernel = torch.zeros(out, channels, size, size)
    for i in range(max(out, channels)):
        kernel[i % out, i % channels, size // 2, size // 2] = 1
    return kernel / kernel.sum((1, 2, 3), keepdim=True)


def upsampling_kernel(name: str, out: int, channels: int, scale: int = 2) -> Tensor:
    """The kernel with which an upsampler only enlarges: every channel a box or a tent.

    Returns
    -------
    Tensor
        (4 * out, channels, 1, 1) for ``"shuffle"``; (channels, out, k, k) of a transposed
        convolution for ``"deconv2"``, ``"deconv4"`` and ``"patch"`` (k = `scale`, its stride);
        (out, channels, 3, 3) of a convolution after the interpolation for the others.
    """
    same = identity_kernel(out, channels)
    if name == "shuffle":
        return same.repeat_interleave(4, 0)
    if name in INTERPOLATIONS:
        return functional.pad(same, (1, 1, 1, 1))
    # a box (2 taps) or a tent (4 taps) per channel keeps the brightness
    tap = torch.tensor([0.5, 1.5, 1.5, 0.5]) / 2 if name == "deconv4" else torch.ones(scale)
    return same.transpose(0, 1) * (tap[:, None] * tap[None])


def widened_kernel(name: str, kernel: Tensor, lift: Tensor) -> Tensor:
    """Let a kernel that gives RGB give `lift` (channels, 3) of it instead."""
    if name == "shuffle":
        return torch.einsum("co,opikl->cpikl", lift, kernel.unflatten(0, (3, 4))).flatten(0, 1)
    if name in INTERPOLATIONS:
        return torch.einsum("co,oikl->cikl", lift, kernel)
    return torch.einsum("co,iokl->ickl", lift, kernel)


def near(kernel: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """`kernel` plus Gaussian noise whose norm is about `noise` times the kernel's per output."""
    fan = kernel[0].numel() ** 0.5
    return kernel + noise * torch.randn(kernel.shape, generator=generator) * (2 / fan)


def mixed_kernel(channels: int, noise: float, generator: torch.Generator) -> Tensor:
    """A kernel of 1, 3 or 5 taps, or a random mixture of four, added: convolution is linear."""
    count = (1, 4)[int(torch.randint(2, (), generator=generator))]
    sizes = [(1, 3, 3, 5)[i] for i in torch.randint(4, (count,), generator=generator).tolist()]
    weights = -torch.rand(count, generator=generator).clamp_min(1e-6).log()
    largest = max(sizes)
    total = torch.zeros(channels, channels, largest, largest)
    for size, weight in zip(sizes, weights / weights.sum(), strict=True):
        kernel = near(identity_kernel(channels, channels, size), noise, generator)
        total += weight * functional.pad(kernel, ((largest - size) // 2,) * 4)
    return total

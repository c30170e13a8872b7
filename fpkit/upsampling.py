"""Upsampling, axis U: what puts replicas of the low-resolution spectrum into an image, and the
filters that weigh them."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FilterUpsample(nn.Module):
    """x2 upsampling by zero insertion and a fixed symmetric filter, the same in both directions.

    `taps` are scaled so that the brightness stays; the border is repeated outwards.
    """

    def __init__(self, taps: Tensor) -> None:
        super().__init__()
        # every output pixel sees every other tap: their sum must be 2
        self.register_buffer("taps", 2 * taps / taps.sum(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        channels, size = input.shape[1], len(self.taps)
        margin = size // 4
        cut = size // 2 - 1 + 2 * margin
        taps = self.taps.to(input.dtype)
        z = functional.pad(input, (margin,) * 4, mode="replicate")
        down = taps[:, None].expand(channels, 1, -1, 1)
        z = functional.conv_transpose2d(z, down, stride=(2, 1), padding=(cut, 0), groups=channels)
        across = taps[None].expand(channels, 1, 1, -1)
        return functional.conv_transpose2d(
            z, across, stride=(1, 2), padding=(0, cut), groups=channels
        )


def bicubic_taps() -> Tensor:
    """The 8 taps of x2 bicubic interpolation (Keys 1981, a = -0.75 as in PyTorch)."""
    a = -0.75
    near = torch.tensor([0.25, 0.75])  # distances in input pixels
    far = torch.tensor([1.25, 1.75])
    half = torch.cat(
        [(a + 2) * near**3 - (a + 3) * near**2 + 1, a * (far**3 - 5 * far**2 + 8 * far - 4)]
    )
    return torch.cat([half.flip(0), half])


def fir_taps() -> Tensor:
    """The 12 taps of StyleGAN3's low-pass filter: a Kaiser-windowed sinc that passes up to the
    Nyquist frequency of the input. (Those of StyleGAN2, 1 3 3 1, are bilinear interpolation.)

    References
    ----------
    Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021, appendix C.
    """
    time = torch.arange(12) - 5.5
    # beta 3.47: 41 dB with a transition of (sqrt 2 - 1) times the input's sampling rate
    return torch.sinc(time / 2) * torch.kaiser_window(12, periodic=False, beta=3.47)


def upsampler(name: str, channels: int, *, copies: int = 1) -> nn.Module:
    """x2 upsampling of (n, copies * channels, h, w) by its option name on axis U.

    ``unpatch``, which is no x2 upsampling, is made by :func:`unpatcher`.
    """
    wide = channels * copies
    if name == "nearest":
        return nn.Upsample(scale_factor=2, mode="nearest")
    if name == "bilinear":
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    if name == "bicubic":
        return FilterUpsample(bicubic_taps())  # 5 times as fast as nn.Upsample on a CPU
    if name == "deconv":
        # 3 taps at stride 2 overlap unevenly: the textbook source of checkerboards
        return nn.ConvTranspose2d(
            wide, wide, 3, stride=2, padding=1, output_padding=1, groups=copies
        )
    if name == "shuffle":
        convolution = nn.Conv2d(wide, 4 * wide, 3, padding=1, groups=copies)
        return nn.Sequential(convolution, nn.PixelShuffle(2))
    if name == "fir":
        return FilterUpsample(fir_taps())
    raise ValueError(
        f"upsample must be nearest, bilinear, bicubic, deconv, shuffle or fir, got {name!r}"
    )


def unpatcher(channels_in: int, channels_out: int, factor: int, *, copies: int = 1) -> nn.Module:
    """Patch un-embedding of transformers: one linear map from every position of (n, c, h, w) to a
    patch of `factor` x `factor` pixels, (n, d, factor * h, factor * w)."""
    return nn.ConvTranspose2d(
        channels_in * copies, channels_out * copies, factor, stride=factor, groups=copies
    )

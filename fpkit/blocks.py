"""The building blocks of a synthetic model, one class per word of the lesson.

A generation block is ``y = N(A(F(U z)))``: upsampling U, convolution F, activation A,
normalisation N. Two of them after two mirrored down blocks make a synthetic model.
"""

import torch
from torch import Tensor, nn

from fpkit.arch import ArchSpec

BASE_WIDTH = 32  # channels at the first level, doubled at the second: Yang et al. 2025


class DownBlock(nn.Sequential):
    """2x average pooling, then convolution, batch norm, ReLU, convolution: (n, c, h, w) to
    (n, d, h/2, w/2). The same in every synthetic model: only the decoder varies."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.AvgPool2d(2),
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
        )


def upsampler(name: str, channels: int) -> nn.Module:
    """x2 upsampling of (n, channels, h, w) by its option name on axis U."""
    if name == "nearest":
        return nn.Upsample(scale_factor=2, mode="nearest")
    if name == "bilinear":
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    if name == "deconv":
        # 3 taps at stride 2 overlap unevenly: the textbook source of checkerboards
        return nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
    raise ValueError(f"upsample must be nearest, bilinear or deconv, got {name!r}")


def activation(name: str) -> nn.Module:
    """Activation by its option name on axis A."""
    options = {"none": nn.Identity, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
    if name not in options:
        raise ValueError(f"activation must be one of {tuple(options)}, got {name!r}")
    return options[name]()


def normalisation(name: str, channels: int) -> nn.Module:
    """Normalisation of `channels` channels by its option name on axis N."""
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    raise ValueError(f"norm must be none, batch or instance, got {name!r}")


class UpBlock(nn.Sequential):
    """Upsampling, then `spec.layers` convolutions with activation and normalisation around each.

    (n, c, h, w) to (n, d, 2h, 2w). ``post``: convolution, activation, normalisation; ``pre``:
    activation, normalisation, convolution.
    """

    def __init__(self, spec: ArchSpec, channels_in: int, channels_out: int) -> None:
        steps: list[nn.Module] = [upsampler(spec.upsample, channels_in)]
        channels = channels_in
        for layer in range(spec.layers):
            target = channels_out if layer == spec.layers - 1 else channels_in
            convolution = nn.Conv2d(channels, target, 3, padding=1)
            around = target if spec.order == "post" else channels
            extras = [activation(spec.activation), normalisation(spec.norm, around)]
            steps += [convolution, *extras] if spec.order == "post" else [*extras, convolution]
            channels = target
        super().__init__(*steps)


class SyntheticModel(nn.Module):
    """A shallow autoencoder whose output carries the fingerprint of its decoder.

    Parameters
    ----------
    spec : ArchSpec
        The architecture of the decoder; the encoder follows from ``spec.blocks``.

    Notes
    -----
    Images are (n, 3, h, w) float32 in [0, 1], h and w multiples of ``2 ** spec.blocks``. While
    training the output is left unclipped, so that gradients reach every pixel; in eval mode it is
    clipped to [0, 1], as any image file would.
    """

    def __init__(self, spec: ArchSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = [BASE_WIDTH * 2**level for level in range(spec.blocks)]
        self.encoder = nn.Sequential(
            *(DownBlock(c, d) for c, d in zip([3, *widths[:-1]], widths, strict=True))
        )
        widths = widths[::-1]
        self.decoder = nn.Sequential(
            *(UpBlock(spec, c, d) for c, d in zip(widths, [*widths[1:], 3], strict=True))
        )
        self._initialise()

    def _initialise(self) -> None:
        """Start where images are: unit gain through every layer, output at mid-grey."""
        # a ReLU halves the power, a sigmoid has a slope of 1/4 at 0 and keeps its middle part
        gain = {"relu": 2**0.5, "sigmoid": 3.0}.get(self.spec.activation, 1.0)
        for module in self.decoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=gain / module.weight[0].numel() ** 0.5)
                nn.init.zeros_(module.bias)
        last = [m for m in self.decoder.modules() if hasattr(m, "bias") and m.bias is not None][-1]
        if isinstance(last, nn.Conv2d):
            # small, so that a sigmoid or ReLU behind it does not start saturated
            nn.init.normal_(last.weight, std=0.3 / last.weight[0].numel() ** 0.5)
            nn.init.constant_(last.bias, 0.0 if self.spec.activation == "sigmoid" else 0.5)
        else:
            # a normalised output has mean 0 and variance 1, images about 0.5 and 0.25 squared
            nn.init.constant_(last.weight, 0.25)
            nn.init.constant_(last.bias, 0.5)

    def forward(self, images: Tensor) -> Tensor:
        factor = 2**self.spec.blocks
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (n, 3, h, w), got {tuple(images.shape)}")
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(
                f"{self.spec.id} needs heights and widths that are multiples of {factor}, "
                f"got {images.shape[2]}x{images.shape[3]}: crop the images"
            )
        output: Tensor = self.decoder(self.encoder(images))
        return output if self.training else torch.clamp(output, 0, 1)

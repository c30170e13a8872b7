"""The pipeline of the paper as its released code runs it, rebuilt with random weights.

For speed alone: Yang et al. 2025, arXiv 2307.15977. A DnCNN of 17 layers that sees all three
channels at once (batch normalisations folded into its convolutions) gives the noise residual,
whose magnitude spectrum passes through the ResNet-50 of a U-Net twice, once for the feature and
once on the way to the U-Net's decoder, whose output nobody uses. Nine crops of 128x128 pixels per
image, features averaged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpkit.images import grid_crops
from fpkit.resnet import ResNet50

CROP, GRID = 128, 3
DECODER = (256, 128, 64, 32, 16)  # channels of its blocks, as usual above a ResNet


class PaperPipeline(nn.Module):
    """Crops (n, 3, 128, 128) -> features (n, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
        for _ in range(15):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
        self.denoiser = nn.Sequential(*layers, nn.Conv2d(64, 3, 3, padding=1))
        self.encoder = ResNet50()
        skips = (1024, 512, 256, 64, 0)
        inputs = (2048, *DECODER[:-1])
        self.decoder = nn.ModuleList(
            nn.Sequential(*_block(below + skip, out), *_block(out, out))
            for below, skip, out in zip(inputs, skips, DECODER, strict=True)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, crops: Tensor) -> Tensor:
        crops = crops.contiguous(memory_format=torch.channels_last)
        spectrum = torch.fft.fft2(self.denoiser(crops).float()).abs()
        spectrum = torch.fft.fftshift(spectrum, dim=(-2, -1))
        spectrum = spectrum.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.encoder(spectrum)
        *skips, x = self.encoder.maps(spectrum)
        for block in self.decoder:
            x = functional.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, skips.pop()], 1) if skips else x)
        return features

    @torch.no_grad()
    def embed(self, images: Sequence[Tensor]) -> Tensor:
        """Images (3, h, w) -> features (n, 2048) of unit norm, on the CPU."""
        device = next(self.parameters()).device
        crops = torch.stack([grid_crops(image, size=CROP, grid=GRID) for image in images])
        features = self(crops.flatten(0, 1).to(device)).unflatten(0, crops.shape[:2])
        return functional.normalize(features.mean(1)).cpu()


def _block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()

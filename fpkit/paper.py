"""The extractor of the paper, to be trained beside fpkit's own and compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from fpkit.artefacts import shown
from fpkit.embedder import MAX_CROP, Embedder
from fpkit.residual import DnCNNVariant, dncnn_residual
from fpkit.resnet import ResNet50

MAX_WIDTH = 1024
_AT_ONCE = {False: 8, True: 128}  # crops per pass of the denoiser: 64 maps for each channel


@dataclass(frozen=True, kw_only=True)
class PaperConfig:
    """Shape of the paper's extractor.

    ``crop`` is the side of a crop in pixels; ``denoiser`` names the DnCNN; ``width`` is the number
    of channels in the network's first layer, 64 in ResNet-50, and embeddings have 32 times as
    many; ``centred`` embeddings have the mean of synthetic models taken away, as fpkit's own
    have, which the paper does not do.
    """

    crop: int = 128
    denoiser: DnCNNVariant = "dncnn17N"
    width: int = 64
    centred: bool = False

    def __post_init__(self) -> None:
        if self.denoiser not in get_args(DnCNNVariant):
            raise ValueError(
                f"denoiser must be one of {get_args(DnCNNVariant)}, got {shown(self.denoiser)}"
            )
        if type(self.crop) is not int or not 32 <= self.crop <= MAX_CROP:
            raise ValueError(f"crop must be whole, 32 to {MAX_CROP}, got {shown(self.crop)}")
        if type(self.width) is not int or not 1 <= self.width <= MAX_WIDTH:
            raise ValueError(f"width must be whole, 1 to {MAX_WIDTH}, got {shown(self.width)}")


class PaperExtractor(Embedder):
    """DnCNN residual -> magnitude of the 2-D DFT per channel -> ResNet-50 -> pooled feature.

    Parameters
    ----------
    config : PaperConfig, optional

    Notes
    -----
    No window, no logarithm, no standardisation: the batch normalisation behind the first layer
    finds the scale. Departures from Yang et al. 2025: the network starts at random and not from
    ImageNet; the denoiser is a freely licensed DnCNN of the same depth, which looks at one channel
    at a time; features of crops are normalised before they are averaged.
    """

    kind = "paper"
    config: PaperConfig

    def __init__(self, config: PaperConfig | None = None) -> None:
        config = config or PaperConfig()
        super().__init__(dim=32 * config.width)
        self.config = config
        self.centred = config.centred
        network = ResNet50(width=config.width)
        self.network = network.to(memory_format=torch.channels_last)

    def maps(self, crops: Tensor) -> list[Tensor]:
        """What the network sees of crops (n, 3, crop, crop) in [0, 1].

        Returns
        -------
        list of one Tensor, (n, 3, crop, crop) float32
            Magnitudes, frequency zero in the middle.
        """
        self.check_crops(crops)
        found = []
        for part in crops.split(_AT_ONCE[crops.is_cuda]):
            noise = dncnn_residual(part, variant=self.config.denoiser)
            found.append(torch.fft.fftshift(torch.fft.fft2(noise).abs(), dim=(-2, -1)))
        return [torch.cat(found)]

    def encode(self, maps: list[Tensor]) -> Tensor:
        """Maps, as `maps` returns them -> raw embeddings (n, dim)."""
        result: Tensor = self.network(maps[0].contiguous(memory_format=torch.channels_last))
        return result

    def embed(
        self, images: Tensor | Sequence[Tensor], *, grid: int = 3, batch: int = 128
    ) -> Tensor:
        """As `Embedder.embed`, from the paper's nine crops."""
        return super().embed(images, grid=grid, batch=batch)

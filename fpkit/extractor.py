"""The extractor: residual spectrum of an image -> unit-norm embedding of its fingerprint."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from fpkit.assets import extractor_path, save_safetensors_atomic, write_text_atomic
from fpkit.images import grid_crops
from fpkit.residual import RESIDUALS, ResidualName
from fpkit.residual import residual as noise_residual
from fpkit.spectrum import power_spectrum

WEIGHTS, CARD = "extractor.safetensors", "extractor.json"
# rows: the three channels, then two colour differences in which most of the scene cancels
COLOUR = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 0), (0, -1, 1))
FLOOR = (0.1 / 255) ** 2  # power of a tenth of an 8-bit step: below it there is only rounding


@dataclass(frozen=True, kw_only=True)
class ExtractorConfig:
    """Shape of an extractor.

    ``crop`` is the side of a crop in pixels; ``residual`` names the noise residual; ``widths`` are
    the channels of the network's stages, each of which halves the spectrum; ``positions`` counts
    learnt maps that tell the network which frequency it looks at; ``dim`` is the embedding's.
    """

    crop: int = 128
    residual: ResidualName = "none"
    widths: tuple[int, ...] = (32, 64, 128, 192)
    positions: int = 4
    dim: int = 128

    def __post_init__(self) -> None:
        if self.residual not in RESIDUALS:
            raise ValueError(f"residual must be one of {RESIDUALS}, got {self.residual!r}")
        if self.crop < 32 or self.crop % 16:
            raise ValueError(f"crop must be a multiple of 16 of at least 32, got {self.crop}")
        if not self.widths or min(*self.widths, self.dim, self.positions + 1) < 1:
            raise ValueError(f"widths, positions and dim must be positive, got {self}")


class Stage(nn.Module):
    """Halve the map, then one residual block; batch norm and ReLU throughout."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.down = _unit(channels_in, channels_out, stride=2)
        self.block = _unit(channels_out, channels_out, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return x + self.block(x)


def _unit(channels_in: int, channels_out: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class Extractor(nn.Module):
    """Maps crops to embeddings; `embed` averages the crops of an image.

    Attributes
    ----------
    config : ExtractorConfig
    card : dict
        The model card: how it was trained and how well it does.

    Notes
    -----
    Log power is standardised per frequency bin by the buffers ``bin_mean`` and ``bin_std``,
    measured on synthetic models. A linear high-pass would only shift log power by a constant per
    bin, which that takes away: this is why ``residual="none"`` is no worse than one here.
    ``cohort`` is the mean embedding of synthetic models; `embed` subtracts it.
    """

    bin_mean: Tensor
    bin_std: Tensor
    cohort: Tensor

    def __init__(self, config: ExtractorConfig | None = None) -> None:
        super().__init__()
        self.config = config or ExtractorConfig()
        self.card: dict[str, Any] = {}
        rows, columns = self.config.crop, self.config.crop // 2 + 1
        channels = len(COLOUR)
        self.register_buffer("colour", torch.tensor(COLOUR, dtype=torch.float32), persistent=False)
        self.register_buffer("bin_mean", torch.zeros(channels, rows, columns))
        self.register_buffer("bin_std", torch.ones(channels, rows, columns))
        self.register_buffer("cohort", torch.zeros(self.config.dim))
        self.positions = nn.Parameter(torch.randn(self.config.positions, rows, columns) * 0.1)
        widths = (channels + self.config.positions, *self.config.widths)
        self.stages = nn.Sequential(*(Stage(c, d) for c, d in pairwise(widths)))
        for _ in self.config.widths:
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        self.head = nn.Linear(widths[-1] * rows * columns, self.config.dim)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.config.dim

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of configuration and weights: equal hashes give equal embeddings."""
        digest = sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def log_spectrum(self, crops: Tensor) -> Tensor:
        """Log power of the residual of crops (n, 3, crop, crop) in [0, 1].

        Returns
        -------
        Tensor, (n, 5, crop, crop // 2 + 1) float32
            Rows by vertical frequency with zero in the middle, columns by horizontal frequency
            from 0 to 0.5 cycles/pixel: the other half is its mirror image.
        """
        size = self.config.crop
        if crops.dim() != 4 or crops.shape[1:] != (3, size, size):
            raise ValueError(f"crops must be (n, 3, {size}, {size}), got {tuple(crops.shape)}")
        x = noise_residual(crops, method=self.config.residual)
        x = torch.einsum("oc,nchw->nohw", self.colour, x)
        power = power_spectrum(x, centred=False)[..., : size // 2 + 1]
        return torch.log(torch.fft.fftshift(power, dim=-2) + FLOOR)

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (n, 3, crop, crop) in [0, 1] -> raw embeddings (n, dim), not normalised."""
        return self.encode(self.log_spectrum(crops))

    def encode(self, log_spectrum: Tensor) -> Tensor:
        """Log spectra, as `log_spectrum` returns them -> raw embeddings (n, dim)."""
        x = (log_spectrum - self.bin_mean) / self.bin_std
        x = x - x.mean((2, 3), keepdim=True)  # overall contrast belongs to the scene
        positions = self.positions.expand(len(x), -1, -1, -1)
        x = self.stages(torch.cat([x, positions], 1).contiguous(memory_format=torch.channels_last))
        result: Tensor = self.head(x.flatten(1))
        return result

    @torch.no_grad()
    def embed(
        self, images: Tensor | Sequence[Tensor], *, grid: int = 3, batch: int = 128
    ) -> Tensor:
        """Embeddings of images of any size.

        Parameters
        ----------
        images : Tensor (n, 3, h, w), or a sequence of Tensors (3, h, w), float32 in [0, 1]
            Sides of at least ``config.crop``.
        grid : int
            Crops along each side; up to ``grid ** 2`` per image.
        batch : int
            Crops that pass through the network at once.

        Returns
        -------
        Tensor, (n, dim) float32 on the CPU, unit norm
            Normalised embeddings of the crops, averaged, minus the mean of synthetic models,
            normalised. 0 is the score of an average pair of different models.

        Raises
        ------
        ValueError
            If an image is smaller than a crop.
        """
        if self.training:
            raise RuntimeError("the extractor is in training mode: call .eval() before embed")
        crops = [grid_crops(image, size=self.config.crop, grid=grid) for image in images]
        if not crops:
            return torch.zeros(0, self.dim)
        device = self.positions.device
        flat = torch.cat(crops).split(batch)
        raw = torch.cat([functional.normalize(self(part.to(device))) for part in flat])
        means = [part.mean(0) for part in raw.split([len(c) for c in crops])]
        return functional.normalize(torch.stack(means) - self.cohort).cpu()

    def save(self, folder: str | Path) -> None:
        """Write ``extractor.safetensors`` and ``extractor.json`` (the card) into `folder`."""
        folder = Path(folder)
        metadata = {"config": json.dumps(asdict(self.config))}
        save_safetensors_atomic(folder / WEIGHTS, self.state_dict(), metadata=metadata)
        write_text_atomic(folder / CARD, json.dumps(self.card, indent=1) + "\n")


def load_extractor(
    path: str | Path | None = None, *, device: str | torch.device = "cpu"
) -> Extractor:
    """Load an extractor in eval mode.

    Parameters
    ----------
    path : str or Path, optional
        A folder with ``extractor.safetensors`` and ``extractor.json``; by default the weights
        that come with fpkit.
    device : str or torch.device

    Raises
    ------
    FileNotFoundError
        If there is no extractor in the folder.
    ValueError
        If the file is damaged or holds something else.
    """
    folder = extractor_path() if path is None else Path(path)
    file = folder / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no extractor: expected {file}")
    try:
        with safe_open(file, framework="pt") as weights:
            stored = json.loads((weights.metadata() or {})["config"])
            config = ExtractorConfig(**(stored | {"widths": tuple(stored["widths"])}))
            state = {name: weights.get_tensor(name) for name in weights.keys()}
        extractor = Extractor(config)
        extractor.load_state_dict(state)
        extractor.card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} holds no fpkit extractor: {error}") from error
    return extractor.eval().requires_grad_(False).to(device)

"""The extractor: spectra and coherences of an image -> unit-norm embedding of its fingerprint."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpkit.artefacts import check_fields, member, parse_json, read_json, shown
from fpkit.assets import extractor_path
from fpkit.coherence import CYCLIC, FLOOR, spectral_coherence
from fpkit.embedder import CARD, MAX_CROP, WEIGHTS, Embedder
from fpkit.paper import PaperConfig, PaperExtractor
from fpkit.residual import RESIDUALS, ResidualName
from fpkit.residual import residual as noise_residual
from fpkit.spectrum import taper
from fpkit.tensor_files import open_tensors

# rows: the three channels, then two colour differences in which most of the scene cancels
COLOUR = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 0), (0, -1, 1))
POOLING = ((3, 2), (7, 4))  # width and stride, in bins, of the maps of each level
MAX_STAGES, MAX_WIDTH = 16, 2**16  # far above any use: they bound what a file can ask for
_AT_ONCE = {False: 32, True: 4096}  # crops per pass: what fits a processor's cache, a GPU's memory


@dataclass(frozen=True, kw_only=True)
class ExtractorConfig:
    """Shape of an extractor.

    ``crop`` is the side of a crop in pixels; ``residual`` names the noise residual; ``widths`` are
    the channels of the network's stages, at least two, each of which halves the maps;
    ``positions`` counts learnt maps that tell the network which frequency it looks at; ``dim`` is
    the embedding's.
    """

    crop: int = 128
    residual: ResidualName = "none"
    widths: tuple[int, ...] = (64, 128, 256)
    positions: int = 4
    dim: int = 128

    def __post_init__(self) -> None:
        if self.residual not in RESIDUALS:
            raise ValueError(f"residual must be one of {RESIDUALS}, got {shown(self.residual)}")
        whole = [self.crop, self.positions, self.dim, *self.widths]
        if not all(type(value) is int for value in whole):
            got = shown(self, most=200)
            raise ValueError(f"crop, widths, positions and dim must be whole, got {got}")
        if not 32 <= self.crop <= MAX_CROP or self.crop % 32:
            raise ValueError(f"crop must be a multiple of 32 up to {MAX_CROP}, got {self.crop}")
        if not len(POOLING) <= len(self.widths) <= MAX_STAGES:
            raise ValueError(
                f"widths must be {len(POOLING)} to {MAX_STAGES} numbers, got {len(self.widths)}"
            )
        if min(*self.widths, self.dim, self.positions + 1) < 1 or max(whole) > MAX_WIDTH:
            raise ValueError(
                f"widths, positions and dim must be positive, up to {MAX_WIDTH}, got {self}"
            )


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


class Standardise(nn.Module):
    """Mean 0 and variance 1 of every bin over synthetic models.

    Of the leading `power` channels each crop's own mean is taken away as well: its overall
    contrast belongs to the scene.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, rows: int, columns: int, *, power: int) -> None:
        super().__init__()
        self.power = power
        self.register_buffer("mean", torch.zeros(channels, rows, columns))
        self.register_buffer("std", torch.ones(channels, rows, columns))

    def measure(self, maps: Tensor) -> None:
        """Take mean and standard deviation from maps (n, channels, rows, columns)."""
        self.mean.copy_(maps.mean(0))
        least = maps.new_full((len(self.mean), 1, 1), 0.02)
        least[: self.power] = 0.1
        self.std.copy_(maps.std(0).maximum(least))

    def forward(self, maps: Tensor) -> Tensor:
        x = (maps - self.mean) / self.std
        power = x[:, : self.power]
        return torch.cat([power - power.mean((2, 3), keepdim=True), x[:, self.power :]], 1)


class Extractor(Embedder):
    """Maps crops to embeddings; `embed` averages the crops of an image.

    Two levels of maps enter the network: the log of the power averaged over 3 x 3 bins, and, where
    the network has become as coarse as they are, the same over 7 x 7 bins, beside the coherence of
    the luminance (:func:`fpkit.coherence.spectral_coherence`).

    Attributes
    ----------
    config : ExtractorConfig
    card : dict
        The model card: how it was trained and how well it does.

    Notes
    -----
    All maps are standardised per frequency bin, by what was measured on synthetic models. A
    linear high-pass would only shift log power by a constant per bin, which that takes away:
    this is why ``residual="none"`` is no worse than one here. ``cohort`` is the mean embedding of
    synthetic models; `embed` subtracts it.
    """

    kind = "spectra"
    config: ExtractorConfig

    def __init__(self, config: ExtractorConfig | None = None) -> None:
        config = config or ExtractorConfig()
        super().__init__(dim=config.dim)
        self.config = config
        size = self.config.crop
        self.register_buffer("window", taper("hann", size, size).float(), persistent=False)
        rows, columns = size // 2, size // 4 + 1
        self.positions = nn.Parameter(torch.randn(self.config.positions, rows, columns) * 0.1)
        self.standardise, self.stages = nn.ModuleList(), nn.ModuleList()
        inputs = self.config.positions
        for level, width in enumerate(self.config.widths):
            if level < len(POOLING):
                last = level == len(POOLING) - 1
                channels = len(COLOUR) + (3 * len(CYCLIC) if last else 0)
                standardise = Standardise(channels, rows, columns, power=len(COLOUR))
                self.standardise.append(standardise)
                inputs += channels
            self.stages.append(Stage(inputs, width))
            inputs = width
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        self.head = nn.Linear(inputs * rows * columns, self.config.dim)

    def maps(self, crops: Tensor) -> list[Tensor]:
        """What the network sees of crops (n, 3, crop, crop) in [0, 1], not standardised.

        Returns
        -------
        list of two Tensors, float32
            Log power of R, G, B, R - G and B - G at every second bin, (n, 5, crop // 2,
            crop // 4 + 1), and at every fourth, (n, 38, crop // 4, crop // 8 + 1), where 33
            channels of coherence follow. Rows by vertical frequency with zero in the middle,
            columns by horizontal frequency from 0 to 0.5 cycles/pixel: the other half is its
            mirror image.
        """
        self.check_crops(crops)
        parts = [self._maps(part) for part in crops.split(_AT_ONCE[crops.is_cuda])]
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def _maps(self, crops: Tensor) -> list[Tensor]:
        x = noise_residual(crops, method=self.config.residual)
        fourier = torch.fft.rfft2(x * self.window)
        coherence = spectral_coherence(fourier.sum(1))
        power = torch.fft.fftshift(colour_power(fourier), dim=-2)
        levels = [torch.log(pool(power, width, stride) + FLOOR) for width, stride in POOLING]
        levels[-1] = torch.cat([levels[-1], coherence], 1)
        return levels

    def measure(self, maps: list[Tensor]) -> None:
        """Take the mean and standard deviation of every bin from `maps` of synthetic models."""
        for standardise, level in zip(self.standardise, maps, strict=True):
            standardise.measure(level)

    def encode(self, maps: list[Tensor]) -> Tensor:
        """Maps, as `maps` returns them -> raw embeddings (n, dim)."""
        x = self.positions.expand(len(maps[0]), -1, -1, -1)
        for level, stage in enumerate(self.stages):
            if level < len(maps):
                x = torch.cat([x, self.standardise[level](maps[level])], 1)
            x = stage(x.contiguous(memory_format=torch.channels_last))
        result: Tensor = self.head(x.flatten(1))
        return result


def colour_power(fourier: Tensor) -> Tensor:
    """Power of the channels and of their differences, rows of `COLOUR`: the FFT is linear.

    Parameters
    ----------
    fourier : Tensor, (n, 3, rows, columns) complex

    Returns
    -------
    Tensor, (n, 5, rows, columns)
    """
    channels = list(zip(fourier.real.unbind(1), fourier.imag.unbind(1), strict=True))
    power = fourier.real.new_empty(len(fourier), len(COLOUR), *fourier.shape[2:])
    for weights, plane in zip(COLOUR, power.unbind(1), strict=True):
        real, imaginary = channels[weights.index(1)]
        if -1 in weights:
            less = channels[weights.index(-1)]
            real, imaginary = real - less[0], imaginary - less[1]
        torch.mul(real, real, out=plane).addcmul_(imaginary, imaginary)
    return power


def pool(maps: Tensor, width: int, stride: int) -> Tensor:
    """Means over `width` x `width` bins (an odd number) at every `stride`-th of (n, c, h, w)."""
    return functional.avg_pool2d(maps, width, stride, width // 2, count_include_pad=False)


CONFIGS = {Extractor.kind: ExtractorConfig, PaperExtractor.kind: PaperConfig}


def build_extractor(config: ExtractorConfig | PaperConfig) -> Extractor | PaperExtractor:
    """An untrained extractor of the kind that the class of `config` says."""
    return PaperExtractor(config) if isinstance(config, PaperConfig) else Extractor(config)


def _stored_config(metadata: dict[str, str]) -> ExtractorConfig | PaperConfig:
    kind = metadata.get("kind", Extractor.kind)
    if kind not in CONFIGS:
        raise ValueError(f"its kind is {shown(kind)}, expected one of {tuple(CONFIGS)}")
    stored = parse_json(metadata.get("config", "null"))
    # JSON knows no tuples
    kinds = {f.name: type(f.default) for f in fields(CONFIGS[kind])}
    known = check_fields(stored, {k: list if v is tuple else v for k, v in kinds.items()})
    return CONFIGS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})


def load_extractor(
    path: str | Path | None = None, *, device: str | torch.device = "cpu"
) -> Extractor | PaperExtractor:
    """Load an extractor in eval mode, of whatever kind the file says.

    Parameters
    ----------
    path : str or Path, optional
        A folder with ``extractor.safetensors`` and ``extractor.json``; by default the weights
        that come with fpkit, with ``"small"`` its smaller and faster ones.
    device : str or torch.device

    Raises
    ------
    FileNotFoundError
        If there is no extractor in the folder.
    ValueError
        If the file is damaged or holds something else.
    """
    shipped = path is None or path == "small"
    folder = extractor_path(small=path == "small") if shipped else Path(str(path))
    file = folder / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no extractor: expected {file}")
    try:
        with open_tensors(member(folder, WEIGHTS)) as weights:
            config = _stored_config(weights.metadata)
            with torch.device("meta"):  # takes no memory, however large the file says it is
                wanted = build_extractor(config).state_dict()
            weights.expect(wanted)
            state = weights.read()
        card = read_json(member(folder, CARD))
        if not isinstance(card, dict):
            raise ValueError(f"its card {CARD} is no JSON object")
    except (RuntimeError, ValueError) as error:  # torch has limits of its own for sizes
        raise ValueError(f"{file} holds no fpkit extractor: {error}") from error
    extractor = build_extractor(config)
    extractor.load_state_dict(state)
    if "hash" in card and card["hash"] != extractor.hash:
        raise ValueError(
            f"{folder / CARD} is the card of the extractor {shown(card['hash'])}, the weights "
            f"beside it are {extractor.hash[:12]}: put back what belongs together, or resume the "
            "training that was writing it"
        )
    extractor.card = card
    return extractor.eval().requires_grad_(False).to(device)

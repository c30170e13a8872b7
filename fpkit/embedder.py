"""What every extractor has in common: crops in, one embedding per image out, a folder on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpkit.assets import save_safetensors_atomic, write_text_atomic
from fpkit.images import grid_crops

WEIGHTS, CARD = "extractor.safetensors", "extractor.json"
MAX_CROP = 4096  # pixels
CROPS_PER_SIDE = 4  # of an image, at most
Precision = Literal["float32", "bfloat16"]


class EmbedderConfig(Protocol):
    """A frozen dataclass whose fields JSON can hold; tuples come back from it as tuples."""

    @property
    def crop(self) -> int: ...


class Embedder(nn.Module):
    """Base of extractors: a subclass says what the network sees and what it makes of that.

    It offers ``maps(crops)``, a list of tensors without anything to learn, and ``encode(maps)``,
    which gives raw embeddings (n, dim).

    Attributes
    ----------
    kind : str
        Names the class in files.
    config : dataclass
        With ``crop``, the side of a crop in pixels.
    card : dict
        The model card: how it was trained and how well it does.
    cohort : Tensor, (dim,)
        Mean embedding of synthetic models, which `embed` subtracts; zero if it is not `centred`.
    centred : bool
        Whether training measures the cohort.
    """

    kind: ClassVar[str]
    config: EmbedderConfig
    cohort: Tensor
    centred: bool = True

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.card: dict[str, Any] = {}
        self.register_buffer("cohort", torch.zeros(dim))

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return len(self.cohort)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of configuration and weights: equal hashes give equal embeddings."""
        digest = sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check_crops(self, crops: Tensor) -> None:
        """Raise ValueError unless crops are (n, 3, crop, crop)."""
        size = self.config.crop
        if crops.dim() != 4 or crops.shape[1:] != (3, size, size):
            raise ValueError(f"crops must be (n, 3, {size}, {size}), got {tuple(crops.shape)}")

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (n, 3, crop, crop) in [0, 1] -> raw embeddings (n, dim), not normalised.

        Under autocast the network runs in lower precision; spectra never do.
        """
        with torch.autocast(crops.device.type, enabled=False):
            maps = self.maps(crops)
        result: Tensor = self.encode(maps)
        return result

    @torch.no_grad()
    def embed(
        self,
        images: Tensor | Sequence[Tensor],
        *,
        grid: int = CROPS_PER_SIDE,
        batch: int = 128,
        precision: Precision = "float32",
    ) -> Tensor:
        """Embeddings of images of any size.

        Parameters
        ----------
        images : Tensor (n, 3, h, w), or a sequence of Tensors (3, h, w), float in [0, 1]
            Sides of at least ``config.crop``; float64 is rounded to float32.
        grid : int
            Crops along each side at most, see :func:`fpkit.images.grid_crops`.
        batch : int
            Crops that pass through the network at once.
        precision : {"float32", "bfloat16"}
            Of the network's arithmetic. bfloat16 is faster where the hardware has it, and moves
            scores by about 0.01.

        Returns
        -------
        Tensor, (n, dim) float32 on the CPU, unit norm
            Normalised embeddings of the crops, averaged, minus the mean of synthetic models,
            normalised. 0 is the score of an average pair of different models.

        Raises
        ------
        ValueError
            If an image is smaller than a crop, or holds NaN or a value outside [0, 1]; or if
            `batch` or `precision` is none that there is.
        TypeError
            If an image is not floating point.

        Notes
        -----
        What else is in the call, the order, `batch` and the number of threads change an embedding
        by rounding only, below 1e-6; the same call on the same machine gives the same bits.
        """
        crops = [grid_crops(_checked(image), size=self.config.crop, grid=grid) for image in images]
        return self.embed_crops(crops, batch=batch, precision=precision)

    @torch.no_grad()
    def embed_crops(
        self, crops: Sequence[Tensor], *, batch: int = 128, precision: Precision = "float32"
    ) -> Tensor:
        """`embed` for images of which only the crops are kept, those of `grid_crops`.

        Parameters
        ----------
        crops : sequence of Tensors (m, 3, crop, crop) float32 in [0, 1]
            One per image; m may differ. Values are not checked.
        batch, precision
            As for `embed`.

        Returns
        -------
        Tensor, (n, dim) float32 on the CPU, unit norm
        """
        if self.training:
            raise RuntimeError("the extractor is in training mode: call .eval() before embed")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
        if not crops:
            return torch.zeros(0, self.dim)
        device = self.cohort.device
        flat = torch.cat(list(crops)).split(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            units = [functional.normalize(self(part.to(device)).float()) for part in flat]
        raw = torch.cat(units)
        means = [part.mean(0) for part in raw.split([len(c) for c in crops])]
        return functional.normalize(torch.stack(means) - self.cohort).cpu()

    def save(self, folder: str | Path) -> None:
        """Write ``extractor.safetensors`` and ``extractor.json`` (the card) into `folder`.

        The card gets the `hash`, so that what is left of two savings is not taken for one.
        """
        folder = Path(folder)
        self.card["hash"] = self.hash
        metadata = {"kind": self.kind, "config": json.dumps(asdict(self.config))}
        write_text_atomic(folder / CARD, json.dumps(self.card, indent=1) + "\n")
        # last: a folder without weights holds no extractor
        save_safetensors_atomic(folder / WEIGHTS, self.state_dict(), metadata=metadata)


def _checked(image: Tensor) -> Tensor:
    """The image as float32; an error unless it is floating point in [0, 1]."""
    if not image.is_floating_point():
        raise TypeError(
            f"images must be floating point in [0, 1], got {image.dtype}: divide by 255?"
        )
    if image.numel():
        low, high = (bound.item() for bound in image.aminmax())
        if not (low >= 0 and high <= 1):  # neither is true of NaN
            hint = ": divide by 255?" if high > 1.5 else ""
            raise ValueError(f"images must be in [0, 1], got {low:g} to {high:g}{hint}")
    return image.float()

"""The training stream: P models x K images -> fingerprinted crops, reproducible step by step.

Batch number `step` depends on the seed and on `step` alone. Training can so be resumed exactly,
with any number of worker processes, without storing the state of a random generator.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fpkit.images import GRID, jpeg, load_tiles, quantise, random_crop
from fpkit.matching import KNOTS, match_spectrum
from fpkit.procedural import procedural_images
from fpkit.synthesizer import (
    EncoderKind,
    MixedSynthesizer,
    RandomSynthesizer,
    SpaceKind,
    Synthesizer,
    ZooSynthesizer,
)
from fpkit.zoo import Zoo

SIZE = 168  # what models are applied to; their border, marked by padding, is cut
MARGIN = 16


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a batch holds.

    ``models`` (P) and ``images`` per model (K); ``random_share``, the share of the models that
    are random decoders and not from the zoo, and their ``encoder`` and ``space``; ``jpeg_share``
    of the crops pass through JPEG of a quality drawn from ``jpeg_quality``; ``sources``, how many
    source images all models of a batch share, so that content tells no model apart;
    ``matched_share`` of the models get the radial spectrum of their sources
    (:func:`fpkit.matching.match_spectrum`, to 50 to 100%), half of these blended with them as well;
    ``off_grid_share`` of the crops begin anywhere and not on the 8-pixel grid; ``device`` applies
    the models (another device draws other fine detail).
    """

    models: int = 32
    images: int = 4
    random_share: float = 0.8
    encoder: EncoderKind = "pool"
    space: SpaceKind = "plain"
    jpeg_share: float = 0.5
    jpeg_quality: tuple[int, int] = (65, 98)
    sources: int = 16
    matched_share: float = 0.6
    off_grid_share: float = 0.2
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.models < 2 or self.images < 2 or self.sources < self.images:
            raise ValueError(
                "models and images must be at least 2 (a loss needs pairs) and sources at least "
                f"images, got models={self.models}, images={self.images}, sources={self.sources}"
            )
        for name in ("random_share", "jpeg_share", "matched_share", "off_grid_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        RandomSynthesizer(encoder=self.encoder, space=self.space)  # checks both
        low, high = self.jpeg_quality
        if not 1 <= low <= high <= 100:
            raise ValueError(f"jpeg_quality must be 1 <= low <= high <= 100, got {low}, {high}")

    def synthesizer(
        self, zoo: Zoo | None = None, model_ids: list[str] | None = None
    ) -> Synthesizer:
        """What this configuration asks for: random decoders, mixed with models of a zoo if given.

        Parameters
        ----------
        zoo : Zoo, optional
            Needed unless ``random_share`` is 1.
        model_ids : list of str, optional
            Those of its models to draw from; all by default.
        """
        random = RandomSynthesizer(encoder=self.encoder, space=self.space)
        if zoo is not None:
            return MixedSynthesizer(ZooSynthesizer(zoo, model_ids), random, share=self.random_share)
        if self.random_share < 1:
            raise ValueError(
                f"random_share is {self.random_share}, so other models must come from a zoo: "
                "give one, or take random_share=1"
            )
        return random


class Sources:
    """Source images: photograph tiles of a file, procedural images, or both.

    Parameters
    ----------
    tiles : path of an .npy array (n, h, w, 3) uint8, optional
        As ``data/photos/make_photos.py`` writes it; h and w at least 168. It is read lazily.
    procedural : int
        How many procedural images to make.
    share : float
        Share of procedural images in a draw; 1 without tiles.
    """

    def __init__(
        self, tiles: str | Path | None = None, *, procedural: int = 384, share: float = 0.15
    ) -> None:
        self.path = None if tiles is None else Path(tiles)
        self.procedural = procedural
        self.share = 1.0 if tiles is None else share
        if self.path is not None:
            _ = self._tiles  # refuses a file that holds something else

    @cached_property
    def _tiles(self) -> np.ndarray:
        assert self.path is not None  # asked for only where there are tiles
        return load_tiles(self.path, side=SIZE)

    @cached_property
    def _images(self) -> Tensor:
        return procedural_images(self.procedural, SIZE, seed=0)

    def __getstate__(self) -> dict[str, object]:
        # a worker process opens the file and makes the images itself
        return {key: self.__dict__[key] for key in ("path", "procedural", "share")}

    @property
    def description(self) -> str:
        """For manifests and model cards."""
        made = f"procedural_images({self.procedural}, {SIZE}, seed=0)"
        return made if self.path is None else f"{len(self._tiles)} photograph tiles and {made}"

    def draw(self, n: int, *, generator: torch.Generator) -> Tensor:
        """`n` images (n, 3, 168, 168), randomly cropped, flipped and transposed."""
        made = torch.rand(n, generator=generator) < self.share
        images = []
        for procedural in made.tolist():
            pool = self._images if procedural else self._tiles
            index = int(torch.randint(len(pool), (1,), generator=generator))
            image = pool[index]
            if not procedural:
                image = torch.from_numpy(image.copy()).permute(2, 0, 1) / 255
            image = random_crop(image, SIZE, generator=generator)
            flips = torch.rand(3, generator=generator) < 0.5
            if flips[0]:
                image = image.flip(2)
            if flips[1]:
                image = image.flip(1)
            if flips[2]:
                image = image.transpose(1, 2)
            images.append(image)
        return torch.stack(images)


class FingerprintStream(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Item `step` is a batch: crops (P*K, 3, crop, crop) in [0, 1] and labels (P*K,) int64.

    Labels are those of the synthesizer: below ``synthesizer.classes`` they name the same model in
    every batch, from there on a model that is in this batch only.

    Parameters
    ----------
    config : StreamConfig
    sources : Sources
    synthesizer : Synthesizer
    crop : int
        Side of a crop in pixels.
    steps : int
        Length of the stream.
    part : tuple of two ints
        ``(i, n)``: make only every n-th model of each batch, from the i-th on. The n parts
        together are the whole batch.
    """

    def __init__(
        self,
        config: StreamConfig,
        sources: Sources,
        synthesizer: Synthesizer,
        *,
        crop: int = 128,
        steps: int = 1,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if not 0 <= part[0] < part[1] <= config.models:
            raise ValueError(f"part must be (i, n) with i < n <= {config.models}, got {part}")
        if crop > SIZE - 2 * MARGIN:
            raise ValueError(f"crop must be at most {SIZE - 2 * MARGIN}, got {crop}")
        synthesizer.check(config.models)
        self.config = config
        self.sources = sources
        self.synthesizer = synthesizer
        self.crop = crop
        self.steps = steps
        self.part = part

    def __len__(self) -> int:
        return self.steps

    @torch.no_grad()
    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        sources = self.sources.draw(config.sources, generator=generator).to(config.device)
        picks = [torch.randperm(config.sources, generator=generator) for _ in range(config.models)]
        images = sources[torch.stack(picks)[:, : config.images].to(config.device)]
        mine = range(config.models)[self.part[0] :: self.part[1]]
        only = {} if len(mine) == config.models else {"only": mine}
        outputs, labels = self.synthesizer(images, generator=generator, **only)
        outputs = self._matched(outputs, images[list(mine)], mine, generator)
        # a seed for every image: what is done to it does not depend on who does it
        seeds = torch.randint(2**40, (config.models, config.images), generator=generator)
        finished = [
            self._finish(image, torch.Generator().manual_seed(seed))
            for image, seed in zip(
                outputs.flatten(0, 1).cpu(), seeds[list(mine)].flatten().tolist(), strict=True
            )
        ]
        return torch.stack(finished), labels.repeat_interleave(config.images)

    def _matched(
        self, outputs: Tensor, sources: Tensor, mine: range, generator: torch.Generator
    ) -> Tensor:
        """Bring some models nearer to natural images, each in its own way, rounded to 8 bits."""
        models = self.config.models
        chosen = torch.rand(models, generator=generator) < self.config.matched_share
        strength = 0.5 + 0.5 * torch.rand(models, generator=generator)
        curves = 0.15 * torch.randn(models, KNOTS, generator=generator)
        blended = torch.rand(models, generator=generator) < 0.5
        # of what the model does to an image, 3% to all is left
        left = torch.where(blended, 0.03 ** torch.rand(models, generator=generator), 1.0)
        places = [job for job, model in enumerate(mine) if chosen[model]]
        if not places:
            return outputs
        of = torch.tensor([mine[job] for job in places])
        near = sources[places]
        made = match_spectrum(
            outputs[places],
            near,
            strength=strength[of].to(near.device),
            curves=curves[of].to(near.device),
        )
        share = left[of].to(near.device)[:, None, None, None, None]
        outputs[places] = quantise(near + share * (made - near))
        return outputs

    def _finish(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Interior crop, perhaps through JPEG first, as published images are."""
        config = self.config
        inner = image[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        if torch.rand(1, generator=generator) < config.jpeg_share:
            low, high = config.jpeg_quality
            inner = jpeg(inner, int(torch.randint(low, high + 1, (1,), generator=generator)))
        step = 1 if torch.rand(1, generator=generator) < config.off_grid_share else GRID
        return random_crop(inner, self.crop, step=step, generator=generator)

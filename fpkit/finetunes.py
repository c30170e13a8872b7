"""Synthetic fine-tunes: pairs of models of which it is known that they share a decoder.

A fine-tune of a latent model (a LoRA, a merge, another style) changes what comes before the
decoder and leaves the decoder alone. Here it is done to synthetic models. Of a trained model, the
encoder learns to make the decoder paint in another style. A random decoder, which has nothing to
train before its first block, decodes images of another style. What is known of these pairs
calibrates :mod:`fpkit.lineage`; no image of a real generator is needed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from fpkit.blocks import SyntheticModel
from fpkit.decoders import RandomDecoder, Space
from fpkit.extractor import Extractor
from fpkit.images import jpeg, load_tiles, quantise
from fpkit.procedural import procedural_images
from fpkit.zoo import Zoo, parse_model_id

MARGIN = 12  # pixels cut from every border, which padding marks
SIDE = 192  # of the images, if crops are not larger than 128 pixels
POOL = 160  # source images of the bases, and as many others of the fine-tunes
_JPEG_SHARE, _QUALITY = 0.5, (65, 98)  # as in the training stream, but one for a whole folder
_CROP, _BATCH = 64, 8  # of the training of a fine-tune
_LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a fine-tune paints: colours, contrast and sharpness.

    ``gains`` of the three channels, ``saturation`` and ``gamma`` leave an image as it is at 1,
    ``sharpness`` (negative: softer) at 0.
    """

    gains: tuple[float, float, float]
    saturation: float
    gamma: float
    sharpness: float

    @classmethod
    def draw(cls, generator: torch.Generator) -> Style:
        """A random style, from slight to strong."""
        u = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        return cls(
            gains=(0.85 + 0.3 * u[0], 0.85 + 0.3 * u[1], 0.85 + 0.3 * u[2]),
            saturation=0.5 + 1.1 * u[3],
            gamma=0.7 + 0.7 * u[4],
            sharpness=-0.5 + 1.3 * u[5],
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [0, 1] in this style, in [0, 1]."""
        blurred = functional.avg_pool2d(
            functional.pad(images, (1, 1, 1, 1), mode="reflect"), 3, stride=1
        )
        images = (images + self.sharpness * (images - blurred)).clamp(0, 1)
        grey = torch.einsum("nchw,c->nhw", images, _LUMA.to(images))[:, None]
        images = grey + self.saturation * (images - grey)
        gains = torch.tensor(self.gains).to(images)[:, None, None]
        return (images * gains).clamp(0, 1) ** self.gamma


def fine_tune(
    model: SyntheticModel, images: Tensor, style: Style, *, seed: int, steps: int = 40
) -> SyntheticModel:
    """A copy of `model` whose encoder was trained further, so that it paints in `style`.

    Parameters
    ----------
    model : SyntheticModel
        One model, not a stack.
    images : Tensor, (n, 3, h, w) float32 in [0, 1]
        Sides of at least 64 pixels.
    style : Style
        Of the pictures to paint.
    seed : int
        Of the crops.
    steps : int
        Of Adam, 8 crops each.

    Returns
    -------
    SyntheticModel
        In eval mode, without gradients. Its decoder is that of `model`, number for number.
    """
    generator = torch.Generator().manual_seed(seed)
    tuned = copy.deepcopy(model).eval().requires_grad_(False)
    tuned.encoder.train().requires_grad_(True)
    optimiser = torch.optim.Adam(tuned.encoder.parameters(), lr=1e-3)
    for _ in range(steps):
        pick = torch.randint(len(images), (_BATCH,), generator=generator)
        top, left = (
            int(torch.randint(side - _CROP + 1, (), generator=generator))
            for side in images.shape[2:]
        )
        batch = images[pick, :, top : top + _CROP, left : left + _CROP]
        with torch.enable_grad():
            painted = tuned.decoder(tuned.encoder(batch))
            loss = functional.mse_loss(painted, style(batch))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return tuned.eval().requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class Kin:
    """Embeddings of base models and of their fine-tunes.

    Attributes
    ----------
    base, tuned
        (p, k, d) float32, unit norm: k images of each of p bases, and of a fine-tune of each.
        ``tuned[i]`` shares the decoder of ``base[i]`` and of no other.
    kinds
        (p,) ``"trained"`` or ``"random"`` decoder.
    description
        Where they come from, for model cards.
    """

    base: NDArray[np.float32]
    tuned: NDArray[np.float32]
    kinds: NDArray[np.str_]
    description: str


def embed_kin(
    extractor: Extractor,
    *,
    zoo: Zoo | None = None,
    tiles: str | Path | None = None,
    random: int = 40,
    images: int = 16,
    steps: int = 40,
    seed: int = 0,
    progress: bool = False,
) -> Kin:
    """Embed images of bases and fine-tunes that the extractor was not trained on.

    Parameters
    ----------
    extractor : Extractor
        Where its card names ``held_out_architectures``, these are the trained bases.
    zoo : Zoo, optional
        Has the trained models; without it, or without held-out ones, all bases are random.
    tiles : path, optional
        Photograph tiles as sources (n, h, w, 3) uint8, see :func:`fpkit.images.load_tiles`;
        without them, sources are procedural images.
    random : int
        Bases that are random decoders.
    images : int
        Of every base, and of every fine-tune: of other sources.
    steps : int
        Training of a fine-tuned encoder.
    seed : int
    progress : bool
        Show a progress bar on stderr.

    Notes
    -----
    As folders come from different hands, half of them (bases and fine-tunes by themselves) pass
    through JPEG of one quality between 65 and 98.
    """
    if images < 1 or random < 0:
        raise ValueError(f"images must be at least 1 and random at least 0, got {images}, {random}")
    held_out = set(extractor.card.get("held_out_architectures", ()))
    names = [name for name in zoo or () if parse_model_id(name)[0].id in held_out]
    if len(names) + random < 2:
        raise ValueError(f"at least 2 bases are needed, got {len(names) + random}: raise random")
    generator = torch.Generator().manual_seed(seed)
    side = max(SIDE, -(-(extractor.config.crop + 2 * MARGIN + 8) // 8) * 8)
    sources = _sources(tiles, side, seed)
    models = [zoo.model(name) for name in names] if zoo is not None else []
    pairs = chain(
        (_trained_pair(model, sources, images, steps, generator) for model in models),
        (_random_pair(sources, images, generator) for _ in range(random)),
    )
    embedded = []
    for pair in tqdm(pairs, total=len(names) + random, unit="pair", disable=not progress):
        folders = [_as_files(folder, generator) for folder in pair]
        embedded.append([extractor.embed(folder, grid=2).numpy() for folder in folders])
    base, tuned = np.moveaxis(np.array(embedded), 1, 0)
    source = "procedural images" if tiles is None else "photograph tiles"
    return Kin(
        base=base,
        tuned=tuned,
        kinds=np.array(["trained"] * len(names) + ["random"] * random),
        description=f"{len(names)} trained models of held-out architectures and {random} random "
        f"decoders, each with a fine-tune; {images} images of either; sources: {source}",
    )


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """Source images (n, 3, side, side) of the bases, and others for the fine-tunes."""

    base: Tensor
    tuned: Tensor


def _sources(tiles: str | Path | None, side: int, seed: int) -> _Sources:
    if tiles is None:
        pool = procedural_images(2 * POOL, side, seed=10_000 + seed)  # training starts from seed 0
    else:
        stored = load_tiles(tiles, side=side, least=2 * POOL)
        picks = np.random.default_rng(seed).choice(len(stored), 2 * POOL, replace=False)
        pool = torch.from_numpy(stored[np.sort(picks), :side, :side]).permute(0, 3, 1, 2) / 255
    return _Sources(base=pool[0::2], tuned=pool[1::2])


def _take(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return images[torch.randint(len(images), (count,), generator=generator)]


@torch.no_grad()
def _trained_pair(
    model: SyntheticModel, sources: _Sources, images: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    style, seed = Style.draw(generator), int(torch.randint(2**40, (), generator=generator))
    tuned = fine_tune(model, sources.tuned, style, seed=seed, steps=steps)
    base = model(_take(sources.base, images, generator))
    return base, tuned(_take(sources.tuned, images, generator))


@torch.no_grad()
def _random_pair(
    sources: _Sources, images: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    style, seed = Style.draw(generator), int(torch.randint(2**40, (), generator=generator))
    decoder = RandomDecoder(seed, space=get_args(Space)[seed % 2])
    base = decoder(_take(sources.base, images, generator), generator=generator)
    restyled = style(_take(sources.tuned, images, generator))
    return base, decoder(restyled, generator=generator)


def _as_files(images: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Without the border, in 8 bit or, all alike, through JPEG."""
    inner = quantise(images[..., MARGIN:-MARGIN, MARGIN:-MARGIN])
    if torch.rand((), generator=generator) >= _JPEG_SHARE:
        return list(inner)
    low, high = _QUALITY
    quality = int(torch.randint(low, high + 1, (), generator=generator))
    return [jpeg(image, quality) for image in inner]

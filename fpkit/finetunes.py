"""Synthetic fine-tunes: pairs of models of which it is known that they share a decoder.

A fine-tune of a latent model (a LoRA, a merge, another style) changes what comes before the
decoder and leaves the decoder alone. Here it is done to synthetic models. Of a trained model, the
encoder learns to make the decoder paint in another style. A random decoder, which has nothing to
train before its first block, decodes images of another style. What is known of these pairs
calibrates :mod:`fpkit.lineage`; no image of a real generator is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from fpkit.kernels import near
from fpkit.procedural import procedural_images
from fpkit.zoo import Zoo, parse_model_id

MARGIN = 12  # pixels cut from every border, which padding marks
SIDE = 192  # of the images, if crops are not larger than 128 pixels
FAMILY = 4  # random decoders of one architecture
POOL = 10  # source images per image of a base, and as many others for the fine-tunes
_JPEG_SHARE, _QUALITY = 0.5, (65, 98)  # as in the training stream, but one for a whole folder
_CROP, _BATCH = 64, 8  # of the training of a fine-tune
_BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16  # blurs without a zero below Nyquist
_LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True)
class Style:
    """The look of a model's pictures: colours, contrast and sharpness.

    ``gains`` of the three channels, ``saturation`` and ``gamma`` leave an image as it is at 1,
    ``sharpness`` at 0; -1 is a blur by the binomial kernel 1-4-6-4-1.
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
            sharpness=-1 + 2.5 * u[5],
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [0, 1] in this style, in [0, 1]."""
        kernel = (_BINOMIAL[:, None] * _BINOMIAL).expand(3, 1, 5, 5).to(images)
        padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
        blurred = functional.conv2d(padded, kernel, groups=3)
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


def sibling(decoder: RandomDecoder, *, generator: torch.Generator) -> RandomDecoder:
    """A decoder of the same architecture with other weights.

    Noise of the decoder's own size is added to every kernel: two siblings are as far apart as
    kernels drawn anew would be.
    """

    def other(kernel: Tensor) -> Tensor:
        return near(kernel, decoder.noise, generator) if kernel.numel() else kernel

    result = copy.copy(decoder)
    result.lift, result.to_rgb = other(decoder.lift), other(decoder.to_rgb)
    result.levels = [
        replace(level, weight=other(level.weight), kernels=tuple(map(other, level.kernels)))
        for level in decoder.levels
    ]
    return result


@dataclass(frozen=True, kw_only=True)
class Kin:
    """Embeddings of base models and of their fine-tunes.

    Attributes
    ----------
    base, tuned
        (p, k, d) float32, unit norm: k images of each of p bases, and of a fine-tune of each.
        ``tuned[i]`` shares the decoder of ``base[i]`` and of no other.
    architecture
        (p,) equal for bases of one architecture, whose decoders have other weights.
    description
        Where they come from, for model cards.
    """

    base: NDArray[np.float32]
    tuned: NDArray[np.float32]
    architecture: NDArray[np.intp]
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
        Bases that are random decoders, four of each architecture.
    images : int
        Of every base, and of every fine-tune: of other sources.
    steps : int
        Training of a fine-tuned encoder.
    seed : int
    progress : bool
        Show a progress bar on stderr.

    Notes
    -----
    Every base has a look of its own, every fine-tune another: a trait that all pictures of a
    folder share, and that no mean over many of them removes. As folders come from different
    hands, half of them pass through JPEG of one quality between 65 and 98.
    """
    if images < 1 or random < 0:
        raise ValueError(f"images must be at least 1 and random at least 0, got {images}, {random}")
    held_out = set(extractor.card.get("held_out_architectures", ()))
    names = [name for name in zoo or () if parse_model_id(name)[0].id in held_out]
    if len(names) + random < 2:
        raise ValueError(f"at least 2 bases are needed, got {len(names) + random}: raise random")
    generator = torch.Generator().manual_seed(seed)
    side = max(SIDE, -(-(extractor.config.crop + 2 * MARGIN + 8) // 8) * 8)
    sources = _sources(tiles, side, POOL * images, seed)
    models = [zoo.model(name) for name in names] if zoo is not None else []
    decoders = _families(random, generator)
    pairs = chain(
        (_trained_pair(model, sources, images, steps, generator) for model in models),
        (_random_pair(decoder, sources, images, generator) for decoder in decoders),
    )
    embedded = []
    for pair in tqdm(pairs, total=len(names) + random, unit="pair", disable=not progress):
        folders = [_as_files(folder, generator) for folder in pair]
        embedded.append([extractor.embed(folder, grid=2).numpy() for folder in folders])
    base, tuned = np.moveaxis(np.array(embedded), 1, 0)
    architectures = [parse_model_id(name)[0].id for name in names]
    architectures += [f"random {place // FAMILY}" for place in range(random)]
    source = "procedural images" if tiles is None else "photograph tiles"
    return Kin(
        base=base,
        tuned=tuned,
        architecture=np.unique(architectures, return_inverse=True)[1],
        description=f"{len(names)} trained models of held-out architectures and {random} random "
        f"decoders, {FAMILY} of each architecture, with a fine-tune each; {images} images of "
        f"either; sources: {source}",
    )


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """Source images (n, 3, side, side) of the bases, and others for the fine-tunes."""

    base: Tensor
    tuned: Tensor


def _sources(tiles: str | Path | None, side: int, count: int, seed: int) -> _Sources:
    if tiles is None:
        pool = procedural_images(2 * count, side, seed=10_000 + seed)  # training starts from seed 0
    else:
        stored = load_tiles(tiles, side=side, least=2 * count)
        picks = np.random.default_rng(seed).choice(len(stored), 2 * count, replace=False)
        pool = torch.from_numpy(stored[np.sort(picks), :side, :side]).permute(0, 3, 1, 2) / 255
    return _Sources(base=pool[0::2], tuned=pool[1::2])


def _take(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return images[torch.randint(len(images), (count,), generator=generator)]


@torch.no_grad()
def _trained_pair(
    model: SyntheticModel, sources: _Sources, images: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    look, style = Style.draw(generator), Style.draw(generator)
    seed = int(torch.randint(2**40, (), generator=generator))
    tuned = fine_tune(model, sources.tuned, style, seed=seed, steps=steps)
    base = model(look(_take(sources.base, images, generator)))
    return base, tuned(_take(sources.tuned, images, generator))


def _families(count: int, generator: torch.Generator) -> Iterator[RandomDecoder]:
    for place in range(count):
        if place % FAMILY == 0:
            seed = int(torch.randint(2**40, (), generator=generator))
            ancestor = RandomDecoder(seed, space=get_args(Space)[seed % 2])
        yield sibling(ancestor, generator=generator)


@torch.no_grad()
def _random_pair(
    decoder: RandomDecoder, sources: _Sources, images: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    look, style = Style.draw(generator), Style.draw(generator)
    base = look(_take(sources.base, images, generator))
    tuned = style(_take(sources.tuned, images, generator))
    return decoder(base, generator=generator), decoder(tuned, generator=generator)


def _as_files(images: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Without the border, in 8 bit or, all alike, through JPEG."""
    inner = quantise(images[..., MARGIN:-MARGIN, MARGIN:-MARGIN])
    if torch.rand((), generator=generator) >= _JPEG_SHARE:
        return list(inner)
    low, high = _QUALITY
    quality = int(torch.randint(low, high + 1, (), generator=generator))
    return [jpeg(image, quality) for image in inner]

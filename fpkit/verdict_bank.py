"""Embeddings of synthetic models of known truth, from which verdicts are calibrated.

What a verdict may be believed is learnt from models that the extractor was not trained on: trained
models of held-out architectures, and fresh random decoders in families of one architecture. No
image of a real generator is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from fpkit.decoders import RandomDecoder, Space
from fpkit.embedder import CROPS_PER_SIDE, Embedder
from fpkit.encoder import load_encoder
from fpkit.finetunes import FAMILY, MARGIN, Style, sibling
from fpkit.images import grid_crops, jpeg, load_tiles, quantise
from fpkit.matching import KNOTS, match_spectrum
from fpkit.procedural import procedural_images
from fpkit.zoo import Zoo, parse_model_id

FORMATS = ("lossless", "jpeg")
QUALITIES = (65, 75, 80, 85, 90, 95, 98)
SOURCES, PROCEDURAL = 96, 16  # images that all models share, so that content tells none apart
MATCHED = 0.6  # share of models whose images get the radial spectrum of pictures, as in training
HOUSE = 0.5  # share of models that keep to one JPEG quality and look

Model = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Embeddings of the crops of images of models, and of images that no model made.

    Attributes
    ----------
    crops
        (p, k, 2, g, g, d) float32, unit norm, not centred: the g x g crops of k images of each of
        p models, lossless and through JPEG (`FORMATS`).
    strangers
        (q, 2, g, g, d), the same of photographs and procedural images.
    cohort
        (d,) mean embedding of synthetic models: the extractor's.
    architecture
        (p,) equal for models of one architecture, whose weights differ.
    kind
        (p,) for each a text such as ``"random nearest pool"``: what tells populations apart.
    description
        Where they come from, for model cards.
    """

    crops: NDArray[np.float32]
    strangers: NDArray[np.float32]
    cohort: NDArray[np.float32]
    architecture: NDArray[np.intp]
    kind: NDArray[np.str_]
    description: str

    def of(self, models: NDArray[np.intp] | NDArray[np.bool_]) -> Bank:
        """The bank of some of its models, with all strangers."""
        return Bank(
            crops=self.crops[models],
            strangers=self.strangers,
            cohort=self.cohort,
            architecture=self.architecture[models],
            kind=self.kind[models],
            description=self.description,
        )


def embed_bank(
    extractor: Embedder,
    *,
    zoo: Zoo | None = None,
    tiles: str | Path | None = None,
    random: int = 120,
    images: int = 14,
    strangers: int = 240,
    seed: int = 0,
    progress: bool = False,
    part: tuple[int, int] = (0, 1),
) -> Bank:
    """Embed images of models that the extractor was not trained on.

    Parameters
    ----------
    extractor : Embedder
        Where its card names ``held_out_architectures``, these are the trained models.
    zoo : Zoo, optional
        Has the trained models; without it, or without held-out ones, all models are random.
    tiles : path, optional
        Photograph tiles (n, h, w, 3) uint8, see :func:`fpkit.images.load_tiles`: four of them make
        a source image. Without them, sources and strangers are procedural images.
    random : int
        Random decoders, four of each architecture: half decode pooled images, half the latent of
        the shared encoder.
    images : int
        Of every model.
    strangers : int
        Images of no model; with `tiles`, three quarters of them are photographs.
    seed : int
    progress : bool
        Show a progress bar on stderr.
    part : tuple of two ints
        ``(i, n)``: embed only every n-th model and stranger, from the i-th on.

    Raises
    ------
    ValueError
        If there are fewer than 2 models, or fewer than 2 images of each.
    """
    held_out = set(extractor.card.get("held_out_architectures", ()))
    names = [name for name in zoo or () if parse_model_id(name)[0].id in held_out]
    if len(names) + random < 2 or images < 2:
        raise ValueError(
            f"at least 2 models with 2 images each are needed, got {len(names) + random} with "
            f"{images}: raise random or images"
        )
    side = 3 * extractor.config.crop  # without its border, CROPS_PER_SIDE crops along it
    sources, others = _sources(tiles, side, max(SOURCES, images), strangers, seed)
    built: list[tuple[str, str, Callable[[], Model]]] = []
    for name in names:
        spec = parse_model_id(name)[0]
        built.append((spec.id, f"trained {spec.upsample}", _trained(zoo, name)))
    built += [_random(seed, place) for place in range(random)]
    mine = range(part[0], len(built), part[1])
    crops = []
    for place in tqdm(mine, unit="model", disable=not progress):
        made = _images(built[place][2](), sources, images, seed * 100_003 + place)
        crops.append(np.stack([_embedded(extractor, pair) for pair in made]))
    found = [
        _embedded(extractor, _formats(quantise(image), torch.Generator().manual_seed(seed + i)))
        for i, image in list(enumerate(others))[part[0] :: part[1]]
    ]
    ids = np.unique([architecture for architecture, _, _ in built], return_inverse=True)[1]
    source = "procedural images" if tiles is None else "photograph tiles"
    return Bank(
        crops=np.stack(crops),
        strangers=np.stack(found),
        cohort=extractor.cohort.cpu().numpy(),
        architecture=ids[list(mine)],
        kind=np.array([built[place][1] for place in mine]),
        description=f"{len(names)} trained models of held-out architectures and {random} random "
        f"decoders, {FAMILY} of each architecture, {images} images of each, lossless and through "
        f"JPEG; {len(others)} images of no model; sources: {source}",
    )


def _trained(zoo: Zoo | None, name: str) -> Callable[[], Model]:
    def build() -> Model:
        assert zoo is not None  # names come from it
        model = zoo.model(name)
        return lambda images, _: torch.cat([model(image[None]) for image in images])

    return build


def _random(seed: int, place: int) -> tuple[str, str, Callable[[], Model]]:
    family = place // FAMILY
    encoder = load_encoder() if family % 2 else None
    ancestor = RandomDecoder(
        7_000_003 * (seed + 1) + family, space=get_args(Space)[family // 2 % 2], encoder=encoder
    )
    upsampler = ancestor.levels[-1].upsampler

    def build() -> Model:
        generator = torch.Generator().manual_seed(9_000_011 * (seed + 1) + place)
        decoder = sibling(ancestor, generator=generator)
        return lambda images, g: decoder(images, generator=g)

    kind = f"random {upsampler} {'latent' if family % 2 else 'pooled'}"
    return f"random {family}", kind, build


def _sources(
    tiles: str | Path | None, side: int, count: int, strangers: int, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """Source images (n, 3, side, side), and images of no model."""
    if tiles is None:
        pool = procedural_images(count + strangers, side, seed=10_000 + seed)
        return pool[strangers:], list(pool[:strangers])
    photos = strangers * 3 // 4
    stored = load_tiles(tiles, side=side // 2, least=4 * (count + photos))
    picks = np.random.default_rng(seed).choice(len(stored), 4 * (count + photos), replace=False)
    cut = torch.from_numpy(stored[np.sort(picks), : side // 2, : side // 2])[
        torch.from_numpy(np.random.default_rng(seed + 1).permutation(len(picks)))
    ]
    made = procedural_images(PROCEDURAL + strangers - photos, side, seed=10_000 + seed)
    four = cut.permute(0, 3, 1, 2).unflatten(0, (-1, 2, 2)) / 255  # of a mosaic
    mosaics = four.permute(0, 3, 1, 4, 2, 5).reshape(len(four), 3, 2 * (side // 2), -1)
    sources = torch.cat([mosaics[:count], made[:PROCEDURAL]])
    return sources, [*mosaics[count:], *made[PROCEDURAL:]]


@torch.no_grad()
def _images(model: Model, sources: Tensor, count: int, seed: int) -> list[list[Tensor]]:
    """Each of `count` images of a model, in both formats."""
    g = torch.Generator().manual_seed(seed)
    picked = sources[torch.randperm(len(sources), generator=g)[:count]]
    if torch.rand((), generator=g) < HOUSE:
        picked = Style.draw(g)(picked)
    made = model(picked, g)
    if torch.rand((), generator=g) < MATCHED:
        strength = 0.5 + 0.5 * torch.rand(1, generator=g)
        curves = 0.15 * torch.randn(1, KNOTS, generator=g)
        left = 0.03 ** torch.rand((), generator=g) if torch.rand((), generator=g) < 0.5 else 1.0
        matched = match_spectrum(made[None], picked[None], strength=strength, curves=curves)[0]
        made = picked + left * (matched - picked)
    quality = None
    if torch.rand((), generator=g) < HOUSE:
        quality = QUALITIES[int(torch.randint(len(QUALITIES), (), generator=g))]
    return [_formats(image, g, quality) for image in quantise(made)]


def _formats(image: Tensor, g: torch.Generator, quality: int | None = None) -> list[Tensor]:
    inner = image[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    if quality is None:
        quality = QUALITIES[int(torch.randint(len(QUALITIES), (), generator=g))]
    subsampling = 0 if torch.rand((), generator=g) < 0.25 else 2
    return [inner, jpeg(inner, quality, subsampling)]


@torch.no_grad()
def _embedded(extractor: Embedder, formats: Sequence[Tensor]) -> NDArray[np.float32]:
    """(2, g, g, d) unit embeddings of the crops."""
    size = extractor.config.crop
    crops = torch.cat([grid_crops(image, size=size, grid=CROPS_PER_SIDE) for image in formats])
    units = functional.normalize(extractor(crops.to(extractor.cohort.device)).float())
    return units.cpu().numpy().reshape(len(formats), CROPS_PER_SIDE, CROPS_PER_SIDE, -1)

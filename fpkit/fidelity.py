"""Models as vectors: what each of them does to the spectrum of its images, ring by ring.

Images -> noise residual -> power spectrum -> mean over rings of equal frequency -> mean over the
images of a model: one vector per model, the input of the figures of :mod:`fpkit.populations`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from fpkit.decoders import RandomDecoder
from fpkit.images import jpeg
from fpkit.residual import ResidualName
from fpkit.spectrum import average_spectrum, radial_profile, to_db
from fpkit.zoo import Zoo

FloatArray = NDArray[np.float64]
Scale = Literal["db", "power"]

CROP = 128
MODELS = 16  # applied at once: their images take 120 MB
MARGIN = 16  # padding marks the borders of what a synthetic model returns: these are cut
FLOOR = 1e-8  # far below the power of 8-bit rounding, (1/255)^2 / 12 = 1.3e-6


def image_power(
    image: Tensor, *, residual: ResidualName = "median", crop: int = CROP
) -> FloatArray:
    """Power spectrum of the residual of one image: mean over crops and colour channels.

    Parameters
    ----------
    image
        (c, h, w) float in [0, 1], at least `crop` pixels high and wide.
    residual, crop
        As in :func:`fpkit.spectrum.average_spectrum`.

    Returns
    -------
    ndarray
        (crop, crop) float64, centred.
    """
    return average_spectrum([image], residual=residual, crop=crop).mean(axis=0)


def ring_profile(power: ArrayLike) -> FloatArray:
    """How the power is spread over the rings, whatever the total.

    Parameters
    ----------
    power
        (..., h, w) centred power spectra.

    Returns
    -------
    ndarray
        (..., d) relative power of the rings 1 to d = min(h, w) // 2, mean 1; ring i is at
        i / min(h, w) cycles/pixel. Frequency zero and the corners are left out.

    Notes
    -----
    Dividing each image by its own total lets loud (textured) images count as much as quiet ones.
    A residual of zero has no shape and counts as white.
    """
    _, rings = radial_profile(power)
    rings = rings[..., 1:] + FLOOR
    return rings / rings.mean(axis=-1, keepdims=True)


def image_profiles(
    images: Iterable[Tensor], *, residual: ResidualName = "median", crop: int = CROP
) -> FloatArray:
    """:func:`ring_profile` of every image: (n, crop // 2).

    Parameters
    ----------
    images
        (n, c, h, w), or (c, h, w) each; float in [0, 1], at least `crop` pixels high and wide.
    residual, crop
        As in :func:`image_power`.
    """
    powers = [image_power(image, residual=residual, crop=crop) for image in images]
    if not powers:
        raise ValueError("image_profiles needs at least one image, got none")
    return ring_profile(np.stack(powers))


def model_vector(profiles: ArrayLike, *, scale: Scale = "db") -> FloatArray:
    """Vector of one model from the profiles of its images.

    Parameters
    ----------
    profiles
        (..., n, d) relative powers, see :func:`image_profiles`; averaged over n.
    scale
        ``"db"``: decibels minus their mean over the rings, so that a vector tells the shape of
        a spectrum and a factor of 2 weighs alike at every frequency; ``"power"``: the mean
        itself. Power falls by orders of magnitude over the rings and models differ by orders
        of magnitude at its peaks: in ``"power"`` a few rings and the few models with the highest
        peaks decide a Frechet distance (tested), which is why it is not the default.

    Returns
    -------
    ndarray
        (..., d) float64, in dB (mean 0) or relative power (mean 1).

    Notes
    -----
    Rings hold the mean power, not its sum ("azimuthal integration"): in dB these differ by the
    same constants for all models, which no distance between models sees.
    """
    mean = np.asarray(profiles, dtype=np.float64).mean(axis=-2)
    if scale == "power":
        return mean
    if scale != "db":
        raise ValueError(f"scale must be one of {', '.join(get_args(Scale))}, got {scale!r}")
    decibels = to_db(mean)
    return decibels - decibels.mean(axis=-1, keepdims=True)


@dataclass(frozen=True, kw_only=True)
class Population:
    """Models with the profiles of their images.

    Attributes
    ----------
    names
        Of the m models.
    profiles
        m arrays (images, d), relative power, see :func:`image_profiles`.
    """

    names: tuple[str, ...]
    profiles: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.profiles):
            raise ValueError(
                "a population needs one array of profiles per model and at least one model, got "
                f"{len(self.names)} names and {len(self.profiles)} arrays"
            )

    def __len__(self) -> int:
        return len(self.names)

    def vectors(self, *, scale: Scale = "db") -> FloatArray:
        """(m, d), one :func:`model_vector` per model."""
        return np.stack([model_vector(profiles, scale=scale) for profiles in self.profiles])

    def resampled(self, count: int, *, scale: Scale = "db", seed: int) -> FloatArray:
        """(m, count, d): vectors of the same models, from other images.

        Each comes from as many images as the model has, drawn with replacement. They differ by
        what the choice of images adds: two of them no more than two models that are the same.
        """
        generator = np.random.default_rng(seed)
        resampled = []
        for profiles in self.profiles:
            picks = generator.integers(len(profiles), size=(count, len(profiles)))
            resampled.append(model_vector(profiles[picks], scale=scale))
        return np.stack(resampled)

    def select(self, keep: Callable[[str], bool]) -> Population | None:
        """The models whose names `keep` accepts; None if there are none."""
        chosen = [i for i, name in enumerate(self.names) if keep(name)]
        if not chosen:
            return None
        return Population(
            names=tuple(self.names[i] for i in chosen),
            profiles=tuple(self.profiles[i] for i in chosen),
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """How the images of a synthetic model are made and looked at.

    Attributes
    ----------
    images
        Per model, drawn from the pool for each model anew: models of the real world do not
        share their pictures either.
    residual, crop
        As in :func:`image_power`.
    jpeg_quality
        Compress what a model returns (4:2:0), for a comparison with images found as JPEG; None:
        8-bit rounding only.
    seed
        Of the choice of images and of random decoders.
    """

    images: int = 24
    residual: ResidualName = "median"
    crop: int = CROP
    jpeg_quality: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1 or self.crop < 8:
            raise ValueError(
                f"images must be at least 1 and crop at least 8, got {self.images}, {self.crop}"
            )


def zoo_population(
    zoo: Zoo,
    pool: Tensor,
    *,
    names: Sequence[str] | None = None,
    view: View | None = None,
    progress: bool = False,
) -> Population:
    """What the models of a zoo do to images.

    Parameters
    ----------
    zoo
        Synthetic models; they run where `pool` lies.
    pool
        (n, 3, h, w) float32 in [0, 1], at least ``view.images`` of them, h and w multiples of 8
        and at least ``view.crop + 32``: 16 pixels are cut at every border afterwards.
    names
        Models; by default all.
    view
        How to look; by default ``View()``.
    progress
        Show a bar on stderr.

    Raises
    ------
    ValueError
        If the pool is too small, or its images are.
    """
    view = View() if view is None else view
    chosen = tuple(zoo.model_ids if names is None else names)
    outputs = _applied(zoo, chosen, _drawn(pool, len(chosen), view))
    return _population(chosen, outputs, view, "zoo" if progress else None)


def random_population(
    models: int,
    pool: Tensor,
    *,
    decoder: Callable[[int], RandomDecoder] = RandomDecoder,
    view: View | None = None,
    progress: bool = False,
) -> Population:
    """What `models` random decoders do to images.

    Parameters
    ----------
    models
        How many.
    pool, view, progress
        As in :func:`zoo_population`; ``view.seed`` draws the decoders too.
    decoder
        Makes a decoder of a seed, for other kinds than the default.
    """
    view = View() if view is None else view
    generator = torch.Generator().manual_seed(view.seed)
    seeds = torch.randint(2**40, (models,), generator=generator).tolist()
    drawn = zip(seeds, _drawn(pool, models, view), strict=True)
    outputs = (decoder(seed)(images, generator=generator) for seed, images in drawn)
    names = tuple(f"random/seed{seed}" for seed in seeds)
    return _population(names, outputs, view, "random decoders" if progress else None)


def source_population(models: int, pool: Tensor, *, view: View | None = None) -> Population:
    """The images of the pool as they are, as if `models` models had made them.

    The null hypothesis: whatever these vectors tell comes from the pictures and from their choice.
    """
    view = View() if view is None else view
    names = tuple(f"source/{number}" for number in range(models))
    return _population(names, _drawn(pool, models, view), view, None)


def _applied(zoo: Zoo, names: Sequence[str], drawn: Iterator[Tensor]) -> Iterator[Tensor]:
    """For each model what it makes of its images."""
    for start in range(0, len(names), MODELS):
        block = names[start : start + MODELS]
        images = torch.stack(list(islice(drawn, len(block))))
        yield from zoo.apply_many(block, images)


def _drawn(pool: Tensor, models: int, view: View) -> Iterator[Tensor]:
    """For each model its images."""
    side = view.crop + 2 * MARGIN
    if pool.ndim != 4 or len(pool) < view.images or min(pool.shape[-2:]) < side:
        raise ValueError(
            f"pool must be (n, 3, h, w) with n at least {view.images}, h and w at least {side}, "
            f"got {tuple(pool.shape)}"
        )
    generator = torch.Generator().manual_seed(view.seed)
    for _ in range(models):
        yield pool[torch.randperm(len(pool), generator=generator)[: view.images]]


def _population(
    names: tuple[str, ...], outputs: Iterable[Tensor], view: View, title: str | None
) -> Population:
    """Profiles of each model's images, borders cut."""
    profiles = []
    for images in tqdm(
        outputs, desc=title, total=len(names), disable=title is None, file=sys.stderr
    ):
        inner: Iterable[Tensor] = images[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        if view.jpeg_quality is not None:
            inner = [jpeg(image, view.jpeg_quality) for image in inner]
        profiles.append(image_profiles(inner, residual=view.residual, crop=view.crop))
    return Population(names=names, profiles=tuple(profiles))

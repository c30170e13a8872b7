"""Ways to turn an image into a feature vector, other than the trained extractor.

What has to be beaten: two fingerprints that need no training, and one that sees nothing but the
subject. A *method* is any object with the three members of :class:`Method`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpkit.embedding_cache import EmbeddingCache
from fpkit.images import grid_crops
from fpkit.residual import residual
from fpkit.spectrum import power_spectrum

CROP = 128


class Method(Protocol):
    """A way to see images: vectors of one source should point the same way.

    Attributes
    ----------
    name
        As in the results.
    prior
        For :func:`fpkit.gallery.centred_scores`: above 0 only where the zero vector means
        something (the middle of a cohort of unrelated models).
    """

    name: str
    prior: float

    def features(self, image: Tensor) -> NDArray[np.float32]:
        """(3, h, w) in [0, 1] to (d,) float32, of unit norm.

        Raises
        ------
        ValueError
            If the image is too small for this method.
        """
        ...


class EmbeddingModel(Protocol):
    """What is needed of an extractor: :class:`fpkit.extractor.Extractor` has it."""

    hash: str
    dim: int

    def embed(self, images: Tensor | Sequence[Tensor]) -> Tensor: ...


class ExtractorMethod:
    """The embedding of an extractor; zero is the middle of its cohort of synthetic models.

    With a `cache` of this extractor, :func:`fpkit.features.extract` computes no embedding twice.
    """

    name = "extractor"

    def __init__(
        self, extractor: EmbeddingModel, *, prior: float, cache: EmbeddingCache | None = None
    ) -> None:
        self.extractor = extractor
        self.prior = prior
        self.cache = cache

    def features(self, image: Tensor) -> NDArray[np.float32]:
        return self.extractor.embed(image[None])[0].numpy().astype(np.float32, copy=False)


class SpectrumMethod:
    """Log of the average power spectrum of a 3 x 3 grid of crops, without any training.

    No denoiser, Hann window, minus its mean over all frequencies and channels. The spectrum of
    a real image is symmetric, so half of the plane is kept.
    """

    name = "spectrum"
    prior = 0.0

    def features(self, image: Tensor) -> NDArray[np.float32]:
        crops = residual(grid_crops(image, size=CROP), method="none")
        power = power_spectrum(crops, centred=False)[..., : CROP // 2 + 1].mean(dim=0)
        # 8-bit rounding alone leaves a power of (1/255)^2 / 12 = 1.3e-6: nothing real is below
        log_power = torch.log(power + 1e-8)
        return _unit((log_power - log_power.mean()).numpy())


class ResidualMethod:
    """Noise residual of the top left crop, pixel by pixel.

    The mean over a model's images is its fingerprint, correlated with the residual of a probe.
    The crop is at a fixed place because the pattern is tied to the pixel grid.

    References
    ----------
    Marra, Gragnaniello, Verdoliva, Poggi, "Do GANs leave artificial fingerprints?", MIPR 2019;
    here with a median in place of their denoiser.
    """

    name = "residual"
    prior = 0.0

    def features(self, image: Tensor) -> NDArray[np.float32]:
        if min(image.shape[-2:]) < CROP:
            grid_crops(image, size=CROP)  # raises the error that names the sizes
        noise = residual(image[None, :, :CROP, :CROP], method="median")[0]
        return _unit((noise - noise.mean(dim=(-2, -1), keepdim=True)).numpy())


class ColourMethod:
    """Square root of the colour histogram, 8 x 8 x 8 bins: what the subject alone gives away."""

    name = "colour"
    prior = 0.0

    def features(self, image: Tensor) -> NDArray[np.float32]:
        red, green, blue = (image * 7.999).to(torch.int64).clamp(0, 7).flatten(1)
        counts = torch.bincount((red * 8 + green) * 8 + blue, minlength=512)
        return _unit(counts.float().sqrt().numpy())


BASELINES: dict[str, type[Any]] = {
    method.name: method for method in (SpectrumMethod, ResidualMethod, ColourMethod)
}


def _unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    vector = array.ravel()
    return vector / max(float(np.linalg.norm(vector)), 1e-12)

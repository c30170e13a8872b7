"""Frechet frequency distance as a metric of torchmetrics: streaming, mergeable, on any device.

Needs ``pip install 'fpkit[metrics]'``; nothing else in fpkit imports this module.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpkit.clouds import frechet_distance
from fpkit.fidelity import CROP, image_profiles, model_vector
from fpkit.residual import ResidualName

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError("torchmetrics is not installed: pip install 'fpkit[metrics]'") from error


class FrechetFrequencyDistance(Metric):
    """FFD between real and synthetic models, whose images come one model at a time.

    Keeps float64 sums of the models' vectors and of their products, no images and no vectors: what
    several processes saw adds up. The value is that of :func:`fpkit.clouds.frechet_distance`
    for ALL models seen. It falls as their number grows: keep both counts the same, and use
    :func:`fpkit.populations.ffd` for an interval and a baseline.

    Parameters
    ----------
    residual, crop
        How a vector comes from images, see :func:`fpkit.fidelity.image_profiles`.
    dim
        Length of the vectors; by default that of images, ``crop // 2``.

    Examples
    --------
    >>> metric = FrechetFrequencyDistance(dim=2)
    >>> square = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])
    >>> metric.update(square, real=True)
    >>> metric.update(square + 3, real=False)
    >>> metric.compute()
    tensor(18., dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    real_count: Tensor
    real_sum: Tensor
    real_products: Tensor
    synthetic_count: Tensor
    synthetic_sum: Tensor
    synthetic_products: Tensor

    def __init__(
        self, *, residual: ResidualName = "median", crop: int = CROP, dim: int | None = None
    ) -> None:
        super().__init__()
        self.residual = residual
        self.crop = crop
        self.dim = crop // 2 if dim is None else dim
        if self.dim < 1:
            raise ValueError(f"dim must be at least 1, got {self.dim}")
        for kind in ("real", "synthetic"):
            zeros = {
                "count": torch.zeros((), dtype=torch.int64),
                "sum": torch.zeros(self.dim, dtype=torch.float64),
                "products": torch.zeros(self.dim, self.dim, dtype=torch.float64),
            }
            for name, default in zeros.items():
                self.add_state(f"{kind}_{name}", default, dist_reduce_fx="sum")

    def update(self, images: Tensor, *, real: bool) -> None:
        """Add models.

        Parameters
        ----------
        images
            (k, c, h, w) float in [0, 1]: images of ONE model, at least `crop` pixels high and
            wide; or (n, dim): the vectors of n models.
        real
            Which population they belong to.

        Raises
        ------
        ValueError
            If the shape is neither, or a vector is not finite.
        """
        vectors = self._vectors(images).to(self.real_sum)
        if not vectors.isfinite().all():
            raise ValueError("vectors must be finite, got NaN or infinite values")
        count, total, products = len(vectors), vectors.sum(dim=0), vectors.T @ vectors
        if real:
            self.real_count += count
            self.real_sum += total
            self.real_products += products
        else:
            self.synthetic_count += count
            self.synthetic_sum += total
            self.synthetic_products += products

    def compute(self) -> Tensor:
        """The distance as a float64 scalar; ValueError with fewer than 2 models of a kind."""
        real = _moments("real", self.real_count, self.real_sum, self.real_products)
        synthetic = _moments(
            "synthetic", self.synthetic_count, self.synthetic_sum, self.synthetic_products
        )
        distance = frechet_distance(*real, *synthetic)
        return torch.tensor(distance, dtype=torch.float64, device=self.real_sum.device)

    def _vectors(self, images: Tensor) -> Tensor:
        if images.ndim == 2 and images.shape[1] == self.dim:
            return images
        if images.ndim != 4 or self.dim != self.crop // 2:
            raise ValueError(
                f"expected the images (k, c, h, w) of one model, for vectors of {self.crop // 2}, "
                f"or vectors (n, {self.dim}), got {tuple(images.shape)}"
            )
        profiles = image_profiles(images, residual=self.residual, crop=self.crop)
        return torch.from_numpy(model_vector(profiles))[None]


def _moments(
    kind: str, count: Tensor, total: Tensor, products: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance (dividing by n - 1)."""
    if count < 2:
        raise ValueError(f"at least 2 {kind} models are needed, got {int(count)}: update first")
    mean = total / count
    covariance = (products - count * torch.outer(mean, mean)) / (count - 1)
    return mean.cpu().numpy(), covariance.cpu().numpy()

"""A synthetic model made on the spot: trained, let loose on probes, its fingerprint taken."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpkit.arch import ArchSpec
from fpkit.fidelity import MARGIN
from fpkit.images import quantise
from fpkit.spectrum import average_spectrum
from fpkit.synthesis import synthesize


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to make: an architecture, the seed of its weights, and for how long to train."""

    spec: ArchSpec
    seed: int
    steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeModel:
    """A model that was trained, and its fingerprint.

    Attributes
    ----------
    number
        In the order of making, from 1.
    settings
        It was made with; ``settings.steps`` is the most it could train.
    residual
        Mean squared error of the reconstruction on held-out images.
    steps, seconds
        That training took.
    power
        (128, 128) float64, centred: average spectrum of the residuals of its 8-bit outputs, mean
        over colours.
    """

    number: int
    settings: Settings
    residual: float
    steps: int
    seconds: float
    power: NDArray[np.float64]

    @property
    def spec(self) -> ArchSpec:
        """The architecture."""
        return self.settings.spec

    @property
    def seed(self) -> int:
        """The seed of the weights."""
        return self.settings.seed

    @property
    def label(self) -> str:
        """``#3 K2-L1-Unearest-Arelu-Nnone-Spost seed 0``."""
        return f"#{self.number} {self.spec.id} seed {self.seed}"


def make_model(
    settings: Settings,
    images: Tensor,
    probes: Tensor,
    *,
    number: int = 1,
    callback: Callable[[int, float], None] | None = None,
) -> MadeModel:
    """Train the model of these settings on `images` and take its fingerprint on `probes`.

    Parameters
    ----------
    settings : Settings
    images : Tensor, (n, 3, h, w) float32 in [0, 1]
        As :func:`fpkit.synthesis.synthesize` wants them.
    probes : Tensor, (m, 3, h, w) float32 in [0, 1]
        At least 160 pixels high and wide: 16 are cut at every border.
    number : int
        Of the result.
    callback : callable, optional
        Called as ``callback(step, loss)`` after every step; what it raises ends the training.
    """
    synthesis = synthesize(
        settings.spec,
        images,
        seed=settings.seed,
        max_steps=settings.steps,
        progress=False,
        callback=callback,
    )
    with torch.no_grad():
        outputs = synthesis.model(probes)
    return MadeModel(
        number=number,
        settings=settings,
        residual=synthesis.residual,
        steps=synthesis.steps,
        seconds=synthesis.seconds,
        power=interior_power(outputs),
    )


def interior_power(images: Tensor) -> NDArray[np.float64]:
    """Average spectrum of the residuals of `images` as 8-bit files, borders cut, mean over
    colours: (n, 3, h, w) in [0, 1], at least 160 pixels high and wide, to (128, 128)."""
    inner = quantise(images)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    return average_spectrum(inner).mean(axis=0)

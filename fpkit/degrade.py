"""What happens to images on their way through the world: compressed, scaled, blurred, cropped.

A fingerprint is faint, and each of these takes some of it away. The benchmark degrades the probes
and leaves the gallery as it was: one enrols good images, and then meets bad ones.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fpkit.images import jpeg, quantise

Kind: TypeAlias = Literal["jpeg", "downscale", "blur", "crop"]
USUAL: dict[Kind, float] = {"jpeg": 85, "downscale": 0.5, "blur": 1.0, "crop": 0.75}
DEGRADATIONS = ("jpeg95", "jpeg85", "jpeg65", "downscale0.5", "blur", "crop")  # the usual set


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """One way to degrade an image.

    Attributes
    ----------
    kind
        ``jpeg`` compresses (colour at half resolution, 4:2:0), ``downscale`` resamples
        (antialiased bicubic), ``blur`` convolves with a Gaussian, ``crop`` cuts a rectangle out
        at a random place. All results are rounded to 8 bits.
    amount
        Of ``jpeg`` the quality, an integer from 1 to 100; of ``downscale`` and ``crop`` the share
        of each side that is left, between 0 and 1; of ``blur`` the standard deviation in pixels,
        above 0 and at most 20.

    Raises
    ------
    ValueError
        If there is no such kind, or the amount is outside its range.

    Examples
    --------
    >>> degradation = Degradation.parse("downscale0.5")
    >>> degradation(torch.zeros(3, 301, 200), generator=np.random.default_rng(0)).shape
    torch.Size([3, 150, 100])
    """

    kind: Kind
    amount: float

    def __post_init__(self) -> None:
        if self.kind not in USUAL:
            raise ValueError(f"kind must be one of {', '.join(USUAL)}, got {self.kind!r}")
        fits, expected = {
            "jpeg": (self.amount in range(1, 101), "a quality, an integer from 1 to 100"),
            "downscale": (0 < self.amount < 1, "a share of each side, between 0 and 1"),
            "crop": (0 < self.amount < 1, "a share of each side, between 0 and 1"),
            "blur": (0 < self.amount <= 20, "a standard deviation in pixels of at most 20"),
        }[self.kind]
        if not fits:
            raise ValueError(f"{self.kind} needs {expected}, got {self.amount:g}")

    @classmethod
    def parse(cls, name: str) -> Degradation:
        """Read a kind with its amount: ``jpeg85``, ``downscale0.5``, ``blur2``, ``crop0.9``.

        Without a number it is the usual one: ``jpeg`` is ``jpeg85``, ``blur`` ``blur1``, ``crop``
        ``crop0.75``, ``downscale`` ``downscale0.5``.
        """
        found = re.fullmatch(r"(jpeg|downscale|blur|crop)(\d+\.?\d*|\.\d+)?", name)
        if found is None:
            raise ValueError(
                f"unknown degradation {name!r}: expected one of {', '.join(DEGRADATIONS)}, or "
                "these with another number"
            )
        kind: Kind = found[1]  # type: ignore[assignment]  # the pattern admits these only
        return cls(kind=kind, amount=float(found[2]) if found[2] else USUAL[kind])

    def __call__(self, image: Tensor, *, generator: np.random.Generator) -> Tensor:
        """Degrade one image.

        Parameters
        ----------
        image
            (3, h, w) float32 in [0, 1].
        generator
            Of the place of a crop; the other kinds draw nothing.

        Returns
        -------
        Tensor
            (3, h', w') float32, multiples of 1/255 in [0, 1].

        Raises
        ------
        ValueError
            If nothing would be left of the image.
        """
        if self.kind == "jpeg":
            return jpeg(image, int(self.amount))
        if self.kind == "blur":
            return quantise(_blur(image, self.amount))
        height, width = (int(self.amount * side) for side in image.shape[-2:])
        if min(height, width) < 1:
            size = f"{image.shape[2]}x{image.shape[1]}"
            raise ValueError(f"image is {size}, of which {self.kind}{self.amount:g} leaves nothing")
        if self.kind == "crop":
            top, left = (
                _odd_offset(side - kept, generator)
                for side, kept in zip(image.shape[-2:], (height, width), strict=True)
            )
            return quantise(image[:, top : top + height, left : left + width])
        smaller = functional.interpolate(
            image[None], size=(height, width), mode="bicubic", antialias=True, align_corners=False
        )
        return quantise(smaller[0])


def _odd_offset(room: int, generator: np.random.Generator) -> int:
    """From 1 to `room`, odd: on no grid of even pitch, such as JPEG's 8 or a decoder's 2 to 32."""
    return 1 + 2 * int(generator.integers((room + 1) // 2))


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian, cut at 3 sigma; the borders are mirrored."""
    radius = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma).square())
    taps = (taps / taps.sum()).to(image.dtype)
    padded = functional.pad(image[None], (radius,) * 4, mode="reflect")
    rows = functional.conv2d(padded.transpose(0, 1), taps.view(1, 1, -1, 1))
    return functional.conv2d(rows, taps.view(1, 1, 1, -1)).transpose(0, 1)[0]

"""Models to look at, real, synthetic or your own: what is known of them, and their spectra."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fpkit.fidelity import MARGIN
from fpkit.procedural import procedural_images
from fpkit.realworld import RESIDUALS, RealFingerprint
from fpkit.residual import ResidualName
from fpkit.spectrum import average_spectrum
from fpkit.zoo import Zoo

FloatArray = NDArray[np.float64]
YOURS, SCENES = "your images", "procedural scenes"
IMAGES = 24  # as many as of a real model


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """One model to look at.

    Attributes
    ----------
    name, group
        The model, and the list it is in.
    format, content, sizes
        Of its images; empty where nobody knows.
    facts
        A line about it, for people.
    measure
        From the name of a residual to the average spectrum, (128, 128) centred power.
    """

    name: str
    group: str
    format: str
    content: str
    sizes: str
    facts: str
    measure: Callable[[ResidualName], FloatArray]


def caveats(left: Source, right: Source) -> list[str]:
    """Why a difference between two fingerprints need not be one of the models.

    Examples
    --------
    >>> from fpkit.realworld import real_fingerprints
    >>> a, b = (real_source(f) for f in real_fingerprints()[:2])
    >>> caveats(a, b)[0]
    'file formats differ (jpeg, png)'
    """
    found = []
    for what, a, b in (
        ("file formats differ", left.format, right.format),
        ("subjects differ", left.content, right.content),
        ("image sizes differ", left.sizes, right.sizes),
    ):
        if a and b and a != b:
            found.append(f"{what} ({a}, {b})")
    return found


def real_source(fingerprint: RealFingerprint) -> Source:
    """A measured real model."""
    f = fingerprint

    def measure(residual: ResidualName) -> FloatArray:
        if residual not in f.spectra:
            raise ValueError(
                f"{f.model} was measured with the residuals {', '.join(f.spectra)}, not {residual}"
            )
        return f.spectra[residual]

    sizes = ", ".join(f.sizes)
    decoder = f", decoder {f.decoder}" if f.decoder != f.model else ""
    return Source(
        name=f.model,
        group=f"real: {f.family}",
        format=f.format,
        content=f.content,
        sizes=sizes,
        facts=f"{f.family}{decoder}; {f.images} images of {f.content}, {sizes} {f.format}",
        measure=measure,
    )


def synthetic_source(zoo: Zoo, name: str) -> Source:
    """Model `name` of a zoo, measured on 24 procedural scenes when first asked for."""
    spectra: dict[ResidualName, FloatArray] = {}

    def measure(residual: ResidualName) -> FloatArray:
        if not spectra:  # the images are the dear part: take all spectra of them at once
            scenes = procedural_images(IMAGES, 128 + 2 * MARGIN, seed=0)
            made = zoo.apply(name, scenes)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
            for each in RESIDUALS:
                spectra[each] = average_spectrum(made, residual=each).mean(axis=0)
        return spectra[residual]

    entry = zoo.entry(name)
    return Source(
        name=name,
        group=f"synthetic: {name.split('-U')[1].split('-')[0]}",
        format="png",
        content=SCENES,
        sizes="128x128",
        facts=f"synthetic; {IMAGES} {SCENES}; reconstruction residual {entry['residual']:.4f}",
        measure=measure,
    )


def own_source(name: str, images: Tensor) -> Source:
    """Images (n, c, h, w) in [0, 1] of whatever made them; nothing else is known of it."""
    size = f"{images.shape[-1]}x{images.shape[-2]}"
    return Source(
        name=name,
        group=YOURS,
        format="",
        content="",
        sizes="",
        facts=f"{len(images)} images of yours, {size}",
        measure=lambda residual: average_spectrum(images, residual=residual).mean(axis=0),
    )

"""What an attribution desk knows of images and models: embedding, power spectrum, thumbnail.

No widget and no figure: :class:`fpkit.attribution_desk.AttributionDesk` shows what is here.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fpkit.embedder import CROPS_PER_SIDE, Embedder
from fpkit.evidence import ImageEvidence, conditions, gather_evidence
from fpkit.folders import list_images, list_models
from fpkit.gallery import Gallery
from fpkit.images import ImageReadError, decode_image, load_image
from fpkit.jail import Jail
from fpkit.names import visible
from fpkit.spectral_correlation import log_spectrum, reference_spectrum
from fpkit.spectrum import average_spectrum
from fpkit.verdicts import Verdict, VerdictCalibration

THUMBNAIL = 48  # pixels
MAX_UPLOAD_PIXELS = 16_000_000  # 4000 x 4000: an upload waits in memory with all others


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image that may be read: its name, and what reads it or raises ImageReadError.

    Names are as :func:`fpkit.names.visible` spells them: they go to the page. ``load`` gives the
    image (3, h, w) and the bytes of its file, or None if it is no file: read once, so that what is
    said of a file is said of these pixels, and a jail is not asked a second time.
    """

    name: str
    load: Callable[[], tuple[Tensor, bytes | None]]


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """One file from the browser.

    Attributes
    ----------
    name
        As the browser says it: text from a stranger, at most 255 characters.
    content
        Its bytes; empty if it was refused.
    refused
        Why it was refused; empty if it was not.
    """

    name: str
    content: bytes = b""
    refused: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """All that is kept of an image.

    Attributes
    ----------
    name : str
    embedding : ndarray, (d,) float32
    power : ndarray, (128, 128) float32
        Average power spectrum of its crops, mean over colours.
    thumbnail : ndarray, (3, h, w) float32 in [0, 1]
        At most 48 pixels wide and high.
    digest : str
        SHA-256 of its pixels.
    evidence : ImageEvidence
        What a verdict on it should be read with.
    """

    name: str
    embedding: NDArray[np.float32]
    power: NDArray[np.float32]
    thumbnail: NDArray[np.float32]
    digest: str
    evidence: ImageEvidence


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Which enrolled model made an image, and how sure that is.

    ``verdict`` is None if the extractor is not calibrated; ``scores`` has every enrolled model,
    highest first; ``seen`` says that the image itself was enrolled, so that its score flatters.
    """

    name: str
    model: str
    score: float
    verdict: Verdict | None
    scores: dict[str, float]
    seen: bool


def from_files(
    paths: Iterable[Path], *, names: Iterable[str] | None = None, jail: Jail | None = None
) -> list[Source]:
    """Sources of image files, called by their file names unless `names` are given.

    With a `jail`, those that lead out of it cannot be read, and messages have no folders.
    """
    paths = list(paths)
    titles = [path.name for path in paths] if names is None else list(names)

    def source(path: Path, name: str) -> Source:
        if jail is None:
            return Source(name=name, load=lambda: load_image(path))
        return Source(name=name, load=lambda: jail.load(path, name))

    return [source(path, visible(name)) for path, name in zip(paths, titles, strict=True)]


def from_images(images: Iterable[Tensor], *, name: str = "image") -> list[Source]:
    """Sources of images (3, h, w) in [0, 1] that are there already, numbered from 1."""
    return [
        Source(name=f"{name} {i}", load=lambda image=image: (image, None))  # type: ignore[misc]
        for i, image in enumerate(images, start=1)
    ]


def from_folder(folder: str | Path, *, jail: Jail | None = None) -> list[Source]:
    """Images directly in a folder, or else those of the folders in it, as ``model/file``.

    Parameters
    ----------
    folder
        With a `jail`, relative to it.
    jail
        What may be read; None: every file.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If it is no folder.
    ValueError
        If it holds no images, or may not be read.
    """
    with _asked_for(folder, jail) as path:
        direct = list_images(path)
        if direct:
            return from_files(direct, jail=jail)
        models = from_models(folder, jail=jail)
    return [
        replace(source, name=f"{visible(model)}/{source.name}")
        for model, sources in models.items()
        for source in sources
    ]


def from_models(folder: str | Path, *, jail: Jail | None = None) -> dict[str, list[Source]]:
    """Sources by model, of a folder that holds one folder of images per model.

    Parameters and errors: as for :func:`from_folder`. Of a model's folder that leads out of the
    jail there is no image, but one source that gives the reason.
    """
    with _asked_for(folder, jail) as path:
        models = list_models(path)
        for model in models:
            if jail is not None and not jail.holds(path / model):
                models[model] = [path / model]  # one "file" that cannot be read, with the reason
        return {model: from_files(paths, jail=jail) for model, paths in models.items()}


@contextmanager
def _asked_for(folder: str | Path, jail: Jail | None) -> Iterator[Path]:
    """The folder that somebody means; errors about it do not say where a jail lies."""
    if jail is None:
        yield Path(folder)
        return
    path = jail.path(str(folder))
    try:
        yield path
    except (ValueError, OSError) as error:
        told = jail.told(error, path, str(folder) or path.name)
        raise ValueError(told) from None


def from_uploads(uploads: Iterable[Uploaded]) -> list[Source]:
    """Sources of uploaded files; those that were refused raise that reason."""

    def load(upload: Uploaded, name: str) -> tuple[Tensor, bytes]:
        if upload.refused:
            raise ImageReadError(f"{name}: {upload.refused}")
        data = upload.content
        return decode_image(data, name=name, max_pixels=MAX_UPLOAD_PIXELS), data

    return [
        Source(name=name, load=partial(load, upload, name))
        for upload in uploads
        for name in [visible(upload.name)]
    ]


def measure(source: Source, extractor: Embedder) -> Measured:
    """Read an image and keep what the desk needs of it.

    Raises
    ------
    ImageReadError
        If it cannot be read, or is smaller than one crop.
    """
    image, data = source.load()
    try:
        embedding = extractor.embed([image])[0].numpy()
        evidence = gather_evidence(
            image, source=data, crop=extractor.config.crop, grid=CROPS_PER_SIDE
        )
    except ValueError as error:
        raise ImageReadError(f"{source.name}: {error}") from error
    power = average_spectrum([image], residual="none").mean(axis=0)
    shrink = max(1.0, max(image.shape[-2:]) / THUMBNAIL)
    size = [max(1, round(side / shrink)) for side in image.shape[-2:]]
    pixels = (image * 255).round().to(torch.uint8).numpy()
    return Measured(
        name=source.name,
        embedding=embedding,
        power=power.astype(np.float32),
        thumbnail=functional.adaptive_avg_pool2d(image, size).numpy(),
        digest=sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest(),
        evidence=evidence,
    )


def measured(
    sources: Iterable[Source], extractor: Embedder, *, on_error: Callable[[ImageReadError], None]
) -> Iterator[Measured]:
    """Measure images one by one; those that cannot be read go to `on_error`."""
    for source in sources:
        try:
            one = measure(source, extractor)
        except ImageReadError as error:
            on_error(error)
        else:
            yield one


class Known:
    """A gallery, and beside it the average power spectrum of every model that was enrolled here.

    Parameters
    ----------
    gallery : Gallery
        It is changed in place. Models that it holds already have no spectrum: a gallery keeps
        embeddings only.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._powers: dict[str, NDArray[np.float64]] = {}  # sums: averaging decibels would be wrong
        self._counts: dict[str, int] = {}
        self._digests: dict[str, set[str]] = {}

    def enrol(self, model: str, images: list[Measured]) -> None:
        """Add images to a model; ValueError if there are none, or the name is empty."""
        self.gallery.enrol(model, np.stack([image.embedding for image in images]) if images else [])
        total = np.sum([image.power for image in images], axis=0, dtype=np.float64)
        self._powers[model] = self._powers.get(model, 0.0) + total
        self._counts[model] = self._counts.get(model, 0) + len(images)
        self._digests.setdefault(model, set()).update(image.digest for image in images)

    def forget(self, model: str) -> None:
        """Remove a model; KeyError if it is not enrolled."""
        self.gallery.remove(model)
        for facts in (self._powers, self._counts, self._digests):
            facts.pop(model, None)  # type: ignore[attr-defined]

    def spectrum(self, model: str) -> NDArray[np.float64] | None:
        """(128, 128) in dB, see :func:`fpkit.spectral_correlation.log_spectrum`, if known."""
        if model not in self._powers:
            return None
        return log_spectrum(self._powers[model] / self._counts[model])

    def reference(self) -> NDArray[np.float64]:
        """What the models have in common, see :mod:`fpkit.spectral_correlation`."""
        return reference_spectrum(
            [log_spectrum(power / self._counts[model]) for model, power in self._powers.items()]
        )

    def identify(
        self, images: list[Measured], calibration: VerdictCalibration | None, *, far: float
    ) -> list[Answer]:
        """The answer for every image, at a false-accept rate; none if no model is enrolled."""
        if not images or not len(self.gallery):
            return []
        found = self.gallery.identify(np.stack([image.embedding for image in images]))
        seen: set[str] = set().union(*self._digests.values())
        return [
            Answer(
                name=image.name,
                model=answer.model,
                score=answer.score,
                verdict=calibration
                and calibration.identify(answer, self.gallery, conditions(image.evidence), far=far),
                scores=answer.scores,
                seen=image.digest in seen,
            )
            for image, answer in zip(images, found, strict=True)
        ]

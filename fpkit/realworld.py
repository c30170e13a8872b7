"""Measured fingerprints of real generators, to see and to compare with, without their images.

What ships in ``data/realworld`` are figures: per model the average spectra of its images, and the
ring profiles of each of them, with where the images came from. ``measure_fingerprints`` makes the
same from any folder-per-model tree.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fpkit.artefacts import check_fields, member, read_json, shown
from fpkit.assets import realworld_path, save_safetensors_atomic, write_text_atomic
from fpkit.fidelity import CROP, Population, image_power, ring_profile
from fpkit.images import ImageReadError, read_image
from fpkit.manifest import PHOTO, ImageFacts, read_facts, read_rows
from fpkit.residual import ResidualName
from fpkit.spectrum import to_db
from fpkit.tensor_files import open_tensors

FloatArray = NDArray[np.float64]
VERSION = 1
MAX_DB = 300  # of a power, which a double holds up to 3080
MAX_IMAGES = 2**24  # of one model
MAX_BYTES = 2**26  # 64 MiB of spectra: 1,500 models
RESIDUALS: tuple[ResidualName, ...] = ("median", "none")


@dataclass(frozen=True, kw_only=True)
class RealFingerprint:
    """What was measured on the images of one model.

    Attributes
    ----------
    model, family, decoder, content, format
        As in :class:`fpkit.manifest.ImageFacts`; several contents are joined by commas.
    images
        How many were measured.
    sizes
        Their sizes in pixels, ``"256x256"`` and so on.
    repo, sources, licence
        Where the images were published (repository, and file or blob there) and under which
        terms; empty if the tree does not tell.
    spectra
        Residual name to (128, 128) float64 power, centred: mean over images, crops and channels.
    profiles
        Residual name to (images, 64) float64, the :func:`fpkit.fidelity.ring_profile` of each.
    """

    model: str
    family: str
    decoder: str
    content: str
    format: str
    images: int
    sizes: tuple[str, ...]
    repo: str
    sources: tuple[str, ...]
    licence: str
    spectra: Mapping[ResidualName, FloatArray]
    profiles: Mapping[ResidualName, FloatArray]


_WORDS = tuple(f.name for f in fields(RealFingerprint) if f.name not in ("spectra", "profiles"))


def real_fingerprints(path: str | Path | None = None) -> list[RealFingerprint]:
    """Load measured fingerprints, by default those that come with fpkit.

    Parameters
    ----------
    path
        Folder that :func:`save_fingerprints` wrote.

    Returns
    -------
    list of RealFingerprint
        Sorted by model. Spectra were stored in half precision: exact to 0.03 dB.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are none, or the two files do not belong together.

    Examples
    --------
    >>> by_model = {f.model: f for f in real_fingerprints()}
    >>> by_model["dalle2"].spectra["median"].shape, by_model["dalle2"].images
    ((128, 128), 24)
    """
    folder = realworld_path() if path is None else Path(path)
    card, weights = folder / "fingerprints.json", folder / "fingerprints.safetensors"
    for file in (card, weights):
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no fingerprints: expected {file}")
    try:
        residuals, rows = _stored_rows(read_json(member(folder, card.name)))
        ends = np.cumsum([row["images"] for row in rows])
        with open_tensors(member(folder, weights.name), most=MAX_BYTES) as file:
            wanted = {}
            for name in residuals:
                wanted[f"spectra.{name}"] = torch.empty(
                    len(rows), CROP, CROP // 2 + 1, device="meta"
                )
                wanted[f"profiles.{name}"] = torch.empty(ends[-1], CROP // 2, device="meta")
            for name, tensor in wanted.items():
                if name not in file.layout:
                    continue  # `expect` says so
                found, expected = file.layout[name][1][:1], tuple(tensor.shape[:1])
                if found != expected:
                    raise ValueError(f"{name} has {found[0]} rows for {expected[0]}: mixed files?")
            file.expect(wanted)
            tensors = {name: tensor.double().numpy() for name, tensor in file.read().items()}
        spectra = {name: _whole_plane(tensors[f"spectra.{name}"]) for name in residuals}
        if max(float(np.abs(plane).max()) for plane in spectra.values()) > MAX_DB:
            raise ValueError(f"a spectrum is beyond {MAX_DB} dB")
    except (IndexError, ValueError) as error:
        raise ValueError(f"{folder} holds no valid fingerprints: {error}") from error
    profiles = {name: np.split(tensors[f"profiles.{name}"], ends[:-1]) for name in residuals}
    return [
        RealFingerprint(
            **{word: tuple(v) if isinstance(v := row[word], list) else v for word in _WORDS},
            spectra={name: 10 ** (spectra[name][i] / 10) for name in residuals},
            profiles={name: profiles[name][i] for name in residuals},
        )
        for i, row in enumerate(rows)
    ]


def _stored_rows(content: object) -> tuple[list[ResidualName], list[dict[str, Any]]]:
    """Residuals and models of a card, if all of it is as :func:`save_fingerprints` writes it."""
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise ValueError(f"version {shown(version)}, this fpkit reads version {VERSION}")
    kinds = {"version": int, "source": str, "crop": int, "residuals": list, "models": list}
    card = check_fields(content, kinds)
    residuals, rows = card["residuals"], card["models"]
    known = [name for name in get_args(ResidualName) if name in residuals]
    if not known or sorted(known) != sorted(map(str, residuals)) or card["crop"] != CROP:
        raise ValueError(f"its residuals are {shown(residuals)}, its crop is {card['crop']}")
    if not rows:
        raise ValueError("it has no models")
    lists = {"images": int, "sizes": list, "sources": list}
    for row in rows:
        check_fields(row, {word: lists.get(word, str) for word in _WORDS})
        if not 1 <= row["images"] <= MAX_IMAGES:
            raise ValueError(f"{shown(row['model'])} has {row['images']} images")
        if not all(isinstance(text, str) for text in (*row["sizes"], *row["sources"])):
            raise ValueError(f"sizes and sources of {shown(row['model'])} must be strings")
    return residuals, rows


def save_fingerprints(
    path: str | Path, fingerprints: Sequence[RealFingerprint], *, source: str
) -> None:
    """Write ``fingerprints.safetensors`` and ``fingerprints.json`` into a folder.

    Parameters
    ----------
    path
        Folder, made if it is missing.
    fingerprints
        At least one, all with the same residuals.
    source
        Where the images came from, for people.

    Notes
    -----
    A power spectrum of a real image is symmetric: half of the plane is stored, in dB, as float16;
    profiles as float32.
    """
    if not fingerprints:
        raise ValueError("at least one fingerprint is needed, got none")
    residuals = list(fingerprints[0].spectra)
    tensors = {}
    for name in residuals:
        planes = np.fft.ifftshift([f.spectra[name] for f in fingerprints], axes=(-2, -1))
        half = to_db(planes)[..., : planes.shape[-1] // 2 + 1]
        tensors[f"spectra.{name}"] = torch.from_numpy(half).half()
        tensors[f"profiles.{name}"] = torch.from_numpy(
            np.concatenate([f.profiles[name] for f in fingerprints])
        ).float()
    card = {
        "version": VERSION,
        "source": source,
        "crop": CROP,
        "residuals": residuals,
        "models": [{word: getattr(f, word) for word in _WORDS} for f in fingerprints],
    }
    save_safetensors_atomic(Path(path) / "fingerprints.safetensors", tensors)
    text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    write_text_atomic(Path(path) / "fingerprints.json", text)


def measure_fingerprints(
    folder: str | Path,
    *,
    residuals: Sequence[ResidualName] = RESIDUALS,
    on_error: Callable[[ImageReadError], None] | None = None,
    progress: bool = False,
) -> list[RealFingerprint]:
    """Measure every model of a folder-per-model tree.

    Parameters
    ----------
    folder
        ``folder/<model>/<image>`` and, optionally, ``folder/manifest.csv``, see
        :func:`fpkit.manifest.read_facts`; here its columns ``repo``, ``source`` and ``licence``
        are kept too. Images must measure at least 128 x 128.
    residuals
        Which residuals to measure.
    on_error
        Called with the error of each image that cannot be read or is too small, which is left
        out then; by default the first is raised. A model without images is left out.
    progress
        Show a bar on stderr.

    Returns
    -------
    list of RealFingerprint
        Sorted by model; the format is that of the model's first image.
    """
    of_model: dict[str, list[ImageFacts]] = defaultdict(list)
    for fact in read_facts(folder, on_error=on_error):
        of_model[fact.model].append(fact)
    images = {(fact.model, fact.path.name) for facts in of_model.values() for fact in facts}
    provenance = read_rows(folder, images, columns=("repo", "source", "licence"))
    measured = []
    for facts in tqdm(of_model.values(), desc="models", disable=not progress, file=sys.stderr):
        fingerprint = _measure(facts, provenance, residuals, on_error)
        if fingerprint is not None:
            measured.append(fingerprint)
    if not measured:
        raise ValueError(f"{folder}: none of its images could be measured")
    return measured


def real_population(
    fingerprints: Sequence[RealFingerprint],
    *,
    residual: ResidualName = "median",
    format: str | None = None,
) -> Population:
    """The models among `fingerprints` (photographs left out) as a population.

    Parameters
    ----------
    fingerprints
        Measured models.
    residual
        Which residual to take.
    format
        ``"png"``, ``"jpeg"``, ...: only models stored so; by default all.

    Raises
    ------
    ValueError
        If no model is left, or the residual was not measured.
    """
    chosen = [
        f for f in fingerprints if f.family != PHOTO and (format is None or f.format == format)
    ]
    if not chosen:
        formats = sorted({f.format for f in fingerprints})
        raise ValueError(f"no model of format {format!r}: there is {', '.join(formats) or 'none'}")
    if residual not in chosen[0].profiles:
        there = ", ".join(chosen[0].profiles)
        raise ValueError(f"the residual {residual!r} was not measured, only {there}")
    return Population(
        names=tuple(f.model for f in chosen),
        profiles=tuple(f.profiles[residual] for f in chosen),
    )


def _measure(
    facts: list[ImageFacts],
    provenance: Mapping[tuple[str, str], Mapping[str, str]],
    residuals: Sequence[ResidualName],
    on_error: Callable[[ImageReadError], None] | None,
) -> RealFingerprint | None:
    powers: dict[ResidualName, list[FloatArray]] = {name: [] for name in residuals}
    used, sizes = [], set()
    for fact in facts:
        try:
            image = read_image(fact.path)
            found = [_power(image, name, fact.path) for name in residuals]
        except ImageReadError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        used.append(fact)
        sizes.add(f"{image.shape[2]}x{image.shape[1]}")
        for name, power in zip(residuals, found, strict=True):
            powers[name].append(power)
    if not used:
        return None
    rows: list[Mapping[str, Any]] = [provenance.get((f.model, f.path.name), {}) for f in used]
    return RealFingerprint(
        model=used[0].model,
        family=used[0].family,
        decoder=used[0].decoder,
        content=_joined(f.content for f in used),
        format=used[0].format,
        images=len(used),
        sizes=tuple(sorted(sizes)),
        repo=_joined(row.get("repo", "") for row in rows),
        sources=tuple(row.get("source", "") for row in rows),
        licence=_joined(row.get("licence", "") for row in rows),
        spectra={name: np.mean(powers[name], axis=0) for name in residuals},
        profiles={name: ring_profile(np.stack(powers[name])) for name in residuals},
    )


def _power(image: torch.Tensor, residual: ResidualName, path: Path) -> FloatArray:
    try:
        return image_power(image, residual=residual, crop=CROP)
    except ValueError as error:
        raise ImageReadError(f"{path}: {error}") from error


def _joined(words: Any) -> str:
    return ", ".join(sorted(set(words) - {""}))


def _whole_plane(half: FloatArray) -> FloatArray:
    """(..., h, w // 2 + 1) of a symmetric plane of even w -> (..., h, w), centred."""
    mirrored = np.roll(half[..., ::-1, -2:0:-1], 1, axis=-2)  # row -u of column -v
    whole = np.concatenate([half, mirrored], axis=-1)
    return np.fft.fftshift(whole, axes=(-2, -1))

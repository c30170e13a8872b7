"""The file of a gallery: safetensors, no pickle, read as if a stranger had made it.

Up to `WORDS` bytes of names stand in the header, as in every safetensors file. A big gallery's
(``fpkit-gallery-3``) are tensors of UTF-8 bytes: a header is read at once, and is no place for
gigabytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fpkit.artefacts import check_fields, parse_json, shown
from fpkit.assets import save_safetensors_atomic
from fpkit.tensor_files import TensorFile, open_tensors

FORMAT, BIG_FORMAT = "fpkit-gallery-2", "fpkit-gallery-3"
FORMATS = ("fpkit-gallery-1", FORMAT, BIG_FORMAT)  # the first knew no images, only their number

MOST = 1e100  # of a sum: its square must be a number, too
WORDS = 2**25  # of names and images in a header
HEADER_BYTES = 2**26
FILE_BYTES = 2**34  # 16 GiB: ten million models

LISTS = ("models", "counts", "images")


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """What the file of a gallery of m models holds.

    Attributes
    ----------
    extractor_hash
        Of the extractor whose embeddings were enrolled.
    sums
        (m, d) float64 sums of the embeddings of each model.
    models
        (m,) names.
    counts
        (m,) images enrolled of each.
    images
        (m,) what tells those apart that are known, see :meth:`fpkit.gallery.Gallery.enrol`.
    """

    extractor_hash: str
    sums: NDArray[np.float64]
    models: Sequence[str]
    counts: Sequence[int]
    images: Sequence[Sequence[str]]


def write_stored(path: str | Path, stored: Stored) -> None:
    """Write a gallery, whole or not at all; OSError if that is not possible."""
    lists = {name: json.dumps(list(getattr(stored, name))) for name in LISTS}
    tensors = {"sums": torch.from_numpy(np.ascontiguousarray(stored.sums))}
    header = {"format": FORMAT, "extractor_hash": stored.extractor_hash}
    if sum(map(len, lists.values())) <= WORDS:
        header |= lists
    else:
        header["format"] = BIG_FORMAT
        for name, text in lists.items():
            tensors[name] = torch.frombuffer(bytearray(text, "utf-8"), dtype=torch.uint8)
    save_safetensors_atomic(path, tensors, metadata=header)


def read_stored(path: str | Path) -> Stored:
    """Read a gallery of any format.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError, LookupError
        If it is no gallery, or is damaged.
    """
    with open_tensors(path, most=FILE_BYTES, header=HEADER_BYTES) as file:
        wanted = {"sums"} | (set(LISTS) if file.metadata.get("format") == BIG_FORMAT else set())
        if file.layout.keys() != wanted:
            raise ValueError(f"its tensors are {shown(sorted(file.layout))}")
        if wanted == {"sums"}:
            return _checked(file, file.metadata)
        words = {name: layout for name, layout in file.layout.items() if name != "sums"}
        if any(dtype != torch.uint8 or len(shape) != 1 for dtype, shape in words.values()):
            raise ValueError(f"its names are {shown(words)}, expected bytes")
        tensors = file.read()
        texts = {name: tensors[name].numpy().tobytes().decode("utf-8") for name in LISTS}
        return _checked(file, file.metadata | texts, tensors["sums"])


def _checked(file: TensorFile, header: dict[str, str], sums: torch.Tensor | None = None) -> Stored:
    """The content, if all of it fits; sums that have not been read are looked at first."""
    made_with, models, counts, images = _stored_models(header)
    dtype, shape = file.layout["sums"]
    if dtype != torch.float64 or len(shape) != 2 or shape[0] != len(models) or shape[1] < 1:
        raise ValueError(f"its sums are {dtype} {shown(shape)}, of {len(models)} models")
    array = (file.read()["sums"] if sums is None else sums).numpy()
    most = max(array.max(), -array.min()) if array.size else 0.0
    if most > MOST:
        raise ValueError(f"its sums reach {most:g}, at most {MOST:g} is read")
    return Stored(extractor_hash=made_with, sums=array, models=models, counts=counts, images=images)


def _stored_models(
    header: dict[str, str],
) -> tuple[str, list[str], list[int], list[list[str]]]:
    """Extractor's hash, names, counts and enrolled images of a gallery's header, if all fit."""
    if header.get("format") not in FORMATS:
        raise ValueError(
            f"its format is {shown(header.get('format'))}, this fpkit reads {', '.join(FORMATS)}"
        )
    lists = LISTS[: 2 if header["format"] == FORMATS[0] else 3]
    check_fields(header, dict.fromkeys(("format", "extractor_hash", *lists), str))
    models, counts, *rest = (parse_json(header[name]) for name in lists)
    images = rest[0] if rest else [[] for _ in models]
    for name, values, kind in (
        ("models", models, str),
        ("counts", counts, int),
        ("images", images, list),
    ):
        if type(values) is not list or {type(value) for value in values} - {kind}:
            raise ValueError(f"its {name} must be a list of {kind.__name__}, got {shown(values)}")
    if not len(models) == len(set(models)) == len(counts) == len(images) or "" in models:
        raise ValueError("its models need a name of their own, a count and images each")
    for count, known in zip(counts, images, strict=True):
        alike = len(known) != len(set(filter(lambda image: type(image) is str, known)))
        if alike or not len(known) <= count or count < 1:
            raise ValueError(f"it has a count of {count} for {len(known)} images")
    return header["extractor_hash"], models, counts, images

"""Embeddings of images that were met before, kept in a folder.

A measurement that embeds thousands of images, and is stopped, goes on where it was. An image is
known by its pixels, as they came to the extractor: its name and place do not matter, and a
degraded image is another one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpkit.artefacts import parse_json, shown
from fpkit.assets import save_safetensors_atomic
from fpkit.tensor_files import HEADER_BYTES, open_tensors

FORMAT = "fpkit-embeddings-1"
EVERY = 5.0  # seconds between two writes: what a kill can cost

Seen = tuple[NDArray[np.float32], float]


def image_hash(image: Tensor) -> str:
    """What tells an image (3, h, w) apart: SHA-256 of its size and pixels, 32 hex digits."""
    digest = sha256(repr(tuple(image.shape)).encode())
    digest.update(image.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


class EmbeddingCache:
    """Embeddings of one extractor; use it in a ``with`` block, whose end writes what is new.

    Parameters
    ----------
    folder
        Made if it is not there; extractors may share it. Several processes may, too.
    extractor_hash
        ``extractor.hash``: embeddings of other extractors are not seen.
    dim
        Length of its embeddings.

    Raises
    ------
    ValueError
        If a file of the folder is damaged.

    Notes
    -----
    Every write is a new safetensors file, whole or not at all, named after what it holds.
    """

    def __init__(self, folder: str | Path, extractor_hash: str, dim: int) -> None:
        self.folder = Path(folder)
        self.extractor_hash = extractor_hash
        self.dim = dim
        self._known: dict[str, Seen] = {}
        self._new: dict[str, Seen] = {}
        self._written = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(self.folder.glob(f"{extractor_hash[:12]}-*.safetensors")):
            self._known |= self._read(file)

    def __len__(self) -> int:
        return len(self._known) + len(self._new)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._known, *self._new])

    def __enter__(self) -> EmbeddingCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def find(self, key: str) -> Seen | None:
        """Embedding (d,) float32 and the seconds it once took, None if it is not here."""
        return self._known.get(key) or self._new.get(key)

    def add(self, key: str, embedding: NDArray[np.float32], seconds: float) -> None:
        """Keep an embedding; it is on disk at most `EVERY` seconds, or one image, later."""
        self._new[key] = embedding, seconds
        if time.monotonic() - self._written >= EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if self._new:
            keys = list(self._new)
            vectors, seconds = zip(*self._new.values(), strict=True)
            header = {
                "format": FORMAT,
                "extractor_hash": self.extractor_hash,
                "images": json.dumps(keys),
            }
            tensors = {
                "embeddings": torch.from_numpy(np.stack(vectors)),
                "seconds": torch.tensor(seconds, dtype=torch.float64),
            }
            name = f"{self.extractor_hash[:12]}-{sha256(''.join(keys).encode()).hexdigest()[:16]}"
            save_safetensors_atomic(self.folder / f"{name}.safetensors", tensors, metadata=header)
            self._known |= self._new
            self._new = {}
        self._written = time.monotonic()

    def _read(self, file: Path) -> dict[str, Seen]:
        try:
            with open_tensors(file, header=HEADER_BYTES) as stored:
                header = stored.metadata
                if header.get("format") != FORMAT:
                    raise ValueError(f"its format is {shown(header.get('format'))}, not {FORMAT}")
                if header.get("extractor_hash") != self.extractor_hash:
                    return {}
                keys = parse_json(header.get("images", "null"))
                if type(keys) is not list or {type(key) for key in keys} != {str}:
                    raise ValueError(f"its images are {shown(keys)}")
                wanted = {
                    "embeddings": (torch.float32, (len(keys), self.dim)),
                    "seconds": (torch.float64, (len(keys),)),
                }
                if stored.layout != wanted:
                    raise ValueError(f"it holds {shown(stored.layout)}, expected {shown(wanted)}")
                tensors = stored.read()
        except ValueError as error:
            raise ValueError(
                f"{file} holds no embeddings, or is damaged: delete it ({error})"
            ) from error
        pairs = zip(tensors["embeddings"].numpy(), tensors["seconds"].tolist(), strict=True)
        return dict(zip(keys, pairs, strict=True))

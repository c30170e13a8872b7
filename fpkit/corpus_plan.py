"""What a run is to embed: its settings and its images, in a file that never changes.

Every Parquet file of a run says in its metadata what it is: ``plan.parquet``, one row group per
unit, with the settings; a finished unit with the hash of that file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from fpkit.artefacts import parse_json, shown
from fpkit.assets import open_atomic
from fpkit.embedder import Precision
from fpkit.shards import Item, pyarrow_parquet
from fpkit.sources import list_items

FORMAT = "fpkit-corpus-1"
PLAN = "plan.parquet"
KEY = b"fpkit"  # of the metadata in every file
UNIT = 512  # images
MAX_UNIT = 2**16  # images: their rows are in memory


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What a plan is made for; a run with another one needs another folder.

    ``sources`` as in :func:`fpkit.sources.list_items`, absolute; ``unit`` images per file;
    ``extractor_hash`` and ``dim`` of the extractor; ``precision`` of its network.
    """

    sources: tuple[str, ...]
    extractor_hash: str
    dim: int
    unit: int = UNIT
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("no source: give at least one")
        if not 1 <= self.unit <= MAX_UNIT:
            raise ValueError(f"unit must be 1 to {MAX_UNIT} images, got {self.unit}")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision must be one of {get_args(Precision)}, got {self.precision!r}"
            )


def write_plan(folder: Path, config: CorpusConfig) -> None:
    """List the sources into ``folder/plan.parquet``, in units.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`fpkit.sources.list_items`; ValueError also if there is nothing to embed.
    """
    pq = pyarrow_parquet()
    import pyarrow as pa

    kinds = {"str": pa.string(), "bytes": pa.binary(), "int": pa.int64(), "Kind": pa.string()}
    columns = pa.schema([(f.name, kinds[str(f.type)]) for f in fields(Item)])
    columns = columns.with_metadata(as_metadata(asdict(config)))
    images = list_items(config.sources, leave_out=folder)
    with open_atomic(folder / PLAN) as file:
        count = 0
        with pq.ParquetWriter(file, columns, compression="zstd") as writer:
            for unit in _units(images, config.unit):
                values = zip(*map(astuple, unit), strict=True)
                arrays = [pa.array(v, type=c.type) for v, c in zip(values, columns, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=columns))
                count += len(unit)
        if not count:
            raise ValueError(f"nothing to embed in {', '.join(config.sources)}: no images")


def _units(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    items = iter(items)
    while unit := list(islice(items, size)):
        yield unit


def as_metadata(facts: dict[str, Any]) -> dict[bytes, bytes]:
    """Facts as the metadata of a Parquet file."""
    return {KEY: json.dumps({"format": FORMAT} | facts).encode()}


def stored_facts(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """What :func:`as_metadata` put into a file, without the format; ValueError if it did not."""
    facts = parse_json((metadata or {}).get(KEY, b"null"))
    if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
        raise ValueError(f"expected the format {FORMAT}, got {shown(facts)}")
    return facts


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file of any size."""
    digest = sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()

"""Embeddings of a number of images as one table: what every worker of a large run does.

Images are decoded and embedded in threads, some at a time, so that memory does not grow with their
number. The same items give the same rows, bit by bit, on the same machine, with any number of
threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpkit.embedder import CROPS_PER_SIDE, Embedder, Precision
from fpkit.evidence import count_crops, file_facts
from fpkit.images import decode_image, grid_crops
from fpkit.intake import ImageReadError, max_file_bytes
from fpkit.shards import MAX_PIXELS, Item, RowReader, pyarrow_parquet
from fpkit.sources import read_item

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 16  # images that one thread decodes and embeds together
_MOST_THREADS = 8  # that feed a GPU

OnImages = Callable[[int], None]


def schema(dim: int) -> pa.Schema:
    """Columns of the embeddings of images, `dim` numbers each.

    ``path`` and ``error`` (null: none) are always there. Of an image that could be read there are
    also ``sha256`` (of its file), ``width``, ``height`` (pixels), ``format``, ``jpeg_quality``
    (null unless it is a JPEG), ``compressed`` (stored with loss; a lossless file may have been a
    JPEG before), ``crops`` (as in :class:`fpkit.evidence.ImageEvidence`) and ``embedding``.
    """
    pyarrow_parquet()
    import pyarrow as pa

    return pa.schema([
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("jpeg_quality", pa.int16()),
        pa.field("compressed", pa.bool_()),
        pa.field("crops", pa.int16()),
        pa.field("embedding", pa.list_(pa.float32(), dim)),
        pa.field("error", pa.string()),
    ])  # fmt: skip


def embed_unit(
    items: Sequence[Item],
    extractor: Embedder,
    *,
    precision: Precision = "float32",
    workers: int | None = None,
    rows: RowReader | None = None,
    on_images: OnImages | None = None,
) -> pa.Table:
    """Read, judge and embed images; needs nothing but the files that they are in.

    Parameters
    ----------
    items
        From :func:`fpkit.sources.list_items`, or a unit of a :class:`Corpus`.
    extractor
        Where it is decides where the network runs.
    precision
        See :meth:`fpkit.embedder.Embedder.embed`.
    workers
        Threads, each of which decodes and embeds `CHUNK` images at a time, and holds one decoded
        image; default: those of torch, or up to 8 before a GPU. Results do not depend on it.
    rows
        Reader of Parquet rows, to go on where the unit before ended; default: a new one.
    on_images
        Called with the number of images that were done since the last call.

    Returns
    -------
    pyarrow.Table
        One row per item, in their order, with the columns of :func:`schema`. What cannot be read
        or embedded has an ``error``.

    Raises
    ------
    OSError, ValueError
        If the machine fails, or a source has changed since it was listed.
    """
    on_cpu = extractor.cohort.device.type == "cpu"
    if workers is None:
        workers = torch.get_num_threads() if on_cpu else min(_MOST_THREADS, os.cpu_count() or 1)
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    found: list[dict[str, Any]] = []
    threads = torch.get_num_threads()
    reader = rows or RowReader()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[list[dict[str, Any]]]] = deque()

    def take() -> None:
        done = waiting.popleft().result()
        found.extend(done)
        if on_images is not None:
            on_images(len(done))

    try:
        for chunk in _chunks(items, reader):
            waiting.append(pool.submit(_embed_chunk, chunk, extractor, precision))
            if len(waiting) > 2 * workers:
                take()
        while waiting:
            take()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # MKL has one number for the whole process
        if rows is None:
            reader.close()
    return _table(found, extractor.dim)


def _chunks(items: Iterable[Item], rows: RowReader) -> Iterator[list[tuple[Item, bytes | str]]]:
    """Items with their bytes, if they are rows, or the reason why there are none; else with ""."""
    items = iter(items)
    while chunk := list(islice(items, CHUNK)):
        yield [(item, _row(item, rows) if item.kind == "row" else "") for item in chunk]


def _row(item: Item, rows: RowReader) -> bytes | str:
    try:
        return rows.read(item)
    except ImageReadError as error:
        return str(error)


def _embed_chunk(
    chunk: list[tuple[Item, bytes | str]], extractor: Embedder, precision: Precision
) -> list[dict[str, Any]]:
    looked = [_look(item, given, extractor.config.crop) for item, given in chunk]
    crops = [crops for _, crops in looked if crops is not None]
    embeddings = iter(extractor.embed_crops(crops, precision=precision).numpy())
    for row, cropped in looked:
        if cropped is not None:
            row["embedding"] = next(embeddings)
    return [row for row, _ in looked]


def _look(item: Item, given: bytes | str, crop: int) -> tuple[dict[str, Any], Tensor | None]:
    """What is known of an image, and its crops if it can be embedded."""
    row: dict[str, Any] = {"path": item.path}
    try:
        if item.kind == "row" and isinstance(given, str):
            raise ImageReadError(given)
        data = given if isinstance(given, bytes) else read_item(item)
        row["sha256"] = sha256(data).hexdigest()
        if len(data) > (most := max_file_bytes(MAX_PIXELS)):
            raise ImageReadError(f"holds {len(data)} bytes, more than the limit of {most} bytes")
        image = _decoded(data)
        row["height"], row["width"] = image.shape[1:]
        row["format"], row["jpeg_quality"], losses = file_facts(data)
        row["compressed"] = row["format"] == "JPEG" or bool(losses)
    except ImageReadError as error:
        row["error"] = str(error)
        return row, None
    try:
        row["crops"] = count_crops(image, crop=crop, grid=CROPS_PER_SIDE)
        return row, grid_crops(image, size=crop, grid=CROPS_PER_SIDE)
    except ValueError as error:  # smaller than a crop
        row["error"] = str(error)
        return row, None


def _decoded(data: bytes) -> Tensor:
    name = "image"  # the row has its path
    try:
        return decode_image(data, name=name, max_pixels=MAX_PIXELS)
    except ImageReadError as error:
        raise ImageReadError(str(error).removeprefix(f"{name}: ")) from error


def _table(rows: list[dict[str, Any]], dim: int) -> pa.Table:
    columns = schema(dim)
    import pyarrow as pa

    arrays = [pa.array([row.get(c.name) for row in rows], type=c.type) for c in columns]
    return pa.Table.from_arrays(arrays, schema=columns)

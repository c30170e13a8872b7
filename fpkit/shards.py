"""Images inside larger files: members of tars (WebDataset), rows of Parquets (Hugging Face).

Listing reads headers and footers alone. Both may come from strangers: what is damaged is an item
with a reason.
"""

from __future__ import annotations

import errno
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from fpkit.artefacts import open_at_once
from fpkit.folders import EXTENSIONS
from fpkit.intake import ImageReadError, max_file_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_PIXELS = 64_000_000
COLUMNS = ("image.bytes", "image", "bytes")  # of a Parquet, the first that holds bytes
Kind = Literal["file", "member", "row", "error"]

_BLOCK = tarfile.BLOCKSIZE
_MAX_HEADER = 2**20  # bytes of one header of a tar: names are shorter
_ROWS_AT_ONCE = 16  # of a Parquet, in memory
# Reasons that lie with the machine, not with the image: they end a run, which can go on later
MACHINE = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.ENOTCONN}
MACHINE |= {
    getattr(errno, name) for name in ("ESTALE", "ENODEV", "EHOSTDOWN") if name in dir(errno)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """Where one image is, or why it cannot be had.

    Attributes
    ----------
    path
        What it is called: the path of its file; behind that of a tar or a Parquet, the name of the
        member or the number of the row (from 0).
    file
        Absolute path of the file that it is in, as the system has it.
    kind
        Whether the image is the file, a member of a tar, or a row of a Parquet; ``error``: none.
    start, size
        Of a member: its first byte and its length. Of a row: its number, and 0.
    stamp
        Length and time of a tar or Parquet when it was listed.
    error
        The reason, where there is no image.
    """

    path: str
    file: bytes
    kind: Kind = "file"
    start: int = 0
    size: int = 0
    stamp: str = ""
    error: str = ""


def told(error: OSError) -> Exception:
    """A reason for one image; or the error itself, if it would hit every other image too."""
    if error.errno in MACHINE:
        return error
    if isinstance(error, FileNotFoundError):
        return ImageReadError("no such file")
    return ImageReadError(f"cannot be opened ({error.strerror or error})")


def text(name: str | Path) -> str:
    """A name for UTF-8: bytes that are no text are spelled out."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def absolute(file: Path) -> bytes:
    """The path from the root, as the system has it."""
    return os.fsencode(os.path.abspath(file))


def stamp_of(status: os.stat_result) -> str:
    """What changes when a file does."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def check_stamp(item: Item, status: os.stat_result) -> None:
    """ValueError if the file of `item` has changed since it was listed."""
    if stamp_of(status) != item.stamp:
        name = text(os.fsdecode(item.file))
        raise ValueError(f"{name} has changed since it was listed: begin anew in another folder")


# ---- tar ---------------------------------------------------------------------------------------


class _Headers:
    """What tarfile may read of a file: no header without end."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)


def list_tar(opened: BinaryIO, file: Path, stamp: str) -> Iterator[Item]:
    """Image members of a tar that is not compressed; the headers alone are read."""
    common: dict[str, Any] = {"file": absolute(file), "stamp": stamp}
    at = 0
    try:
        with tarfile.open(fileobj=_Headers(opened), mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # else they are all kept
                if tar.offset <= at:
                    raise tarfile.ReadError("a member that ends before it begins")
                at = tar.offset
                base = member.name.rpartition("/")[2]
                if base.startswith(".") or os.path.splitext(base)[1].lower() not in EXTENSIONS:
                    continue
                path = text(f"{file}/{member.name}")
                if not member.isreg() or member.issparse():
                    reason = "is a link or a sparse file, expected a plain one"
                    yield Item(path=path, kind="error", error=reason, **common)
                    continue
                start, size = member.offset_data, member.size
                yield Item(path=path, kind="member", start=start, size=size, **common)
            opened.seek(tar.offset)
            end = opened.read(_BLOCK)
            if len(end) < _BLOCK or end.strip(b"\0"):  # tarfile takes it for the end
                raise tarfile.ReadError("no end, cut off?" if not end else "no header")
    except OSError:
        raise
    except Exception as error:  # tarfile raises almost anything for damaged files
        reason = f"damaged after {at} bytes, what follows is missing ({error})"
        yield Item(path=text(file), kind="error", error=reason, **common)


def read_member(item: Item) -> bytes:
    """The bytes of a member of a tar; see :func:`fpkit.sources.read_item`."""
    most = max_file_bytes(MAX_PIXELS)
    if item.size > most:
        raise ImageReadError(f"holds {item.size} bytes, more than the limit of {most} bytes")
    with open(item.file, "rb", opener=open_at_once) as file:
        check_stamp(item, os.fstat(file.fileno()))
        file.seek(item.start)
        data = file.read(item.size)
    if len(data) < item.size:
        raise ImageReadError(f"holds {len(data)} of {item.size} bytes: the tar is cut off")
    return data


# ---- Parquet -----------------------------------------------------------------------------------


def pyarrow_parquet() -> Any:
    """The module pyarrow.parquet, or an error that says how to get it."""
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "embedding a corpus needs pyarrow: pip install 'fpkit[corpus]'"
        ) from error
    return pq


def list_parquet(opened: BinaryIO, file: Path, stamp: str) -> Iterator[Item]:
    """Rows of a Parquet with a column of `COLUMNS`; the footer alone is read."""
    try:
        with pyarrow_parquet().ParquetFile(opened) as table:
            _bytes_column(table.schema_arrow)
            rows, size = table.metadata.num_rows, os.fstat(opened.fileno()).st_size
    except (ImageReadError, ImportError):
        raise
    except Exception as error:  # the library has many names for damage
        raise ImageReadError(f"cannot be read as Parquet ({_first_line(error)})") from error
    if not 0 <= rows <= size:
        raise ImageReadError(f"claims {rows} rows in {size} bytes: damaged?")
    common: dict[str, Any] = {"file": absolute(file), "stamp": stamp, "kind": "row"}
    name = text(file)
    for row in range(rows):
        yield Item(path=f"{name}/{row}", start=row, **common)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _bytes_column(schema: pa.Schema) -> str:
    """The column, or field of a column, with the bytes of image files."""
    import pyarrow as pa

    for name in COLUMNS:
        column, _, part = name.partition(".")
        if schema.names.count(column) != 1:
            continue
        kind = schema.field(column).type
        if part:
            place = kind.get_field_index(part) if pa.types.is_struct(kind) else -1
            if place < 0:
                continue
            kind = kind.field(place).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return name
    there = ", ".join(schema.names[:10])
    raise ImageReadError(f"no column {' or '.join(COLUMNS)} holds bytes, columns: {there}")


class RowReader:
    """Reads images that are rows of Parquet files; fast where they come in order.

    One file is open at a time, and a few rows of it in memory. Use it in a ``with`` block.
    """

    def __init__(self) -> None:
        self._file: bytes | None = None
        self._table: pq.ParquetFile | None = None
        self._column = ""
        self._rows: Iterator[bytes | None] = iter(())
        self._streamed, self._next = -1, 0  # row group that is read, row that comes next
        self._groups: list[int] = []  # first row of every row group, and the end
        self._broken: dict[int, str] = {}  # row groups of this file

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._table is not None:
            self._table.close()
        self._file, self._table, self._rows = None, None, iter(())

    def read(self, item: Item) -> bytes:
        """The bytes in one row. Raises as :func:`read_item`."""
        if item.file != self._file:
            self._open(item)
        group, first = self._group(item.start)
        if group in self._broken:
            raise ImageReadError(self._broken[group])
        try:
            if group != self._streamed or self._next > item.start:
                self._rows = self._stream(group)
                self._streamed, self._next = group, first
            while self._next < item.start:
                next(self._rows)
                self._next += 1
            data = next(self._rows)
            self._next += 1
        except Exception as error:
            if isinstance(error, OSError) and error.errno in MACHINE:
                raise
            reason = f"damaged Parquet, row group {group} ({_first_line(error)})"
            self._broken[group] = reason
            raise ImageReadError(reason) from error
        if data is None:
            raise ImageReadError("the row holds no bytes")
        return data

    def _open(self, item: Item) -> None:
        self.close()
        try:
            check_stamp(item, os.stat(item.file))
            # buffered: else a column of a row group, gigabytes perhaps, is read at once
            self._table = pyarrow_parquet().ParquetFile(
                os.fsdecode(item.file), buffer_size=2**20, pre_buffer=False
            )
            self._column = _bytes_column(self._table.schema_arrow)
            metadata = self._table.metadata
            rows = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
            self._groups = [0, *accumulate(rows)]
        except OSError as error:
            raise told(error) from error
        self._file, self._streamed, self._broken = item.file, -1, {}

    def _group(self, row: int) -> tuple[int, int]:
        """The row group that a row lies in, and the first row of that."""
        if not row < self._groups[-1]:
            raise ImageReadError(f"there are {self._groups[-1]} rows, no row {row}: damaged?")
        group = bisect_right(self._groups, row) - 1
        return group, self._groups[group]

    def _stream(self, group: int) -> Iterator[bytes | None]:
        assert self._table is not None
        batches = self._table.iter_batches(
            _ROWS_AT_ONCE, row_groups=[group], columns=[self._column], use_threads=False
        )
        part = self._column.partition(".")[2]
        for batch in batches:
            values = batch.column(0)
            for value in values.field(part) if part else values:
                yield value.as_py()

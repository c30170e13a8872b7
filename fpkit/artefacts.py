"""Files that a stranger may have made: JSON and safetensors, read with limits and looked at first.

Every gallery, zoo, extractor, model card and checkpoint comes in through here. Nothing of it is
executed; how much is read is bounded before it is read; names and shapes are compared with what is
expected before there is memory for them. What is refused raises ValueError with a reason, which
callers put behind the path.

The checksum in a file finds damage, not malice: whoever changes a file on purpose can renew it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite, prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

JSON_BYTES = 2**24  # 16 MiB: the manifest of 50,000 models. Python objects take up to 30 times that
HEADER_BYTES = 2**24
WEIGHTS_BYTES = 2**30  # ten times the largest network of fpkit
CHECKSUM = "sha256"  # its place among the metadata

_METADATA = "__metadata__"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NPY = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|](?:b1|[iu][1248]|f[248]))', 'fortran_order': (True|False), "
    rb"'shape': \((\d{1,15},(?: \d{1,15},?){0,7})\), \} *\n"
)
_DIMENSIONS = 8
_DIGITS = 20  # of a whole number: more than 64 bits need


def shown(value: object, *, most: int = 80) -> str:
    """A foreign value for a message: short, on one line, nothing in it that acts on a terminal."""
    text = ascii(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def member(folder: str | Path, name: str) -> Path:
    """The path of file `name` in `folder`, for reading.

    Raises
    ------
    ValueError
        If it is a link that leads out of the folder: a folder from a stranger must not make
        us read other files.
    """
    path = Path(folder) / name
    inside = os.path.realpath(folder)
    if os.path.commonpath([inside, os.path.realpath(path)]) != inside:
        raise ValueError(
            f"{path} is a link that leads out of its folder: copy the file there, if it is yours"
        )
    return path


# ---- JSON --------------------------------------------------------------------------------------


def parse_json(text: str | bytes) -> Any:
    """Strict JSON: no key twice, no NaN or infinity, no number without end, no depth without end.

    Raises
    ------
    ValueError
        With the reason.

    Examples
    --------
    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: the key 'a' comes twice
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError("brackets inside brackets, too deep to read") from None


def read_json(path: str | Path, *, most: int = JSON_BYTES) -> Any:
    """:func:`parse_json` of a file of at most `most` bytes; OSError where it cannot be read."""
    return parse_json(read_text(path, most=most))


def read_text(path: str | Path, *, most: int) -> str:
    """A UTF-8 file of at most `most` bytes; ValueError if it is no such file."""
    with _regular(path, most) as (file, size):
        return _exactly(file, size).decode("utf-8")


def check_fields(record: object, kinds: Mapping[str, type]) -> dict[str, Any]:
    """`record` if it is a JSON object with these fields and no others, of these kinds.

    A whole number will do where a float is asked for; true and false are no numbers.

    Raises
    ------
    ValueError
        That names the first field that is wrong.
    """
    if not isinstance(record, dict):
        raise ValueError(f"expected an object with {', '.join(kinds)}, got {shown(record)}")
    missing, unknown = kinds.keys() - record.keys(), record.keys() - kinds.keys()
    if missing or unknown:
        raise ValueError(_names("field", missing, unknown))
    for name, kind in kinds.items():
        value = record[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number if kind is float else type(value) is kind):
            raise ValueError(f"{name} must be of the type {kind.__name__}, got {shown(value)}")
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        raise ValueError(f"the key {shown(times.most_common(1)[0][0])} comes twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"the number {shown(text)} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits is too large")
    return int(text)


# ---- safetensors -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A safetensors file whose header was read and found sound, and nothing else yet.

    Attributes
    ----------
    metadata
        Strings of the header, without the checksum.
    layout
        Name to type and shape of every tensor.
    """

    metadata: dict[str, str]
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]]
    _checksum: str | None
    _header: bytes
    _file: BinaryIO
    _size: int

    def expect(
        self, wanted: Mapping[str, Tensor], *, optional: Iterable[str] = (), others: bool = False
    ) -> None:
        """Compare with the tensors that are wanted (those of the device "meta" will do).

        Names and shapes must agree, and whether they hold fractions; `optional` ones may be
        absent, and there may be `others` if that is said.

        Raises
        ------
        ValueError
            That names what is missing, unknown or different.
        """
        missing = wanted.keys() - self.layout.keys() - set(optional)
        unknown = set() if others else self.layout.keys() - wanted.keys()
        if missing or unknown:
            raise ValueError(_names("tensor", missing, unknown))
        for name in wanted.keys() & self.layout.keys():
            tensor, (dtype, shape) = wanted[name], self.layout[name]
            if shape != tuple(tensor.shape):
                raise ValueError(
                    f"tensor {shown(name)} has the shape {shape}, expected {tuple(tensor.shape)}"
                )
            if dtype.is_floating_point != tensor.is_floating_point():
                raise ValueError(f"tensor {shown(name)} is {dtype}, expected {tensor.dtype}")

    def read(self) -> dict[str, Tensor]:
        """All tensors, on the CPU.

        Raises
        ------
        ValueError
            If the file is damaged, or a tensor holds NaN or an infinity.
        """
        self._file.seek(8 + len(self._header))
        data = _exactly(self._file, self._size - 8 - len(self._header))
        if self._checksum is not None:
            header = parse_json(self._header)
            del header[_METADATA][CHECKSUM]
            if _checksum(header, data) != self._checksum:
                raise ValueError("its content does not fit its checksum: the file is damaged")
        try:
            tensors = load(len(self._header).to_bytes(8, "little") + self._header + data)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"tensor {shown(name)} holds NaN or infinite values")
        return tensors


@contextmanager
def open_tensors(
    path: str | Path, *, most: int = WEIGHTS_BYTES, header: int = HEADER_BYTES
) -> Iterator[TensorFile]:
    """Open a safetensors file of at most `most` bytes with a header of at most `header`.

    Raises
    ------
    OSError
        If it is not there or cannot be opened.
    ValueError
        If it is no sound safetensors file; what the body of the ``with`` raises passes through.

    Notes
    -----
    The file is read, not mapped into memory: a mapped one that another process cuts short ends
    this process. Where the library takes the last of two equal names, here they are refused.
    """
    with _regular(path, most) as (file, size):
        length = int.from_bytes(_exactly(file, 8), "little") if size >= 8 else size
        if length + 8 > size:
            raise ValueError(
                f"its header should have {length} bytes, the file has {size}: it is cut short, or "
                "no safetensors file"
            )
        if length > header:
            raise ValueError(f"its header has {length} bytes, at most {header} are read")
        text = _exactly(file, length)
        content = parse_json(text)
        if not isinstance(content, dict):
            raise ValueError("its header is no JSON object")
        metadata = content.pop(_METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise ValueError("its metadata must be strings by name")
        checksum = metadata.pop(CHECKSUM, None)
        yield TensorFile(
            metadata=metadata,
            layout=_layout(content, size - 8 - length),
            _checksum=checksum,
            _header=text,
            _file=file,
            _size=size,
        )


def encode_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with a checksum; equal content gives equal bytes.

    Parameters
    ----------
    tensors
        On the CPU, contiguous.
    metadata
        Strings for the header. The library alone writes them in a random order.
    """
    if CHECKSUM in metadata:
        raise ValueError(f"metadata must not have the name {CHECKSUM!r}")
    bare = save(dict(tensors))
    length = 8 + int.from_bytes(bare[:8], "little")
    data = memoryview(bare)[length:]
    header = {_METADATA: dict(sorted(metadata.items())), **json.loads(bare[8:length])}
    header[_METADATA][CHECKSUM] = _checksum(header, data)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, data])


def _checksum(header: Mapping[str, Any], data: bytes | memoryview) -> str:
    """SHA-256 (hex) of a header that has no checksum yet, and what follows it."""
    digest = sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    digest.update(data)
    return digest.hexdigest()


def _layout(content: dict[str, Any], size: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Types and shapes of the header's tensors, which must fill `size` bytes without a gap."""
    layout, places = {}, []
    for name, entry in content.items():
        try:
            check_fields(entry, {"dtype": str, "shape": list, "data_offsets": list})
            dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
            if dtype is None:
                raise ValueError(
                    f"its type is {shown(entry['dtype'])}, known: {', '.join(_DTYPES)}"
                )
            whole = [type(side) is int and side >= 0 for side in shape]
            if not all(whole) or len(shape) > _DIMENSIONS or prod(filter(None, shape)) > 2**40:
                raise ValueError(f"its shape is {shown(shape)}")
            begin, end = entry["data_offsets"]
            if type(begin) is not int or type(end) is not int:
                raise ValueError(f"its offsets are {shown(entry['data_offsets'])}")
            if end - begin != prod(shape) * dtype.itemsize:
                raise ValueError(f"a shape of {shown(shape)} does not fill {end - begin} bytes")
        except (TypeError, ValueError) as error:
            raise ValueError(f"tensor {shown(name)}: {error}") from None
        layout[name] = dtype, tuple(shape)
        places.append((begin, end))
    reached = 0
    for begin, end in sorted(places):
        if begin != reached:
            raise ValueError(f"its tensors leave a gap or overlap at byte {min(begin, reached)}")
        reached = end
    if reached != size:
        raise ValueError(f"its tensors should take {reached} bytes, the file has {size} for them")
    return layout


# ---- arrays ------------------------------------------------------------------------------------


def map_array(path: str | Path) -> NDArray[Any]:
    """The array of numbers in an .npy file, mapped into memory, read-only.

    Raises
    ------
    OSError
        If it cannot be opened.
    ValueError
        If it is no such file, or is cut short.

    Notes
    -----
    NumPy's own loader evaluates the header as Python text; here it must be what ``np.save`` writes.
    """
    with _regular(path, 2**63) as (file, size):
        start = file.read(len(_NPY) + 2)
        text = file.read(int.from_bytes(start[len(_NPY) :], "little"))
    found = _NPY_HEADER.fullmatch(text)
    if not start.startswith(_NPY) or found is None:
        raise ValueError("it is no array of numbers as np.save writes them")
    dtype = np.dtype(found[1].decode())
    shape = tuple(int(side) for side in found[3].split(b",") if side.strip())
    offset = len(start) + len(text)
    if size - offset != prod(shape) * dtype.itemsize or prod(shape) == 0:
        raise ValueError(f"an array of {dtype} {shown(shape)} does not fill {size - offset} bytes")
    order: Literal["F", "C"] = "F" if found[2] == b"True" else "C"
    return np.memmap(path, dtype, "r", offset=offset, shape=shape, order=order)


# ---- both --------------------------------------------------------------------------------------


@contextmanager
def _regular(path: str | Path, most: int) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size; no device, no pipe (which would keep us waiting), not too large."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > most:
            raise ValueError(f"it has {status.st_size} bytes, at most {most} are read")
        yield file, status.st_size


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise ValueError("it became shorter while it was read: try again")
    return content


def _names(what: str, missing: Iterable[str], unknown: Iterable[str]) -> str:
    parts = [
        f"{kind} {what} {shown(sorted(names)[0])}" + (f" and {n - 1} more" if n > 1 else "")
        for kind, names in (("missing", missing), ("unknown", unknown))
        if (n := len(list(names)))
    ]
    return ", ".join(parts)

"""Files of numbers that a stranger may have made: safetensors and .npy, looked at before read.

Names and shapes are compared with what is expected before there is memory for them.

The checksum in a file finds damage, not malice: whoever changes a file on purpose can renew it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fpkit.artefacts import check_fields, exactly, names_of, parse_json, regular_file, shown

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
            raise ValueError(names_of("tensor", missing, unknown))
        for name in sorted(wanted.keys() & self.layout.keys()):
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
        data = exactly(self._file, self._size - 8 - len(self._header))
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
    with regular_file(path, most) as (file, size):
        length = int.from_bytes(exactly(file, 8), "little") if size >= 8 else size
        if length + 8 > size:
            raise ValueError(
                f"its header should have {length} bytes, the file has {size}: it is cut short, or "
                "no safetensors file"
            )
        if length > header:
            raise ValueError(f"its header has {length} bytes, at most {header} are read")
        text = exactly(file, length)
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
    with regular_file(path, 2**63) as (file, size):
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

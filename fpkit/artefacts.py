"""Files that a stranger may have made: read with limits, and looked at before they are believed.

Every gallery, zoo, extractor, model card and checkpoint comes in through here, its numbers through
:mod:`fpkit.tensor_files`. Nothing of it is executed, and how much is read is bounded before it is
read. What is refused raises ValueError with a reason, which callers put behind the path.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

JSON_BYTES = 2**24  # 16 MiB: the manifest of 50,000 models. Python objects take up to 30 times that

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
    with regular_file(path, most) as (file, size):
        return exactly(file, size).decode("utf-8")


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
        raise ValueError(names_of("field", missing, unknown))
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


# ---- files -------------------------------------------------------------------------------------


@contextmanager
def regular_file(path: str | Path, most: int) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size; no device, no pipe (which would keep us waiting), not too large."""
    with open(path, "rb", opener=open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > most:
            raise ValueError(f"it has {status.st_size} bytes, at most {most} are read")
        yield file, status.st_size


def open_at_once(path: str | Path, flags: int) -> int:
    """An opener, see :func:`open`, that does not wait for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


def exactly(file: BinaryIO, count: int) -> bytes:
    """The next `count` bytes of a file; ValueError if it was cut short meanwhile."""
    content = file.read(count)
    if len(content) < count:
        raise ValueError("it became shorter while it was read: try again")
    return content


def names_of(what: str, missing: Iterable[str], unknown: Iterable[str]) -> str:
    """The first of the fields or tensors that are missing or unknown, and how many more."""
    parts = [
        f"{kind} {what} {shown(sorted(names)[0])}" + (f" and {n - 1} more" if n > 1 else "")
        for kind, names in (("missing", missing), ("unknown", unknown))
        if (n := len(list(names)))
    ]
    return ", ".join(parts)

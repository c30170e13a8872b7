"""Image files from strangers: which bytes are read, and which of them the decoder gets to see.

Pixels need few parts of a file. Comments, profiles, EXIF, previews and further frames are cut off
before Pillow opens it: most traps (texts that inflate, directories that point at the same megabyte
thousands of times, endless chains of frames) lie there, and none of it changes the picture.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fpkit.artefacts import open_at_once

MAX_SIDE = 2**18  # pixels: no picture is longer, but the header of a trap may say so
_SPARE_BYTES = 2**24  # what a file may hold beyond 8 bytes per pixel (16-bit RGBA, not compressed)
_MAX_PARTS = 2**18  # chunks, segments, values of a tag: 1 GB of PNG comes in 2**17 chunks of 8 kB
_MAX_SUB_BLOCKS = 2**22  # of a GIF, 255 bytes each
_MAX_SCANS = 64  # of a progressive JPEG; encoders write about ten

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


class ImageReadError(ValueError):
    """A file that cannot be read as an image; the message gives the reason.

    Those of :mod:`fpkit.images` begin with the name of the file.
    """


# ---- files -------------------------------------------------------------------------------------


def read_bytes(path: str | Path, *, max_bytes: int) -> bytes:
    """All bytes of a regular file, as they were at one moment.

    Parameters
    ----------
    path
        A file, or a link to one. Pipes and devices are refused, never waited for.
    max_bytes
        Larger files are refused before they are read.

    Raises
    ------
    ImageReadError
        If it is no regular file, larger than `max_bytes`, or changed while it was read.
    OSError
        If it is missing or cannot be opened.
    """
    _check_kind(os.stat(path).st_mode)
    descriptor = open_at_once(path, os.O_RDONLY)
    try:
        before = os.fstat(descriptor)
        _check_kind(before.st_mode)  # again: it may have been exchanged
        if before.st_size > max_bytes:
            raise ImageReadError(
                f"holds {before.st_size} bytes, more than the limit of {max_bytes} bytes: "
                "crop it, or raise max_pixels"
            )
        if before.st_size == 0:  # some files of /proc never end
            return b""
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(before.st_size + 1)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if len(data) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise ImageReadError("changed while it was read: try again when it is complete")
    return data


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        found = kinds.get(stat.S_IFMT(mode), "a device")
        raise ImageReadError(f"is {found}, expected an image file")


def file_format(head: bytes) -> str | None:
    """``PNG``, ``JPEG``, ``WEBP``, ``BMP``, ``TIFF`` or ``GIF`` by the first 12 bytes of a file.

    Examples
    --------
    >>> file_format(b"GIF89a with something behind it")
    'GIF'
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _SIGNATURES if head.startswith(start)), None)


# ---- opening -----------------------------------------------------------------------------------


def max_file_bytes(max_pixels: int) -> int:
    """Bytes that a file of at most `max_pixels` may hold."""
    return 8 * max_pixels + 4 * _SPARE_BYTES


def open_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """Open the bytes of an image file in Pillow, without metadata, within limits.

    Parameters
    ----------
    data
        Content of the file.
    max_pixels
        Limit on width times height, and on one tile of a TIFF.

    Returns
    -------
    Image
        Not decoded yet: ``load`` does that. Its size is known to lie within the limits.

    Raises
    ------
    ImageReadError
        If it is no image of the six formats, is damaged, or claims too much. Pillow raises almost
        anything else for damaged files, here and in ``load``.
    """
    form = file_format(data[:12])
    if form is None:
        raise ImageReadError(f"not an image that fpkit reads ({', '.join(FORMATS)})")
    bare = _BARE.get(form, bytes)(data)
    try:
        image = Image.open(io.BytesIO(bare), formats=(form,))
    except Image.UnidentifiedImageError:
        raise ImageReadError(f"cannot be decoded, damaged? (no head of a {form} file)") from None
    except Image.DecompressionBombError as error:  # Pillow has a limit of its own
        own = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageReadError(_too_large(max_pixels) if max_pixels <= own else str(error)) from None
    _check_size(image, form, len(bare), max_pixels)
    return image


def _check_size(image: Image.Image, form: str, size: int, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageReadError(f"{width}x{height} pixels, {_too_large(max_pixels)}")
    if max(width, height) > MAX_SIDE:
        raise ImageReadError(
            f"{width}x{height} pixels, expected sides of at most {MAX_SIDE}: crop it"
        )
    if form != "WEBP" and size > 8 * width * height + _SPARE_BYTES:  # a WebP keeps its frames
        raise ImageReadError(f"{size} bytes are too many for {width}x{height} pixels: damaged?")
    tags = getattr(image, "tag_v2", {})
    tile = [tags.get(tag, 1) for tag in (322, 323)]  # width and height
    if not all(isinstance(side, int) for side in tile) or tile[0] * tile[1] > max_pixels:
        raise ImageReadError(f"tiles of {tile[0]}x{tile[1]} pixels, {_too_large(max_pixels)}")


def _too_large(max_pixels: int) -> str:
    return f"more than the limit of {max_pixels} pixels: crop it, or raise max_pixels"


def _too_many(what: str, most: int) -> ImageReadError:
    return ImageReadError(f"more than {most} {what}, which no picture needs: save it anew")


# ---- what the decoder gets ---------------------------------------------------------------------


def _bare_png(data: bytes) -> bytes:
    """Signature, header, palette, pixels, end; their checksums verified (Pillow skips some)."""
    kept, at, chunks = [data[:8]], 8, 0
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break  # truncated: the decoder misses what is missing
        chunks += 1
        if chunks > _MAX_PARTS:
            raise _too_many("chunks", _MAX_PARTS)
        if not kind[0] & 0x20:  # a capital letter: a picture cannot be shown without it
            if kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
                raise ImageReadError(f"cannot be decoded, damaged? (chunk {kind!r} is unknown)")
            checksum = zlib.crc32(memoryview(data)[at + 4 : end - 4])
            if checksum.to_bytes(4, "big") != data[end - 4 : end]:
                raise ImageReadError(f"cannot be decoded, damaged? (checksum of {kind.decode()})")
            kept.append(data[at:end])
        at = end
        if kind == b"IEND":
            break
    return b"".join(kept)


_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # no stuffing, restart or filling
_SOI, _EOI, _SOS, _TEM, _COM = 0xD8, 0xD9, 0xDA, 0x01, 0xFE
_APP_NEEDED = (0xE0, 0xEE)  # JFIF, Adobe: which colours the components are


def _bare_jpeg(data: bytes) -> bytes:
    """Without comments, EXIF, profiles and whatever follows the first picture."""
    kept, at, segments, scans = [b"\xff\xd8"], 2, 0, 0
    while found := _MARKER.search(data, at):
        marker, body = data[found.end() - 1], found.end()
        if scans:
            kept.append(data[at : found.start()])
        if marker == _EOI:
            return b"".join([*kept, b"\xff\xd9"])
        at = body
        if marker in (_SOI, _TEM):
            continue
        length = int.from_bytes(data[body : body + 2], "big")
        at = body + length
        if length < 2 or at > len(data):
            return b"".join(kept)  # truncated: the decoder misses what is missing
        segments += 1
        scans += marker == _SOS
        if segments > _MAX_PARTS:
            raise _too_many("segments", _MAX_PARTS)
        if scans > _MAX_SCANS:
            raise _too_many("scans", _MAX_SCANS)
        if marker != _COM and (not 0xE0 <= marker <= 0xEF or marker in _APP_NEEDED):
            kept.append(data[body - 2 : at])
    return b"".join([*kept, data[at:]])


def _bare_gif(data: bytes) -> bytes:
    """Head, first frame, end."""
    at = 13 + _colours(data, 10)
    head, counts = data[:at], 0
    while at < len(data):
        block = data[at]
        counts += 1
        if counts > _MAX_PARTS:
            raise _too_many("blocks", _MAX_PARTS)
        if block == 0x21:  # extension: its label, then sub-blocks
            at = _after_sub_blocks(data, at + 2)
        elif block == 0x2C:  # frame: place, size, colours, code size, sub-blocks
            end = _after_sub_blocks(data, at + 11 + _colours(data, at + 9))
            return head + data[at:end] + b";"
        elif block == 0x3B:
            break
        else:
            at += 1
    return head + b";"


def _colours(data: bytes, flags: int) -> int:
    """Bytes of the colour table that the flags at this place announce."""
    byte = data[flags] if flags < len(data) else 0
    return 3 * 2 ** (1 + byte % 8) if byte & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    for _ in range(_MAX_SUB_BLOCKS):
        if at >= len(data):
            return len(data)
        length = data[at]
        at += 1 + length
        if not length:
            return at
    raise _too_many("blocks", _MAX_SUB_BLOCKS)


# Size and layout of the pixels, compression, colours; no orientation, resolution, texts or links.
_TIFF_TAGS = frozenset({*range(256, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320})
_TIFF_TAGS |= frozenset({*range(322, 326), 332, 338, 339, 347, *range(512, 522), *range(529, 533)})


def _bare_tiff(data: bytes) -> bytes:
    """The file with a new first directory at its end, of the necessary tags alone, and no next."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    place, word, count, entry = (8, "Q", "Q", "HHQ8s") if big else (4, "I", "H", "HHI4s")
    try:
        (first,) = struct.unpack_from(order + word, data, place)
        (entries,) = struct.unpack_from(order + count, data, first)
        start, size = first + struct.calcsize(count), struct.calcsize("<" + entry)
        kept: dict[int, bytes] = {}
        for k in range(min(entries, 2**16)):
            tag, _, values, _ = struct.unpack_from(order + entry, data, start + k * size)
            if tag in _TIFF_TAGS:
                if values > _MAX_PARTS:
                    raise _too_many(f"values of tag {tag}", _MAX_PARTS)
                kept.setdefault(tag, data[start + k * size : start + (k + 1) * size])
    except struct.error:
        raise ImageReadError("cannot be decoded, damaged? (its directory is cut off)") from None
    end = struct.pack(order + word, 0)
    directory = struct.pack(order + count, len(kept)) + b"".join(kept[t] for t in sorted(kept))
    filling = b"\0" * (-len(data) % 8)
    moved = struct.pack(order + word, len(data) + len(filling))
    return b"".join([data[:place], moved, data[place + len(moved) :], filling, directory, end])


_BARE: dict[str, Callable[[bytes], bytes]] = {
    "PNG": _bare_png,
    "JPEG": _bare_jpeg,
    "GIF": _bare_gif,
    "TIFF": _bare_tiff,
}

"""What hostile image files are made of: the register of kinds, building blocks, plain damage."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # (h, w, 3)
Made = tuple[bytes, "Pixels | None"]
Expected = Literal["read", "refused", "either"]
WIDTH, HEIGHT = 144, 136  # of the harmless picture that most kinds start from


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to be hostile.

    Attributes
    ----------
    name
        Format, then what is wrong.
    suffix
        Of the file.
    expected
        ``read``: as an image, ``refused``: with a reason, ``either`` of the two.
    make
        Bytes from a random generator, and the pixels that any image read from them must have
        (None: not known, or lossy).
    heavy
        Takes a second or more, or hundreds of megabytes, by design.
    """

    name: str
    suffix: str
    expected: Expected
    make: Callable[[np.random.Generator], Made]
    heavy: bool = False


KINDS: dict[str, Kind] = {}
Maker = Callable[[np.random.Generator], Any]


def kind(
    name: str, suffix: str, expected: Expected, *, heavy: bool = False
) -> Callable[[Maker], Maker]:
    """Register what makes a kind; it may return bytes alone."""

    def register(maker: Maker) -> Maker:
        def make(rng: np.random.Generator) -> Made:
            made = maker(rng)
            return made if isinstance(made, tuple) else (made, None)

        KINDS[name] = Kind(name=name, suffix=suffix, expected=expected, make=make, heavy=heavy)
        return maker

    return register


# ---- building blocks ---------------------------------------------------------------------------


def picture(rng: np.random.Generator, *, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Random blocks of 4 x 4 pixels with a little noise: compresses, and is not flat."""
    blocks = rng.integers(0, 240, (-(-height // 4), -(-width // 4), 3))
    grown = blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return (grown + rng.integers(0, 16, (height, width, 3))).astype(np.uint8)


def saved(image: Image.Image | Pixels, form: str, **options: Any) -> bytes:
    """A whole file as Pillow writes it."""
    buffer = io.BytesIO()
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    whole.save(buffer, format=form, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """A PNG chunk with a right checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, stream: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims a size and holds a deflate stream."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", stream), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(count: int) -> bytes:
    """A zlib stream of about `count` zero bytes, without making them; its checksum is wrong."""
    packer = zlib.compressobj(9)
    head = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (count // 2**20) + packer.flush()


def with_chunks(whole: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks right after its header."""
    return whole[:33] + b"".join(chunks) + whole[33:]


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def tiff(tags: dict[int, tuple[int, tuple[int, ...]]], payload: bytes = b"") -> bytes:
    """A little-endian TIFF of tag -> (type 3 or 4, values); the value -1 is the payload's place."""
    place = 8 + 2 + 12 * len(tags) + 4
    entries, beyond, blanks = b"", b"", []
    for tag, (kind_, values) in sorted(tags.items()):
        code = {1: "B", 3: "H", 4: "I"}[kind_]
        data = struct.pack(f"<{len(values)}{code}", *(0 if v == -1 else v for v in values))
        start = len(entries) + 18
        if len(data) > 4:
            start = place + len(beyond)
            entries += struct.pack("<HHII", tag, kind_, len(values), start)
            beyond += data
        else:
            entries += struct.pack("<HHI", tag, kind_, len(values)) + data.ljust(4, b"\0")
        blanks += [start + 4 * k for k, value in enumerate(values) if value == -1]
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    whole = bytearray(b"II*\0" + struct.pack("<I", 8) + directory + beyond)
    for blank in blanks:
        struct.pack_into("<I", whole, blank, place + len(beyond))
    return bytes(whole) + payload


def rgb_tags(width: int, height: int, size: int, *, rows: int | None = None) -> dict[int, Any]:
    """Tags of an RGB image in one deflated strip of `size` bytes."""
    return {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (8, 8, 8)),
        259: (3, (8,)),
        262: (3, (2,)),
        273: (4, (-1,)),
        277: (3, (3,)),
        278: (4, (height if rows is None else rows,)),
        279: (4, (size,)),
    }


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP container."""
    body = b"".join(n + struct.pack("<I", len(d)) + d + b"\0" * (len(d) % 2) for n, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def vp8l(width: int, height: int) -> bytes:
    """A lossless WebP stream in which every pixel takes zero bits: any size in a few bytes."""
    bits = f"{width - 1:014b}"[::-1] + f"{height - 1:014b}"[::-1] + "0" + "000" + "000"
    bits += "1000" * 5  # five trees: simple, one symbol, of one bit, zero
    bits = bits.ljust(-(-len(bits) // 8) * 8 + 64, "0")
    return b"\x2f" + bytes(int(bits[k : k + 8][::-1], 2) for k in range(0, len(bits), 8))


def exif_bomb() -> bytes:
    """A directory of 5000 tags that all point at the same 60,000 bytes: 300 MB if believed."""
    entries = b"".join(struct.pack("<HHII", tag, 7, 60000, 8) for tag in range(1, 5001))
    return b"II*\0" + struct.pack("<IH", 8, 5000) + entries + struct.pack("<I", 8)


# ---- damage that every format can take ---------------------------------------------------------

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {"quality": 90}),
    "webp": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "bmp": ("BMP", {}),
}


def sound(form: str, rng: np.random.Generator) -> Made:
    """An undamaged file of a format, and the pixels it must give if it stores them exactly."""
    name, options = _FORMATS[form]
    pixels = picture(rng)
    if form == "gif":
        levels = Image.fromarray(pixels[..., 0])
        return saved(levels, name), np.asarray(levels.convert("RGB"))
    return saved(pixels, name, **options), None if form == "jpeg" else pixels


def flipped(data: bytes, rng: np.random.Generator, count: int) -> bytes:
    """With `count` random bits turned over."""
    damaged = bytearray(data)
    for place in rng.integers(0, len(data), count):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _damage_all() -> None:
    for form in _FORMATS:

        def whole(rng: np.random.Generator, form: str = form) -> Made:
            return sound(form, rng)

        def truncated(rng: np.random.Generator, form: str = form) -> Made:
            data, pixels = sound(form, rng)
            return data[: int(rng.integers(1, len(data)))], pixels

        def bits(rng: np.random.Generator, form: str = form) -> Made:
            data, pixels = sound(form, rng)
            return flipped(data, rng, int(rng.integers(1, 9))), pixels if form == "png" else None

        def overwritten(rng: np.random.Generator, form: str = form) -> Made:
            data, pixels = sound(form, rng)
            place, size = int(rng.integers(8, len(data))), int(rng.integers(1, 2000))
            data = data[:place] + rng.bytes(size) + data[place + size :]
            return data, pixels if form == "png" else None

        def headed(rng: np.random.Generator, form: str = form) -> Made:
            data, _ = sound(form, rng)
            return data[: int(rng.integers(4, 40))] + rng.bytes(int(rng.integers(0, 5000))), None

        kind(f"{form}: sound", f".{form}", "read")(whole)
        kind(f"{form}: truncated", f".{form}", "either")(truncated)
        kind(f"{form}: bits flipped", f".{form}", "either")(bits)
        kind(f"{form}: overwritten", f".{form}", "either")(overwritten)
        kind(f"{form}: head, then noise", f".{form}", "either")(headed)


_damage_all()

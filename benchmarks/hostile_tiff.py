"""TIFF and BMP files that claim, inflate or repeat something."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from hostile_blocks import HEIGHT, WIDTH, Made, kind, picture, rgb_tags, saved, tiff, zeros
from PIL import Image

# ---- TIFF --------------------------------------------------------------------------------------


@kind("tiff: NaN", ".tif", "refused")
def nan(rng: np.random.Generator) -> bytes:
    values = rng.random((HEIGHT, WIDTH), dtype=np.float32)
    values[int(rng.integers(HEIGHT)), int(rng.integers(WIDTH))] = np.nan
    return saved(Image.fromarray(values), "TIFF")


@kind("tiff: infinity", ".tif", "refused")
def infinity(rng: np.random.Generator) -> bytes:
    values = rng.random((HEIGHT, WIDTH), dtype=np.float32)
    values[0, 0] = rng.choice([np.inf, -np.inf])
    return saved(Image.fromarray(values), "TIFF")


@kind("tiff: 16-bit grey", ".tif", "read")
def sixteen_bit(rng: np.random.Generator) -> bytes:
    return saved(Image.fromarray(rng.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)), "TIFF")


@kind("tiff: CMYK", ".tif", "read")
def tiff_cmyk(rng: np.random.Generator) -> bytes:
    return saved(Image.fromarray(picture(rng)).convert("CMYK"), "TIFF")


@kind("tiff: CIE Lab", ".tif", "refused")
def lab(rng: np.random.Generator) -> bytes:
    return saved(Image.frombytes("LAB", (WIDTH, HEIGHT), rng.bytes(3 * WIDTH * HEIGHT)), "TIFF")


@kind("tiff: several pages", ".tif", "read")
def pages(rng: np.random.Generator) -> Made:
    frames = [Image.fromarray(picture(rng)) for _ in range(3)]
    whole = saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    return whole, np.asarray(frames[0])


@kind("tiff: turned by its orientation", ".tif", "read")
def turned(rng: np.random.Generator) -> Made:
    pixels = picture(rng)
    return saved(pixels, "TIFF", tiffinfo={274: int(rng.integers(2, 9))}), pixels


@kind("tiff: big TIFF", ".tif", "read")
def big(rng: np.random.Generator) -> Made:
    pixels = picture(rng)
    return saved(pixels, "TIFF", big_tiff=True), pixels


def deflated(rng: np.random.Generator, *, more: dict[int, Any] | None = None) -> tuple[bytes, Any]:
    """A TIFF in one deflated strip, with more tags, and its pixels."""
    pixels = picture(rng)
    payload = zlib.compress(pixels.tobytes())
    return tiff(rgb_tags(WIDTH, HEIGHT, len(payload)) | (more or {}), payload), pixels


@kind("tiff: 30,000 x 30,000 zeros", ".tif", "refused")
def tiff_bomb(rng: np.random.Generator) -> bytes:
    payload = zeros(3 * 30000 * 30000)
    return tiff(rgb_tags(30000, 30000, len(payload)), payload)


@kind("tiff: 16 x 16 in a tile of 30,000 x 30,000", ".tif", "refused")
def tile(rng: np.random.Generator) -> bytes:
    payload = zeros(3 * 30000 * 30000)
    tags = rgb_tags(16, 16, len(payload))
    tags[322], tags[323], tags[325] = (4, (30000,)), (4, (30000,)), tags.pop(279)
    tags[324] = tags.pop(273)
    return tiff(tags, payload)


@kind("tiff: 16 x 16 in a tile of 7,984 x 7,984", ".tif", "either", heavy=True)
def allowed_tile(rng: np.random.Generator) -> bytes:
    payload = zeros(3 * 7984 * 7984)
    tags = rgb_tags(16, 16, len(payload))
    tags[322], tags[323], tags[325] = (4, (7984,)), (4, (7984,)), tags.pop(279)
    tags[324] = tags.pop(273)
    return tiff(tags, payload)


@kind("tiff: strip of 2**31 rows", ".tif", "either")
def strip(rng: np.random.Generator) -> bytes:
    payload = zeros(2**30)
    return tiff(rgb_tags(16, 16, len(payload), rows=2**31), payload)


@kind("tiff: 300,000 strips", ".tif", "refused")
def strips(rng: np.random.Generator) -> bytes:
    tags = rgb_tags(1, 300_000, 3, rows=1)
    tags[273], tags[279] = (4, (-1,) * 300_000), (4, (3,) * 300_000)
    return tiff(tags, bytes(3))


@kind("tiff: 60,000 strips", ".tif", "read")
def allowed_strips(rng: np.random.Generator) -> Made:
    tags = rgb_tags(1, 60_000, 3, rows=1) | {259: (3, (1,))}
    tags[273], tags[279] = (4, (-1,) * 60_000), (4, (3,) * 60_000)
    pixel = rng.bytes(3)
    return tiff(tags, pixel), np.broadcast_to(np.frombuffer(pixel, np.uint8), (60_000, 1, 3))


@kind("tiff: tags that all hold the same megabyte", ".tif", "read")
def shared(rng: np.random.Generator) -> Made:
    whole, pixels = deflated(rng)
    payload = zlib.compress(pixels.tobytes())
    directory = whole[: len(whole) - len(payload)]
    (count,) = struct.unpack_from("<H", directory, 8)
    own = directory[10 : 10 + 12 * count]
    # a second directory at the end: the old entries, then 60,000 that point at the whole file
    more = b"".join(struct.pack("<HHII", tag, 7, 10**6, 0) for tag in range(1000, 61000))
    place = len(whole) + len(whole) % 2
    longer = whole + b"\0" * (len(whole) % 2) + struct.pack("<H", count + 60000) + own + more
    longer += struct.pack("<I", 0) + bytes(10**6)
    return longer[:4] + struct.pack("<I", place) + longer[8:], pixels


@kind("tiff: directories in a circle", ".tif", "read")
def circle(rng: np.random.Generator) -> Made:
    whole, pixels = deflated(rng)
    (count,) = struct.unpack_from("<H", whole, 8)
    place = 10 + 12 * count
    return whole[:place] + struct.pack("<I", 8) + whole[place + 4 :], pixels


@kind("tiff: EXIF directory that is the file's own", ".tif", "read")
def own_exif(rng: np.random.Generator) -> Made:
    return deflated(rng, more={34665: (4, (8,)), 330: (4, (8, 8, 8))})


@kind("tiff: size as a list", ".tif", "either")
def listed(rng: np.random.Generator) -> bytes:
    return deflated(rng, more={256: (4, (WIDTH, 10**6, 10**6)), 322: (4, (16, 10**9))})[0]


@kind("tiff: directory outside the file", ".tif", "refused")
def outside(rng: np.random.Generator) -> bytes:
    return b"II*\0" + struct.pack("<I", int(rng.integers(1000, 2**32))) + rng.bytes(500)


@kind("tiff: random directory", ".tif", "either")
def random_directory(rng: np.random.Generator) -> bytes:
    tags = rgb_tags(WIDTH, HEIGHT, 4000)
    for tag in rng.choice(list(tags), 3, replace=False):
        tags[int(tag)] = (int(rng.choice([1, 3, 4])), (int(rng.integers(256)),) * 3)
    tags[259] = (3, (int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 32773, 34925, 50000, 50001])),))
    return tiff(tags, rng.bytes(4000))


# ---- BMP ---------------------------------------------------------------------------------------


def bmp(width: int, height: int, body: bytes, *, bits: int, compression: int) -> bytes:
    """A BMP with a palette of 256 greys."""
    palette = b"".join(bytes([k, k, k, 0]) for k in range(256))
    head = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, 256, 0
    )
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + palette + body


@kind("bmp: claims 30,000 x 30,000", ".bmp", "refused")
def bmp_bomb(rng: np.random.Generator) -> bytes:
    return bmp(30000, 30000, rng.bytes(100), bits=8, compression=0)


@kind("bmp: claims 8,000 x 8,000", ".bmp", "refused")
def bmp_short(rng: np.random.Generator) -> bytes:
    return bmp(8000, 8000, rng.bytes(100), bits=8, compression=0)


@kind("bmp: 60,000,000 x 1, jumps of 255 rows", ".bmp", "refused")
def bmp_jump(rng: np.random.Generator) -> bytes:
    return bmp(60_000_000, 1, b"\0\2\0\xff" * 10, bits=8, compression=1)


@kind("bmp: 200,000 x 300, jumps of 255 rows", ".bmp", "either", heavy=True)
def bmp_allowed_jump(rng: np.random.Generator) -> bytes:
    return bmp(200_000, 300, b"\0\2\0\xff" * 10, bits=8, compression=1)


@kind("bmp: 16 MB of runs that lie outside", ".bmp", "either", heavy=True)
def bmp_runs(rng: np.random.Generator) -> bytes:
    return bmp(16, 16, b"\x10a" + b"\xffa" * 8_000_000, bits=8, compression=1)


@kind("bmp: 17 MB of runs that lie outside", ".bmp", "refused")
def bmp_more_runs(rng: np.random.Generator) -> bytes:
    return bmp(16, 16, b"\x10a" + b"\xffa" * 8_500_000, bits=8, compression=1)


@kind("bmp: upside down", ".bmp", "read")
def bmp_upside_down(rng: np.random.Generator) -> Made:
    levels = picture(rng)[..., 0]
    return bmp(WIDTH, -HEIGHT, levels.tobytes(), bits=8, compression=0), np.dstack([levels] * 3)

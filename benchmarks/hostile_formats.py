"""JPEG, GIF and WebP files that claim, inflate or repeat something, and files that are no image."""

from __future__ import annotations

import gzip
import io
import struct
from typing import Any

import numpy as np
from hostile_blocks import (
    HEIGHT,
    WIDTH,
    Made,
    exif_bomb,
    kind,
    picture,
    riff,
    saved,
    segment,
    sound,
    vp8l,
)
from PIL import Image

# ---- JPEG --------------------------------------------------------------------------------------


def after_start(whole: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments right after its first two bytes."""
    return whole[:2] + b"".join(segments) + whole[2:]


def frame(rng: np.random.Generator, **options: Any) -> bytes:
    """A JPEG of a random picture."""
    return saved(picture(rng), "JPEG", **options)


def resized(whole: bytes, marker: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    place = whole.index(marker) + 5
    return whole[:place] + struct.pack(">HH", height, width) + whole[place + 4 :]


@kind("jpeg: claims 65,500 x 65,500", ".jpg", "refused")
def claims(rng: np.random.Generator) -> bytes:
    return resized(frame(rng), b"\xff\xc0", 65500, 65500)


@kind("jpeg: claims 7,900 x 7,900", ".jpg", "either", heavy=True)
def claims_allowed(rng: np.random.Generator) -> bytes:
    return resized(frame(rng), b"\xff\xc0", 7900, 7900)


@kind("jpeg: 65,500 x 1", ".jpg", "read")
def wide(rng: np.random.Generator) -> bytes:
    return saved(picture(rng, height=1, width=65500), "JPEG")


@kind("jpeg: 30,000 scans of one picture", ".jpg", "refused")
def scans(rng: np.random.Generator) -> bytes:
    whole = frame(rng, progressive=True)
    first = whole.index(b"\xff\xda")
    return whole[:first] + whole[first:-2] * 3000 + whole[-2:]


@kind("jpeg: 64 scans of 7,900 x 7,900, all runs of nothing", ".jpg", "either", heavy=True)
def scans_of_many_pixels(rng: np.random.Generator) -> bytes:
    whole = resized(frame(rng, progressive=True), b"\xff\xc2", 7900, 7900)
    first = whole.index(b"\xff\xda")
    table = segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")  # one symbol: a run of 2**14 + 14 bits
    runs = bytes(2000)  # 15 bits make a run of 16,384 blocks
    scan = b"".join(segment(0xDA, bytes([1, c, 0, 1, 63, 0])) + runs for c in (1, 2, 3))
    return whole[:first] + table + scan * 21 + whole[-2:]


@kind("jpeg: directory of EXIF that repeats itself", ".jpg", "read")
def exif(rng: np.random.Generator) -> bytes:
    body = b"Exif\0\0" + exif_bomb()
    return after_start(frame(rng), *(segment(0xE1, body[k : k + 60000]) for k in (0, 60000)))


@kind("jpeg: 100,000 comments", ".jpg", "read")
def comments(rng: np.random.Generator) -> bytes:
    return after_start(frame(rng), segment(0xFE, b"comment") * 100_000)


@kind("jpeg: a million comments", ".jpg", "refused")
def more_comments(rng: np.random.Generator) -> bytes:
    return after_start(frame(rng), segment(0xFE, b"") * 10**6)


@kind("jpeg: 20 MB of colour profile, parts missing", ".jpg", "read")
def profile(rng: np.random.Generator) -> bytes:
    part = b"ICC_PROFILE\0" + bytes([7, 255]) + rng.bytes(60000)
    return after_start(frame(rng), segment(0xE2, part) * 330)


@kind("jpeg: 20 MB of filling bytes", ".jpg", "either")
def filling(rng: np.random.Generator) -> bytes:
    whole = frame(rng)
    place = whole.index(b"\xff\xdb")
    return whole[:place] + b"\xff" * (20 * 2**20) + whole[place:]


@kind("jpeg: script behind it", ".jpg", "read")
def script(rng: np.random.Generator) -> bytes:
    return after_start(frame(rng), segment(0xFE, b"<?php system('id'); ?>")) + b"<script>"


@kind("jpeg: CMYK", ".jpg", "read")
def cmyk(rng: np.random.Generator) -> bytes:
    return saved(Image.fromarray(picture(rng)).convert("CMYK"), "JPEG")


@kind("jpeg: grey, progressive", ".jpg", "read")
def grey(rng: np.random.Generator) -> bytes:
    return saved(Image.fromarray(picture(rng)).convert("L"), "JPEG", progressive=True)


@kind("jpeg: several pictures (MPO)", ".jpg", "read")
def several(rng: np.random.Generator) -> bytes:
    frames = [Image.fromarray(picture(rng)) for _ in range(2)]
    return saved(frames[0], "MPO", save_all=True, append_images=frames[1:])


@kind("jpeg: 12 bits", ".jpg", "refused")
def twelve_bits(rng: np.random.Generator) -> bytes:
    whole = frame(rng)
    place = whole.index(b"\xff\xc0") + 4
    return whole[:place] + b"\x0c" + whole[place + 1 :]


@kind("jpeg: no tables", ".jpg", "refused")
def no_tables(rng: np.random.Generator) -> bytes:
    whole = frame(rng)
    first, scan = whole.index(b"\xff\xdb"), whole.index(b"\xff\xc0")
    return whole[:first] + whole[scan:]


@kind("jpeg: table longer than the file", ".jpg", "refused")
def long_table(rng: np.random.Generator) -> bytes:
    return b"\xff\xd8\xff\xdb\xff\xff" + rng.bytes(int(rng.integers(0, 3000)))


# ---- GIF ---------------------------------------------------------------------------------------


def gif(rng: np.random.Generator) -> Made:
    """A GIF of one grey frame, and its pixels."""
    return sound("gif", rng)


@kind("gif: animated", ".gif", "read")
def animated(rng: np.random.Generator) -> Made:
    frames = [Image.fromarray(picture(rng)[..., 0]) for _ in range(5)]
    whole = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    return whole, np.asarray(frames[0].convert("RGB"))


@kind("gif: screen of 65,535 x 65,535", ".gif", "refused")
def screen(rng: np.random.Generator) -> bytes:
    whole, _ = gif(rng)
    return whole[:6] + b"\xff" * 4 + whole[10:]


@kind("gif: frame of 65,535 x 65,535 on a small screen", ".gif", "refused")
def large_frame(rng: np.random.Generator) -> bytes:
    whole, _ = gif(rng)
    place = whole.rindex(b"," + struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT)) + 5
    return whole[:place] + b"\xff" * 4 + whole[place + 4 :]


@kind("gif: 8,000 x 8,000 of one colour", ".gif", "read", heavy=True)
def large(rng: np.random.Generator) -> bytes:
    return saved(Image.new("L", (8000, 8000), 7), "GIF")


@kind("gif: 30,000 x 30,000 of one colour", ".gif", "refused")
def bomb(rng: np.random.Generator) -> bytes:
    whole = saved(Image.new("L", (3000, 3000), 7), "GIF")
    return whole.replace(struct.pack("<HH", 3000, 3000), struct.pack("<HH", 30000, 30000))


@kind("gif: comment of 20 MB", ".gif", "read")
def comment(rng: np.random.Generator) -> Made:
    whole, pixels = gif(rng)
    place = whole.index(b"," + struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT))
    flood = b"!\xfe" + (b"\xff" + b"c" * 255) * 80_000 + b"\0"
    return whole[:place] + flood + whole[place:], pixels


@kind("gif: 10 million blocks of one byte", ".gif", "refused")
def small_blocks(rng: np.random.Generator) -> bytes:
    whole, _ = gif(rng)
    place = whole.index(b"," + struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT))
    return whole[:place] + b"!\xfe" + b"\1c" * 10**7 + b"\0" + whole[place:]


@kind("gif: a megabyte between its blocks", ".gif", "refused")
def between(rng: np.random.Generator) -> bytes:
    whole, _ = gif(rng)
    place = whole.index(b"," + struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT))
    return whole[:place] + bytes(2**20) + whole[place:]


@kind("gif: no frame", ".gif", "refused")
def no_frame(rng: np.random.Generator) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 100, 100, 0, 0, 0) + b";"


@kind("gif: script around it", ".gif", "read")
def gif_script(rng: np.random.Generator) -> Made:
    whole, pixels = gif(rng)
    return whole + b"*/=1;alert(1)", pixels


# ---- WebP --------------------------------------------------------------------------------------


@kind("webp: animated", ".webp", "read")
def webp_animated(rng: np.random.Generator) -> Made:
    frames = [Image.fromarray(picture(rng)) for _ in range(4)]
    whole = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return whole, np.asarray(frames[0])


@kind("webp: 16,383 x 16,383 in 50 bytes", ".webp", "refused")
def webp_bomb(rng: np.random.Generator) -> bytes:
    return riff((b"VP8L", vp8l(16383, 16383)))


@kind("webp: 8,000 x 8,000 in 50 bytes", ".webp", "read", heavy=True)
def webp_large(rng: np.random.Generator) -> bytes:
    return riff((b"VP8L", vp8l(8000, 8000)))


@kind("webp: canvas of 2**24 x 2**24", ".webp", "refused")
def webp_canvas(rng: np.random.Generator) -> bytes:
    return riff((b"VP8X", b"\2\0\0\0" + b"\xff" * 6), (b"VP8L", vp8l(16, 16)))


@kind("webp: canvas of 16,384 x 16,384, small frame", ".webp", "refused")
def webp_small_frame(rng: np.random.Generator) -> bytes:
    size = (16383).to_bytes(3, "little")
    part = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4)
    stream = vp8l(16, 16)
    inner = b"VP8L" + struct.pack("<I", len(stream)) + stream + b"\0" * (len(stream) % 2)
    return riff((b"VP8X", b"\2\0\0\0" + size * 2), (b"ANIM", bytes(6)), (b"ANMF", part + inner))


@kind("webp: 20 MB of metadata", ".webp", "either")
def webp_metadata(rng: np.random.Generator) -> bytes:
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    stream = sound("webp", rng)[0][20:]
    return riff(
        (b"VP8X", b"\x08\0\0\0" + size), (b"VP8L", stream), (b"EXIF", rng.bytes(20 * 2**20))
    )


# ---- no images ---------------------------------------------------------------------------------

_NO_IMAGES = {
    "empty": lambda rng: b"",
    "noise": lambda rng: rng.bytes(int(rng.integers(1, 10000))),
    "zeros": lambda rng: bytes(10 * 2**20),
    "text": lambda rng: b"not an image\n" * int(rng.integers(1, 100)),
    "gzip of 1 GB": lambda rng: gzip.compress(bytes(2**20), mtime=0) * 1024,
    "PostScript that draws": lambda rng: (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    ),
    "SVG with a script": lambda rng: (
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>x</script></svg>"
    ),
    "PDF": lambda rng: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "pickle": lambda rng: b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93.",
    "array": lambda rng: _npy(rng),
    "film": lambda rng: b"\0\0\0 ftypheic\0\0\0\0heic" + rng.bytes(1000),
    "icon of another format": lambda rng: saved(picture(rng, height=32, width=32), "ICO"),
    "JPEG 2000": lambda rng: b"\0\0\0\x0cjP  \r\n\x87\n" + rng.bytes(100),
    "large PPM header": lambda rng: b"P6\n60000 60000\n255\n",
}


def _npy(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rng.random(10))
    return buffer.getvalue()


for _name, _make in _NO_IMAGES.items():
    kind(f"no image: {_name}", ".png", "refused")(_make)

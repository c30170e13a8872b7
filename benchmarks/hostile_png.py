"""PNG files that claim, inflate, repeat or hide something."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
from hostile_blocks import (
    HEIGHT,
    WIDTH,
    Made,
    chunk,
    exif_bomb,
    kind,
    picture,
    png,
    saved,
    sound,
    with_chunks,
    zeros,
)
from PIL import Image


@kind("png: 1 x 1", ".png", "read")
def size_1_x_1(rng: np.random.Generator) -> Made:
    pixels = picture(rng, height=1, width=1)
    return saved(pixels, "PNG"), pixels


@kind("png: 65536 x 1", ".png", "read")
def size_65536_x_1(rng: np.random.Generator) -> Made:
    pixels = picture(rng, height=1, width=65536)
    return saved(pixels, "PNG"), pixels


@kind("png: 1 x 65536", ".png", "read")
def size_1_x_65536(rng: np.random.Generator) -> Made:
    pixels = picture(rng, height=65536, width=1)
    return saved(pixels, "PNG"), pixels


@kind("png: 30,000 x 30,000 zeros", ".png", "refused")
def size_30_000_x_30_000_zeros(rng: np.random.Generator) -> bytes:
    return png(30000, 30000, zeros(3 * 30000 * 30000))


@kind("png: 8,000 x 8,000 zeros, just allowed", ".png", "read", heavy=True)
def size_8_000_x_8_000_zeros_just_allowed(rng: np.random.Generator) -> bytes:
    return png(8000, 8000, zeros(8000 * 24001))


@kind("png: claims random sides", ".png", "refused")
def claims_random_sides(rng: np.random.Generator) -> bytes:
    return png(int(rng.integers(1e5, 2**32)), int(rng.integers(1e5, 2**32)), zeros(2**20))


@kind("png: no width", ".png", "refused")
def no_width(rng: np.random.Generator) -> bytes:
    return png(0, 8, zlib.compress(b"\0" * 8))


@kind("png: 60,000,000 x 1", ".png", "refused")
def size_60_000_000_x_1(rng: np.random.Generator) -> bytes:
    return png(60_000_000, 1, zeros(180_000_001))


@kind("png: stream of 1 GB behind the last pixel", ".png", "either")
def stream_of_1_gb_behind_the_last_pixel(rng: np.random.Generator) -> bytes:
    return png(144, 136, zeros(2**30))


@kind("png: compressed text of 1 GB", ".png", "read")
def compressed_text_of_1_gb(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    return with_chunks(whole, chunk(b"zTXt", b"Comment\0\0" + zeros(2**30))), pixels


@kind("png: international text of 1 GB", ".png", "read")
def international_text_of_1_gb(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    return with_chunks(whole, chunk(b"iTXt", b"Title\0\1\0en\0\0" + zeros(2**30))), pixels


@kind("png: colour profile of 1 GB", ".png", "read")
def colour_profile_of_1_gb(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    return with_chunks(whole, chunk(b"iCCP", b"icc\0\0" + zeros(2**30))), pixels


@kind("png: 200,000 small chunks", ".png", "read")
def size_200_000_small_chunks(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    return with_chunks(whole, chunk(b"teXt", b"a\0b") * 200_000), pixels


@kind("png: a million chunks", ".png", "refused")
def a_million_chunks(rng: np.random.Generator) -> bytes:
    return with_chunks(sound("png", rng)[0], chunk(b"teXt", b"") * 10**6)


@kind("png: 200,000 empty data chunks", ".png", "read")
def size_200_000_empty_data_chunks(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    return with_chunks(whole, chunk(b"IDAT", b"") * 200_000), pixels


@kind("png: unknown critical chunk", ".png", "refused")
def unknown_critical_chunk(rng: np.random.Generator) -> bytes:
    return with_chunks(sound("png", rng)[0], chunk(b"EVIL", rng.bytes(20)))


@kind("png: wrong checksum of the pixels", ".png", "refused")
def wrong_checksum_of_the_pixels(rng: np.random.Generator) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in picture(rng))
    packer = zlib.compressobj(0)  # as they are, and without the checksum of the stream's end
    whole = png(WIDTH, HEIGHT, packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH))
    place = int(rng.integers(200, len(whole) - 200))
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


@kind("png: no pixels", ".png", "refused")
def no_pixels(rng: np.random.Generator) -> bytes:
    whole = saved(picture(rng), "PNG")
    return whole[:33] + chunk(b"IEND", b"")


@kind("png: two headers of different sizes", ".png", "either")
def two_headers_of_different_sizes(rng: np.random.Generator) -> bytes:
    return with_chunks(
        sound("png", rng)[0], chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    )


@kind("png: palette too short for its indices", ".png", "either")
def palette_too_short_for_its_indices(rng: np.random.Generator) -> bytes:
    whole = png(16, 16, zlib.compress(b"\0" + b"\xff" * 16) * 16, colour=3)
    return with_chunks(whole, chunk(b"PLTE", rng.bytes(3)))


@kind("png: 16-bit RGB", ".png", "read")
def size_16_bit_rgb(rng: np.random.Generator) -> Made:
    pixels = picture(rng)
    rows = b"".join(b"\0" + row.repeat(2).tobytes() for row in pixels)
    return png(WIDTH, HEIGHT, zlib.compress(rows), depth=16), pixels


@kind("png: animated", ".png", "read")
def animated(rng: np.random.Generator) -> Made:
    frames = [Image.fromarray(picture(rng)) for _ in range(3)]
    whole = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    return whole, np.asarray(frames[0])


@kind("png: claims 2**31 frames", ".png", "read")
def claims_2_31_frames(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    return with_chunks(whole, chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), pixels


@kind("png: with hostile EXIF", ".png", "read")
def with_hostile_exif(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    return with_chunks(whole, chunk(b"eXIf", exif_bomb())), pixels


@kind("png: zip archive behind it", ".png", "read")
def zip_archive_behind_it(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("payload.txt", bytes(10**6))
    return whole + buffer.getvalue(), pixels


@kind("png: page with a script inside", ".png", "read")
def page_with_a_script_inside(rng: np.random.Generator) -> Made:
    whole, pixels = sound("png", rng)
    return with_chunks(whole, chunk(b"teXt", b"Title\0<script>alert(1)</script>")), pixels


@kind("png: called .jpg", ".jpg", "read")
def called_jpg(rng: np.random.Generator) -> Made:
    return sound("png", rng)

"""Images from files, safely, and the crops that an extractor looks at.

Everywhere in fpkit an image is a (3, h, w) float32 tensor in [0, 1], and a data set is a tree
with one folder per model. Nothing here resamples: a fingerprint does not survive resizing.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fpkit.assets import write_bytes_atomic
from fpkit.intake import ImageReadError, max_file_bytes, open_image, read_bytes
from fpkit.tensor_files import map_array

GRID = 8  # pixels: the blocks of JPEG, the patches of most decoders
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_COLOUR_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})


def read_image(path: str | Path, *, max_pixels: int = 64_000_000) -> Tensor:
    """Read PNG, JPEG, WebP, BMP, TIFF or GIF as an RGB image.

    Parameters
    ----------
    path
        Image file. Its content decides the format, its name does not.
    max_pixels
        Larger images are refused before they are decoded: a file of a few kB can claim
        gigapixels (a decompression bomb).

    Returns
    -------
    Tensor
        (3, h, w) float32 in [0, 1].

    Raises
    ------
    ImageReadError
        If the file is missing, a folder, empty, truncated, too large, or no such image.

    Notes
    -----
    Grey is repeated in three channels; palettes are looked up; transparency is dropped, not
    blended, so that the stored colours stay as the network wrote them; CMYK goes through
    Pillow's plain inversion, without a colour profile; 16-bit grey is divided by 65535 (16-bit
    RGB is read by Pillow as its upper 8 bits); of an animation the first frame is read. The EXIF
    orientation is NOT applied: the array is as stored, as the JPEG grid and the generator's axes
    are; rotating by 90 degrees would swap horizontal and vertical frequencies.
    """
    return load_image(path, max_pixels=max_pixels)[0]


def load_image(path: str | Path, *, max_pixels: int = 64_000_000) -> tuple[Tensor, bytes]:
    """:func:`read_image`, and the bytes of the file, for who asks more of them than pixels."""
    with _named(str(path)):
        data = read_bytes(path, max_bytes=max_file_bytes(max_pixels))
    return decode_image(data, name=str(path), max_pixels=max_pixels), data


def decode_image(data: bytes, *, name: str, max_pixels: int = 64_000_000) -> Tensor:
    """The image that the bytes of a file hold, an upload say; everything as in `read_image`.

    Parameters
    ----------
    data
        Content of the file.
    name
        What messages call it.
    max_pixels
        See :func:`read_image`.

    Returns
    -------
    Tensor
        (3, h, w) float32 in [0, 1].

    Raises
    ------
    ImageReadError
        If it is empty, truncated, too large, or no such image.
    """
    with _named(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged metadata is no concern of ours
        if len(data) == 0:
            raise ImageReadError("the file is empty")
        with open_image(data, max_pixels=max_pixels) as image:
            image.load()
            return _as_tensor(image)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Whatever goes wrong in here becomes an ImageReadError that begins with `name`."""
    try:
        yield
    except FileNotFoundError:
        raise ImageReadError(f"{name}: no such file") from None
    except ImageReadError as error:
        raise ImageReadError(f"{name}: {error}") from None
    except MemoryError:
        raise ImageReadError(f"{name}: not enough memory to decode it") from None
    except Exception as error:  # decoders of damaged files raise almost anything
        if isinstance(error, OSError) and error.strerror:  # else it is Pillow that speaks
            raise ImageReadError(f"{name}: cannot be opened ({error.strerror})") from error
        reason = str(error).strip() or type(error).__name__
        raise ImageReadError(f"{name}: cannot be decoded, damaged? ({reason})") from error


def _as_tensor(image: Image.Image) -> Tensor:
    """Decoded image of any mode -> (3, h, w) float32 in [0, 1]."""
    if image.mode in _SIXTEEN_BIT or image.mode in ("I", "F"):
        grey = np.asarray(image)
        low, high = grey.min(), grey.max()
        most = 1 if image.mode == "F" else 65535
        if not (low >= 0 and high <= most):  # NaN is neither
            raise ImageReadError(
                f"grey values from {low:g} to {high:g}, expected integers of at most 16 bits or "
                "numbers in [0, 1]: rescale it"
            )
        plane = np.divide(grey, most, dtype=np.float32)
        return torch.from_numpy(np.repeat(plane[None], 3, axis=0))
    if image.mode not in _COLOUR_MODES:
        raise ImageReadError(f"colours are {image.mode}, expected grey, RGB, palette or CMYK")
    levels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return torch.from_numpy(np.divide(levels, 255, dtype=np.float32, order="C"))


def read_images(
    paths: Iterable[str | Path], *, on_error: Callable[[ImageReadError], None] | None = None
) -> Iterator[tuple[Path, Tensor]]:
    """Read images one by one.

    Parameters
    ----------
    paths
        Image files.
    on_error
        Called with each error; the file is then skipped. None: the first error is raised.

    Yields
    ------
    tuple of Path and Tensor
        The path and its (3, h, w) float32 image in [0, 1].
    """
    for path in map(Path, paths):
        try:
            image = read_image(path)
        except ImageReadError as error:
            if on_error is None:
                raise
            on_error(error)
        else:
            yield path, image


def grid_crops(image: Tensor, *, size: int = 128, grid: int = 3) -> Tensor:
    """Crops at even distances, from the corners inwards, on the image's 8-pixel grid.

    Upsampling and JPEG repeat every 2, 4 or 8 pixels, counted from the corner: on that grid all
    crops of an image see them alike.

    Parameters
    ----------
    image
        (c, h, w).
    size
        Height and width of a crop in pixels.
    grid
        Crops per axis at most; fewer where crops would be the same or overlap by more than half.

    Returns
    -------
    Tensor
        (m, c, size, size), 1 <= m <= grid * grid, row by row.

    Raises
    ------
    ValueError
        If the image is smaller than one crop.

    Example
    -------
    >>> grid_crops(torch.zeros(3, 512, 512)).shape
    torch.Size([9, 3, 128, 128])
    >>> grid_crops(torch.zeros(3, 128, 129)).shape
    torch.Size([1, 3, 128, 128])
    """
    _check_crop(image, size)
    if grid < 1:
        raise ValueError(f"grid must be at least 1, got {grid}")
    tops, lefts = (_offsets(length, size, grid) for length in image.shape[-2:])
    return torch.stack(
        [image[:, top : top + size, left : left + size] for top in tops for left in lefts]
    )


def _offsets(length: int, size: int, most: int) -> list[int]:
    count = min(most, 2 * math.ceil(length / size) - 1)
    last = (length - size) // GRID
    if count == 1:
        return [GRID * (last // 2)]
    return [GRID * place for place in sorted({round(i * last / (count - 1)) for i in range(count)})]


def random_crop(image: Tensor, size: int, *, step: int = 1, generator: torch.Generator) -> Tensor:
    """One (c, size, size) crop of a (c, h, w) image at a random multiple of `step` pixels.

    Raises
    ------
    ValueError
        If the image is smaller than the crop.
    """
    _check_crop(image, size)
    top, left = (
        step * int(torch.randint((length - size) // step + 1, (), generator=generator))
        for length in image.shape[-2:]
    )
    return image[:, top : top + size, left : left + size]


def _check_crop(image: Tensor, size: int) -> None:
    if image.ndim != 3:
        raise ValueError(f"image must be (c, h, w), got shape {tuple(image.shape)}")
    height, width = image.shape[-2:]
    if min(height, width) < size:
        raise ValueError(
            f"image is {width}x{height}, smaller than one {size}x{size} crop: use a larger image "
            "(do not enlarge it, that makes a pattern of its own)"
        )


def quantise(images: Tensor) -> Tensor:
    """Round to 8 bits: the nearest multiples of 1/255, clipped to [0, 1]; any shape."""
    return (images.clamp(0, 1) * 255).round() / 255


def jpeg(image: Tensor, quality: int, subsampling: int = 2) -> Tensor:
    """Compress with JPEG and decompress, in memory.

    Parameters
    ----------
    image
        (3, h, w) float in [0, 1].
    quality
        1 to 100, libjpeg's scale.
    subsampling
        Of the colour channels: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0.

    Returns
    -------
    Tensor
        (3, h, w) float32 in [0, 1].
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    if subsampling not in (0, 1, 2):
        raise ValueError(f"subsampling must be 0, 1 or 2, got {subsampling}")
    buffer = io.BytesIO()
    to_pillow(image).save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    with Image.open(buffer) as decoded:
        array = np.asarray(decoded, dtype=np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def load_tiles(path: str | Path, *, side: int, least: int = 1) -> np.ndarray:
    """Photograph tiles as ``data/photos/make_photos.py`` writes them, read lazily.

    Parameters
    ----------
    path
        An .npy file.
    side, least
        Pixels that height and width, and tiles that the file must have at least.

    Returns
    -------
    ndarray
        (n, h, w, 3) uint8, memory-mapped.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no photograph tiles at {path}: make them with data/photos/make_photos.py"
        )
    try:
        tiles = map_array(path)
    except ValueError as error:
        raise ValueError(f"{path} holds no photograph tiles: {error}") from error
    shape = tiles.shape
    fits = tiles.ndim == 4 and shape[3] == 3 and tiles.dtype == np.uint8
    if not fits or len(tiles) < least or min(shape[1:3]) < side:
        raise ValueError(
            f"{path} must hold at least {least} tiles (n, h, w, 3) uint8 with h and w of at least "
            f"{side} pixels, got {shape} {tiles.dtype}: make it with data/photos/make_photos.py"
        )
    return tiles


def write_png(path: str | Path, image: Tensor) -> None:
    """Write a (3, h, w) image in [0, 1] as an 8-bit PNG, atomically."""
    buffer = io.BytesIO()
    to_pillow(image).save(buffer, format="PNG")
    write_bytes_atomic(path, buffer.getvalue())


def to_pillow(image: Tensor) -> Image.Image:
    """A (3, h, w) image in [0, 1] with 8 bits per channel; ValueError if it is none."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must be (3, h, w), got shape {tuple(image.shape)}")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        hint = "divide by 255?" if high > 1.5 else "clamp it?"
        raise ValueError(f"image must be in [0, 1], got {low:.3g} to {high:.3g}: {hint}")
    levels = (image.detach().cpu() * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())

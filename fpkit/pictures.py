"""Pictures as PNG, made by Pillow alone: no browser, no plotting library.

A widget needs a kernel and an interactive figure needs JavaScript. These pictures need neither,
so they are what a notebook shows on a code host, in a README and in print.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

Palette = Literal["viridis", "cividis", "grey"]

# ten equidistant colours of each map, interpolated linearly; viridis and cividis keep their order
# under every common colour blindness and in grey (Nunez, Anderton and Renslow 2018)
_ANCHORS: dict[str, tuple[str, ...]] = {
    "viridis": (
        "440154", "482878", "3e4989", "31688e", "26828e",
        "1f9e89", "35b779", "6ece58", "b5de2b", "fde725",
    ),
    "cividis": (
        "00224e", "123570", "3b496c", "575d6d", "707173",
        "8a8678", "a59c74", "c3b369", "e1cc55", "fee838",
    ),
    "grey": ("000000", "ffffff"),
}  # fmt: skip

# Okabe and Ito 2008, without black and yellow: they vanish on a dark or a white page
LINE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")

_INK, _PAPER, _FAINT = (34, 34, 34), (255, 255, 255), (222, 222, 222)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture of a montage: values and how to colour them.

    Parameters
    ----------
    values : array
        (3, h, w) or (h, w, 3) in [0, 1] is shown as colours, (h, w) of any unit as a heat map.
    limits : (low, high), optional
        Values of the first and last colour; the 1st and 99.5th percentile where not given.
    palette : {"viridis", "cividis", "grey"}
        For heat maps.
    caption : str
        Small text under the picture.
    """

    values: ArrayLike
    limits: tuple[float, float] | None = None
    palette: Palette = "viridis"
    caption: str = ""


def robust_limits(values: ArrayLike) -> tuple[float, float]:
    """1st and 99.5th percentile of the finite values; a constant array gets a width of 1."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        raise ValueError("values must hold at least one finite number")
    low, high = np.percentile(finite, [1, 99.5])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def colourise(
    values: ArrayLike,
    *,
    limits: tuple[float, float] | None = None,
    palette: Palette = "viridis",
) -> NDArray[np.uint8]:
    """Colour a map of numbers.

    Parameters
    ----------
    values : (h, w) numbers of any unit
    limits : (low, high), optional
        Values of the first and last colour (:func:`robust_limits` if not given); beyond them
        colours are clipped.
    palette : {"viridis", "cividis", "grey"}

    Returns
    -------
    (h, w, 3) uint8

    Examples
    --------
    >>> colourise([[0.0, 1.0]], limits=(0, 1), palette="grey").tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"values must be (h, w), got shape {array.shape}")
    if palette not in get_args(Palette):
        raise ValueError(f"palette must be one of {get_args(Palette)}, got {palette!r}")
    low, high = robust_limits(array) if limits is None else limits
    if not high > low:
        raise ValueError(f"limits must rise, got {limits}")
    position = np.nan_to_num(np.clip((array - low) / (high - low), 0, 1))
    anchors = np.array([list(bytes.fromhex(colour)) for colour in _ANCHORS[palette]], dtype=float)
    stops = np.linspace(0, 1, len(anchors))
    channels = [np.interp(position, stops, anchors[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def picture(cell: Cell | ArrayLike, *, size: int | None = None) -> Image.Image:
    """One `Cell` (or bare array) as a Pillow image, `size` pixels high if given.

    Enlarged pixels stay squares (nearest), reduced ones are averaged.
    """
    cell = cell if isinstance(cell, Cell) else Cell(values=cell)
    array = np.asarray(cell.values, dtype=np.float64)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 3:
        pixels = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    else:
        pixels = colourise(array, limits=cell.limits, palette=cell.palette)
    image = Image.fromarray(pixels)
    if size is not None and size != image.height:
        width = max(1, round(image.width * size / image.height))
        # nearest by a broken factor would draw a beat pattern: enlarge evenly, then average
        factor = -(-size // image.height)
        enlarged = (image.width * factor, image.height * factor)
        image = image.resize(enlarged, Image.Resampling.NEAREST)
        image = image.resize((width, size), Image.Resampling.BOX)
    return image


def montage(
    rows: Mapping[str, Sequence[Cell | ArrayLike]],
    *,
    columns: Sequence[str] = (),
    cell_size: int = 128,
    bar: tuple[float, float, str] | None = None,
    bar_palette: Palette = "viridis",
) -> Image.Image:
    """Pictures in a grid with the names of rows at the left and of columns on top.

    Parameters
    ----------
    rows : mapping of row name to cells
        Rows may differ in length; an empty name leaves no margin if all names are empty.
    columns : sequence of str
        Titles of the columns, lines separated by ``\\n``.
    cell_size : int
        Height and width of a cell in pixels.
    bar : (low, high, unit), optional
        Draw a colour bar of these limits at the right.
    bar_palette : {"viridis", "cividis", "grey"}

    Returns
    -------
    PIL.Image.Image, RGB
        IPython shows it as PNG.

    Examples
    --------
    >>> montage({"a": [np.eye(8)], "b": [np.eye(8)]}, cell_size=64).size[1] > 128
    True
    """
    if not rows or not all(len(cells) for cells in rows.values()):
        raise ValueError("rows must hold at least one row, and every row at least one cell")
    font, small = _font(14), _font(12)
    gap = 8
    cells = [[c if isinstance(c, Cell) else Cell(values=c) for c in row] for row in rows.values()]
    captioned = any(cell.caption for row in cells for cell in row)
    left = max(_text_size(name, font)[0] for name in rows)
    left = left + 2 * gap if left else gap
    top = gap + max([_text_size(title, font)[1] + 6 for title in columns], default=0)
    pitch_x, pitch_y = cell_size + gap, cell_size + gap + (18 if captioned else 0)
    across = max(len(row) for row in cells)
    right = 70 if bar else 0
    sheet = Image.new(
        "RGB", (left + across * pitch_x + right, top + len(cells) * pitch_y + gap // 2), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for i, title in enumerate(columns):
        middle = left + i * pitch_x + cell_size / 2
        draw.text((middle, top - 6), title, fill=_INK, font=font, anchor="md", align="center")
    for j, (name, row) in enumerate(zip(rows, cells, strict=True)):
        y = top + j * pitch_y
        draw.multiline_text(
            (left - gap, y + cell_size / 2), name, fill=_INK, font=font, anchor="rm", align="right"
        )
        for i, cell in enumerate(row):
            x = left + i * pitch_x
            image = picture(cell, size=cell_size)
            image = image.crop((0, 0, min(image.width, cell_size), cell_size))
            sheet.paste(image, (x, y))
            if cell.caption:
                draw.text(
                    (x + cell_size / 2, y + cell_size + 3), cell.caption, fill=_INK, font=small,
                    anchor="ma",
                )  # fmt: skip
    if bar:
        low, high, unit = bar
        box = (left + across * pitch_x + 4, top, 14, cell_size)
        _colour_bar(draw, sheet, box, (low, high), unit, bar_palette, small)
    return sheet


def line_chart(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    size: tuple[int, int] = (720, 320),
) -> Image.Image:
    """Curves on common axes, with a legend at the right.

    Parameters
    ----------
    curves : mapping of name to (x, y), each (n,)
        At most six: there are no more colours that everyone tells apart.
    x_label, y_label : str
        With the unit.
    title : str
    size : (width, height) in pixels

    Returns
    -------
    PIL.Image.Image, RGB
    """
    if not 1 <= len(curves) <= len(LINE_COLOURS):
        raise ValueError(f"curves must be 1 to {len(LINE_COLOURS)}, got {len(curves)}")
    data = {k: (np.asarray(x, float), np.asarray(y, float)) for k, (x, y) in curves.items()}
    scale = 2  # drawn twice as large, then averaged: Pillow draws lines without smoothing
    width, height = size[0] * scale, size[1] * scale
    font = _font(13 * scale)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    legend = max(_text_size(name, font)[0] for name in data) + 44 * scale
    x0, x1 = 70 * scale, width - legend - 8 * scale
    y0, y1 = (34 if title else 12) * scale, height - 46 * scale
    x_ticks = ticks(min(x.min() for x, _ in data.values()), max(x.max() for x, _ in data.values()))
    y_ticks = ticks(min(y.min() for _, y in data.values()), max(y.max() for _, y in data.values()))

    def place(x: NDArray, y: NDArray) -> list[tuple[float, float]]:
        across = x0 + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (x1 - x0)
        down = y1 - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (y1 - y0)
        return list(zip(across.tolist(), down.tolist(), strict=True))

    bottom, side = np.full_like(x_ticks, y_ticks[0]), np.full_like(y_ticks, x_ticks[0])
    for tick, (x, _) in zip(x_ticks, place(x_ticks, bottom), strict=True):
        draw.line([(x, y0), (x, y1)], fill=_FAINT, width=scale)
        draw.text((x, y1 + 5 * scale), f"{tick:g}", fill=_INK, font=font, anchor="ma")
    for tick, (_, y) in zip(y_ticks, place(side, y_ticks), strict=True):
        draw.line([(x0, y), (x1, y)], fill=_FAINT, width=scale)
        draw.text((x0 - 6 * scale, y), f"{tick:g}", fill=_INK, font=font, anchor="rm")
    for i, (name, (x, y)) in enumerate(data.items()):
        draw.line(place(x, y), fill=LINE_COLOURS[i], width=2 * scale, joint="curve")
        row = y0 + (10 + 20 * i) * scale
        draw.line(
            [(x1 + 12 * scale, row), (x1 + 34 * scale, row)], fill=LINE_COLOURS[i], width=3 * scale
        )
        draw.text((x1 + 40 * scale, row), name, fill=_INK, font=font, anchor="lm")
    draw.text(((x0 + x1) / 2, height - 6 * scale), x_label, fill=_INK, font=font, anchor="md")
    draw.text(((x0 + x1) / 2, 8 * scale), title, fill=_INK, font=font, anchor="ma")
    _sideways(sheet, y_label, (4 * scale, (y0 + y1) // 2), font)
    return sheet.resize(size, Image.Resampling.BOX)


def ticks(low: float, high: float) -> NDArray[np.float64]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high].

    Examples
    --------
    >>> ticks(0.0, 0.49).tolist()
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"an axis needs finite ends, got {low} to {high}")
    span = high - low if high > low else max(1.0, abs(low))
    decade = 10.0 ** np.floor(np.log10(span / 5))
    step = next(f * decade for f in (1, 2, 5, 10) if span / (f * decade) <= 6)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return np.round(np.arange(first, last + 1) * step, 12)


def stack(images: Sequence[Image.Image], *, gap: int = 6) -> Image.Image:
    """Put pictures under one another, left-aligned on white."""
    if not images:
        raise ValueError("images must hold at least one picture")
    width = max(image.width for image in images)
    height = sum(image.height for image in images) + gap * (len(images) - 1)
    sheet = Image.new("RGB", (width, height), _PAPER)
    y = 0
    for image in images:
        sheet.paste(image, (0, y))
        y += image.height + gap
    return sheet


def png_bytes(image: Image.Image, *, colours: int | None = None, quick: bool = False) -> bytes:
    """PNG file content; with `colours` (2 to 256) the picture gets a palette and shrinks.

    `quick` takes a fifth of the time and somewhat more bytes: for pictures that change live.
    """
    if colours is not None:
        image = image.quantize(colours, kmeans=3, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=not quick, compress_level=1 if quick else 9)
    return buffer.getvalue()


def _colour_bar(
    draw: ImageDraw.ImageDraw,
    sheet: Image.Image,
    box: tuple[int, int, int, int],
    limits: tuple[float, float],
    unit: str,
    palette: Palette,
    font: ImageFont.FreeTypeFont,
) -> None:
    x, y, width, height = box
    ramp = np.repeat(np.linspace(1, 0, height)[:, None], width, axis=1)
    sheet.paste(Image.fromarray(colourise(ramp, limits=(0, 1), palette=palette)), (x, y))
    for value, at, anchor in ((limits[1], y, "la"), (limits[0], y + height, "ld")):
        draw.text((x + width + 4, at), f"{value:.0f} {unit}", fill=_INK, font=font, anchor=anchor)


def _sideways(
    sheet: Image.Image, text: str, left_middle: tuple[int, int], font: ImageFont.FreeTypeFont
) -> None:
    width, height = _text_size(text, font)
    strip = Image.new("RGB", (width + 4, height + 8), _PAPER)
    ImageDraw.Draw(strip).text((2, 2), text, fill=_INK, font=font)
    strip = strip.rotate(90, expand=True)
    sheet.paste(strip, (left_middle[0], left_middle[1] - strip.height // 2))


def _text_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    if not text:
        return 0, 0
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    return int(np.ceil(box[2])), int(np.ceil(box[3]))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType: install its wheel from PyPI")
    return font

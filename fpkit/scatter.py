"""Labelled points in the plane: as an interactive figure and as a picture without a kernel.

Every label has a colour and a symbol of its own, and neighbours in the list differ in both: who
cannot tell two colours apart still tells the symbols.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from fpkit.names import as_label
from fpkit.pictures import LINE_COLOURS
from fpkit.plots import INK

SYMBOLS = (
    "circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x",
)  # fmt: skip
# 6 colours and 7 symbols have no common factor: 42 pairs, all different
MOST_LABELS = len(LINE_COLOURS) * len(SYMBOLS)

_PAPER, _FRAME = (255, 255, 255), (200, 200, 200)
_SCALE = 3  # drawn larger, then averaged: Pillow draws shapes without smoothing


def marker_of(place: int) -> tuple[str, str]:
    """Colour and symbol of the label at `place` of a list; all of the first 42 differ.

    Examples
    --------
    >>> marker_of(0), marker_of(6)
    (('#0072B2', 'circle'), ('#0072B2', 'x'))
    """
    return LINE_COLOURS[place % len(LINE_COLOURS)], SYMBOLS[place % len(SYMBOLS)]


def label_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels, sorted; ValueError if there are more than markers."""
    names = tuple(sorted(set(labels)))
    if len(names) > MOST_LABELS:
        raise ValueError(
            f"there are markers for {MOST_LABELS} labels, got {len(names)}: group them"
        )
    return names


def scatter_figure(
    coordinates: ArrayLike,
    labels: Sequence[str],
    *,
    title: str = "",
    hover: Sequence[str] | None = None,
    selected: Sequence[int] = (),
    size: tuple[int, int] = (640, 520),
) -> go.Figure:
    """Points as one trace, so that their numbers are those of `labels`, and a key of the labels.

    Parameters
    ----------
    coordinates : (n, 2)
        Sent to the browser as float32. Axes have equal scales and no ticks: their units mean
        nothing on a map.
    labels : sequence of n str
        At most 42 different ones.
    title : str
    hover : sequence of n str, optional
        What hovering over each point says; its label if not given.
    selected : sequence of int
        Points to keep bright, the others fade; none means all are bright.
    size : (width, height) in pixels

    Returns
    -------
    plotly.graph_objects.Figure
        Trace 0 has the points, the others are the key.
    """
    figure = go.Figure(point_trace(coordinates, labels, hover=hover, selected=selected))
    figure.add_traces(key_traces(labels))
    hidden = {"visible": False, "zeroline": False}
    figure.update_layout(
        template="none",
        title={"text": as_label(title), "x": 0.02, "xanchor": "left", "font": {"size": 15}},
        width=size[0],
        height=size[1],
        margin={"l": 8, "r": 8, "t": 44 if title else 30, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(128,128,128,0.06)",
        font={"color": INK, "size": 13},
        xaxis=hidden,
        yaxis=hidden | {"scaleanchor": "x"},
        legend={"itemclick": False, "itemdoubleclick": False, "itemsizing": "constant"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": LINE_COLOURS[0]},
        dragmode="lasso",
        hovermode="closest",
    )
    return figure


def point_trace(
    coordinates: ArrayLike,
    labels: Sequence[str],
    *,
    hover: Sequence[str] | None = None,
    selected: Sequence[int] = (),
) -> go.Scatter:
    """The trace of the points of :func:`scatter_figure`, for a figure that is updated in place."""
    places = _places(coordinates, labels)
    points = np.asarray(coordinates, np.float32)
    markers = [marker_of(place) for place in places]
    return go.Scatter(
        x=points[:, 0],
        y=points[:, 1],
        mode="markers",
        marker={
            "color": [colour for colour, _ in markers],
            "symbol": [symbol for _, symbol in markers],
            "size": 8,
            "opacity": opacity_of(selected, len(points)),
            "line": {"width": 0},
        },
        text=[as_label(text) for text in (labels if hover is None else hover)],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def opacity_of(selected: Sequence[int], count: int) -> NDArray[np.float32]:
    """Opacity of `count` points: all 1 if none is selected, else those that are not fade."""
    opacity = np.full(count, 0.12 if len(selected) else 1.0, np.float32)
    opacity[list(selected)] = 1.0
    return opacity


def key_traces(labels: Sequence[str]) -> list[go.Scatter]:
    """A trace without points for every label: together they are the legend."""
    traces: list[go.Scatter] = []
    for place, name in enumerate(label_order(labels)):
        colour, symbol = marker_of(place)
        marker: dict[str, Any] = {"color": colour, "symbol": symbol, "size": 9}
        traces.append(
            go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=as_label(name))
        )
    return traces


def scatter_picture(
    coordinates: ArrayLike,
    labels: Sequence[str],
    *,
    title: str = "",
    legend: bool = True,
    selected: Sequence[int] = (),
    size: int = 320,
) -> Image.Image:
    """The same as a Pillow picture: points in a square frame, the legend at its right.

    Parameters
    ----------
    coordinates, labels, selected
        As for :func:`scatter_figure`.
    title : str
        Above the frame, lines separated by ``\\n``.
    legend : bool
    size : int
        Side of the frame in pixels.

    Returns
    -------
    PIL.Image.Image, RGB
    """
    places = _places(coordinates, labels)
    names = label_order(labels)
    small, font = _font(12 * _SCALE), _font(14 * _SCALE)
    top = (8 + 19 * (title.count("\n") + 1) if title else 4) * _SCALE
    side, edge = size * _SCALE, 4 * _SCALE
    widest = max(small.getlength(name) for name in names)
    width = side + 2 * edge + (int(widest) + 28 * _SCALE if legend else 0)
    high = max(side, (16 * len(names) + 8) * _SCALE if legend else 0)
    sheet = Image.new("RGB", (width, top + high + edge), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle([edge, top, edge + side, top + side], outline=_FRAME, width=_SCALE)
    draw.multiline_text(
        (edge + side / 2, top - 6 * _SCALE), title, fill=(34, 34, 34), font=font, anchor="md",
        align="center",
    )  # fmt: skip
    bright = np.ones(len(places), bool)
    if len(selected):
        bright[:] = False
        bright[list(selected)] = True
    spots = _fit(coordinates, side, 12 * _SCALE) + [edge, top]
    for i in np.argsort(bright, kind="stable"):  # faded points below bright ones
        colour, symbol = marker_of(places[i])
        _mark(draw, spots[i], symbol, colour if bright[i] else "#e4e4e4", 3.2 * _SCALE)
    if legend:
        for row, name in enumerate(names):
            colour, symbol = marker_of(row)
            spot = np.array([2 * edge + side + 8 * _SCALE, top + (10 + 16 * row) * _SCALE])
            _mark(draw, spot, symbol, colour, 4.6 * _SCALE)
            at = (spot[0] + 10 * _SCALE, spot[1])
            draw.text(at, name, fill=(34, 34, 34), font=small, anchor="lm")
    return sheet.resize((sheet.width // _SCALE, sheet.height // _SCALE), Image.Resampling.BOX)


def scatter_row(
    maps: Mapping[str, ArrayLike],
    labels: Sequence[str],
    *,
    legend: bool = True,
    size: int = 240,
) -> Image.Image:
    """Maps of the same points side by side with one legend; the names are the titles.

    All names need the same number of lines. See :func:`scatter_picture`.
    """
    if not maps:
        raise ValueError("maps must hold at least one map")
    last = list(maps)[-1]
    pictures = [
        scatter_picture(coordinates, labels, title=name, legend=legend and name == last, size=size)
        for name, coordinates in maps.items()
    ]
    width, height = sum(p.width for p in pictures), max(p.height for p in pictures)
    row = Image.new("RGB", (width, height), _PAPER)
    x = 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width
    return row


def _places(coordinates: ArrayLike, labels: Sequence[str]) -> list[int]:
    shape = np.shape(coordinates)
    if len(shape) != 2 or shape[1] != 2 or shape[0] != len(labels) or not shape[0]:
        raise ValueError(
            f"coordinates must be (n, 2) with a label for each, got {shape} and {len(labels)}"
        )
    place = {name: i for i, name in enumerate(label_order(labels))}
    return [place[label] for label in labels]


def _fit(coordinates: ArrayLike, side: int, margin: int) -> NDArray[np.float64]:
    """Coordinates in pixels of a square of `side`, both axes by one scale, y upwards."""
    points = np.asarray(coordinates, np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (side - 2 * margin) / max(float((high - low).max()), 1e-12)
    centred = (points - (low + high) / 2) * scale
    return centred * [1, -1] + side / 2


def _mark(
    draw: ImageDraw.ImageDraw, spot: NDArray[np.float64], symbol: str, colour: str, radius: float
) -> None:
    x, y = float(spot[0]), float(spot[1])
    if symbol == "circle":
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
        return
    arm = radius * 0.4
    plus = [
        (-radius, -arm), (-arm, -arm), (-arm, -radius), (arm, -radius), (arm, -arm), (radius, -arm),
        (radius, arm), (arm, arm), (arm, radius), (-arm, radius), (-arm, arm), (-radius, arm),
    ]  # fmt: skip
    square, tip = radius * 0.88, radius * 1.2
    corners = {
        "square": [(-square, -square), (square, -square), (square, square), (-square, square)],
        "diamond": [(0, -tip), (tip, 0), (0, tip), (-tip, 0)],
        "triangle-up": [(0, -tip), (tip, radius), (-tip, radius)],
        "triangle-down": [(0, tip), (tip, -radius), (-tip, -radius)],
        "cross": plus,
        "x": [(0.7071 * (u - v), 0.7071 * (u + v)) for u, v in plus],
    }[symbol]
    draw.polygon([(x + u, y + v) for u, v in corners], fill=colour)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

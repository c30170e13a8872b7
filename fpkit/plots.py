"""Interactive figures: pure functions from numpy arrays to plotly figures.

Nothing here reads files, trains or touches torch. Backgrounds are transparent and text is a
middle grey, so that a figure is legible in a light and in a dark JupyterLab. Colour maps and line
colours keep apart under colour blindness.
"""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from fpkit.names import as_label
from fpkit.pictures import LINE_COLOURS, colourise, robust_limits, ticks

# contrast to white 4.5:1, to JupyterLab's dark #111111 4.2:1
INK = "#767676"
_GRID = "rgba(128, 128, 128, 0.25)"


def spectrum_heatmap(
    spectrum_db: ArrayLike,
    *,
    title: str = "",
    unit: str = "dB",
    limits: tuple[float, float] | None = None,
    size: int = 380,
) -> go.Figure:
    """A centred spectrum as a square heat map; hovering gives frequency and power.

    Parameters
    ----------
    spectrum_db : (h, w), zero frequency at [h // 2, w // 2]
        Decibels (or `unit`), sent to the browser as float32. At most 128x128: a larger map
        would take megabytes of JSON.
    title : str
    unit : str
        Of the colour bar and the hover text.
    limits : (low, high), optional
        Ends of the colour scale; 1st and 99.5th percentile if not given.
    size : int
        Height of the figure in pixels.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    values = _heatmap_values(spectrum_db)
    low, high = robust_limits(values) if limits is None else limits
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=_frequencies(values.shape[1]),
            y=_frequencies(values.shape[0]),
            zmin=low,
            zmax=high,
            colorscale="Viridis",
            colorbar={"title": {"text": unit, "side": "top"}, "thickness": 12, "len": 0.9},
            hovertemplate="horizontal %{x:.3f} cycles/pixel<br>vertical %{y:.3f} cycles/pixel"
            f"<br>%{{z:.1f}} {unit}<extra></extra>",
        )
    )
    figure.update_xaxes(title="horizontal frequency (cycles/pixel)", dtick=0.25)
    figure.update_yaxes(
        title="vertical (cycles/pixel)", dtick=0.25, scaleanchor="x", constrain="domain"
    )
    figure.update_xaxes(constrain="domain")
    return styled(figure, title, width=size + 60, height=size)


def autocorrelation_heatmap(
    correlation: ArrayLike,
    *,
    lags: int = 32,
    title: str = "",
    limits: tuple[float, float] | None = None,
    size: int = 300,
) -> go.Figure:
    """The middle of an autocorrelation as a square heat map; hovering gives lag and value.

    Parameters
    ----------
    correlation : (h, w), lag zero at [h // 2, w // 2]
        From :func:`fpkit.spectrum.autocorrelation`; sent to the browser as float32.
    lags : int
        Largest lag to show, 1 to 63 pixels, less than half of either side.
    title : str
    limits : (low, high), optional
        Ends of the colour scale; 1st and 99.5th percentile of what is shown if not given.
    size : int
        Height of the figure in pixels.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    values = _heatmap_values(central_lags(correlation, lags))
    low, high = robust_limits(values) if limits is None else limits
    places = np.arange(-lags, lags + 1)
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=places,
            y=places,
            zmin=low,
            zmax=high,
            colorscale="Cividis",
            colorbar={"thickness": 12, "len": 0.9},
            hovertemplate="lag %{x} pixels across, %{y} down<br>%{z:.3f}<extra></extra>",
        )
    )
    step = 8 if lags < 32 else 16
    figure.update_xaxes(title="lag (pixels)", dtick=step, constrain="domain")
    figure.update_yaxes(
        title="lag (pixels)", dtick=step, autorange="reversed", scaleanchor="x", constrain="domain"
    )
    return styled(figure, title, width=size + 40, height=size)


def central_lags(correlation: ArrayLike, lags: int) -> NDArray[np.float64]:
    """Lags up to `lags` pixels: the middle (2 lags + 1, 2 lags + 1) of (h, w)."""
    array = np.asarray(correlation, dtype=np.float64)
    if array.ndim != 2 or not 1 <= lags < min(array.shape) / 2:
        raise ValueError(
            f"an autocorrelation must be (h, w) with sides above twice the {lags} lags, at least "
            f"1, got shape {array.shape}"
        )
    middle = tuple(slice(side // 2 - lags, side // 2 + lags + 1) for side in array.shape)
    return array[middle]


def radial_profiles(
    profiles: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    title: str = "",
    unit: str = "dB",
    highlight: str | None = None,
    size: tuple[int, int] = (560, 380),
) -> go.Figure:
    """Radial profiles of several models over one another.

    Parameters
    ----------
    profiles : mapping of name to (frequency, profile), each (b,)
        Frequency in cycles/pixel, profile in `unit`. Line colours repeat after six.
    title : str
    unit : str
    highlight : str, optional
        The name of the curve to draw thick; the others get thin.
    size : (width, height) in pixels

    Returns
    -------
    plotly.graph_objects.Figure
    """
    if highlight is not None and highlight not in profiles:
        raise ValueError(f"highlight must be one of {list(profiles)}, got {highlight!r}")
    figure = go.Figure()
    for i, (name, (frequency, profile)) in enumerate(profiles.items()):
        thick = highlight is None or name == highlight
        figure.add_scatter(
            x=np.asarray(frequency, dtype=np.float32),
            y=np.asarray(profile, dtype=np.float32),
            name=as_label(name),
            mode="lines",
            line={"color": LINE_COLOURS[i % len(LINE_COLOURS)], "width": 2.5 if thick else 1.2},
            hovertemplate=f"%{{x:.3f}} cycles/pixel, %{{y:.1f}} {unit}",
        )
    figure.update_xaxes(title="frequency (cycles/pixel)", range=[0, 0.5], dtick=0.1)
    figure.update_yaxes(title=f"power ({unit})")
    figure.update_layout(legend={"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"})
    return styled(figure, title, width=size[0], height=size[1])


def image_row(
    images: Mapping[str, ArrayLike],
    *,
    title: str = "",
    size: int = 220,
) -> go.Figure:
    """Pictures side by side that zoom together.

    Parameters
    ----------
    images : mapping of title to array
        (3, h, w) in [0, 1] is shown as colours, (h, w) of any unit as a grey map between its 1st
        and 99.5th percentile.
    title : str
    size : int
        Height of one picture in pixels.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    if not images:
        raise ValueError("images must hold at least one picture")
    share = 1 / len(images)
    figure = go.Figure()
    for i, (name, values) in enumerate(images.items()):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim == 3 and array.shape[0] == 3:
            pixels = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        else:
            pixels = colourise(array, palette="grey")
        axis = "" if i == 0 else str(i + 1)
        figure.add_trace(
            go.Image(z=pixels, xaxis=f"x{axis}", yaxis=f"y{axis}", name=as_label(name))
        )
        hidden = {"visible": False, "matches": None if i == 0 else "x"}
        figure.update_layout(
            {
                f"xaxis{axis}": hidden | {"domain": [i * share, (i + 0.95) * share]},
                f"yaxis{axis}": {
                    "visible": False,
                    "scaleanchor": f"x{axis}",
                    "autorange": "reversed",
                    "matches": None if i == 0 else "y",
                },
            }
        )
        figure.add_annotation(
            text=as_label(name), x=(i + 0.475) * share, y=1, xref="paper", yref="paper",
            yanchor="bottom", showarrow=False,
        )  # fmt: skip
    return styled(figure, title, width=len(images) * (size + 12) + 20, height=size + 60)


def score_bars(
    scores: Mapping[str, float],
    *,
    threshold: float | None = None,
    title: str = "",
    label: str = "score (higher = more alike)",
) -> go.Figure:
    """Scores as horizontal bars, the best on top.

    Parameters
    ----------
    scores : mapping of name to score
    threshold : float, optional
        Drawn as a dashed line; bars at or above it are blue, the others orange.
    title, label : str

    Returns
    -------
    plotly.graph_objects.Figure
    """
    if not scores:
        raise ValueError("scores must hold at least one score")
    names = sorted(scores, key=lambda name: scores[name])
    values = [float(scores[name]) for name in names]
    above = [threshold is None or value >= threshold for value in values]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=[as_label(name) for name in names],
            orientation="h",
            marker_color=[LINE_COLOURS[0] if is_above else LINE_COLOURS[1] for is_above in above],
            text=[f"{value:.2f}" for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    if threshold is not None:
        figure.add_vline(x=threshold, line={"dash": "dash", "color": INK})
    # room for the numbers beside the bars
    marks = ticks(min(0.0, min(values)) * 1.1, max(0.0, max(values)) * 1.1)
    figure.update_xaxes(title=label, range=[float(marks[0]), float(marks[-1])])
    figure.update_yaxes(automargin=True)
    return styled(figure, title, width=640, height=110 + 34 * len(names))


def _heatmap_values(spectrum: ArrayLike) -> NDArray[np.float32]:
    values = np.asarray(spectrum, dtype=np.float32)
    if values.ndim != 2:
        raise ValueError(f"a heat map must be (h, w), got shape {values.shape}")
    if max(values.shape) > 128:
        raise ValueError(
            f"a heat map in the browser must be at most 128x128, got {values.shape}: "
            "crop the images before the spectrum"
        )
    return values


def _frequencies(count: int) -> NDArray[np.float32]:
    """Frequencies in cycles/pixel of a centred axis: -0.5 to just under 0.5."""
    return ((np.arange(count) - count // 2) / count).astype(np.float32)


def styled(figure: go.Figure, title: str, *, width: int, height: int) -> go.Figure:
    """The look that all figures share, given to `figure` itself; sizes in pixels."""
    figure.update_layout(
        template="none",
        title={"text": as_label(title), "x": 0.5, "xanchor": "center", "font": {"size": 15}},
        width=width,
        height=height,
        margin={"l": 64, "r": 16, "t": 44 if title else 16, "b": 52},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 13},
        hoverlabel={"font": {"size": 13}},
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, title_standoff=6)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, title_standoff=6)
    return figure

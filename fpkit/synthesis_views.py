"""What `SynthesisExplorer` shows, as pure functions: made models to figures, pictures and HTML."""

import base64
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image

from fpkit.made_model import MadeModel
from fpkit.names import as_html
from fpkit.nearest import Nearness, Neighbour
from fpkit.pictures import (
    LINE_COLOURS,
    Cell,
    line_chart,
    montage,
    picture,
    png_bytes,
    robust_limits,
    stack,
)
from fpkit.plots import INK, radial_profiles, score_bars
from fpkit.realworld import RealFingerprint
from fpkit.spectrum import radial_profile, to_db

FloatArray = NDArray[np.float64]
View = Literal["power", "gain"]
QUANTITY: Mapping[View, str] = {"power": "power (dB)", "gain": "output / input (dB)"}
NEARNESS: Mapping[Nearness, str] = {
    "pattern": "correlation of patterns (1 = alike)",
    "profile": "distance of radial profiles (dB, 0 = alike)",
}


def decibels(power: FloatArray, inputs: FloatArray, *, view: View) -> FloatArray:
    """`power` in dB, or its ratio to that of the inputs; of any shape, float64."""
    if view not in get_args(View):
        raise ValueError(f"view must be one of {get_args(View)}, got {view!r}")
    return to_db(power) if view == "power" else to_db(power) - to_db(inputs)


def profile_curve(
    power: FloatArray, inputs: FloatArray, *, view: View
) -> tuple[FloatArray, FloatArray]:
    """Frequencies and radial profile, (65,) each, of a (128, 128) spectrum."""
    frequency, profile = radial_profile(power)
    return frequency, decibels(profile, radial_profile(inputs)[1], view=view)


def profiles_figure(
    history: Sequence[MadeModel],
    current: MadeModel,
    inputs: FloatArray,
    *,
    view: View,
    real: RealFingerprint | None = None,
) -> go.Figure:
    """Radial profiles of the models made, in the colours of the strip; `current` is thick.

    In the view ``power`` also, in grey, those of the inputs (dotted) and of the real model
    (dashed), the latter moved to the mean level of `current`: its images are other ones.
    """
    curves = {made.label: profile_curve(made.power, inputs, view=view) for made in history}
    figure = radial_profiles(curves, highlight=current.label, size=(500, 380))
    figure.update_traces(showlegend=False)
    if view == "power":
        frequency, level = curves[current.label]
        greys = {"inputs": ("dot", to_db(radial_profile(inputs)[1]))}
        if real is not None:
            profile = to_db(radial_profile(real.spectra["median"])[1])
            # without frequency zero, which the residual leaves nothing of
            greys[real.model] = ("dash", profile + (level[1:] - profile[1:]).mean())
        for name, (dash, values) in greys.items():
            figure.add_scatter(
                x=frequency.astype(np.float32),
                y=values.astype(np.float32),
                name=name,
                mode="lines",
                line={"color": INK, "width": 1.5, "dash": dash},
                hovertemplate="%{x:.3f} cycles/pixel, %{y:.1f} dB",
            )
    figure.update_yaxes(title=QUANTITY[view])
    return figure


def neighbours_figure(neighbours: Sequence[Neighbour], *, by: Nearness) -> go.Figure:
    """Bars of the nearest real models, the nearest on top."""
    values = {n.model: n.correlation if by == "pattern" else n.profile_distance for n in neighbours}
    figure = score_bars(values, label=NEARNESS[by])
    return figure.update_yaxes(autorange="reversed" if by == "profile" else True)


def thumbnail(made: MadeModel, inputs: FloatArray, *, view: View, slot: int, current: bool) -> str:
    """HTML of one model of the history: fingerprint, settings, residual."""
    cell = Cell(values=decibels(made.power, inputs, view=view))
    png = base64.b64encode(png_bytes(picture(cell, size=128))).decode()
    parts = made.spec.id.split("-")
    lines = [" ".join(parts[:3]), " ".join(parts[3:6]), " ".join(parts[6:])]
    weight = "bold" if current else "normal"
    return (
        f'<figure style="margin: 0; font-weight: {weight}">'
        f'<img src="data:image/png;base64,{png}" alt="fingerprint of {as_html(made.label)}">'
        f'<figcaption style="line-height: 1.3; font-size: 12px">'
        f'<span style="color: {LINE_COLOURS[slot]}">&#9632;</span> #{made.number} '
        f"seed {made.seed}<br>{'<br>'.join(line for line in lines if line)}<br>"
        f"residual {made.residual:.4f}</figcaption></figure>"
    )


def history_picture(
    history: Sequence[MadeModel],
    inputs: FloatArray,
    *,
    view: View,
    nearest: Sequence[Neighbour] = (),
    by: Nearness = "pattern",
) -> Image.Image:
    """Fingerprints of at most six models, real ones like them, and radial profiles.

    Parameters
    ----------
    history : sequence of MadeModel
    inputs : (128, 128) centred power
        What the models were given.
    view : {"power", "gain"}
    nearest : sequence of Neighbour
        The nearest real model of each, or none; each is coloured by its own extremes.
    by : {"pattern", "profile"}
        The measure to print under them.
    """
    shown = [decibels(made.power, inputs, view=view) for made in history]
    limits = robust_limits(np.stack(shown))
    cells = [
        Cell(values=values, limits=limits, caption=f"#{made.number} seed {made.seed}")
        for made, values in zip(history, shown, strict=True)
    ]
    rows = {"made": cells}
    if nearest:
        rows["nearest\nreal"] = [
            Cell(values=to_db(_halved(n.fingerprint.spectra["median"])), caption=_caption(n, by=by))
            for n in nearest
        ]
    curves = {made.label: profile_curve(made.power, inputs, view=view) for made in history}
    chart = line_chart(
        curves, x_label="frequency (cycles/pixel)", y_label=QUANTITY[view], size=(1010, 300)
    )
    return stack([montage(rows, cell_size=128, bar=(*limits, "dB")), chart])


def _halved(power: FloatArray) -> FloatArray:
    """Means of four neighbours: a picture of noise has a quarter of the bytes."""
    height, width = power.shape
    return power.reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def _caption(neighbour: Neighbour, *, by: Nearness, length: int = 14) -> str:
    name = neighbour.model
    short = name if len(name) <= length else f"{name[: length - 1]}…"
    if by == "pattern":
        return f"{short} {neighbour.correlation:.2f}"
    return f"{short} {neighbour.profile_distance:.1f} dB"

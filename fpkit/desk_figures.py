"""Figures of the attribution desk: scores between two thresholds, and where two spectra agree."""

import base64
import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from PIL import Image

from fpkit.desk_data import Answer, Measured
from fpkit.pictures import LINE_COLOURS, Cell, line_chart, montage, picture, png_bytes, stack
from fpkit.plots import INK, radial_profiles, score_bars, spectrum_heatmap
from fpkit.spectral_correlation import by_ring, log_spectrum
from fpkit.verdicts import Decision, Thresholds

COLOURS: dict[Decision, str] = {
    "accepted": LINE_COLOURS[0],
    "unsure": LINE_COLOURS[1],
    "refused": "#8a8a8a",
}
SIGNS: dict[Decision, str] = {"accepted": "✓", "unsure": "?", "refused": "✗"}
MOST = 8  # bars, and rows of a picture
MAX_ROWS = 100  # of the table


def verdict_bars(scores: Mapping[str, float], thresholds: Thresholds) -> go.Figure:
    """The best eight scores as bars, both thresholds as lines, with a sign for every decision.

    Parameters
    ----------
    scores : mapping of model to score, at least one
    thresholds : Thresholds

    Returns
    -------
    plotly.graph_objects.Figure
    """
    best = dict(sorted(scores.items(), key=lambda item: -item[1])[:MOST])
    figure = score_bars(best, label="score")
    bars = figure.data[0]
    decisions = [thresholds.decide(value) for value in bars.x]
    bars.marker.color = [COLOURS[decision] for decision in decisions]
    bars.text = [
        f"{SIGNS[decision]} {value:.2f}" for decision, value in zip(decisions, bars.x, strict=True)
    ]
    bars.customdata = bars.y
    bars.y = [short(name) for name in bars.y]
    bars.hovertemplate = "%{customdata}: %{x:.3f}<extra></extra>"
    for threshold in (thresholds.refuse, thresholds.accept):
        figure.add_vline(x=threshold, line={"dash": "dash", "color": INK, "width": 1})
    figure.update_xaxes(range=[min(-0.2, min(best.values()) - 0.1), 1.25])
    return figure.update_layout(width=360, height=110 + 30 * len(best), margin={"r": 8})


def correlation_heatmap(contributions: ArrayLike, *, size: int = 320) -> go.Figure:
    """Where two spectra agree: a :func:`fpkit.spectral_correlation.correlation_map` as heat map.

    Yellow: both have more than the reference, or both less; blue: one more and the other less.
    The colour scale ends at 3 and -3 standard scores.
    """
    values = np.asarray(contributions, dtype=np.float32)
    figure = spectrum_heatmap(values, unit="", limits=(-3, 3), size=size)
    figure.data[0].colorscale = "Cividis"
    figure.data[0].colorbar.title.text = "agree"
    return figure


def ring_curve(contributions: ArrayLike, *, size: tuple[int, int] = (320, 320)) -> go.Figure:
    """The same map averaged over rings: which band of frequencies speaks for one source."""
    figure = radial_profiles({"this pair": by_ring(contributions)}, unit="", size=size)
    figure.data[0].update(mode="lines+markers")
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    figure.update_yaxes(title="mean contribution to the correlation")
    return figure.update_layout(showlegend=False)


def answer_table(images: Sequence[Measured], answers: Sequence[Answer], shown: str) -> str:
    """The images and the answers as an HTML table; without answers, the images alone."""
    by_name = {answer.name: answer for answer in answers}
    rows = []
    for image in images[:MAX_ROWS]:
        png = base64.b64encode(png_bytes(picture(Cell(values=image.thumbnail)), colours=64))
        cells = [f'<img src="data:image/png;base64,{png.decode()}" alt="" style="max-width: 48px">']
        weight = "bold" if image.name == shown else "normal"
        cells.append(f'<span style="font-weight: {weight}">{html.escape(image.name)}</span>')
        answer = by_name.get(image.name)
        if answer is not None:
            second = [f"{name} {score:.2f}" for name, score in list(answer.scores.items())[1:2]]
            seen = " (this image was enrolled: no test)" if answer.seen else ""
            cells += [
                f'<span style="border-left: 10px solid {COLOURS[answer.decision]}; '
                f'padding-left: 6px"><b>{SIGNS[answer.decision]} {answer.decision}</b></span>',
                html.escape(answer.model),
                f"{answer.score:.2f}{seen}",
                html.escape(second[0] if second else "-"),
            ]
        rows.append("".join(f'<td style="padding: 2px 10px">{cell}</td>' for cell in cells))
    names = ["", "image", "verdict", "nearest model", "score", "second"][: 6 if answers else 2]
    head = "".join(f'<th style="padding: 2px 10px; text-align: left">{name}</th>' for name in names)
    more = len(images) - MAX_ROWS
    note = f"<p>... and {more} more, in <code>answers</code></p>" if more > 0 else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        '<div tabindex="0" role="region" aria-label="verdicts" '
        'style="max-height: 330px; overflow: auto; line-height: 1.3">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}</div>"
    )


def answer_picture(images: Sequence[Measured], answers: Sequence[Answer]) -> Image.Image:
    """The first eight images with their answers, without a kernel."""
    by_name = {answer.name: answer for answer in answers}
    rows = {}
    for image in images[:MOST]:
        text = short(image.name)
        answer = by_name.get(image.name)
        if answer is not None:
            text += f"\n{answer.decision}: {short(answer.model)} {answer.score:.2f}"
        rows[text] = [Cell(values=image.thumbnail)]
    return montage(rows, cell_size=48)


def comparison_picture(
    image: Measured, title: str, other: str, found: tuple[ArrayLike, float] | None
) -> Image.Image:
    """An image, its spectrum, and, if there is one, its correlation map with `other`."""
    cells = [
        Cell(values=image.thumbnail, caption=short(image.name)),
        Cell(values=log_spectrum(image.power), caption="its spectrum"),
    ]
    parts = []
    if found is not None:
        caption = f"agreement: correlation {found[1]:.2f}"
        cells.append(Cell(values=found[0], limits=(-3, 3), palette="cividis", caption=caption))
        chart = line_chart(
            {f"with {short(other)}": by_ring(found[0])},
            x_label="frequency (cycles/pixel)",
            y_label="contribution",
            size=(700, 220),
        )
        parts.append(chart)
    return stack([montage({"": cells}, columns=["", title], cell_size=200), *parts])


def short(name: str, most: int = 30) -> str:
    """At most `most` characters of a name: its beginning and its end."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"

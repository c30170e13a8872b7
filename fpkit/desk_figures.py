"""Figures of the attribution desk: answers, scores, and where two spectra agree."""

import base64
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from PIL import Image

from fpkit.desk_data import Answer, Measured
from fpkit.evidence import heads, of_model
from fpkit.names import as_html, visible
from fpkit.pictures import LINE_COLOURS, Cell, line_chart, montage, picture, png_bytes, stack
from fpkit.plots import INK, spectrum_heatmap
from fpkit.spectral_correlation import by_ring, log_spectrum
from fpkit.verdicts import Answer as VerdictAnswer

COLOURS: dict[VerdictAnswer, str] = {
    "same": LINE_COLOURS[0],
    "unsure": LINE_COLOURS[1],
    "different": "#8a8a8a",
}
SIGNS: dict[VerdictAnswer, str] = {"same": "✓", "unsure": "?", "different": "✗"}
MOST = 8  # bars, and rows of a picture
MAX_ROWS = 100  # of the table


def score_table(answer: Answer) -> str:
    """The best eight scores of one image as bars in HTML, the first coloured by its verdict."""
    rows = []
    for name, score in list(answer.scores.items())[:MOST]:
        colour = COLOURS["different"]
        if name == answer.model and answer.verdict:
            colour = COLOURS[answer.verdict.answer]
        width = 100 * max(0.0, min(1.0, score))
        rows.append(
            f'<tr><td style="padding: 1px 8px">{as_html(short(name))}</td>'
            f'<td><div style="width: 200px; height: 18px"><div style="width: {width:.0f}%; '
            f'height: 18px; background: {colour}"></div></div></td>'
            f'<td style="padding: 1px 8px">{score:.2f}</td></tr>'
        )
    return f"<table><caption>score of every enrolled model</caption>{''.join(rows)}</table>"


def in_words(answer: Answer) -> str:
    """The verdict of the table: a sign, and who made the image, none of these, or unsure."""
    if answer.verdict is None:
        return "not calibrated"
    return f"{SIGNS[answer.verdict.answer]} {of_model(answer.verdict, answer.model)}"


def correlation_figure(contributions: ArrayLike) -> go.Figure:
    """Where two spectra agree: a :func:`fpkit.spectral_correlation.correlation_map`, and its rings.

    Left the map: yellow where both have more than the reference, or both less, blue where one has
    more and the other less; the colours end at 3 and -3 standard scores. Right its mean over
    rings of equal frequency.
    """
    # a NaN is no JSON, and Jupyter warns: what is left out becomes 0, grey
    values = np.nan_to_num(np.asarray(contributions, dtype=np.float32))
    figure = spectrum_heatmap(values, unit="", limits=(-3, 3), size=320)
    figure.data[0].update(colorscale="Cividis", colorbar={"title": {"text": "agree"}, "x": 0.46})
    frequency, mean = by_ring(contributions)
    figure.add_scatter(
        x=frequency.astype(np.float32),
        y=mean.astype(np.float32),
        mode="lines+markers",
        line={"color": LINE_COLOURS[0]},
        hovertemplate="%{x:.3f} cycles/pixel, mean %{y:.2f}<extra></extra>",
        xaxis="x2",
        yaxis="y2",
    )
    grid = {"gridcolor": figure.layout.xaxis.gridcolor, "title_standoff": 6}
    return figure.update_layout(
        xaxis_domain=[0, 0.44],
        xaxis2={"domain": [0.66, 1], "anchor": "y2", "range": [0, 0.5], **grid},
        xaxis2_title="frequency (cycles/pixel)",
        yaxis2={"anchor": "x2", "zeroline": True, "zerolinecolor": INK, **grid},
        yaxis2_title="mean over the ring",
        width=740,
    )


def answer_table(images: Sequence[Measured], answers: Sequence[Answer], shown: str) -> str:
    """Images and answers as an HTML table, the newest first; without answers the images alone."""
    by_name = {answer.name: answer for answer in answers}
    rows = []
    for image in list(reversed(images))[:MAX_ROWS]:
        png = base64.b64encode(png_bytes(picture(Cell(values=image.thumbnail)), colours=64))
        cells = [f'<img src="data:image/png;base64,{png.decode()}" alt="" style="max-width: 48px">']
        weight = "bold" if image.name == shown else "normal"
        cells.append(f'<span style="font-weight: {weight}">{as_html(image.name)}</span>')
        answer = by_name.get(image.name)
        if answer is not None:
            second = [f"{name} {score:.2f}" for name, score in list(answer.scores.items())[1:2]]
            seen = " (this image was enrolled: no test)" if answer.seen else ""
            ratio = f"{math.exp(answer.verdict.log_ratio):.2g}" if answer.verdict else "-"
            colour = COLOURS[answer.verdict.answer if answer.verdict else "different"]
            cells += [
                f'<span style="border-left: 10px solid {colour}; padding-left: 6px">'
                f"<b>{as_html(in_words(answer))}</b></span>",
                ratio,
                as_html(answer.model),
                f"{answer.score:.2f}{seen}",
                as_html(second[0] if second else "-"),
                as_html(heads(image.evidence.warnings)),
            ]
        rows.append("".join(f'<td style="padding: 2px 10px">{cell}</td>' for cell in cells))
    names = ["", "image", "verdict", "LR", "nearest model", "score", "second", "warnings"]
    names = names[: None if answers else 2]
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
            text += f"\n{short(in_words(answer))}, score {answer.score:.2f}"
        while text in rows:  # two long names may be cut alike
            text += " "
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
    name, half = visible(name), (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"
